//! What requests cost: how long and how many tokens, and nothing of what was said.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::gateway::anthropic::Usage;
use crate::gateway::auth::Caller;
use crate::gateway::cache_breaks::{CacheBreaks, CacheWatch};

/// Times to the first token that a caller's median is taken from: the last ones.
const SAMPLES: usize = 512;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was answered.
    Answered,
    /// It was refused before the engine had it: too long, or not well formed.
    Refused,
    /// The client went away.
    Cancelled,
    /// The engine refused it or failed with it.
    EngineError,
    /// The engine was lost, or ended its answer before its time.
    EngineLost,
    /// The engine sent nothing for too long.
    Stalled,
    /// The gateway was stopped.
    Stopped,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    /// From when the engine got it to the first piece of its answer. None if there was none.
    first_token_ms: Option<u64>,
    /// Prompt tokens that were computed.
    input_tokens: u64,
    /// Prompt tokens that were there already.
    cached_tokens: u64,
    output_tokens: u64,
    pub(crate) ended: Ended,
}

/// A caller's requests, or everybody's, in sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that were answered.
    pub turns: u64,
    /// Requests that ended in any other way.
    pub unanswered: u64,
    /// Prompt tokens that were computed.
    pub input_tokens: u64,
    /// Prompt tokens that were there already.
    pub cached_tokens: u64,
    pub output_tokens: u64,
    /// The median, over the last requests, of the time from when the engine got a request to the first piece of its answer.
    pub first_token_ms: Option<u64>,
    /// Output tokens per second, from first tokens on.
    pub tokens_per_second: Option<f64>,
}

impl Summary {
    /// Of a hundred prompt tokens, those that were there already. None: there were no prompts.
    pub fn cached_percent(&self) -> Option<u8> {
        let all = self.input_tokens + self.cached_tokens;
        let percent = (self.cached_tokens * 100).checked_div(all)?;
        u8::try_from(percent).ok()
    }
}

/// A caller's requests at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// None is under way.
    Idle,
    /// The first of them waits.
    Waiting {
        /// Requests of others that came before it.
        ahead: usize,
        since: Instant,
    },
    /// The engine has one.
    AtWork {
        since: Instant,
        /// When the first piece of the reply came.
        answering: Option<Instant>,
    },
}

/// Counters of all requests. Clones write into the same one.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    counters: Mutex<Counters>,
    cache_watch: CacheWatch,
    /// The engine gets a request.
    started: Notify,
}

#[derive(Debug)]
struct Counters {
    queued: usize,
    active: usize,
    last_activity: Instant,
    /// The last requests, the oldest first.
    #[cfg(test)]
    recent: Vec<RequestMetrics>,
    everybody: Total,
    callers: BTreeMap<Caller, Total>,
    /// Requests under way, by the order in which they came.
    under_way: BTreeMap<u64, UnderWay>,
    /// The number of the next one.
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    caller: Caller,
    arrived: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

#[derive(Debug, Default)]
struct Total {
    summary: Summary,
    /// Tokens and time that the speed is made of.
    timed_tokens: u64,
    timed: Duration,
    first_tokens: VecDeque<u64>,
}

/// A request under way. Dropped before its end is told, it counts as one whose client went away.
#[derive(Debug)]
pub(crate) struct Running {
    counters: Metrics,
    number: u64,
    caller: Caller,
    started: Option<Instant>,
    first_token: Option<Instant>,
    usage: Usage,
    ended: Option<Ended>,
}

impl Metrics {
    pub fn new() -> Self {
        let counters = Counters {
            queued: 0,
            active: 0,
            last_activity: Instant::now(),
            #[cfg(test)]
            recent: Vec::new(),
            everybody: Total::default(),
            callers: BTreeMap::new(),
            under_way: BTreeMap::new(),
            next: 0,
        };
        Self(Arc::new(Shared {
            counters: Mutex::new(counters),
            cache_watch: CacheWatch::default(),
            started: Notify::new(),
        }))
    }

    /// A request has come and waits.
    pub(crate) fn arrive(&self, caller: Caller) -> Running {
        let mut counters = self.counters();
        counters.queued += 1;
        let arrived = Instant::now();
        counters.last_activity = arrived;
        let number = counters.next;
        counters.next += 1;
        let under_way = UnderWay {
            caller,
            arrived,
            started: None,
            first_token: None,
        };
        counters.under_way.insert(number, under_way);
        Running {
            counters: self.clone(),
            number,
            caller,
            started: None,
            first_token: None,
            usage: Usage::default(),
            ended: None,
        }
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.counters().queued
    }

    /// Requests that the engine has.
    pub(crate) fn active(&self) -> usize {
        self.counters().active
    }

    /// How the requests of this caller stand. None: those of all.
    pub fn standing(&self, caller: Option<Caller>) -> Standing {
        let counters = self.counters();
        let under_way = counters.under_way.values();
        let own = || {
            let under_way = under_way.clone();
            under_way.filter(move |one| caller.is_none_or(|caller| one.caller == caller))
        };
        let at_work = own().find_map(|one| Some((one.started?, one.first_token)));
        if let Some((since, answering)) = at_work {
            return Standing::AtWork { since, answering };
        }
        match own().next() {
            None => Standing::Idle,
            Some(first) => Standing::Waiting {
                ahead: under_way
                    .clone()
                    .take_while(|one| one.arrived < first.arrived)
                    .count(),
                since: first.arrived,
            },
        }
    }

    /// Waits until the engine has a request.
    pub(crate) async fn until_active(&self) {
        loop {
            let mut started = pin!(self.0.started.notified());
            started.as_mut().enable();
            if self.active() > 0 {
                return;
            }
            started.await;
        }
    }

    /// When a request came or ended last; when this was made, if none did. While requests are under way it is now.
    pub fn last_activity(&self) -> Instant {
        let counters = self.counters();
        if counters.queued + counters.active > 0 {
            return Instant::now();
        }
        counters.last_activity
    }

    /// This caller's requests in sum.
    pub fn summary(&self, caller: Caller) -> Summary {
        self.counters()
            .callers
            .get(&caller)
            .map(Total::summary)
            .unwrap_or_default()
    }

    /// All requests in sum, those of callers that are forgotten too.
    pub fn total(&self) -> Summary {
        self.counters().everybody.summary()
    }

    #[cfg(test)]
    pub(crate) fn recent(&self) -> Vec<RequestMetrics> {
        self.counters().recent.clone()
    }

    /// The caller will not come back: nothing more of it is kept than its part in the total.
    pub fn forget(&self, caller: Caller) {
        self.counters().callers.remove(&caller);
        self.0.cache_watch.forget(caller);
    }

    /// The watch over breaks of the prefix cache.
    pub(crate) fn cache_watch(&self) -> &CacheWatch {
        &self.0.cache_watch
    }

    /// Breaks of the prefix cache.
    pub fn cache_breaks(&self) -> CacheBreaks {
        self.0.cache_watch.breaks()
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0
            .counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Running {
    /// The engine gets it now. Called again when it is sent again.
    pub(crate) fn start(&mut self) {
        let now = Instant::now();
        let again = self.started.replace(now).is_some();
        let mut counters = self.counters.counters();
        if let Some(under_way) = counters.under_way.get_mut(&self.number) {
            under_way.started = Some(now);
        }
        if again {
            return;
        }
        counters.queued -= 1;
        counters.active += 1;
        drop(counters);
        self.counters.0.started.notify_waiters();
    }

    /// A piece of the answer has come. Only the first time counts.
    pub(crate) fn token(&mut self) {
        if self.first_token.is_some() {
            return;
        }
        let now = Instant::now();
        self.first_token = Some(now);
        if let Some(under_way) = self.counters.counters().under_way.get_mut(&self.number) {
            under_way.first_token = Some(now);
        }
    }

    /// Its tokens, as far as they are known.
    pub(crate) fn usage(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// Its tokens, as far as they are known.
    pub(crate) fn tokens(&self) -> Usage {
        self.usage
    }

    /// How it ends. Only the first word counts.
    pub(crate) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let generated = self
            .first_token
            .map(|first| now.saturating_duration_since(first));
        let figure = RequestMetrics {
            first_token_ms: self
                .first_token
                .map(|first| milliseconds(first.saturating_duration_since(started))),
            input_tokens: self.usage.computed(),
            cached_tokens: self.usage.cache_read_input_tokens,
            output_tokens: self.usage.output_tokens,
            ended: self.ended.unwrap_or(Ended::Cancelled),
        };
        let mut counters = self.counters.counters();
        match self.started {
            Some(_) => counters.active -= 1,
            None => counters.queued -= 1,
        }
        counters.under_way.remove(&self.number);
        counters.last_activity = now;
        counters.everybody.add(&figure, generated);
        counters
            .callers
            .entry(self.caller)
            .or_default()
            .add(&figure, generated);
        #[cfg(test)]
        counters.recent.push(figure);
    }
}

impl Total {
    fn add(&mut self, figure: &RequestMetrics, generated: Option<Duration>) {
        let summary = &mut self.summary;
        match figure.ended {
            Ended::Answered => summary.turns += 1,
            _ => summary.unanswered += 1,
        }
        summary.input_tokens += figure.input_tokens;
        summary.cached_tokens += figure.cached_tokens;
        summary.output_tokens += figure.output_tokens;
        if let Some(generated) = generated {
            self.timed_tokens += figure.output_tokens;
            self.timed += generated;
        }
        if let Some(first) = figure.first_token_ms {
            if self.first_tokens.len() == SAMPLES {
                self.first_tokens.pop_front();
            }
            self.first_tokens.push_back(first);
        }
    }

    fn summary(&self) -> Summary {
        let mut times: Vec<u64> = self.first_tokens.iter().copied().collect();
        times.sort_unstable();
        Summary {
            first_token_ms: times.get(times.len() / 2).copied(),
            tokens_per_second: speed(self.timed_tokens, self.timed),
            ..self.summary.clone()
        }
    }
}

fn speed(tokens: u64, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
