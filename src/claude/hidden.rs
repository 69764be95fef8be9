//! Claude Code on a terminal that nobody sees.

use std::io::Read;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;

use crate::process::{Child, Ended};

/// The size of a usual window, in characters.
const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// Running. It gets no keys, and what it shows is thrown away. Should our process vanish, its terminal does, too, and the kernel hangs up on it.
#[derive(Debug)]
pub struct Hidden(Child);

impl Hidden {
    pub fn start(command: &mut Command) -> std::io::Result<Self> {
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
    pub async fn ended(&mut self) -> Ended {
        self.0.ended().await
    }

    /// Ends it, and what it started in its group.
    pub async fn end(mut self) {
        self.0.signal_group(Signal::SIGKILL);
        self.0.ended().await;
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        self.0.signal_group(Signal::SIGKILL);
    }
}
