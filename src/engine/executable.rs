//! Which engine is run: the one that `cclocal setup` installed, or the one that `CCLOCAL_ENGINE` names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::install::{self, Status};
use crate::error::{Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::paths::Paths;

/// How much of a script is read, in bytes: its first lines name its interpreter.
const START: u64 = 4096;

/// An engine that can be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// The `vllm-mlx` script.
    pub script: PathBuf,
    /// The Python that runs it.
    pub python: PathBuf,
}

/// Result of the search for an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Ready(Executable),
    /// Nothing that works is installed; why, in words.
    Absent(String),
}

/// Finds the engine. `CCLOCAL_ENGINE` that does not name a usable one is an error, never passed over.
pub fn find(host: &Environment, paths: &Paths) -> Result<Found> {
    if let Some(named) = host.var("CCLOCAL_ENGINE") {
        return named_by_user(host, named).map(Found::Ready);
    }
    Ok(match install::status(paths) {
        Status::Ready(installed) => Found::Ready(Executable {
            script: installed.executable,
            python: installed.python,
        }),
        absent => Found::Absent(absent.to_string()),
    })
}

fn named_by_user(host: &Environment, named: &str) -> Result<Executable> {
    let wrong = |cause: String| {
        Error::new(
            Exit::EngineMissing,
            format!("CCLOCAL_ENGINE={named} cannot be used"),
        )
        .cause(cause)
        .hint("point it at a vllm-mlx executable, or unset it to use cclocal's own engine")
    };
    let script = if named.contains('/') {
        Some(host.resolve(named)).filter(|path| path.is_file())
    } else {
        host.which(named)
    };
    let script = script.ok_or_else(|| wrong("there is no such file".into()))?;
    let start = files::read_start(&script, START).map_err(|error| wrong(error.to_string()))?;
    let python = interpreter(&String::from_utf8_lossy(&start))
        .ok_or_else(|| wrong("it is not a Python script, as every installed vllm-mlx is".into()))?;
    let python = if python.is_absolute() {
        python
    } else {
        host.which(&python).ok_or_else(|| {
            wrong(format!(
                "its interpreter {} is not on PATH",
                python.display()
            ))
        })?
    };
    if !python.is_file() {
        return Err(wrong(format!(
            "its interpreter {} is gone",
            python.display()
        )));
    }
    Ok(Executable { script, python })
}

/// The interpreter that a script's first lines name: `#!/path/python`, `#!/usr/bin/env python3`, or the form that pip and uv write
/// where the path is too long or has spaces: `#!/bin/sh` and `'''exec' '/path/python' "$0" "$@"`.
fn interpreter(start: &str) -> Option<PathBuf> {
    let mut lines = start.lines();
    let words: Vec<&str> = lines
        .next()?
        .strip_prefix("#!")?
        .split_whitespace()
        .collect();
    let program = Path::new(words.first()?);
    match program.file_name()?.to_str()? {
        "sh" => {
            let exec = lines.next()?.strip_prefix("'''exec'")?;
            let words = shlex::split(exec)?;
            let python = words.first()?;
            is_python(python).then(|| PathBuf::from(python))
        }
        "env" => {
            let python = words.iter().skip(1).find(|word| !word.starts_with('-'))?;
            is_python(python).then(|| PathBuf::from(python))
        }
        _ => is_python(words.first()?).then(|| program.to_path_buf()),
    }
}

fn is_python(path: &str) -> bool {
    Path::new(path)
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("python"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_read_from_every_form_that_installers_write() {
        let read = |text: &str| interpreter(text).map(|path| path.display().to_string());
        assert_eq!(
            read("#!/opt/e/bin/python3\nimport x"),
            Some("/opt/e/bin/python3".into())
        );
        assert_eq!(
            read("#!/usr/bin/env python3.12\n"),
            Some("python3.12".into())
        );
        assert_eq!(
            read("#!/usr/bin/env -S python3 -I\n"),
            Some("python3".into())
        );
        assert_eq!(
            read("#!/bin/sh\n'''exec' '/Users/a b/e/bin/python' \"$0\" \"$@\"\n' '''\n"),
            Some("/Users/a b/e/bin/python".into())
        );
        assert_eq!(
            read("#!/bin/sh\n'''exec' /very/long/python \"$0\" \"$@\"\n"),
            Some("/very/long/python".into())
        );
        for other in [
            "",
            "\u{7f}ELF",
            "#!/bin/sh\necho",
            "#!/usr/bin/perl\n",
            "#!\n",
        ] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
