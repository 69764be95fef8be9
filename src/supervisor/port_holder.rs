//! Finds the supervisor that holds a port, from the kernel's file locks: it need not answer.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::FlockOperation;
use rustix::process::{FlockType, fcntl_getlk};

use super::protocol::SupervisorRequest;
use crate::catalog::Source;
use crate::error::{Error, Exit, Result};
use crate::supervisor::reservation::{self, LOCK, OWNER, Record};
use crate::supervisor::{registry, socket};
use crate::sys::files::{self, Lock};
use crate::sys::paths::Paths;

/// How long one may take to answer again that was only stopped.
const GRACE: Duration = Duration::from_secs(3);

/// How long the kernel may take to close what a killed process had open.
const DYING: Duration = Duration::from_secs(5);

/// How often it is looked whether it is gone.
const INTERVAL: Duration = Duration::from_millis(20);

/// A supervisor that holds its port, whether it answers or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    pub port: u16,
    /// Its process, as the kernel tells. None: it is older than that, or of another container.
    pub pid: Option<i32>,
    /// The record that it wrote.
    pub record: Option<Record>,
}

/// Locks the file that shows whose port it is. None: the system has no such locks here, and then nobody is ended by force.
pub(super) fn sign(folder: &Path) -> Option<File> {
    let file = files::open_lock(&folder.join(OWNER), 0o600).ok()?;
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// The supervisor that holds this port, if one does.
pub fn of(paths: &Paths, port: u16) -> Option<Holder> {
    let folder = reservation::folder(paths, port);
    let owner = owner(&folder);
    if owner.is_none() && !is_locked(&folder) {
        return None;
    }
    Some(Holder {
        port,
        pid: owner.flatten(),
        record: reservation::read(paths, port),
    })
}

/// Whose the one lock is; Some(None) if that is no process that can be seen from here.
fn owner(folder: &Path) -> Option<Option<i32>> {
    let file = files::open(&folder.join(OWNER)).ok()?;
    let held = fcntl_getlk(&file, &FlockType::WriteLock.into()).ok()??;
    Some(held.pid.map(|pid| pid.as_raw_nonzero().get()))
}

/// Whether the other one is held: by supervisors of versions that had no other, and for the moment between the two.
fn is_locked(folder: &Path) -> bool {
    files::open(&folder.join(LOCK)).is_ok_and(|file| matches!(Lock::shared(file), Ok(None)))
}

impl Holder {
    /// The hub id or the folder that it serves. None: it wrote nothing yet.
    pub fn source(&self) -> Option<String> {
        self.record.as_ref().map(Record::served)
    }

    /// Description, such as "Gemma-4-E4B (port 8000, process 4711)".
    pub fn words(&self) -> String {
        let name = self.record.as_ref().map_or("an engine", |record| {
            record.name.as_deref().unwrap_or(&record.model)
        });
        format!("{name} (port {}, {})", self.port, self.process())
    }

    fn process(&self) -> String {
        let written = self.record.as_ref().map(|record| record.pid);
        match (self.pid, written) {
            (Some(pid), _) => format!("process {pid}"),
            (None, Some(pid)) => format!("process {pid} by its own record"),
            (None, None) => "process unknown".into(),
        }
    }

    /// The hint for a supervisor that does not answer.
    pub fn hint(&self) -> String {
        let end = format!(
            "`cclocal stop --force --port {}` stops it and ends the sessions that use it",
            self.port
        );
        match self.pid {
            Some(pid) => format!("if it is suspended, `kill -CONT {pid}` resumes it; {end}"),
            None => end,
        }
    }

    /// The error for a supervisor that does not answer.
    pub fn silent(&self, message: impl Into<String>) -> Error {
        Error::new(Exit::Engine, message)
            .cause(format!(
                "the supervisor of {} does not answer",
                self.words()
            ))
            .hint(self.hint())
    }
}

impl Record {
    /// The hub id or the folder that it serves.
    pub fn served(&self) -> String {
        match &self.source {
            Some(Source::Hub(id)) => id.clone(),
            Some(Source::Folder(folder)) => folder.display().to_string(),
            None => self.model.clone(),
        }
    }
}

/// Waits until this one is gone. False: it is still there.
pub fn wait_until_gone(paths: &Paths, before: &Holder, patience: Duration) -> bool {
    let since = Instant::now();
    loop {
        match of(paths, before.port) {
            None => {
                // It may have been killed before it could remove its files.
                reservation::sweep(paths, before.port);
                return true;
            }
            // Another has taken the port since.
            Some(now) if now.pid.is_some() && before.pid.is_some() && now.pid != before.pid => {
                return true;
            }
            Some(_) if since.elapsed() > patience => return false,
            Some(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// Ends one that does not answer: asks its process, and kills it if it does not answer then either, with which its engine ends and its sessions close. No process is sent a
/// signal that the kernel does not name as the holder at that moment. Errors: the kernel names none, or it does not end.
pub fn end(paths: &Paths, silent: &Holder) -> Result<()> {
    let failed = || {
        silent.silent(format!(
            "the engine on port {} was not stopped",
            silent.port
        ))
    };
    for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, DYING)] {
        let Some(now) = of(paths, silent.port) else {
            break;
        };
        let Some(pid) = now
            .pid
            .filter(|pid| silent.pid.is_none_or(|before| before == *pid))
        else {
            return Err(failed().hint(format!(
                "cclocal cannot tell for certain which process it is: check {}, and end it with kill",
                silent.process()
            )));
        };
        let pid = Pid::from_raw(pid);
        let _ = kill(pid, signal);
        // One that is stopped cannot hear until it is continued.
        let _ = kill(pid, Signal::SIGCONT);
        let answers = || {
            let socket = socket::path(&reservation::folder(paths, now.port));
            signal == Signal::SIGTERM && socket::ask(&socket, &SupervisorRequest::Status).is_ok()
        };
        if wait_until_gone(paths, &now, patience)
            || (answers() && wait_until_gone(paths, &now, registry::GONE_DEADLINE))
        {
            return Ok(());
        }
    }
    match of(paths, silent.port) {
        None => Ok(()),
        Some(_) => Err(failed().hint("the system cannot end the process: restart the machine")),
    }
}
