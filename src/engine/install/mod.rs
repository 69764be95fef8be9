//! Installs the engine: a private Python environment with exactly the packages of the lock file that is part of this program.
//!
//! The installer is `uv` if there is one, else pip in a Python that can make environments, else uv itself, fetched. Each environment is made
//! in a folder of its own and is in use only once the record that names it is written, so being killed at any moment leaves the state before.

mod failure;
mod lock;
mod platform;
mod python;
mod record;
mod tool;
mod uv;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use platform::supported;
pub use record::{Hold, hold};

use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::paths::Paths;
use crate::sys::platform::{Os, Platform};
use python::Python;
use record::Record;
use tool::Tools;

/// Free disk space that an installation is begun with, in bytes: 260 MB are installed, as much again passes through the installer's cache, and a
/// Python or uv may have to be fetched. Measured; see docs/engine-packages.md.
const SPACE: u64 = 900_000_000;

/// Fails if what is to be used was not installed right: the arrays' native library loads, and the engine is there.
const CHECK: &str =
    "import mlx.core, importlib.metadata as m; print('vllm-mlx', m.version('vllm-mlx'))";

/// An engine that is installed and ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The `vllm-mlx` script.
    pub executable: PathBuf,
    /// The Python that runs it.
    pub python: PathBuf,
    /// The engine's version.
    pub version: String,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Ready(Installed),
    Missing,
    /// Something is there that cannot be used.
    Broken {
        why: String,
    },
    /// It was installed from another lock file than this program's.
    Outdated,
}

/// In words, for people.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Status::Ready(installed) => write!(f, "vllm-mlx {} is installed", installed.version),
            Status::Missing => f.write_str("the engine is not installed"),
            Status::Broken { why } => write!(f, "the installed engine is broken: {why}"),
            Status::Outdated => {
                f.write_str("the installed engine is of another version than this cclocal needs")
            }
        }
    }
}

/// How an installation goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What is being done now, for people.
    Step { name: String },
    /// A line of a tool's output. All of them are in `setup.log` too.
    Line(String),
    /// It is ready; how long that took.
    Done { seconds: f64 },
}

/// Whether the engine is there, from a few looks at the disk: no program is run.
pub fn status(_host: &Environment, paths: &Paths) -> Status {
    record::status(paths)
}

/// The log of the last installation.
pub fn log(paths: &Paths) -> PathBuf {
    paths.state.join("setup.log")
}

/// Installs the engine, or returns at once if it is there. Exit status 10 if that fails, 12 if this machine can't have it.
pub fn install(
    host: &Environment,
    paths: &Paths,
    on_event: &mut dyn FnMut(Event),
) -> Result<Installed> {
    if let Status::Ready(installed) = status(host, paths) {
        return Ok(installed);
    }
    let platform = Platform::detect(host)?;
    supported(&platform)?;
    let started = Instant::now();
    let _alone = record::exclusively(paths, || {
        on_event(Event::Step {
            name: "another cclocal is installing the engine; waiting for it".into(),
        });
    })?;
    if let Status::Ready(installed) = status(host, paths) {
        return Ok(installed);
    }
    enough_space(free_space(&paths.engine()))?;
    let root = paths.engine();
    let mut tools = Tools::new(host, &root, open_log(paths)?, on_event);
    // What is half-made is of no use, and its space may be needed. An older environment stays until the new one is there.
    record::sweep(paths, current(paths).as_deref());
    let installed = make(host, paths, &mut tools, platform.os == Os::Macos)?;
    record::sweep(paths, installed.executable.parent().and_then(Path::parent));
    on_event(Event::Done {
        seconds: started.elapsed().as_secs_f64(),
    });
    Ok(installed)
}

/// Forgets the installed engine and removes what isn't in use.
pub fn remove(_host: &Environment, paths: &Paths) -> Result<()> {
    if !paths.engine().exists() {
        return Ok(());
    }
    let _alone = record::exclusively(paths, || {})?;
    match std::fs::remove_file(record::file(paths)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error)
                .context(Exit::EngineMissing, "the engine's record cannot be removed");
        }
        _ => {}
    }
    record::sweep(paths, None);
    Ok(())
}

/// The environment of the record, also when it is out of date.
fn current(paths: &Paths) -> Option<PathBuf> {
    let bytes = files::read(&record::file(paths), files::OWN_RECORD).ok()?;
    serde_json::from_slice::<Record>(&bytes)
        .ok()
        .map(|record| record.environment)
}

fn make(host: &Environment, paths: &Paths, tools: &mut Tools<'_>, mac: bool) -> Result<Installed> {
    tools.step("looking for Python");
    let found = python::find(host, tools, mac);
    let uv = match (uv::find(host, paths, tools), &found) {
        (Some(uv), _) => Some(uv),
        (None, Some(python)) if python.venv => None,
        (None, _) => {
            tools.step("fetching uv, which will install the engine");
            Some(uv::fetch(paths, tools)?)
        }
    };
    let environments = record::environments(paths);
    let failed = "the engine's folder cannot be written";
    files::private_folder(&environments).context(Exit::EngineMissing, failed)?;
    let identity = lock::identity();
    // Removed again if anything below fails.
    let folder = tempfile::Builder::new()
        .prefix(&format!("{}-", identity.get(..12).unwrap_or(&identity)))
        .tempdir_in(&environments)
        .context(Exit::EngineMissing, failed)?;
    let at = folder.path();
    let requirements = at.join("engine.lock");
    fs_err::write(&requirements, lock::LOCK).context(Exit::EngineMissing, failed)?;

    match (&uv, &found) {
        (Some(uv), _) => with_uv(uv, found.as_ref(), at, &requirements, paths, tools)?,
        (None, Some(python)) => with_pip(python, at, &requirements, tools)?,
        (None, None) => {
            return Err(Error::new(
                Exit::EngineMissing,
                "there is no Python to install the engine with",
            ));
        }
    }

    tools.step("checking the engine");
    let executable = at.join("bin/vllm-mlx");
    let interpreter = at.join("bin/python");
    let python = Python::ask(&interpreter, tools)
        .filter(|python| python.suits(mac))
        .ok_or_else(|| {
            Error::new(Exit::EngineMissing, "the installed Python cannot be used")
                .cause(format!("the engine needs Python {}", python::VERSIONS))
                .hint("install Python 3.12, then run `cclocal setup` again")
        })?;
    tools.run(
        "checking the engine",
        &interpreter,
        &["-I".as_ref(), "-c".as_ref(), CHECK.as_ref()],
    )?;
    let record = Record {
        lock: identity,
        environment: at.to_path_buf(),
        engine: lock::version_of("vllm-mlx").unwrap_or_default().to_owned(),
        python: python.version,
    };
    record::write(paths, &record)?;
    let _ = folder.keep();
    match record::status(paths) {
        Status::Ready(installed) => Ok(installed),
        other => {
            let why = if let Status::Broken { why } = other {
                why
            } else {
                format!("{} is not there", executable.display())
            };
            Err(Error::new(
                Exit::EngineMissing,
                "the engine was installed but cannot be used",
            )
            .cause(why))
        }
    }
}

fn with_uv(
    uv: &Path,
    python: Option<&Python>,
    at: &Path,
    requirements: &Path,
    paths: &Paths,
    tools: &mut Tools<'_>,
) -> Result<()> {
    let mut make: Vec<&OsStr> = vec![
        "venv".as_ref(),
        "--allow-existing".as_ref(),
        "--no-project".as_ref(),
        "--python".as_ref(),
    ];
    if let Some(python) = python {
        tools.step(format!(
            "making an environment with Python {}",
            python.version
        ));
        make.push(python.executable.as_os_str());
    } else {
        tools.step("fetching Python 3.12 with uv");
        tools.default_var("UV_PYTHON_INSTALL_DIR", paths.engine().join("python"));
        make.extend::<[&OsStr; 2]>(["3.12".as_ref(), "--managed-python".as_ref()]);
    }
    make.push(at.as_os_str());
    tools.run("making the Python environment with uv", uv, &make).map_err(|error| {
        if python.is_some() {
            return error;
        }
        // Python comes from another server than the packages.
        let cause = error.cause.map(|cause| cause.replace("the package index", "the server that it comes from"));
        Error { message: format!("there is no Python {} here, and uv could not fetch one", python::VERSIONS), cause, ..error }
            .hint("install Python 3.12 (macOS: `brew install python@3.12`; Debian and Ubuntu: `apt install python3 python3-venv`), then run `cclocal setup` again")
    })?;
    tools.step(format!(
        "downloading and installing {} packages",
        lock::packages()
    ));
    let install: [&OsStr; 9] = [
        "pip".as_ref(),
        "install".as_ref(),
        "--python".as_ref(),
        at.as_os_str(),
        "--no-deps".as_ref(),
        "--require-hashes".as_ref(),
        "--only-binary=:all:".as_ref(),
        "-r".as_ref(),
        requirements.as_os_str(),
    ];
    tools
        .run("installing the engine's packages with uv", uv, &install)
        .map(drop)
}

fn with_pip(python: &Python, at: &Path, requirements: &Path, tools: &mut Tools<'_>) -> Result<()> {
    tools.step(format!(
        "making an environment with Python {}",
        python.version
    ));
    tools
        .run("making the Python environment", &python.executable, &["-I".as_ref(), "-m".as_ref(), "venv".as_ref(), at.as_os_str()])
        .map_err(|error| error.hint("install uv, or your system's package for Python environments (Debian and Ubuntu: `apt install python3-venv`)"))?;
    tools.step(format!(
        "downloading and installing {} packages",
        lock::packages()
    ));
    // Compiling all of it would take longer than downloading it; Python compiles what it loads.
    let install: [&OsStr; 12] = [
        "-I".as_ref(),
        "-m".as_ref(),
        "pip".as_ref(),
        "install".as_ref(),
        "--no-input".as_ref(),
        "--no-compile".as_ref(),
        "--disable-pip-version-check".as_ref(),
        "--no-deps".as_ref(),
        "--require-hashes".as_ref(),
        "--only-binary=:all:".as_ref(),
        "-r".as_ref(),
        requirements.as_os_str(),
    ];
    tools
        .run(
            "installing the engine's packages with pip",
            &at.join("bin/python"),
            &install,
        )
        .map(drop)
}

fn open_log(paths: &Paths) -> Result<File> {
    let failed = "the log of the installation cannot be written";
    files::private_folder(&paths.state).context(Exit::EngineMissing, failed)?;
    let path = log(paths);
    let _ = std::fs::remove_file(&path);
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .context(Exit::EngineMissing, failed)
}

/// Free bytes on the disk of this folder, for this user. None if the system doesn't say.
fn free_space(folder: &Path) -> Option<u64> {
    let stats = nix::sys::statvfs::statvfs(folder).ok()?;
    // The types differ between systems.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    Some(u64::from(stats.blocks_available()) * stats.fragment_size() as u64)
}

fn enough_space(free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if free < SPACE => Err(Error::new(
            Exit::Machine,
            "there is too little disk space for the engine",
        )
        .cause(format!(
            "{} MB are free, and the installation needs {} MB",
            free / 1_000_000,
            SPACE / 1_000_000
        ))
        .hint("free some space, or set CCLOCAL_HOME to a folder on another disk")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_before_anything_is_fetched() {
        let error = enough_space(Some(12_000_000)).expect_err("refused");
        assert_eq!(error.exit, Exit::Machine);
        insta::assert_snapshot!(error, @"
        error: there is too little disk space for the engine
          cause: 12 MB are free, and the installation needs 900 MB
          hint: free some space, or set CCLOCAL_HOME to a folder on another disk
        ");
        assert!(enough_space(Some(SPACE)).is_ok());
        assert!(enough_space(None).is_ok());
    }
}
