//! Finds a Python that the engine's packages exist for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::tool::Tools;
use crate::sys::environment::Environment;
use crate::sys::process;

/// The supported minor versions of Python 3, in order of preference.
pub const MINORS: [u32; 3] = [12, 13, 11];
/// What a person reads.
pub const VERSIONS: &str = "3.11, 3.12 or 3.13";

/// A slow disk can make a first start take seconds; a broken one should not hold us.
const DEADLINE: Duration = Duration::from_secs(20);

/// Prints what decides, as one line of JSON. The base executable is the real one, also behind a shim or in an active environment.
const PROBE: &str = "\
import json, platform, sys, sysconfig
from importlib.util import find_spec
print(json.dumps({
    'version': '%d.%d.%d' % sys.version_info[:3],
    'minor': sys.version_info[1] if sys.version_info[0] == 3 else 0,
    'cpython': platform.python_implementation() == 'CPython',
    'free_threaded': bool(sysconfig.get_config_var('Py_GIL_DISABLED')),
    'machine': platform.machine(),
    'venv': bool(find_spec('venv') and find_spec('ensurepip')),
    'executable': getattr(sys, '_base_executable', None) or sys.executable,
}))";

/// What a Python says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Python {
    /// Such as `3.12.1`.
    pub version: String,
    minor: u32,
    cpython: bool,
    free_threaded: bool,
    machine: String,
    /// Whether it can make environments with pip in them.
    pub venv: bool,
    pub executable: PathBuf,
}

impl Python {
    /// Asks the Python at this path. None if it doesn't answer as one.
    pub fn ask(executable: &Path, tools: &Tools<'_>) -> Option<Self> {
        let mut command = Command::new(executable);
        command
            .args(["-I", "-c", PROBE])
            .env_clear()
            .envs(tools.env());
        let finished = process::run(&mut command, DEADLINE).ok()?;
        finished
            .stdout
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok())
    }

    /// Whether the locked packages exist for it. `mac` wants one that is not translated.
    pub fn suits(&self, mac: bool) -> bool {
        MINORS.contains(&self.minor)
            && self.cpython
            && !self.free_threaded
            && (!mac || self.machine == "arm64")
    }
}

/// The best Python on PATH, and on a Mac in the places where installers put it.
pub fn find(host: &Environment, tools: &mut Tools<'_>, mac: bool) -> Option<Python> {
    let mut names: Vec<String> = MINORS
        .iter()
        .map(|minor| format!("python3.{minor}"))
        .collect();
    names.extend(["python3".into(), "python".into()]);
    let mut candidates: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| all_on_path(host, name))
        .collect();
    if mac {
        for minor in MINORS {
            candidates.push(format!("/opt/homebrew/bin/python3.{minor}").into());
            candidates.push(
                format!(
                    "/Library/Frameworks/Python.framework/Versions/3.{minor}/bin/python3.{minor}"
                )
                .into(),
            );
        }
        // Apple's own is too old, and asking it may open a window that offers developer tools.
        candidates.retain(|path| !path.starts_with("/usr/bin"));
    }
    let mut asked = Vec::new();
    for candidate in candidates {
        if asked.contains(&candidate) || !candidate.exists() {
            continue;
        }
        let answer = Python::ask(&candidate, tools);
        tools.say(&match &answer {
            Some(python) => format!(
                "{}: Python {} ({})",
                candidate.display(),
                python.version,
                python.machine
            ),
            None => format!("{}: does not answer as a Python", candidate.display()),
        });
        asked.push(candidate);
        if let Some(python) = answer.filter(|python| python.suits(mac)) {
            return Some(python);
        }
    }
    None
}

/// Every executable of this name on PATH: the first one may be a shim for a version that isn't selected.
fn all_on_path(host: &Environment, name: &str) -> Vec<PathBuf> {
    let path = host
        .env
        .get(std::ffi::OsStr::new("PATH"))
        .cloned()
        .unwrap_or_default();
    which::which_in_all(name, Some(path), &host.cwd)
        .map(Iterator::collect)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(minor: u32) -> Python {
        Python {
            version: format!("3.{minor}.1"),
            minor,
            cpython: true,
            free_threaded: false,
            machine: "arm64".into(),
            venv: true,
            executable: "/usr/bin/python3".into(),
        }
    }

    #[test]
    fn what_suits() {
        assert!(python(11).suits(true));
        assert!(!python(10).suits(false));
        assert!(!python(14).suits(false));
        assert!(
            !Python {
                free_threaded: true,
                ..python(13)
            }
            .suits(false)
        );
        assert!(
            !Python {
                cpython: false,
                ..python(12)
            }
            .suits(false)
        );
        assert!(
            !Python {
                machine: "x86_64".into(),
                ..python(12)
            }
            .suits(true)
        );
        assert!(
            Python {
                machine: "x86_64".into(),
                ..python(12)
            }
            .suits(false)
        );
    }
}
