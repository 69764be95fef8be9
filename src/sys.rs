//! The one file with unsafe code: what the operating system offers only that way.

use nix::sys::signal::{SigHandler, Signal, signal};

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
