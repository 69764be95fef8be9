//! Pauses for an engine that has too many requests.

use std::time::Duration;

use super::limits::Limits;

/// Pauses between attempts at an engine that has too many requests: as long as it wants, else longer each time.
pub(super) struct Backoff {
    left: Duration,
    next: Duration,
}

impl Backoff {
    /// The longest pause that an engine does not ask for.
    const LONGEST: Duration = Duration::from_secs(16);

    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            left: limits.backoff,
            next: limits.first_pause,
        }
    }

    /// The next pause. None: it has taken long enough, or the engine wants more than that, and the client is told.
    pub(super) fn next(&mut self, wanted: Option<Duration>) -> Option<Duration> {
        let pause = wanted.unwrap_or(self.next);
        self.left = self.left.checked_sub(pause)?;
        self.next = (self.next * 2).min(Self::LONGEST);
        // Not all at the same moment.
        let jitter = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        Some(pause.mul_f64(1.0 + jitter / 4.0))
    }
}
