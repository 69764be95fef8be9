//! The one file with unsafe code: what the operating system offers only that way.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};

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

/// The last signal that was caught; 0 for none.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(which: i32) {
    CAUGHT.store(which, Ordering::SeqCst);
}

/// Notes signals instead of ending by them, until dropped. For the moments in which ending would leave something behind; while a session
/// runs, `process::signals` listens. The two cannot be mixed: drop this first.
pub struct Caught {
    before: Vec<(Signal, SigAction)>,
}

/// Notes the signals that end a program.
pub fn catch() -> Caught {
    CAUGHT.store(0, Ordering::SeqCst);
    let noting = SigAction::new(
        SigHandler::Handler(note),
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
        // SAFETY: the handler only stores to an atomic.
        let before = unsafe { sigaction(which, &noting) }.ok()?;
        Some((which, before))
    })
    .collect();
    Caught { before }
}

impl Caught {
    /// The signal that came, if one came.
    pub fn signal(&self) -> Option<Signal> {
        Signal::try_from(CAUGHT.load(Ordering::SeqCst)).ok()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (which, before) in &self.before {
            // SAFETY: puts back the disposition that was there before, whatever it was.
            let _ = unsafe { sigaction(*which, before) };
        }
    }
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
