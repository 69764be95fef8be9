//! A terminal that nobody sees, for Claude Code.
//!
//! It buys the rehearsal (`session::rehearsal`): on a terminal alone Claude Code sends the prompt and tools that an interactive session
//! begins with, so that the engine has computed them when the first question comes.

use std::io::Read;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;

use crate::sys::process::{Child, Ended};

/// The size of a usual window, in characters.
const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// A running command on a hidden terminal. It gets no keys, and its output is thrown away. If our process vanishes, the terminal does,
/// too, and the kernel hangs up on the command.
#[derive(Debug)]
pub(crate) struct Hidden(Child);

impl Hidden {
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Self> {
        let OpenptyResult { master, slave } = openpty(&SIZE, None)?;
        // Another child that had the terminal's end, too, would keep it open when we are gone.
        fcntl(&master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        fcntl(&slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave));
        let child = Child::spawn_session(command)?;
        // The command has the other end until these are replaced, and reading comes to an end only when nobody has it.
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // A terminal that nobody reads from would fill up, and stop who writes to it.
        let mut screen = std::fs::File::from(master);
        std::thread::Builder::new()
            .name("hidden terminal".into())
            .spawn(move || {
                let mut shown = [0; 4096];
                while screen.read(&mut shown).is_ok_and(|length| length > 0) {}
            })?;
        Ok(Self(child))
    }

    /// Waits for its end. Can be cancelled and called again.
    pub(crate) async fn ended(&mut self) -> Ended {
        self.0.ended().await
    }

    /// Ends it, and what it started in its group.
    pub(crate) async fn end(mut self) {
        self.0.signal_group(Signal::SIGKILL);
        self.ended().await;
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.0.signal_group(Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_has_a_terminal_of_its_own_and_is_ended_whatever_it_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("there");
        let mut command = Command::new("/bin/sh");
        // More than a terminal holds, so that it stops there if nobody reads.
        let script = "test -t 0 && test -t 1 && test -t 2 && head -c 100000 /dev/zero | tr '\\0' . && \
            stty size < /dev/tty > \"$1.new\" && mv \"$1.new\" \"$1\"; trap '' TERM HUP INT; sleep 1000 & wait";
        command.args(["-c", script, "sh"]).arg(&there);
        let mut hidden = Hidden::start(&mut command).expect("started");
        while !there.exists() {
            tokio::select! {
                ended = hidden.ended() => panic!("{ended:?}"),
                () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
            }
        }
        assert_eq!(fs_err::read_to_string(&there).expect("read"), "24 80\n");
        hidden.end().await;
        let mut over =
            Hidden::start(Command::new("/bin/sh").args(["-c", "exit 3"])).expect("started");
        assert_eq!(over.ended().await, Ended::Code(3));
        over.end().await;
    }
}
