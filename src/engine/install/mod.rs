//! Installs the engine: a private Python environment with exactly the packages of the lock file that is part of this program.
//!
//! uv installs it: the user's own if it is new enough, else one that is fetched and compared with its hash. Each environment is made in a
//! folder of its own and is in use only once the record that names it is written, so being killed at any moment leaves the state before.

mod failure;
mod lock;
mod packages;
mod platform;
mod record;
mod settings;
mod tool;
mod uv;

use std::path::{Path, PathBuf};

pub use packages::{Packages, packages};
pub use platform::supported;
pub use record::{Hold, hold};

use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::paths::Paths;
use crate::sys::{disk, files};
use record::Record;
use tool::Tools;

/// Free disk space that an installation is begun with, in bytes: 260 MB are installed, as much again passes through uv's cache, and a
/// Python or uv may have to be fetched. Measured; see docs/engine-packages.md.
const SPACE: u64 = 900_000_000;

/// The Pythons that the packages exist for, for people.
const VERSIONS: &str = "3.11, 3.12 or 3.13";

/// Proves the installation: mlx's native library loads, and the engine is there. Prints Python's version.
const CHECK: &str = "\
import mlx.core, importlib.metadata as m, platform
m.version('vllm-mlx')
print(platform.python_version())";

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

/// The state of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It is installed and can be used.
    Ready(Installed),
    /// Nothing was installed.
    Missing,
    /// Something is there that cannot be used.
    Broken {
        /// The reason, in words.
        why: String,
    },
    /// Another lock file than this program's was installed.
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

/// The state of the installation. Reads a few files and runs nothing.
pub fn status(paths: &Paths) -> Status {
    record::status(paths)
}

/// Installs the engine, or returns at once if it is there. `on_step` gets the name of each step, for people. Errors: exit status 10, or 12 if
/// this machine can't run the engine or its disk is full.
pub fn install(app: &App, on_step: &mut dyn FnMut(&str)) -> Result<Installed> {
    let paths = &app.paths;
    if let Status::Ready(installed) = status(paths) {
        return Ok(installed);
    }
    supported(app.platform()?)?;
    let _alone = record::exclusively(paths, || {
        on_step("waiting for another cclocal that is installing the engine");
    })?;
    if let Status::Ready(installed) = status(paths) {
        return Ok(installed);
    }
    let root = paths.engine();
    enough_space(disk::free(&root))?;
    let log = crate::sys::log::start(&paths.state.join("setup.log")).context(
        Exit::EngineMissing,
        "the log of the installation cannot be written",
    )?;
    let mut tools = Tools::new(&app.environment, &root, log, on_step);
    // What is half-made is of no use, and its space may be needed. An older environment stays until the new one is there.
    record::sweep(paths, record::current(paths).as_deref());
    let installed = make(app, &mut tools)?;
    record::sweep(paths, installed.executable.parent().and_then(Path::parent));
    Ok(installed)
}

/// Forgets the installed engine and removes the environments that aren't in use.
pub fn remove(paths: &Paths) -> Result<()> {
    if !paths.engine().exists() {
        return Ok(());
    }
    let _alone = record::exclusively(paths, || {})?;
    record::remove(paths)?;
    record::sweep(paths, None);
    Ok(())
}

/// Makes a new environment and puts it in use.
fn make(app: &App, tools: &mut Tools<'_>) -> Result<Installed> {
    let paths = &app.paths;
    tools.step("looking for uv and Python");
    let uv = uv::get(app, tools)?;
    let python = uv::find_python(&uv, app.platform()?, tools);
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

    make_environment(&uv, python.as_deref(), at, paths, tools)?;
    tools.step(format!(
        "downloading and installing {} packages",
        lock::packages()
    ));
    let mut install = tools.command(&uv);
    install.args(["pip", "install", "--python"]).arg(at);
    install.args(["--no-deps", "--require-hashes", "--only-binary=:all:", "-r"]);
    tools.run(
        "installing the engine's packages with uv",
        install.arg(&requirements),
    )?;
    tools.step("checking the engine");
    let mut check = tools.command(&at.join("bin/python"));
    let said = tools.run("checking the engine", check.args(["-I", "-c", CHECK]))?;
    let record = Record {
        lock: identity,
        environment: at.to_path_buf(),
        engine: lock::version_of("vllm-mlx").unwrap_or_default().to_owned(),
        python: said.last().cloned().unwrap_or_default(),
    };
    record::write(paths, &record)?;
    let _ = folder.keep();
    match record::status(paths) {
        Status::Ready(installed) => Ok(installed),
        other => Err(Error::new(
            Exit::EngineMissing,
            "the engine was installed but cannot be used",
        )
        .cause(other)),
    }
}

/// Makes an empty environment, with this Python or with one that uv fetches.
fn make_environment(
    uv: &Path,
    python: Option<&Path>,
    at: &Path,
    paths: &Paths,
    tools: &mut Tools<'_>,
) -> Result<()> {
    let what = "making the Python environment with uv";
    let Some(python) = python else {
        tools.step("fetching Python 3.12 with uv");
        let place = paths.engine().join("python");
        tools
            .env
            .entry("UV_PYTHON_INSTALL_DIR".into())
            .or_insert(place.into());
        let mut make = tools.command(uv);
        make.args(["venv", "--allow-existing", "--no-project"]);
        make.args(["--managed-python", "--python", "3.12"]);
        return tools.run(what, make.arg(at)).map(drop).map_err(|error| {
            // Python comes from another server than the packages.
            let cause = error.cause.map(|cause| cause.replace("the package index", "the server that it comes from"));
            Error { message: format!("there is no Python {VERSIONS} here, and uv could not fetch one"), cause, ..error }
                .hint("install Python 3.12 (macOS: `brew install python@3.12`; Debian and Ubuntu: `apt install python3`), then run `cclocal setup` again")
        });
    };
    tools.step(format!("making an environment with {}", python.display()));
    let mut make = tools.command(uv);
    make.args(["venv", "--allow-existing", "--no-project", "--python"]);
    tools.run(what, make.arg(python).arg(at)).map(drop)
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
