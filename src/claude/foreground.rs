//! Claude Code in the foreground: it has the terminal, its keys and its signals; we only follow.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::terminal::Terminal;
use crate::sys::process::{Change, Child, Ended};

/// How long Claude Code may take to end when it was asked to.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// How long a continued group may take until all of it runs.
const SETTLED: Duration = Duration::from_millis(50);

/// Claude Code, running in our process group on our terminal.
#[derive(Debug)]
pub(crate) struct Foreground {
    child: Child,
    terminal: Terminal,
}

impl Foreground {
    /// Starts it. It stays in our process group, so that the terminal's keys reach it as they would without us.
    pub(crate) fn start(command: &mut std::process::Command) -> std::io::Result<Self> {
        let terminal = Terminal::remember();
        let child = Child::spawn(command)?;
        Ok(Self { child, terminal })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Whether the terminal itself delivers Ctrl-C and Ctrl-\ to it: it does to every process of its foreground group.
    pub(crate) fn hears_the_terminal(&self) -> bool {
        self.terminal.is_there()
            && nix::unistd::tcgetpgrp(std::io::stdin())
                .is_ok_and(|group| group == nix::unistd::getpgrp())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Waits for its end. When it stops (Ctrl-Z), we stop too, so that the shell gets the terminal; `fg` continues both.
    /// Can be cancelled and called again.
    pub(crate) async fn ended(&mut self) -> Ended {
        loop {
            match self.child.changed().await {
                Change::Ended(ended) => {
                    self.terminal.restore(matches!(ended, Ended::Signal(_)));
                    return ended;
                }
                Change::Stopped => {
                    // It may have stopped the whole group, us among it, and have been continued with us since: then this is old news, and
                    // stopping again would take the terminal from a session that just got it back.
                    tokio::time::sleep(SETTLED).await;
                    if !self.child.is_stopped() {
                        continue;
                    }
                    // The default action of SIGTSTP is what a shell's job control expects, and the kernel itself leaves it out where no
                    // shell could continue us (an orphaned process group).
                    let _ = nix::sys::signal::raise(Signal::SIGTSTP);
                    // Here again: somebody continued us. The shell continues the whole group, another program perhaps only us.
                    self.child.signal(Signal::SIGCONT);
                }
            }
        }
    }

    /// Ends it: asks with this signal, waits for the time of grace, then kills it.
    pub(crate) async fn stop(&mut self, signal: Signal, grace: Duration) -> Ended {
        self.child.signal(signal);
        // One that is stopped cannot hear until it is continued.
        self.child.signal(Signal::SIGCONT);
        match tokio::time::timeout(grace, self.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.child.signal(Signal::SIGKILL);
                self.ended().await
            }
        }
    }
}

impl Drop for Foreground {
    /// For ways out that could not wait, such as a panic.
    fn drop(&mut self) {
        self.child.signal(Signal::SIGKILL);
    }
}
