//! How far an engine is with the request that it works at, from what it tells each second. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::gateway::metrics::Standing;

/// How many of what an engine told are kept: a quarter of a minute.
const KEPT: usize = 16;

/// An engine's report on its request, in tokens (`engine/patches/progress.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Told {
    pub prompt: u64,
    /// Of the prompt, those that were there already.
    pub cached: u64,
    /// Of the prompt, those that are computed or were there already.
    pub read: u64,
    /// Of the reply.
    pub written: u64,
}

/// The engine's activity for one session, or for all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "doing", rename_all = "snake_case")]
pub enum Activity {
    Idle,
    Waiting {
        /// Requests that come before this one.
        ahead: usize,
        seconds: u64,
    },
    /// It computes a prompt.
    Reading {
        seconds: u64,
        /// Tokens that are read, of so many. None: the engine does not tell.
        read: Option<u64>,
        tokens: Option<u64>,
        /// Of these, those that were there already.
        cached: Option<u64>,
        seconds_left: Option<u64>,
    },
    /// It writes a reply.
    Writing {
        seconds: u64,
        tokens: Option<u64>,
        tokens_per_second: Option<f64>,
    },
}

/// Reports on one request, the newest last.
#[derive(Debug, Default)]
pub struct Progress(VecDeque<(Instant, Told)>);

impl Progress {
    /// Notes what the engine told. What belongs to an earlier request is forgotten.
    pub fn see(&mut self, now: Instant, told: Told) {
        let is_next = |last: &Told| {
            last.prompt == told.prompt && last.read <= told.read && last.written <= told.written
        };
        if !self.last().is_some_and(|last| is_next(&last)) {
            self.0.clear();
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, told));
    }

    /// The engine works at nothing.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn last(&self) -> Option<Told> {
        self.0.back().map(|(_, told)| *told)
    }

    /// The engine's activity for a caller whose requests stand so.
    pub fn activity(&self, standing: Standing, now: Instant) -> Activity {
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        match standing {
            Standing::Idle => Activity::Idle,
            Standing::Waiting { ahead, since } => Activity::Waiting {
                ahead,
                seconds: seconds(since),
            },
            Standing::AtWork {
                since,
                answering: None,
            } => {
                // Tokens of a reply that are not handed on yet are no reply: thoughts, say.
                let told = self.last();
                match told.filter(|told| told.written > 0) {
                    Some(told) => self.writing(seconds(since), Some(told)),
                    None => Activity::Reading {
                        seconds: seconds(since),
                        read: told.map(|told| told.read),
                        tokens: told.map(|told| told.prompt),
                        cached: told.map(|told| told.cached),
                        seconds_left: self.left(now).map(|left| left.as_secs()),
                    },
                }
            }
            Standing::AtWork {
                answering: Some(since),
                ..
            } => self.writing(seconds(since), self.last()),
        }
    }

    fn writing(&self, seconds: u64, told: Option<Told>) -> Activity {
        let written = |told: Told| told.written;
        Activity::Writing {
            seconds,
            tokens: told.map(written).filter(|tokens| *tokens > 0),
            tokens_per_second: self.speed(|told| (told.written > 0).then_some(told.written)),
        }
    }

    /// Tokens a second, over what is kept.
    fn speed(&self, of: impl Fn(&Told) -> Option<u64>) -> Option<f64> {
        let mut known = self
            .0
            .iter()
            .filter_map(|(at, told)| Some((*at, of(told)?)));
        let (from, first) = known.next()?;
        let (to, last) = known.next_back()?;
        let time = to.saturating_duration_since(from).as_secs_f64();
        (last > first && time > 0.0).then(|| (last - first) as f64 / time)
    }

    /// How long the rest of the prompt takes. A token takes the longer the deeper it stands, so the time of a token is measured over both halves of
    /// what is kept, and goes on as it went from one to the other.
    fn left(&self, now: Instant) -> Option<Duration> {
        let points: Vec<(f64, f64)> = {
            let (from, _) = self.0.front()?;
            let mut seen = None;
            let moved = |(_, told): &&(Instant, Told)| seen.replace(told.read) != Some(told.read);
            let moved = self.0.iter().filter(moved);
            moved
                .map(|(at, told)| {
                    let time = at.saturating_duration_since(*from).as_secs_f64();
                    (time, told.read as f64)
                })
                .collect()
        };
        let (first, middle, last) = (*points.first()?, points[points.len() / 2], *points.last()?);
        let each = |from: (f64, f64), to: (f64, f64)| {
            (to.1 > from.1).then(|| {
                (
                    (to.0 - from.0) / (to.1 - from.1),
                    f64::midpoint(from.1, to.1),
                )
            })
        };
        let (overall, _) = each(first, last)?;
        let (time, depth, slope) = match (each(first, middle), each(middle, last)) {
            (Some((early, above)), Some((late, below))) if below > above => {
                (late, below, ((late - early) / (below - above)).max(0.0))
            }
            _ => (overall, last.1, 0.0),
        };
        let end = self.last()?.prompt as f64;
        let rest = (end - last.1).max(0.0);
        let seconds = rest * (time + slope * (f64::midpoint(last.1, end) - depth).max(0.0));
        let (from, _) = self.0.front()?;
        let gone = now.saturating_duration_since(*from).as_secs_f64() - last.0;
        Duration::try_from_secs_f64((seconds - gone).max(0.0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(prompt: u64, read: u64, written: u64) -> Told {
        Told {
            prompt,
            cached: 1_000,
            read,
            written,
        }
    }

    fn seconds(number: f64) -> Duration {
        Duration::from_secs_f64(number)
    }

    fn reading(since: Instant) -> Standing {
        Standing::AtWork {
            since,
            answering: None,
        }
    }

    #[test]
    fn a_prompt_that_is_read_tells_how_long_the_rest_takes() {
        let start = Instant::now();
        let mut progress = Progress::default();
        assert_eq!(
            progress.activity(reading(start), start + seconds(2.0)),
            Activity::Reading {
                seconds: 2,
                read: None,
                tokens: None,
                cached: None,
                seconds_left: None
            }
        );
        for second in 0..=10u32 {
            progress.see(
                start + seconds(f64::from(second)),
                told(20_000, 1_000 + 1_000 * u64::from(second), 0),
            );
        }
        assert_eq!(
            progress.activity(reading(start), start + seconds(10.0)),
            Activity::Reading {
                seconds: 10,
                read: Some(11_000),
                tokens: Some(20_000),
                cached: Some(1_000),
                seconds_left: Some(9)
            }
        );
        // Nothing more came for three seconds.
        let Activity::Reading { seconds_left, .. } =
            progress.activity(reading(start), start + seconds(13.0))
        else {
            panic!("it reads");
        };
        assert_eq!(seconds_left, Some(6));
    }

    #[test]
    fn deeper_tokens_take_longer() {
        let start = Instant::now();
        let mut progress = Progress::default();
        // The time until so many are read grows with the square: 1 ms for the first, 21 ms for the last of 20,000.
        let time = |read: f64| read * 0.001 + read * read * 0.000_000_5;
        for read in [0.0, 2_500.0, 5_000.0, 7_500.0, 10_000.0] {
            progress.see(start + seconds(time(read)), told(20_000, read as u64, 0));
        }
        let now = start + seconds(time(10_000.0));
        let left = progress.left(now).expect("known").as_secs_f64();
        let really = time(20_000.0) - time(10_000.0);
        assert!((left - really).abs() < really / 50.0, "{left} {really}");
    }

    #[test]
    fn a_reply_has_a_speed_and_the_next_request_begins_anew() {
        let start = Instant::now();
        let mut progress = Progress::default();
        progress.see(start, told(2_000, 2_000, 0));
        progress.see(start + seconds(1.0), told(2_000, 2_000, 20));
        progress.see(start + seconds(3.0), told(2_000, 2_000, 100));
        let answering = Standing::AtWork {
            since: start,
            answering: Some(start + seconds(1.0)),
        };
        assert_eq!(
            progress.activity(answering, start + seconds(3.0)),
            Activity::Writing {
                seconds: 2,
                tokens: Some(100),
                tokens_per_second: Some(40.0)
            }
        );
        progress.see(start + seconds(4.0), told(2_100, 2_000, 0));
        assert_eq!(progress.0.len(), 1);
        progress.clear();
        let idle = progress.activity(Standing::Idle, start);
        assert_eq!(idle, Activity::Idle);
    }

    #[test]
    fn who_waits_is_told_behind_how_many() {
        let start = Instant::now();
        let waiting = Standing::Waiting {
            ahead: 2,
            since: start,
        };
        assert_eq!(
            Progress::default().activity(waiting, start + seconds(5.5)),
            Activity::Waiting {
                ahead: 2,
                seconds: 5
            }
        );
    }
}
