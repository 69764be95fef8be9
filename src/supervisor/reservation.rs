//! A port that is a supervisor's for the length of its life: nobody else listens on it, and no other cclocal is about to.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::port_holder;
use super::protocol::SupervisorRequest;
use super::socket;
use super::spec::Port;
use crate::catalog::Source;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files::{self, Lock};
use crate::sys::paths::Paths;
use crate::sys::port;
use crate::sys::secret::Secret;

pub(super) const LOCK: &str = "lock";
/// Locked as well, in the other way that systems have: of that one the kernel tells whose it is. It is a file of its own, as macOS takes both for one.
pub(super) const OWNER: &str = "owner";
const KEY: &str = "key";
const RECORD: &str = "record.json";

/// In a folder of this user alone.
const LOCK_MODE: u32 = 0o600;

/// The port where none is asked for.
pub const USUAL_PORT: u16 = 8000;
/// How many ports above the usual one are tried.
const TRIED: u16 = 100;
/// How often a lock is tried for that was removed under our hands.
const LOCK_TRIES: usize = 100;
/// Far longer than a lock is held by those who only look.
const LOOKED_AT: Duration = Duration::from_millis(100);

/// Record of a supervisor, for people to read while it runs. Programs ask its socket, which cannot be out of date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub pid: u32,
    pub port: u16,
    /// The served model's name, as programs ask for it.
    pub model: String,
    /// The model as people know it.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub source: Option<Source>,
    pub version: String,
}

/// The folder of whoever has this port.
pub fn folder(paths: &Paths, port: u16) -> PathBuf {
    paths.run().join(port.to_string())
}

/// The file with the key to a running engine, for other programs of this user.
pub fn key_file(paths: &Paths, port: u16) -> PathBuf {
    folder(paths, port).join(KEY)
}

/// The record of the supervisor on this port. None: not written yet, or no supervisor.
pub fn read(paths: &Paths, port: u16) -> Option<Record> {
    let file = folder(paths, port).join(RECORD);
    let text = files::read(&file, files::OWN_RECORD).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The ports that have a folder, in order: of supervisors that run, and of some that were killed.
pub fn ports(paths: &Paths) -> Vec<u16> {
    let folders = std::fs::read_dir(paths.run());
    let mut ports: Vec<u16> = folders
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ports.sort_unstable();
    ports
}

/// How long a process that was killed may take until the kernel has closed all that it had open.
const DYING: Duration = Duration::from_secs(2);

/// Removes what a supervisor left that has just been seen to die, as soon as its lock is free.
pub fn sweep_after(paths: &Paths, port: u16) {
    let since = Instant::now();
    let folder = folder(paths, port);
    // One that answers is another, which has taken the port since.
    let taken = || {
        port_holder::of(paths, port).is_some()
            && socket::ask(&socket::path(&folder), &SupervisorRequest::Status).is_ok()
    };
    while folder.exists() && !taken() && since.elapsed() < DYING {
        sweep(paths, port);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what a killed supervisor left at this port. One that runs holds its lock, and is left alone.
pub fn sweep(paths: &Paths, port: u16) {
    let folder = folder(paths, port);
    if let Ok(file) = files::open(&folder.join(LOCK))
        && let Ok(Some(lock)) = Lock::exclusive(file)
    {
        clear(&folder);
        drop(lock);
    }
}

/// The served model: its id for programs, its name for people, and its source.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    pub served_name: &'a str,
    pub name: &'a str,
    pub source: &'a Source,
}

/// The port, held by a file lock, which the kernel gives back however we end, and by listening on it.
#[derive(Debug)]
pub struct Reservation {
    pub port: u16,
    folder: PathBuf,
    _lock: Lock,
    _owner: Option<File>,
}

impl Reservation {
    /// Takes the port before anything is loaded: the engine itself would find out only after minutes of loading.
    pub fn take(host: &Environment, paths: &Paths, wanted: Port) -> Result<(Self, TcpListener)> {
        match wanted {
            Port::Exactly(port) => Self::exactly(host, paths, port),
            Port::From(first) => {
                let mut last = first;
                for step in 0..=TRIED {
                    let Some(port) = first.checked_add(step) else {
                        break;
                    };
                    last = port;
                    match Self::exactly(host, paths, port) {
                        Err(error) if error.exit == Exit::PortInUse => {}
                        taken => return taken,
                    }
                }
                Err(Error::new(
                    Exit::PortInUse,
                    format!("no port from {first} to {last} is free"),
                )
                .hint("name one that is, with --port"))
            }
        }
    }

    fn exactly(host: &Environment, paths: &Paths, port: u16) -> Result<(Self, TcpListener)> {
        let folder = folder(paths, port);
        let lock = lock(&folder)
            .context(
                Exit::Other,
                format!("the run folder {} cannot be used", host.tilde(&folder)),
            )
            .map_err(|error| {
                error.hint("if it is a link or somebody else's, move it away; it must be a folder that belongs to you")
            })?;
        let Some(lock) = lock else {
            return Err(ours(paths, port));
        };
        let reservation = Self {
            port,
            _owner: port_holder::sign(&folder),
            folder,
            _lock: lock,
        };
        // Left by one that was killed.
        let _ = std::fs::remove_file(reservation.socket());
        match listen(port) {
            Ok(listener) => Ok((reservation, listener)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(reserved(port, &error))
            }
            Err(_) => Err(taken(host, port)),
        }
    }

    /// Path of the supervisor's socket.
    pub fn socket(&self) -> PathBuf {
        socket::path(&self.folder)
    }

    /// Path of the engine's socket.
    pub fn engine_socket(&self) -> PathBuf {
        socket::of_engine(&self.folder)
    }

    /// Writes what others may read: who runs here, and the key to the engine.
    pub fn publish(&self, host: &Environment, served: &Served, key: &Secret) -> Result<()> {
        let record = Record {
            pid: std::process::id(),
            port: self.port,
            model: served.served_name.to_owned(),
            name: Some(served.name.to_owned()),
            source: Some(served.source.clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let text = serde_json::to_string(&record).unwrap_or_default();
        files::write_private(&self.folder.join(RECORD), text.as_bytes())
            .and_then(|()| files::write_private(&self.folder.join(KEY), key.expose().as_bytes()))
            .context(
                Exit::Other,
                format!("the run folder {} cannot be used", host.tilde(&self.folder)),
            )
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

/// Removes the files of a run folder, by name, and the folder. The lock must be held.
fn clear(folder: &Path) {
    let _ = std::fs::remove_file(socket::path(folder));
    let _ = std::fs::remove_file(socket::of_engine(folder));
    let _ = std::fs::remove_file(folder.join(RECORD));
    let _ = std::fs::remove_file(folder.join(KEY));
    let _ = std::fs::remove_file(folder.join(OWNER));
    // Last, and while it is still held: whoever takes it next looks whether it is still the one that has the name.
    let _ = std::fs::remove_file(folder.join(LOCK));
    let _ = std::fs::remove_dir(folder);
}

/// Listens on 127.0.0.1, if this would be the one that answers there.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    // Where another program listens on all addresses, macOS still lets one bind to 127.0.0.1: so binding alone does not tell.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok() {
        return Err(ErrorKind::AddrInUse.into());
    }
    TcpListener::bind(address)
}

/// Whose a run folder is decides who could take the place of a supervisor in it, or of its engine.
fn own(folder: &Path) -> std::io::Result<()> {
    if let Some(all) = folder.parent() {
        files::own_folder(all)?;
    }
    files::own_folder(folder)
}

fn lock(folder: &Path) -> std::io::Result<Option<Lock>> {
    let path = folder.join(LOCK);
    let since = Instant::now();
    let mut tries = 0..LOCK_TRIES;
    while tries.next().is_some() {
        match own(folder) {
            // The one before was just removing it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            made => made?,
        }
        let file = match files::open_lock(&path, LOCK_MODE) {
            // The one before was just removing its folder.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        let Some(lock) = Lock::exclusive(file)? else {
            if since.elapsed() >= LOOKED_AT {
                return Ok(None);
            }
            // It may be somebody who only looks whether it is held.
            std::thread::sleep(Duration::from_millis(2));
            tries = 0..LOCK_TRIES;
            continue;
        };
        // The one before may have removed the file between our opening and our locking it: then the lock is on a file that nobody else
        // will find.
        if std::fs::metadata(&path).is_ok_and(|named| {
            lock.file()
                .metadata()
                .is_ok_and(|held| held.ino() == named.ino())
        }) {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

fn ours(paths: &Paths, port: u16) -> Error {
    let cause = match read(paths, port) {
        Some(record) => format!(
            "cclocal (process {}) serves {} there",
            record.pid, record.model
        ),
        None => "another cclocal is starting there".into(),
    };
    Error::new(
        Exit::PortInUse,
        format!("port {port} is in use by another model of cclocal"),
    )
    .cause(cause)
    .hint(match port::free_above(port) {
        Some(free) => {
            format!("use another port: --port {free}; or stop the other model: cclocal stop --port {port}")
        }
        None => format!("stop the other model: cclocal stop --port {port}"),
    })
}

/// The error for a port that is kept for the administrator.
fn reserved(port: u16, error: &std::io::Error) -> Error {
    Error::usage(format!("port {port} needs root"))
        .cause(format!(
            "the system keeps the first ports, mostly up to 1023, for the administrator ({error})"
        ))
        .hint(format!("take another port: --port {USUAL_PORT}"))
}

fn taken(host: &Environment, port: u16) -> Error {
    let cause = match port::holder(host, port) {
        Some(holder) => format!("{} (process {}) listens there", holder.name, holder.pid),
        None => "a program of another user listens there".into(),
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

    fn setting() -> (tempfile::TempDir, Environment, Paths) {
        let home = tempfile::tempdir().expect("a home");
        let host = Environment::for_tests(home.path(), &[]);
        let paths = Paths::of(&host);
        (home, host, paths)
    }

    #[test]
    fn a_second_one_learns_who_has_the_port_or_takes_the_next() {
        let (_home, host, paths) = setting();
        let port = port::any_free().expect("a port");
        let first = Reservation::take(&host, &paths, Port::Exactly(port)).expect("taken");
        let key = Secret::new("k");
        let served = Served {
            served_name: "org/first",
            name: "first",
            source: &Source::Hub("org/first".into()),
        };
        first.0.publish(&host, &served, &key).expect("published");
        let holder = port_holder::of(&paths, port).expect("held");
        assert_eq!(holder.source().as_deref(), Some("org/first"));
        let error = Reservation::take(&host, &paths, Port::Exactly(port)).expect_err("held");
        assert_eq!(error.exit, Exit::PortInUse);
        assert!(error.cause.is_some_and(|cause| cause.contains("org/first")));
        let beside = Reservation::take(&host, &paths, Port::From(port)).expect("beside it");
        assert!(beside.0.port > port);
        assert_eq!(ports(&paths), [port, beside.0.port]);
        drop(first);
        assert!(!folder(&paths, port).exists());
        Reservation::take(&host, &paths, Port::Exactly(port)).expect("free again");
    }

    #[test]
    fn a_strangers_port_is_named_with_a_free_one() {
        let (_home, host, paths) = setting();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let error = Reservation::take(&host, &paths, Port::Exactly(port)).expect_err("taken");
        assert_eq!(error.exit, Exit::PortInUse);
        assert!(error.hint.is_some_and(|hint| hint.contains("--port")));
        assert!(
            error
                .cause
                .is_some_and(|cause| cause.contains(&std::process::id().to_string()))
        );
        assert_eq!(ports(&paths), [0; 0], "nothing is left of the try");
    }

    #[test]
    fn what_a_killed_one_left_is_removed_and_what_runs_is_not() {
        let (_home, host, paths) = setting();
        let port = port::any_free().expect("a port");
        let running = Reservation::take(&host, &paths, Port::Exactly(port)).expect("taken");
        sweep(&paths, port);
        assert!(folder(&paths, port).join(LOCK).exists());
        drop(running);
        for name in [LOCK, OWNER, KEY, RECORD, "socket", "engine"] {
            files::write_private(&folder(&paths, port).join(name), b"").expect("written");
        }
        sweep(&paths, port);
        assert!(!folder(&paths, port).exists());
    }
}
