//! The record of the installed engine: one small file that is written last, and the environments beside it.
//!
//! ```text
//! engine/current.json      the record: which environment is in use, and what it was made from
//! engine/envs/<name>/      the environments; each is made in its final place, because its scripts hold absolute paths
//! engine/lock              held while something is installed or removed
//! ```
//! An environment that the record doesn't name is half-made or out of date, and is removed by the next installation unless it is in use.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Installed, Status, lock};
use crate::error::{Context, Exit, Result};
use crate::sys::files::{self, Lock};
use crate::sys::paths::Paths;

/// The name of the file whose lock says that an environment is in use.
const IN_USE: &str = ".in-use";

/// The record, as it is in `current.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// SHA-256 of the lock file that was installed.
    pub(super) lock: String,
    /// The environment.
    pub(super) environment: PathBuf,
    /// The engine's version.
    pub(super) engine: String,
    /// The version of the environment's Python, such as `3.12.1`.
    pub(super) python: String,
}

/// The state of the installation. Reads a few files and runs nothing.
pub(super) fn status(paths: &Paths) -> Status {
    match read(paths).and_then(|record| check(paths, &record)) {
        Ok(installed) => Status::Ready(installed),
        Err(status) => status,
    }
}

/// The environment that the record names, also if it is out of date.
pub(super) fn current(paths: &Paths) -> Option<PathBuf> {
    read(paths).ok().map(|record| record.environment)
}

fn read(paths: &Paths) -> Result<Record, Status> {
    match files::read(&file(paths), files::OWN_RECORD) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|_| broken("its record cannot be read"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Status::Missing),
        Err(error) => Err(broken(format!("its record cannot be read: {error}"))),
    }
}

fn check(paths: &Paths, record: &Record) -> Result<Installed, Status> {
    let at = &record.environment;
    if at.parent() != Some(&environments(paths)) {
        return Err(broken("it was moved from where it was made"));
    }
    if record.lock != lock::identity() {
        return Err(Status::Outdated);
    }
    let installed = Installed {
        executable: at.join("bin/vllm-mlx"),
        python: at.join("bin/python"),
        version: record.engine.clone(),
    };
    // The interpreter is a link to another Python, which may have been removed or replaced since.
    let interpreter =
        std::fs::canonicalize(&installed.python).map_err(|_| broken("its Python is gone"))?;
    let minor: Vec<&str> = record.python.split('.').take(2).collect();
    let minor = minor.join(".");
    let packages = at.join(format!("lib/python{minor}/site-packages"));
    if !executable(&interpreter) {
        Err(broken("its Python cannot be run"))
    } else if other_minor(&interpreter, &minor) {
        Err(broken(format!("its Python is no longer {minor}")))
    } else if !executable(&installed.executable) || !packages.join("vllm_mlx/__init__.py").is_file()
    {
        Err(broken("files are missing"))
    } else {
        Ok(installed)
    }
}

fn broken(why: impl Into<String>) -> Status {
    Status::Broken { why: why.into() }
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// True if the interpreter's file name says another version than it should. One that says none is believed.
fn other_minor(interpreter: &Path, minor: &str) -> bool {
    let name = interpreter.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix("python"))
        .is_some_and(|version| version.contains('.') && version != minor)
}

pub(super) fn file(paths: &Paths) -> PathBuf {
    paths.engine().join("current.json")
}

pub(super) fn environments(paths: &Paths) -> PathBuf {
    paths.engine().join("envs")
}

/// Makes an environment the one in use. This is the last step of an installation.
pub(super) fn write(paths: &Paths, record: &Record) -> Result<()> {
    let failed = "the installation cannot be recorded";
    let text = serde_json::to_vec_pretty(record).context(Exit::EngineMissing, failed)?;
    files::write_private(&file(paths), &text).context(Exit::EngineMissing, failed)
}

/// Forgets what is installed.
pub(super) fn remove(paths: &Paths) -> Result<()> {
    match std::fs::remove_file(file(paths)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(Exit::EngineMissing, "the engine's record cannot be removed")
        }
        _ => Ok(()),
    }
}

/// The lock that one installation holds at a time. `waiting` is called if another one is at work.
pub(super) fn exclusively(paths: &Paths, waiting: impl FnOnce()) -> Result<Lock> {
    let folder = paths.engine();
    let take = || -> std::io::Result<_> {
        files::private_folder(&folder)?;
        let file = folder.join("lock");
        if let Some(held) = Lock::exclusive(open_lock(&file)?)? {
            return Ok(held);
        }
        waiting();
        Lock::wait(open_lock(&file)?)
    };
    take()
        .context(Exit::EngineMissing, "the engine's folder cannot be used")
        .map_err(|error| {
            error.hint(format!(
                "make sure that you may write to {}",
                folder.display()
            ))
        })
}

/// Says that an environment is in use until dropped, so that a newer installation doesn't remove it.
#[derive(Debug)]
pub struct Hold(#[allow(dead_code)] Lock);

/// Keeps an installed environment in place for as long as the result lives. None if it is no environment of ours, or just being removed.
pub fn hold(executable: &Path) -> Option<Hold> {
    let environment = executable.parent()?.parent()?;
    if environment.parent()?.file_name()? != "envs" {
        return None;
    }
    let file = open_lock(&environment.join(IN_USE)).ok()?;
    let held = Lock::shared(file).ok()??;
    executable.exists().then_some(Hold(held))
}

/// Removes the environments that are neither `keep` nor in use. What cannot be removed now is left for the next time.
pub(super) fn sweep(paths: &Paths, keep: Option<&Path>) {
    let Ok(entries) = std::fs::read_dir(environments(paths)) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if Some(path.as_path()) == keep || !path.is_dir() {
            continue;
        }
        let unused = open_lock(&path.join(IN_USE)).map(Lock::exclusive);
        if let Ok(Ok(Some(_held))) = unused
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::debug!(path = %path.display(), %error, "an old environment is left for the next time");
        }
    }
}

fn open_lock(path: &Path) -> std::io::Result<std::fs::File> {
    files::open_lock(path, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::environment::Environment;

    fn made(folder: &Path) -> (Paths, Record) {
        let paths = Paths::of(&Environment::for_tests(folder, &[]));
        let at = environments(&paths).join("one");
        let package = at.join("lib/python3.12/site-packages/vllm_mlx");
        for folder in [&package, &at.join("bin")] {
            std::fs::create_dir_all(folder).expect("made");
        }
        std::fs::write(package.join("__init__.py"), "").expect("written");
        let real = folder.join("python3.12");
        for path in [&real, &at.join("bin/vllm-mlx")] {
            std::fs::write(path, "#!/bin/sh\n").expect("written");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("set");
        }
        std::os::unix::fs::symlink(&real, at.join("bin/python")).expect("linked");
        let record = Record {
            lock: lock::identity(),
            environment: at,
            engine: "0.6.0".into(),
            python: "3.12.1".into(),
        };
        write(&paths, &record).expect("written");
        (paths, record)
    }

    fn why(paths: &Paths) -> String {
        match status(paths) {
            Status::Broken { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().canonicalize().expect("a path");
        let (paths, record) = made(&home);
        assert!(matches!(status(&paths), Status::Ready(_)));
        let rename = |from: &str, to: &str| {
            std::fs::rename(home.join(from), home.join(to)).expect("moved");
        };
        rename("python3.12", "away");
        assert_eq!(why(&paths), "its Python is gone");
        rename("away", "python3.13");
        std::os::unix::fs::symlink(home.join("python3.13"), home.join("python3.12"))
            .expect("linked");
        assert_eq!(why(&paths), "its Python is no longer 3.12");
        rename("python3.13", "python3.12");
        assert!(matches!(status(&paths), Status::Ready(_)));
        std::fs::remove_file(record.environment.join("bin/vllm-mlx")).expect("removed");
        assert_eq!(why(&paths), "files are missing");

        let mut other = record.clone();
        other.lock = "another".into();
        write(&paths, &other).expect("written");
        assert_eq!(status(&paths), Status::Outdated);
        other.environment = "/elsewhere/envs/one".into();
        write(&paths, &other).expect("written");
        assert_eq!(why(&paths), "it was moved from where it was made");
        std::fs::write(file(&paths), "{").expect("written");
        assert_eq!(why(&paths), "its record cannot be read");
        remove(&paths).expect("removed");
        assert_eq!(status(&paths), Status::Missing);
        remove(&paths).expect("there is none");
    }

    #[test]
    fn a_second_installation_says_that_it_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::of(&Environment::for_tests(folder.path(), &[]));
        let first = exclusively(&paths, || panic!("nobody else is at work")).expect("held");
        let (sender, waits) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            exclusively(&paths, || sender.send(()).expect("told")).map(drop)
        });
        waits.recv().expect("it waits");
        drop(first);
        second.join().expect("ended").expect("held");
    }

    #[test]
    fn an_environment_in_use_is_not_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (paths, record) = made(folder.path());
        let held = hold(&record.environment.join("bin/vllm-mlx")).expect("held");
        sweep(&paths, None);
        assert!(record.environment.exists());
        drop(held);
        sweep(&paths, Some(&record.environment));
        assert!(record.environment.exists());
        sweep(&paths, None);
        assert!(!record.environment.exists());
    }
}
