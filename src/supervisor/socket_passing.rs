//! The gateway's listening socket, handed to sessions. Claude Code has a session's token and asks at the gateway's port for as long as it runs. Were the
//! supervisor killed, that port would be anybody's until Claude Code is ended: so its session holds the socket as well. What connects then waits, and
//! nobody else can listen there.

use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::protocol::SupervisorRequest;
use super::socket;

/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Does not reach what Claude Code starts.
#[cfg(target_os = "linux")]
const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const FLAGS: RecvFlags = RecvFlags::empty();

/// Sends the listener to the other end.
pub(super) async fn give(stream: &UnixStream, listener: &TcpListener) -> std::io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let fds = [listener.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut carried = SendAncillaryBuffer::new(&mut space);
            carried.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(
                stream,
                &[IoSlice::new(b"\n")],
                &mut carried,
                SendFlags::empty(),
            )?;
            Ok(())
        })
        .await
}

/// Asks the supervisor on this socket for its listener. Held for as long as the port must be nobody else's.
pub(super) fn take(path: &Path) -> std::io::Result<OwnedFd> {
    let mut stream = socket::connect(path)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all((serde_json::to_string(&SupervisorRequest::Port)? + "\n").as_bytes())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut carried = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    // A signal, such as that of a child that has ended, interrupts what has a time limit, and means nothing here.
    rustix::io::retry_on_intr(|| {
        let into = &mut [IoSliceMut::new(&mut byte)];
        recvmsg(&stream, into, &mut carried, FLAGS)
    })?;
    let fd = carried
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}
