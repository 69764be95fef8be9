//! The terminal as it was before Claude Code had it, and putting it back.

use std::io::{IsTerminal, Write};

use nix::sys::signal::Signal;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

/// Undoes what a full-screen program turns on, should it die without doing so itself: shows the cursor, leaves the alternate screen, ends
/// mouse reports, focus reports, bracketed paste and the keyboard protocol, resets colours. (xterm control sequences; kitty keyboard protocol.)
const RESET: &str = "\x1b[?25h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[<u\x1b[>4;0m\x1b[0m\r";

/// The terminal's modes, taken before it is handed over.
#[derive(Debug)]
pub(super) struct Terminal {
    modes: Option<Termios>,
}

impl Terminal {
    /// Remembers the modes. Off a terminal there is nothing to remember.
    pub(super) fn remember() -> Self {
        Self {
            modes: tcgetattr(std::io::stdin()).ok(),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.modes.is_some()
    }

    /// Puts the modes back. `forced`: the program that had the terminal did not end in its own way, so undo what it may have painted too.
    pub(super) fn restore(&self, forced: bool) {
        let Some(modes) = &self.modes else {
            return;
        };
        // A process in the background that changes the terminal is stopped for it, unless it ignores the signal.
        let ignored = crate::sys::syscalls::ignore(Signal::SIGTTOU);
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, modes);
        if forced && std::io::stderr().is_terminal() {
            let _ = std::io::stderr().write_all(RESET.as_bytes());
        }
        drop(ignored);
    }
}
