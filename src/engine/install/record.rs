//! What is installed: one small file that is written last, and the environments beside it.
//!
//! ```text
//! engine/current.json      the record: which environment is in use, and what it was made from
//! engine/envs/<name>/      the environments; each is made in its final place, because its scripts hold absolute paths
//! engine/lock              held while something is installed or removed
//! ```
//! An environment that the record doesn't name is half-made or out of date, and is removed by the next installation unless it is in use.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Installed, Status, lock};
use crate::error::{Context, Exit, Result};
use crate::sys::files;
use crate::sys::paths::Paths;

/// The name of the file whose lock says that an environment is in use.
const IN_USE: &str = ".in-use";

/// The record of what is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// SHA-256 of the lock file that was installed.
    pub lock: String,
    /// The environment.
    pub environment: PathBuf,
    /// The engine's version.
    pub engine: String,
    /// The version of the environment's Python, such as `3.12.1`.
    pub python: String,
}

impl Record {
    /// `3.12`, which is in the names of folders.
    fn python_minor(&self) -> String {
        self.python.split('.').take(2).collect::<Vec<_>>().join(".")
    }
}

/// What there is, from a few looks at the disk.
pub fn status(paths: &Paths) -> Status {
    let record: Record = match files::read(&file(paths), files::OWN_RECORD)
        .map(|bytes| serde_json::from_slice(&bytes))
    {
        Ok(Ok(record)) => record,
        Ok(Err(_)) => return broken("its record cannot be read"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Status::Missing,
        Err(error) => return broken(format!("its record cannot be read: {error}")),
    };
    let at = &record.environment;
    if at.parent() != Some(&environments(paths)) {
        return broken("it was moved from where it was made");
    }
    if record.lock != lock::identity() {
        return Status::Outdated;
    }
    let installed = Installed {
        executable: at.join("bin/vllm-mlx"),
        python: at.join("bin/python"),
        version: record.engine.clone(),
    };
    // The interpreter is a link to another Python, which may have been removed or replaced since.
    let Ok(interpreter) = std::fs::canonicalize(&installed.python) else {
        return broken("its Python is gone");
    };
    if !executable(&interpreter) {
        return broken("its Python cannot be run");
    }
    let minor = record.python_minor();
    if other_minor(&interpreter, &minor) {
        return broken(format!("its Python is no longer {minor}"));
    }
    let packages = at.join(format!("lib/python{minor}/site-packages"));
    if !executable(&installed.executable) || !packages.join("vllm_mlx/__init__.py").is_file() {
        return broken("files are missing");
    }
    Status::Ready(installed)
}

fn broken(why: impl Into<String>) -> Status {
    Status::Broken { why: why.into() }
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Whether the interpreter's file name says another version than it should. One that says none is believed.
fn other_minor(interpreter: &Path, minor: &str) -> bool {
    let name = interpreter
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    match name.strip_prefix("python") {
        Some(version) if version.contains('.') => version != minor,
        _ => false,
    }
}

pub fn file(paths: &Paths) -> PathBuf {
    paths.engine().join("current.json")
}

pub fn environments(paths: &Paths) -> PathBuf {
    paths.engine().join("envs")
}

/// Makes an environment the one in use. This is the last step of an installation.
pub fn write(paths: &Paths, record: &Record) -> Result<()> {
    let failed = "the installation cannot be recorded";
    let text = serde_json::to_vec_pretty(record).context(Exit::EngineMissing, failed)?;
    files::write_private(&file(paths), &text).context(Exit::EngineMissing, failed)
}

/// Held by one installation at a time. `waiting` is called if another one is at work.
pub fn exclusively(paths: &Paths, waiting: impl FnOnce()) -> Result<Flock<std::fs::File>> {
    let failed = "the engine's folder cannot be used";
    let hint = || {
        format!(
            "make sure that you may write to {}",
            paths.engine().display()
        )
    };
    files::private_folder(&paths.engine())
        .context(Exit::EngineMissing, failed)
        .map_err(|error| error.hint(hint()))?;
    let open = || open_lock(&paths.engine().join("lock"));
    let file = open()
        .context(Exit::EngineMissing, failed)
        .map_err(|error| error.hint(hint()))?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => return Ok(held),
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
        Err((_, error)) => return Err(error).context(Exit::EngineMissing, failed),
    };
    waiting();
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(held) => return Ok(held),
            Err((again, nix::errno::Errno::EINTR)) => file = again,
            Err((_, error)) => return Err(error).context(Exit::EngineMissing, failed),
        }
    }
}

/// Says that an environment is in use until dropped, so that a newer installation doesn't remove it.
#[derive(Debug)]
pub struct Hold(#[allow(dead_code)] Flock<std::fs::File>);

/// Keeps an installed environment in place for as long as the result lives. None if it is no environment of ours, or just being removed.
pub fn hold(executable: &Path) -> Option<Hold> {
    let environment = executable.parent()?.parent()?;
    if environment.parent()?.file_name()? != "envs" {
        return None;
    }
    let file = open_lock(&environment.join(IN_USE)).ok()?;
    let held = Flock::lock(file, FlockArg::LockSharedNonblock).ok()?;
    executable.exists().then_some(Hold(held))
}

/// Removes the environments that are neither `keep` nor in use. What cannot be removed now is left for the next time.
pub fn sweep(paths: &Paths, keep: Option<&Path>) {
    let Ok(entries) = std::fs::read_dir(environments(paths)) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if Some(path.as_path()) == keep || !path.is_dir() {
            continue;
        }
        let unused = open_lock(&path.join(IN_USE))
            .map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
        if let Ok(Ok(_held)) = unused
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
        std::fs::create_dir_all(at.join("bin")).expect("made");
        std::fs::create_dir_all(at.join("lib/python3.12/site-packages/vllm_mlx")).expect("made");
        std::fs::write(
            at.join("lib/python3.12/site-packages/vllm_mlx/__init__.py"),
            "",
        )
        .expect("written");
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
        assert!(
            matches!(status(&paths), Status::Ready(_)),
            "{:?}",
            status(&paths)
        );

        std::fs::rename(home.join("python3.12"), home.join("away")).expect("moved");
        assert_eq!(why(&paths), "its Python is gone");
        std::fs::rename(home.join("away"), home.join("python3.13")).expect("moved");
        std::os::unix::fs::symlink(home.join("python3.13"), home.join("python3.12"))
            .expect("linked");
        assert_eq!(why(&paths), "its Python is no longer 3.12");
        std::fs::rename(home.join("python3.13"), home.join("python3.12")).expect("moved");
        assert!(matches!(status(&paths), Status::Ready(_)));

        std::fs::remove_file(record.environment.join("bin/vllm-mlx")).expect("removed");
        assert_eq!(why(&paths), "files are missing");

        write(
            &paths,
            &Record {
                lock: "another".into(),
                ..record.clone()
            },
        )
        .expect("written");
        assert_eq!(status(&paths), Status::Outdated);
        write(
            &paths,
            &Record {
                environment: "/elsewhere/envs/one".into(),
                ..record
            },
        )
        .expect("written");
        assert_eq!(why(&paths), "it was moved from where it was made");
        std::fs::write(file(&paths), "{").expect("written");
        assert_eq!(why(&paths), "its record cannot be read");
        std::fs::remove_file(file(&paths)).expect("removed");
        assert_eq!(status(&paths), Status::Missing);
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
