//! The folder of one session: Claude Code's settings, for as long as it runs.

use std::path::{Path, PathBuf};

use crate::error::{Context, Exit, Result};
use crate::sys::files;
use crate::sys::paths::Paths;

/// Made when a session starts, removed when it ends.
#[derive(Debug)]
pub struct SessionDir(PathBuf);

impl SessionDir {
    pub fn make(paths: &Paths) -> Result<Self> {
        sweep(&paths.run());
        Self::at(paths.session(nix::unistd::getpid().as_raw()))
    }

    /// A second one, for Claude Code's rehearsal.
    pub fn for_rehearsal(paths: &Paths) -> Result<Self> {
        Self::at(paths.rehearsal(nix::unistd::getpid().as_raw()))
    }

    fn at(folder: PathBuf) -> Result<Self> {
        files::private_folder(&folder).context(
            Exit::Other,
            "a folder for Claude Code's settings cannot be made",
        )?;
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Path of Claude Code's settings file.
    pub fn settings(&self) -> PathBuf {
        settings(&self.0)
    }

    /// The same path for a dry run.
    pub fn planned_settings(paths: &Paths) -> PathBuf {
        settings(&paths.run().join("session-PID"))
    }
}

fn settings(folder: &Path) -> PathBuf {
    folder.join("claude-settings.json")
}

impl Drop for SessionDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what sessions left that were killed.
fn sweep(above: &Path) {
    for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split_once('-'))
            .filter(|(what, _)| matches!(*what, "session" | "rehearsal"))
            .and_then(|(_, pid)| pid.parse::<i32>().ok());
        let gone = |pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)
                == Err(nix::errno::Errno::ESRCH)
        };
        if owner.is_some_and(gone) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
