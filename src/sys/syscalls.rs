//! The one file with unsafe code: what the operating system offers only that way.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// Ignores a signal until dropped.
pub struct Ignored {
    signal: Signal,
    before: Option<SigHandler>,
}

/// Ignores a signal for a moment. Not for use while a child is being started: an ignored signal stays ignored in it.
pub fn ignore(which: Signal) -> Ignored {
    // SAFETY: no handler of ours is installed, so no code runs in signal context.
    let before = unsafe { signal(which, SigHandler::SigIgn) }.ok();
    Ignored {
        signal: which,
        before,
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: puts back the disposition that was there before, whatever it was.
            let _ = unsafe { signal(self.signal, before) };
        }
    }
}

/// Handlers of ours for the signals that end a program, until dropped.
struct Handlers {
    before: Vec<(Signal, SigAction)>,
}

impl Handlers {
    fn install(handler: extern "C" fn(i32)) -> Self {
        let action = SigAction::new(
            SigHandler::Handler(handler),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        let before = [
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
            Signal::SIGHUP,
        ]
        .into_iter()
        .filter_map(|which| {
            // SAFETY: the two handlers, `note` and `give_back`, do nothing that a handler may not do.
            let before = unsafe { sigaction(which, &action) }.ok()?;
            Some((which, before))
        })
        .collect();
        Self { before }
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (which, before) in &self.before {
            // SAFETY: puts back the disposition that was there before, whatever it was.
            let _ = unsafe { sigaction(*which, before) };
        }
    }
}

/// The last signal that was caught; 0 for none.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(which: i32) {
    CAUGHT.store(which, Ordering::SeqCst);
}

/// Notes signals instead of ending by them, until dropped. For the moments in which ending would leave something behind; while a session
/// runs, `process::signals` listens. The two cannot be mixed: drop this first.
pub struct Caught {
    _handlers: Handlers,
}

/// Notes the signals that end a program.
pub fn catch() -> Caught {
    CAUGHT.store(0, Ordering::SeqCst);
    Caught {
        _handlers: Handlers::install(note),
    }
}

impl Caught {
    /// The signal that came, if one came.
    pub fn signal(&self) -> Option<Signal> {
        Signal::try_from(CAUGHT.load(Ordering::SeqCst)).ok()
    }
}

/// The modes of the terminal before the first prompt.
static MODES: OnceLock<libc::termios> = OnceLock::new();

/// Control sequence that shows the cursor, on all terminals that can hide it.
const SHOW_CURSOR: &[u8] = b"\x1b[?25h";

extern "C" fn give_back(which: i32) {
    // SAFETY: a handler may call these three (POSIX, "Signal Concepts"), and reads a value that is never written again.
    unsafe {
        if let Some(modes) = MODES.get() {
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, modes);
        }
        libc::write(
            libc::STDERR_FILENO,
            SHOW_CURSOR.as_ptr().cast(),
            SHOW_CURSOR.len(),
        );
        libc::_exit(128 + which)
    }
}

extern "C" fn end(which: i32) {
    // SAFETY: a handler may call this (POSIX, "Signal Concepts").
    unsafe { libc::_exit(128 + which) }
}

/// Signals that end the program at once, until dropped, whoever listens to them otherwise: while a line is read.
pub struct EndingOnSignals {
    _handlers: Handlers,
}

/// Lets a signal end the program with 128 and its number.
pub fn ending_on_signals() -> EndingOnSignals {
    EndingOnSignals {
        _handlers: Handlers::install(end),
    }
}

/// The terminal while a prompt has it, which hides its cursor and takes keys one by one. Dropping it, also in a panic, gives it back as it was; so does a
/// signal, which ends the program with 128 and its number.
pub struct Prompting {
    modes: Option<Termios>,
    _handlers: Handlers,
}

/// Takes the terminal for a prompt.
pub fn prompting() -> Prompting {
    let modes = tcgetattr(std::io::stdin()).ok();
    if let Some(modes) = &modes {
        let _ = MODES.set(modes.clone().into());
    }
    let handlers = Handlers::install(give_back);
    if let Some(mut modes) = modes.clone() {
        // Console takes single keys only while it reads one; what is typed between two of them is not to be shown nor kept for a whole line.
        modes
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON);
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &modes);
    }
    Prompting {
        modes,
        _handlers: handlers,
    }
}

impl Drop for Prompting {
    fn drop(&mut self) {
        let _ = std::io::stderr().write_all(SHOW_CURSOR);
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, modes);
        }
    }
}

/// Hour and minute of a time, where this machine is.
pub fn local_time(time: SystemTime) -> (i32, i32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or_default();
    // SAFETY: all of it is numbers and a pointer that is not followed; zero is valid for each.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours, and valid for the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
    (parts.tm_hour, parts.tm_min)
}

/// Lets the command lead a session whose terminal is its standard input. When the other end of that terminal is closed, the kernel hangs up on all of
/// the session (`SIGHUP`): so it cannot outlive whoever holds that end.
pub fn lead_a_session(command: &mut Command) {
    // SAFETY: between fork and exec, both are system calls and nothing else.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
}
