//! The supervisor's Unix socket: where it is, and one question asked of it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use sha2::{Digest, Sha256};

use super::protocol::{Ask, LONGEST_LINE};
use crate::files;

/// The longest path of a socket that every system takes, in bytes. Source: `sun_path`, 104 bytes with its closing NUL on macOS, 108 on Linux.
const LONGEST_PATH: usize = 103;

/// How long an answer may take. The supervisor has one task that does nothing slow.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Where the socket of this run folder is: in it, or, where that path would be too long, in a folder of this user's below `/tmp`.
pub fn path(run_folder: &Path) -> PathBuf {
    let usual = run_folder.join("socket");
    if usual.as_os_str().len() <= LONGEST_PATH {
        return usual;
    }
    let digest = Sha256::digest(run_folder.as_os_str().as_encoded_bytes());
    let name: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    short_folder().join(name)
}

fn short_folder() -> PathBuf {
    PathBuf::from(format!("/tmp/cclocal-{}", nix::unistd::getuid()))
}

/// Makes the folder of a socket, for this user alone. One below `/tmp` that is somebody else's is an error.
pub fn prepare(socket: &Path) -> std::io::Result<()> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    files::private_folder(folder)?;
    let data = std::fs::symlink_metadata(folder)?;
    if !data.is_dir() || data.uid() != nix::unistd::getuid().as_raw() {
        return Err(std::io::Error::other(format!(
            "{} is not a folder of this user's",
            folder.display()
        )));
    }
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// Asks one thing and returns the first line of the answer. Errors: nobody listens there, or no answer comes in time.
pub fn ask(socket: &Path, ask: &Ask) -> std::io::Result<String> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
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
fn connect(path: &Path) -> std::io::Result<UnixStream> {
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
    }
}
