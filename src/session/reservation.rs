//! A port that is ours for the length of a session: nobody listens on it, and no other cclocal is about to.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Exit, Result};
use crate::files;
use crate::host::Host;
use crate::machine::port;
use crate::paths::Paths;
use crate::secret::Secret;

const LOCK: &str = "lock";
const KEY: &str = "key";

/// The port where none is asked for.
pub const USUAL_PORT: u16 = 8000;
/// How often a lock is tried for that was removed under our hands.
const LOCK_TRIES: usize = 100;

/// What a session leaves for others to read while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The process id of the cclocal that holds the port.
    pub pid: u32,
    pub port: u16,
    /// The served model.
    pub model: String,
    /// Seconds since 1970.
    pub started: u64,
    /// What Claude Code has to know to use the engine from elsewhere. Only for a server: the engine of a session ends with that session.
    #[serde(default)]
    pub server: Option<Served>,
}

/// An engine that others may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Served {
    /// The file with the key; nobody but this user can read it.
    pub key_file: PathBuf,
    /// In tokens.
    pub context_window: u64,
    /// In tokens.
    pub output_tokens: u64,
}

/// The record of whoever holds this port. None if nobody does: a record that a killed session left is nobody's.
pub fn running(paths: &Paths, port: u16) -> Option<Record> {
    let folder = paths.state.join("run").join(port.to_string());
    let file = File::open(folder.join(LOCK)).ok()?;
    // Whoever holds the lock holds it alone, so one that can be shared is held by nobody.
    if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
        return None;
    }
    read_record(&folder)
}

/// The records of all cclocals that run.
pub fn all_running(paths: &Paths) -> Vec<Record> {
    let folders = std::fs::read_dir(paths.state.join("run"));
    folders
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|port| running(paths, port))
        .collect()
}

fn read_record(folder: &Path) -> Option<Record> {
    let text = std::fs::read_to_string(folder.join("record.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// The port, held by a file lock, which the kernel gives back however we end.
#[derive(Debug)]
pub struct Reservation {
    pub port: u16,
    folder: PathBuf,
    record: Record,
    _lock: Flock<File>,
}

impl Reservation {
    /// Takes the port before anything is loaded: the engine itself would find out only after minutes of loading.
    pub fn take(host: &Host, paths: &Paths, port: u16, model: &str) -> Result<Self> {
        let folder = paths.state.join("run").join(port.to_string());
        let lock = lock(&folder).context(
            Exit::Other,
            format!("the run folder {} cannot be used", host.tilde(&folder)),
        )?;
        let Some(lock) = lock else {
            return Err(ours(&folder, port));
        };
        if !port::is_free(port) {
            return Err(taken(host, port));
        }
        let record = Record {
            pid: std::process::id(),
            port,
            model: model.to_owned(),
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            server: None,
        };
        let reservation = Self {
            port,
            folder,
            record,
            _lock: lock,
        };
        reservation.write_record(host)?;
        Ok(reservation)
    }

    fn write_record(&self, host: &Host) -> Result<()> {
        let text = serde_json::to_string(&self.record).unwrap_or_default();
        files::write_private(&self.folder.join("record.json"), text.as_bytes()).context(
            Exit::Other,
            format!("the run folder {} cannot be used", host.tilde(&self.folder)),
        )
    }

    /// Lets other terminals use the engine. Returns the file with the key.
    pub fn publish(
        &mut self,
        host: &Host,
        key: &Secret,
        context_window: u64,
        output_tokens: u64,
    ) -> Result<PathBuf> {
        let key_file = self.folder.join(KEY);
        files::write_private(&key_file, key.expose().as_bytes()).context(
            Exit::Other,
            format!("the key cannot be written to {}", host.tilde(&key_file)),
        )?;
        self.record.server = Some(Served {
            key_file: key_file.clone(),
            context_window,
            output_tokens,
        });
        self.write_record(host)?;
        Ok(key_file)
    }

    /// Where this session's Claude Code settings are written.
    pub fn settings(&self) -> PathBuf {
        settings(&self.folder)
    }

    /// Where the settings of a session on this port are written.
    pub fn settings_of(paths: &Paths, port: u16) -> PathBuf {
        settings(&paths.state.join("run").join(port.to_string()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("record.json"));
        let _ = std::fs::remove_file(self.folder.join(KEY));
        let _ = std::fs::remove_file(self.settings());
        // Last, and while it is still held: whoever takes it next looks whether it is still the one that has the name.
        let _ = std::fs::remove_file(self.folder.join(LOCK));
        let _ = std::fs::remove_dir(&self.folder);
    }
}

fn settings(folder: &Path) -> PathBuf {
    folder.join("claude-settings.json")
}

fn lock(folder: &Path) -> std::io::Result<Option<Flock<File>>> {
    let path = folder.join(LOCK);
    for _ in 0..LOCK_TRIES {
        files::private_folder(folder)?;
        let file = match File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
        {
            // The session before was just removing its folder.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, error)) => return Err(error.into()),
        };
        // The session before may have removed the file between our opening and our locking it: then the lock is on a file that
        // nobody else will find.
        if std::fs::metadata(&path)
            .is_ok_and(|named| lock.metadata().is_ok_and(|held| held.ino() == named.ino()))
        {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

fn ours(folder: &Path, port: u16) -> Error {
    let cause = match read_record(folder) {
        Some(record) => format!(
            "cclocal (process {}) already serves {} there",
            record.pid, record.model
        ),
        None => "another cclocal is just starting there".into(),
    };
    let hint = match port::free_above(port) {
        Some(free) => format!(
            "leave that session first, or run this one beside it with --port {free} if memory allows two models"
        ),
        None => "leave that session first".into(),
    };
    Error::new(
        Exit::PortInUse,
        format!("port {port} is in use by another cclocal session"),
    )
    .cause(cause)
    .hint(hint)
}

fn taken(host: &Host, port: u16) -> Error {
    let cause = match port::holder(host, port) {
        Some(holder) => format!("{} (process {}) listens there", holder.name, holder.pid),
        None => "a program that this user may not see listens there".into(),
    };
    let hint = match port::free_above(port) {
        Some(free) => format!("take a free port: --port {free}"),
        None => "take another port with --port".into(),
    };
    Error::new(Exit::PortInUse, format!("port {port} is in use"))
        .cause(cause)
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> (tempfile::TempDir, Host, Paths) {
        let home = tempfile::tempdir().expect("a home");
        let host = Host::for_tests(home.path(), &[]);
        let paths = Paths::of(&host);
        (home, host, paths)
    }

    #[test]
    fn a_second_session_learns_who_has_the_port() {
        let (_home, host, paths) = setting();
        let port = port::any_free().expect("a port");
        let first = Reservation::take(&host, &paths, port, "org/first").expect("taken");
        let error = Reservation::take(&host, &paths, port, "org/second").expect_err("held");
        assert_eq!(error.exit, Exit::PortInUse);
        assert!(error.cause.is_some_and(|cause| cause.contains("org/first")));
        drop(first);
        assert!(!paths.state.join("run").join(port.to_string()).exists());
        Reservation::take(&host, &paths, port, "org/second").expect("free again");
    }

    #[test]
    fn a_strangers_port_is_named_with_a_free_one() {
        let (_home, host, paths) = setting();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let error = Reservation::take(&host, &paths, port, "org/name").expect_err("taken");
        assert_eq!(error.exit, Exit::PortInUse);
        assert!(error.hint.is_some_and(|hint| hint.contains("--port")));
        assert!(
            error
                .cause
                .is_some_and(|cause| cause.contains(&std::process::id().to_string()))
        );
    }
}
