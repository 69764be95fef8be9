//! Outages of an engine that somebody else runs: requests are held until it is back, for as long as the user wants.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::upstream::{Target, Upstream};
use crate::gateway::anthropic::ApiError;
use crate::gateway::upstream;
use crate::sys::syscalls::local_time;

/// How often an engine that is away is asked whether it is back, at first and in the end.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The waiting for an engine that goes away. Clones share what is known of it.
#[derive(Debug, Clone)]
pub struct Outages(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The engine's host, for people.
    host: String,
    patience: Duration,
    first_interval: Duration,
    since: Mutex<Option<Instant>>,
    away: watch::Sender<Option<Away>>,
}

/// An outage that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    pub since: SystemTime,
    /// In one line, such as `engine at mac.example away since 12:41`.
    pub words: String,
}

impl Outages {
    /// `host`: as it is told to people. `patience`: how long an outage may take until requests are answered with an error.
    pub fn new(host: &str, patience: Duration) -> Self {
        Self::with_interval(host, patience, INTERVALS.0)
    }

    pub(crate) fn with_interval(host: &str, patience: Duration, first_interval: Duration) -> Self {
        Self(Arc::new(Shared {
            host: host.to_owned(),
            patience,
            first_interval,
            since: Mutex::default(),
            away: watch::Sender::default(),
        }))
    }

    /// Changes when an outage begins or ends.
    pub fn watch(&self) -> watch::Receiver<Option<Away>> {
        self.0.away.subscribe()
    }

    /// The outage, if there is one.
    pub(crate) fn now(&self) -> Option<Away> {
        self.0.away.borrow().clone()
    }

    /// The engine has answered.
    pub(crate) fn is_back(&self) {
        if self.since().take().is_some() {
            self.0.away.send_replace(None);
        }
    }

    /// Waits until the engine is there. Errors: the outage has taken too long.
    ///
    /// `why`: what came in place of an answer.
    pub(crate) async fn wait(
        &self,
        upstream: &Upstream,
        target: &Target,
        why: &str,
    ) -> Result<(), ApiError> {
        let mut interval = self.0.first_interval;
        while !upstream.is_up(target).await {
            let began = self.begin();
            if began.elapsed() >= self.0.patience {
                let away = self.now().map_or_else(String::new, |away| away.words);
                return Err(upstream::gone(&format!(
                    "{away} ({why}). When it is back, ask again: the conversation is kept"
                )));
            }
            tokio::time::sleep(interval).await;
            interval = (interval * 2).min(INTERVALS.1);
        }
        self.is_back();
        Ok(())
    }

    /// When the outage began: now, if it has not yet.
    fn begin(&self) -> Instant {
        let mut since = self.since();
        *since.get_or_insert_with(|| {
            let now = SystemTime::now();
            let (hour, minute) = local_time(now);
            let words = format!("engine at {} away since {hour:02}:{minute:02}", self.0.host);
            self.0.away.send_replace(Some(Away { since: now, words }));
            Instant::now()
        })
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
