//! A child process whose changes arrive as messages, and whose pid is never signalled once it may belong to somebody else.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::Serialize;
use tokio::sync::mpsc;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Ended {
    /// The status as a shell reports it: 128 + n for signal n.
    pub fn shell_status(self) -> u8 {
        match self {
            Ended::Code(code) => (code & 0xff) as u8,
            Ended::Signal(signal) => (128 + signal).clamp(0, 255) as u8,
        }
    }
}

/// Change of a child's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was stopped (Ctrl-Z), and can be continued.
    Stopped,
    /// It is gone and has been collected.
    Ended(Ended),
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// True from the moment at which the pid may be reused. Held while signalling, so that the two cannot cross.
    collected: Arc<Mutex<bool>>,
    owns_group: bool,
    changes: mpsc::UnboundedReceiver<Change>,
    ended: Option<Ended>,
}

impl Child {
    /// Starts the command in the caller's process group.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        Self::watch(command.spawn()?, false)
    }

    /// Starts the command in a process group of its own, with the writing end of its standard input if the command asks for a pipe. The rest of the
    /// group is killed when its leader ends.
    pub fn spawn_group(command: &mut Command) -> std::io::Result<(Self, Option<ChildStdin>)> {
        let mut child = command.process_group(0).spawn()?;
        let stdin = child.stdin.take();
        Ok((Self::watch(child, true)?, stdin))
    }

    /// Starts the command as the leader of a session on the terminal that is its standard input. What is left of its group when it ends is killed.
    pub fn spawn_session(command: &mut Command) -> std::io::Result<Self> {
        crate::sys::syscalls::lead_a_session(command);
        Self::watch(command.spawn()?, true)
    }

    fn watch(child: std::process::Child, owns_group: bool) -> std::io::Result<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let collected = Arc::new(Mutex::new(false));
        let (sender, changes) = mpsc::unbounded_channel();
        let watched = collected.clone();
        std::thread::Builder::new()
            .name("child".into())
            .spawn(move || watch(pid, owns_group, &watched, &sender))?;
        Ok(Self {
            pid,
            collected,
            owns_group,
            changes,
            ended: None,
        })
    }

    /// Whether it is stopped at this moment, as `ps` tells on every system. One that is gone, or of which nothing is told, is taken to be: the
    /// end is noticed elsewhere.
    pub fn is_stopped(&self) -> bool {
        let mut ps = Command::new("ps");
        ps.args(["-o", "stat=", "-p", &self.pid().to_string()]);
        match crate::sys::process::run(&mut ps, Duration::from_secs(2)) {
            Ok(told) if !told.stdout.trim().is_empty() => told.stdout.trim().starts_with('T'),
            _ => true,
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The next change. `Ended` is the last, and is told again whenever it is asked for.
    pub async fn changed(&mut self) -> Change {
        if let Some(ended) = self.ended {
            return Change::Ended(ended);
        }
        match self.changes.recv().await {
            Some(change) => {
                if let Change::Ended(ended) = change {
                    self.ended = Some(ended);
                }
                change
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the end, passing over stops. Can be cancelled and called again, also after the end.
    pub async fn ended(&mut self) -> Ended {
        loop {
            if let Change::Ended(ended) = self.changed().await {
                return ended;
            }
        }
    }

    /// Signals the process. Nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        self.unless_collected(|| kill(self.pid, signal));
    }

    /// Signals the process's group, if it has one of its own, else the process.
    pub fn signal_group(&self, signal: Signal) {
        if self.owns_group {
            self.unless_collected(|| killpg(self.pid, signal));
        } else {
            self.signal(signal);
        }
    }

    fn unless_collected(&self, send: impl FnOnce() -> nix::Result<()>) {
        let collected = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*collected {
            // An error means that it is already gone, which is what a signal is for here.
            let _ = send();
        }
    }
}

/// Waits for the child's changes on a thread of its own: the wait blocks, and must see stops, which an asynchronous child does not report.
fn watch(
    pid: Pid,
    owns_group: bool,
    collected: &Mutex<bool>,
    changes: &mpsc::UnboundedSender<Change>,
) {
    let Some(id) = rustix::process::Pid::from_raw(pid.as_raw()) else {
        return;
    };
    let ended = loop {
        // NOWAIT leaves the ended child as a zombie, which keeps its pid and its group's number from being reused while we clean up.
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(id), options) {
            Ok(Some(status)) if status.stopped() => {
                let _ = waitid(
                    WaitId::Pid(id),
                    WaitIdOptions::STOPPED | WaitIdOptions::NOHANG,
                );
                let _ = changes.send(Change::Stopped);
            }
            Ok(Some(status)) => {
                break status
                    .exit_status()
                    .map(Ended::Code)
                    .or(status.terminating_signal().map(Ended::Signal))
                    .unwrap_or(Ended::Code(1));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            // Nobody else collects our children, so this is not expected; treat it as gone.
            Err(_) => break Ended::Code(1),
        }
    };
    let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
    if owns_group {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    let _ = waitid(WaitId::Pid(id), WaitIdOptions::EXITED);
    *collected = true;
    drop(collected);
    let _ = changes.send(Change::Ended(ended));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    #[tokio::test]
    async fn codes_and_signals_are_told_apart() {
        let mut child = Child::spawn(&mut shell("exit 7")).expect("started");
        assert_eq!(child.ended().await, Ended::Code(7));
        let mut child = Child::spawn(&mut shell("kill -TERM $$")).expect("started");
        let ended = child.ended().await;
        assert_eq!(ended, Ended::Signal(15));
        assert_eq!(ended.shell_status(), 143);
    }

    #[tokio::test]
    async fn a_stop_is_seen_and_the_child_goes_on() {
        let mut child = Child::spawn(&mut shell("kill -STOP $$; exit 3")).expect("started");
        assert_eq!(child.changed().await, Change::Stopped);
        child.signal(Signal::SIGCONT);
        assert_eq!(child.ended().await, Ended::Code(3));
        assert_eq!(child.ended().await, Ended::Code(3), "it is told again");
        // Signalling what has been collected reaches nobody.
        child.signal(Signal::SIGKILL);
    }

    #[tokio::test]
    async fn the_rest_of_the_group_ends_with_its_leader() {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("alive");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        // The leader opens the fifo for writing, which waits for our reading; the grandchild inherits it and holds it open until it
        // dies, and only then does reading see the end.
        let script = format!("exec 3> '{}'; sleep 1000 & exit 0", fifo.display());
        let (mut child, _) = Child::spawn_group(&mut shell(&script)).expect("started");
        let end = tokio::task::spawn_blocking(move || std::fs::read(fifo)).await;
        assert_eq!(end.expect("joined").expect("read"), b"");
        assert_eq!(child.ended().await, Ended::Code(0));
    }
}
