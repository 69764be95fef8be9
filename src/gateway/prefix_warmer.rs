//! What stands before a conversation is computed before the first question is there: while the user still types it.
//!
//! Behind the gateway all sessions of one client begin with the same system prompt and the same tools. So those of a session's first request are
//! remembered ([`super::prompt_prefixes`]), and when the next engine is ready and nobody asks it anything, it gets them with a question of one word. What it
//! computes then is in its prefix cache, and kept (see `engine/patches/kept.py`).
//!
//! How a client of another version begins is not known before it has asked. So the session lets it ask something on a terminal that nobody sees
//! (`session/rehearsal.rs`), at an address of its own: that request is remembered, and not answered.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::server::Gateway;
use crate::gateway::anthropic::{self, ApiError};
use crate::gateway::auth::Caller;
use crate::gateway::in_flight::InFlight;
use crate::gateway::prompt_prefixes::{CLIENT, PromptPrefix, PromptPrefixes};
use crate::gateway::queue::{Conversation, Place, Queue, Standing};
use crate::gateway::upstream::{self, Failure, StallTimeout, Target};

/// What is remembered, and what is computed of it now.
#[derive(Debug)]
pub(crate) struct PrefixWarmer {
    prefixes: Option<PromptPrefixes>,
    state: Mutex<State>,
    /// There is somebody in [`State::rehearsed`].
    news: Notify,
    /// Whose rehearsals are over.
    over: watch::Sender<BTreeSet<Caller>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whose first request was seen.
    met: BTreeSet<Caller>,
    under_way: Option<(PromptPrefix, CancellationToken)>,
    /// Whose first request is known from a rehearsal, and not computed yet.
    rehearsed: Option<Caller>,
}

impl PrefixWarmer {
    /// `file`: None remembers and computes nothing.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self {
            prefixes: file.map(PromptPrefixes::new),
            state: Mutex::default(),
            news: Notify::new(),
            over: watch::Sender::default(),
        }
    }

    /// A client asks: to be called before its request takes its place in the queue. What is computed for another one's question is given up for it,
    /// and what it will need itself is not.
    ///
    /// `prefix`: how its session begins, if [`PrefixWarmer::wants_prefix`].
    pub(crate) fn on_request(
        &self,
        caller: Caller,
        client: Option<&str>,
        prefix: Option<PromptPrefix>,
    ) {
        let Some(prefixes) = &self.prefixes else {
            return;
        };
        let mut state = self.state();
        let is_first = state.met.insert(caller);
        if !is_first && state.under_way.is_none() {
            return;
        }
        state.give_up_all_but(prefix.as_ref());
        match (prefix, client) {
            // The title of a session is asked for before its first question.
            (None, _) => {
                state.met.remove(&caller);
            }
            (Some(prefix), Some(client)) if is_first && client.starts_with(CLIENT) => {
                let (prefixes, client) = (prefixes.clone(), client.to_owned());
                tokio::task::spawn_blocking(move || prefixes.remember(&client, prefix));
            }
            _ => {}
        }
    }

    /// Whether it matters how this caller's session begins.
    pub(crate) fn wants_prefix(&self, caller: Caller) -> bool {
        let state = self.state();
        self.prefixes.is_some() && (state.under_way.is_some() || !state.met.contains(&caller))
    }

    /// The prompt prefix of a session that will ask soon. It is remembered like one that has, and computed next.
    async fn on_rehearsal(&self, caller: Caller, client: &str, prefix: PromptPrefix) {
        let Some(prefixes) = self.prefixes.clone() else {
            return;
        };
        // The session itself was quicker: it is remembered by what it asked.
        if self.state().met.contains(&caller) {
            return;
        }
        let client = client.to_owned();
        let remembered = prefix.clone();
        let _ = tokio::task::spawn_blocking(move || prefixes.remember(&client, remembered)).await;
        let mut state = self.state();
        state.give_up_all_but(Some(&prefix));
        state.rehearsed = Some(caller);
        self.news.notify_one();
    }

    /// A place on the way to the engine for this prefix, if somebody may still need it.
    fn begin(&self, prefix: &PromptPrefix, queue: &Queue) -> Option<(Place, CancellationToken)> {
        let mut state = self.state();
        let asked = match state.rehearsed.take() {
            Some(caller) => state.met.contains(&caller),
            None => !state.met.is_empty(),
        };
        if asked {
            return None;
        }
        // Its own conversation: it came before the requests that wait behind it.
        let standing = Standing::Step(Conversation::of(Caller::Main, Some(b"the prompt prefix")));
        let cancel = CancellationToken::new();
        state.under_way = Some((prefix.clone(), cancel.clone()));
        Some((queue.enter(standing), cancel))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give_up_all_but(&self, prefix: Option<&PromptPrefix>) {
        if let Some((computed, cancel)) = &self.under_way
            && prefix != Some(computed)
        {
            cancel.cancel();
        }
    }
}

/// Takes a request of a rehearsal. It is the one that was waited for if it has tools; others, for a title say, are passed over.
///
/// Returns what its client is told, which ends its attempts.
pub(super) async fn rehearse(
    gateway: &Gateway,
    caller: Caller,
    client: Option<&str>,
    body: Bytes,
) -> ApiError {
    let (served, length) = (gateway.served(), body.len());
    let read =
        move || anthropic::messages(&body, &served).map(|request| PromptPrefix::of(&request.body));
    let prefix = match gateway.reading.work(length, read).await {
        Ok(Ok(prefix)) => prefix,
        Ok(Err(error)) | Err(error) => return error,
    };
    if let (Some(prefix), Some(client)) = (prefix, client) {
        gateway
            .prefix_warmer
            .on_rehearsal(caller, client, prefix)
            .await;
        gateway
            .prefix_warmer
            .over
            .send_if_modified(|over| over.insert(caller));
    }
    ApiError::new(
        400,
        "invalid_request_error",
        "this is a rehearsal: there is no answer",
    )
}

/// Waits until this caller's rehearsal is over.
pub(super) async fn rehearsed(gateway: &Gateway, caller: Caller) {
    let mut over = gateway.prefix_warmer.over.subscribe();
    let _ = over.wait_for(|over| over.contains(&caller)).await;
}

/// Once the engine is ready, has it compute what stands before the first question, unless that is there already; and again after each rehearsal.
/// Returns when the gateway stops, or the engine is gone for good.
pub(super) async fn compute(gateway: Gateway) {
    let stop = gateway.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = always(&gateway) => {}
    }
}

async fn always(gateway: &Gateway) {
    let warmer = &gateway.prefix_warmer;
    let Some(prefixes) = &warmer.prefixes else {
        return;
    };
    let mut engine = gateway.engine.clone();
    while upstream::ready(&mut engine).await.is_ok() {
        let prefixes = prefixes.clone();
        let prefix = tokio::task::spawn_blocking(move || prefixes.likeliest()).await;
        if let Ok(Some(prefix)) = prefix
            && let Some((place, cancel)) = warmer.begin(&prefix, &gateway.queue)
        {
            tokio::select! {
                biased;
                () = cancel.cancelled() => tracing::debug!("a client asks something else"),
                () = ask_in_turn(gateway, place, &prefix) => {}
            }
            warmer.state().under_way = None;
        }
        while warmer.state().rehearsed.is_none() {
            warmer.news.notified().await;
        }
    }
}

/// Dropped in the middle, it sees to it that the engine lets go of this before a client's request comes.
async fn ask_in_turn(gateway: &Gateway, place: Place, prefix: &PromptPrefix) {
    let turn = place.turn().await;
    let Ok(target) = upstream::ready(&mut gateway.engine.clone()).await else {
        return;
    };
    let mut in_flight = InFlight::new(gateway, turn);
    in_flight.engine_has_it(target.clone());
    let done = ask(gateway, &target, question(prefix, &gateway.served.name)).await;
    tracing::debug!(?done, "what stands before the first question was computed");
    if matches!(done, Ok(()) | Err(Failure::Refused(_))) {
        in_flight.engine_is_free();
    }
}

fn question(prefix: &PromptPrefix, model: &str) -> Bytes {
    let mut body = json!({
        "model": model,
        "max_tokens": 1,
        "stream": true,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": prefix.tools,
    });
    if !prefix.system.is_null() {
        body["system"] = prefix.system.clone();
    }
    body.to_string().into()
}

/// It is nobody's request: no metrics count it.
async fn ask(gateway: &Gateway, target: &Target, question: Bytes) -> Result<(), Failure> {
    let stall = gateway.limits.stall;
    let upstream = &gateway.upstream;
    let mut response = upstream
        .post(target, "/v1/messages", question, stall)
        .await?;
    let mut stall_timeout = StallTimeout::new(stall);
    while stall_timeout.piece(&mut response).await?.is_some() {}
    Ok(())
}
