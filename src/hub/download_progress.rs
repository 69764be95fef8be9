//! The progress of a download, from the growth of its files: size, speed, time left. Pure; the clock is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The time over which the speed is averaged. Parallel downloads are written in pieces (10 MB each where `patches/resume.py` does not apply),
/// so a shorter time would show leaps.
const SPEED_OVER: Duration = Duration::from_secs(20);

/// The shortest time from which a speed is computed.
const SPEED_AFTER: Duration = Duration::from_secs(2);

/// The least that must have arrived before the time left is told, in bytes: the first files are small ones.
const TIME_LEFT_AFTER: u64 = 1_000_000;

/// The size of a download, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "source", content = "bytes")]
pub enum Total {
    /// As the hub says.
    Hub(u64),
    /// As the catalogue says: rounded to GB.
    Catalog(u64),
}

impl Total {
    /// The size in bytes, whoever says so.
    pub fn bytes(self) -> u64 {
        match self {
            Total::Hub(bytes) | Total::Catalog(bytes) => bytes,
        }
    }

    /// Free disk space that the rest needs, in bytes. Of a rounded size, a tenth is taken off.
    pub fn space_needed(self, there: u64) -> u64 {
        match self {
            Total::Hub(bytes) => bytes.saturating_sub(there),
            Total::Catalog(bytes) => (bytes / 10 * 9).saturating_sub(there),
        }
    }
}

/// A download that is going on.
#[derive(Debug, Clone)]
pub struct Download {
    total: Option<Total>,
    /// Bytes there, by time. The first sample is the last one before the size grew: until then the engine was still starting.
    samples: VecDeque<(Instant, u64)>,
    first: u64,
    latest: u64,
    grew: Instant,
}

/// The progress of a download, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadProgress {
    /// Bytes there.
    pub bytes: u64,
    /// The size of it all, if it is known.
    pub total: Option<Total>,
    /// 0 to 99: it is done when the model is complete, not before.
    pub percent: Option<u64>,
    /// Bytes a second.
    pub speed: Option<u64>,
    /// Time left.
    pub left: Option<Duration>,
}

impl Download {
    /// Starts with the bytes that are there already.
    pub fn new(now: Instant, bytes: u64, total: Option<Total>) -> Self {
        Self {
            total,
            samples: VecDeque::from([(now, bytes)]),
            first: bytes,
            latest: bytes,
            grew: now,
        }
    }

    /// Records the bytes that are there now.
    pub fn update(&mut self, now: Instant, bytes: u64) {
        // A part that is thrown away and fetched again makes it smaller: that is no progress, and no way back on the line either.
        if bytes > self.latest {
            self.latest = bytes;
            self.grew = now;
        }
        if self.latest == self.first {
            self.samples.clear();
        }
        self.samples.push_back((now, self.latest));
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= SPEED_OVER)
        {
            self.samples.pop_front();
        }
    }

    /// Time since the last growth.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        now.duration_since(self.grew)
    }

    /// Bytes that have arrived since the start.
    pub fn fetched(&self) -> u64 {
        self.latest - self.first
    }

    /// The progress so far.
    pub fn progress(&self) -> DownloadProgress {
        let total = self.total.map(Total::bytes).filter(|total| *total > 0);
        let speed = self.speed().filter(|speed| *speed > 0);
        DownloadProgress {
            bytes: self.latest,
            total: self.total,
            percent: total.map(|total| (self.latest.saturating_mul(100) / total).min(99)),
            speed,
            left: total
                .filter(|_| self.fetched() >= TIME_LEFT_AFTER)
                .zip(speed)
                .and_then(|(total, speed)| {
                    let left = total.checked_sub(self.latest)?;
                    Some(Duration::from_secs(left.div_ceil(speed)))
                }),
        }
    }

    fn speed(&self) -> Option<u64> {
        let (from, before) = self.samples.front()?;
        let (to, now) = self.samples.back()?;
        let took = to.duration_since(*from);
        (took >= SPEED_AFTER).then(|| ((now - before) as f64 / took.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_there_already_is_no_speed() {
        let start = Instant::now();
        let total = Some(Total::Hub(1_000 * MB));
        let mut download = Download::new(start, 500 * MB, total);
        assert_eq!(download.progress().percent, Some(50));
        assert_eq!(download.progress().speed, None);
        for second in 1..=10 {
            download.update(after(start, second), 500 * MB + second * 10 * MB);
        }
        let progress = download.progress();
        assert_eq!(progress.percent, Some(60));
        assert_eq!(progress.speed, Some(10 * MB));
        assert_eq!(progress.left, Some(Duration::from_secs(40)));
        assert_eq!(download.fetched(), 100 * MB);
    }

    #[test]
    fn the_time_until_something_comes_is_no_part_of_the_speed() {
        let start = Instant::now();
        let mut download = Download::new(start, 500 * MB, None);
        for second in 1..=15 {
            download.update(after(start, second), 500 * MB);
        }
        assert_eq!(download.progress().speed, None);
        for second in 16..=18 {
            download.update(after(start, second), 500 * MB + (second - 15) * 10 * MB);
        }
        assert_eq!(download.progress().speed, Some(10 * MB));
        assert_eq!(download.stalled_for(after(start, 18)), Duration::ZERO);
    }

    #[test]
    fn the_speed_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut download = Download::new(start, 0, None);
        for second in 1..=30 {
            download.update(after(start, second), second * 100 * MB);
        }
        for second in 31..=60 {
            download.update(after(start, second), 3_000 * MB + (second - 30) * MB);
        }
        assert_eq!(download.progress().speed, Some(MB));
        for second in 61..=90 {
            download.update(after(start, second), 3_030 * MB);
        }
        let progress = download.progress();
        assert_eq!((progress.speed, progress.left), (None, None), "it stands");
        assert_eq!(
            download.stalled_for(after(start, 90)),
            Duration::from_secs(30)
        );
    }

    #[test]
    fn the_percentage_neither_exceeds_nor_goes_back() {
        let start = Instant::now();
        let mut download = Download::new(start, 0, Some(Total::Catalog(100 * MB)));
        download.update(after(start, 1), 60 * MB);
        download.update(after(start, 2), 20 * MB);
        assert_eq!(
            download.progress().percent,
            Some(60),
            "a part was thrown away"
        );
        assert_eq!(
            download.stalled_for(after(start, 5)),
            Duration::from_secs(4)
        );
        download.update(after(start, 6), 130 * MB);
        let progress = download.progress();
        assert_eq!(progress.percent, Some(99), "the catalogue was rounded");
        assert_eq!(progress.left, None);
    }

    #[test]
    fn room_is_needed_for_what_is_still_to_come() {
        assert_eq!(Total::Hub(1_000).space_needed(300), 700);
        assert_eq!(Total::Hub(1_000).space_needed(2_000), 0);
        assert_eq!(Total::Catalog(1_000).space_needed(300), 600);
    }
}
