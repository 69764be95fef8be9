//! The supervisor's Unix socket: where it is, and one question asked of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use sha2::{Digest, Sha256};

use super::protocol::{LONGEST_LINE, SupervisorRequest};
use crate::sys::files;

/// The longest path of a socket that every system takes, in bytes. Source: `sun_path`, 104 bytes with its closing NUL on macOS, 108 on Linux.
const LONGEST_PATH: usize = 103;

/// How long an answer may take. The supervisor has one task that does nothing slow.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Path of the supervisor's socket: in this run folder, or in a folder of this user's in `/tmp` if that path would be too long.
pub fn path(run_folder: &Path) -> PathBuf {
    placed(run_folder, "socket", "")
}

/// Path of its engine's socket, in the same folder.
pub fn of_engine(run_folder: &Path) -> PathBuf {
    placed(run_folder, "engine", "-engine")
}

fn placed(run_folder: &Path, name: &str, ending: &str) -> PathBuf {
    let usual = run_folder.join(name);
    if usual.as_os_str().len() <= LONGEST_PATH && usual.to_str().is_some() {
        return usual;
    }
    let digest = Sha256::digest(run_folder.as_os_str().as_encoded_bytes());
    let name: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    short_folder().join(name + ending)
}

fn short_folder() -> PathBuf {
    PathBuf::from(format!("/tmp/cclocal-{}", nix::unistd::getuid()))
}

/// Makes the folder of a socket, for this user alone. One below `/tmp` that is somebody else's is an error.
pub fn prepare(socket: &Path) -> std::io::Result<()> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    files::own_folder(folder)
}

/// Connects to the supervisor on this socket. Errors: nobody listens there, or its folder or whoever listens is not this user's.
pub fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    files::check_own_folder(socket.parent().unwrap_or(Path::new("/")))?;
    let stream = at_once(socket)?;
    match is_ours(&stream) {
        true => Ok(stream),
        false => Err(std::io::ErrorKind::PermissionDenied.into()),
    }
}

/// Whether the other end is this user's.
pub fn is_ours(stream: &impl AsFd) -> bool {
    peer(stream).is_ok_and(|uid| uid == nix::unistd::getuid().as_raw())
}

#[cfg(target_os = "linux")]
fn peer(stream: &impl AsFd) -> nix::Result<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(stream, PeerCredentials).map(|peer| peer.uid())
}

#[cfg(not(target_os = "linux"))]
fn peer(stream: &impl AsFd) -> nix::Result<u32> {
    nix::unistd::getpeereid(stream).map(|(uid, _)| uid.as_raw())
}

/// Asks one thing and returns the first line of the answer. Errors: nobody listens there, or no answer comes in time.
pub fn ask(socket: &Path, ask: &SupervisorRequest) -> std::io::Result<String> {
    ask_within(socket, ask, ANSWER_DEADLINE)
}

/// The same with a deadline.
pub fn ask_within(
    socket: &Path,
    ask: &SupervisorRequest,
    deadline: Duration,
) -> std::io::Result<String> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let line = serde_json::to_string(ask)? + "\n";
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_LINE as u64)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Connects without waiting: one that is stopped takes nobody in, and where enough wait for it already, a connection would wait for ever.
fn at_once(path: &Path) -> std::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket: OwnedFd = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    rustix::net::connect(&stream, &address)?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let short = path(Path::new("/home/someone/.local/state/cclocal/run/8000"));
        assert!(short.ends_with("run/8000/socket"));
        let deep = PathBuf::from(format!("/home/{}/run/8000", "deep/".repeat(30)));
        let long = path(&deep);
        assert!(long.as_os_str().len() <= LONGEST_PATH);
        assert_ne!(long, path(&deep.with_file_name("8001")));
        let engine = of_engine(&deep);
        assert!(engine.as_os_str().len() <= LONGEST_PATH);
        assert_eq!(engine.parent(), long.parent());
        assert_ne!(engine, long);
    }
}
