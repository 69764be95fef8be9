//! The Mac's limit of GPU memory, raised for a while and put back, whatever happens in between.
//!
//! What it was is written down before it is raised. Every session that runs while it is raised holds a shared file lock; the last one to
//! leave gets the lock for itself, and puts the limit back. The kernel returns the locks of a session that was killed, so a record whose
//! lock nobody holds tells the next start that there is something to put back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::memory::budget::{WIRED_LIMIT, wired_limit};
use crate::sys::environment::Environment;
use crate::sys::files::{self, Lock};
use crate::sys::paths::Paths;
use crate::sys::process;

/// In a folder of this user alone.
const LOCK_MODE: u32 = 0o600;

/// How long sudo may take where it asks nothing.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long the kernel may take to return the lock of a process that was killed. As long a session takes longer to end that leaves the limit to
/// others.
const RELEASED_WITHIN: Duration = Duration::from_millis(500);

/// How long to wait between two tries to get the lock.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// What was before, in MiB; 0 is the system's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub original: u64,
    pub raised: u64,
}

/// How sudo may behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// It may ask for the password.
    Allowed,
    /// It has to do without.
    No,
}

/// The limit as a session finds it.
pub enum Found {
    /// Nobody has raised it.
    Untouched,
    /// Other sessions have; this one now uses it too.
    Shared(Raised),
    /// A session raised it and was killed before it could put it back.
    LeftBehind(Raised),
}

/// The raised limit, used by this session.
pub struct Raised {
    pub record: Record,
    file: PathBuf,
    lock: Option<Lock>,
}

/// The limit that cclocal raised, as it is on record; nothing is locked, made or put back. None: there is no record that can be read.
pub fn on_record(paths: &Paths) -> Option<Record> {
    read(&file(paths))
}

/// Looks for what other sessions did to the limit. Errors: the files in our own state folder cannot be used.
pub fn find(host: &Environment, paths: &Paths) -> std::io::Result<Found> {
    let file = file(paths);
    let Some(record) = read(&file) else {
        return Ok(Found::Untouched);
    };
    match exclusive(&file)? {
        None => Ok(Found::Shared(Raised {
            record,
            lock: shared(&file)?,
            file,
        })),
        Some(lock) if wired_limit(host) == Some(record.raised) => Ok(Found::LeftBehind(Raised {
            record,
            lock: lock.share()?,
            file,
        })),
        // A restart has put it back, or somebody has set it to something else since: there is nothing of ours left to undo.
        Some(_) => {
            forget(&file);
            Ok(Found::Untouched)
        }
    }
}

/// Raises the limit. None: it is not raised, because sudo was not given or the system refused. Errors: it cannot be written down before.
pub fn raise(host: &Environment, paths: &Paths, to: u64) -> std::io::Result<Option<Raised>> {
    let file = file(paths);
    let lock = shared(&file)?;
    // Where it is raised already, what was before that counts.
    let record = Record {
        original: match read(&file) {
            Some(before) => before.original,
            None => wired_limit(host).unwrap_or(0),
        },
        raised: to,
    };
    let text = serde_json::to_string(&record)?;
    files::write_private(&file, text.as_bytes())?;
    let raised = Raised { record, file, lock };
    if set(host, to, "raise", Asking::Allowed) {
        return Ok(Some(raised));
    }
    // One that cannot be read now is left on record: it may have been raised after all.
    if wired_limit(host) == Some(record.original) {
        forget(&raised.file);
    }
    Ok(None)
}

impl Raised {
    /// Leaves the limit: puts it back if nobody else uses it. False: it had to be put back and was not; it stays on record.
    pub fn put_back(mut self, host: &Environment, asking: Asking) -> bool {
        self.lock = None;
        let Some(_alone) = alone(&self.file) else {
            return true;
        };
        // Somebody who used it too may have put it back between our letting go and our taking hold.
        if read(&self.file).is_none() {
            return true;
        }
        // Somebody has set it to something else since. One that cannot be read may still be raised.
        let changed = wired_limit(host).is_some_and(|now| now != self.record.raised);
        if !changed && !set(host, self.record.original, "restore", asking) {
            return false;
        }
        forget(&self.file);
        true
    }
}

/// The command that sets the limit, for people.
pub fn command(mib: u64) -> String {
    format!("sudo sysctl {WIRED_LIMIT}={mib}")
}

/// Sets the limit, and looks whether it is set. `deed`: what that is, for the question after a password.
fn set(host: &Environment, mib: u64, deed: &str, asking: Asking) -> bool {
    let Some(sudo) = host.which("sudo") else {
        return false;
    };
    let setting = format!("{WIRED_LIMIT}={mib}");
    let mut without = Command::new(&sudo);
    without.args(["-n", "sysctl", &setting]);
    let mut set = process::run(&mut without, DEADLINE).is_ok_and(|finished| finished.success);
    if !set && asking == Asking::Allowed {
        let prompt = format!("Password for sudo, to {deed} the GPU memory limit: ");
        // sudo ends its question by itself after some minutes, and with Ctrl-C.
        set = Command::new(&sudo)
            .args(["-p", &prompt, "sysctl", &setting])
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    }
    set && wired_limit(host) == Some(mib)
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("gpu-limit.json")
}

fn read(file: &Path) -> Option<Record> {
    serde_json::from_slice(&files::read(file, files::OWN_RECORD).ok()?).ok()
}

fn forget(file: &Path) {
    let _ = std::fs::remove_file(file);
}

/// The lock file stays: removing one that others may be opening would part them.
fn open(file: &Path) -> std::io::Result<File> {
    if let Some(folder) = file.parent() {
        files::private_folder(folder)?;
    }
    files::open_lock(&file.with_extension("lock"), LOCK_MODE)
}

/// The lock for us alone. None: others use the limit. A process that was killed is seen to be gone by its closed connections, and the kernel may
/// close its files a moment later, so it is tried for a while.
fn alone(file: &Path) -> Option<Lock> {
    let since = Instant::now();
    loop {
        match exclusive(file) {
            Ok(None) if since.elapsed() < RELEASED_WITHIN => std::thread::sleep(TRY_AGAIN),
            tried => return tried.ok().flatten(),
        }
    }
}

fn exclusive(file: &Path) -> std::io::Result<Option<Lock>> {
    Lock::exclusive(open(file)?)
}

/// None: somebody has it alone at this moment, and is putting the limit back.
fn shared(file: &Path) -> std::io::Result<Option<Lock>> {
    Lock::shared(open(file)?)
}
