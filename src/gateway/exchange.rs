//! One request for a message, from the queue to the end of its reply.

mod window;

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use super::backoff::Backoff;
use super::in_flight::InFlight;
use super::server::Gateway;
use super::web_search;
use crate::gateway::anthropic::{self, ApiError};
use crate::gateway::auth::Caller;
use crate::gateway::cache_breaks::Parts;
use crate::gateway::limits::{Received, Taken};
use crate::gateway::metrics::{Ended, Running};
use crate::gateway::prompt_prefixes::CLIENT;
use crate::gateway::queue::{Conversation, Place, Standing};
use crate::gateway::sse_writer::{self, Beginning, EventSender};
use crate::gateway::upstream::{self, Failure, Target};
use crate::gateway::{canned, request_reader};

/// How long the end of the connection is waited for after the last event.
const REST: Duration = Duration::from_secs(1);

/// Answers the body of `POST /v1/messages`.
///
/// `headers`: they tell how the client names itself, and which of its agents asks.
pub(super) async fn answer(
    gateway: &Gateway,
    caller: Caller,
    headers: &HeaderMap,
    body: Received,
) -> Result<Response, ApiError> {
    let Received { bytes, taken } = body;
    let bytes = match web_search::intercept(gateway, caller, bytes).await? {
        web_search::Intercepted::Reply(reply) => return Ok(reply),
        web_search::Intercepted::Message(bytes) => bytes,
    };
    let mut running = gateway.metrics.arrive(caller);
    let (request, parts, prefix) = request_reader::message(gateway, caller, bytes)
        .await
        .inspect_err(|_| running.end(Ended::Refused))?;
    if let Some(sentence) = &request.loop_ended {
        running.end(Ended::Answered);
        return Ok(canned::reply(sentence, &request));
    }
    if gateway.metrics.queued() > gateway.limits.waiting {
        running.end(Ended::Refused);
        let message = "too many requests wait for the model already";
        return Err(ApiError::new(529, "overloaded_error", message));
    }
    let stream = request.stream;
    let standing = standing(caller, headers, &request);
    let turn = Turn {
        gateway: gateway.clone(),
        body: request.body.clone(),
        _taken: taken,
        asked: request.max_tokens,
        request,
        parts,
        caller,
        running,
        counted: None,
        abandoned: false,
    };
    gateway
        .prefix_warmer
        .on_request(caller, client_name(headers), prefix);
    let place = gateway.queue.enter(standing);
    match (stream, gateway.exclusive) {
        (true, _) => turn.streamed(place).await,
        (false, true) => turn.gathered(place).await,
        (false, false) => turn.plain(place).await,
    }
}

/// How the client names itself.
pub(super) fn client_name(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::USER_AGENT)?.to_str().ok()
}

/// Claude Code sends tools with each step of a conversation, its session's or an agent's. Without tools it asks in the background, for a title or about a
/// page that was fetched.
fn standing(caller: Caller, headers: &HeaderMap, request: &anthropic::Request) -> Standing {
    let is_claude_code = client_name(headers).is_some_and(|name| name.starts_with(CLIENT));
    if !request.tools.is_empty() {
        let agent = headers.get("x-claude-code-agent-id");
        let agent = agent.map(header::HeaderValue::as_bytes);
        return Standing::Step(Conversation::of(caller, agent));
    }
    match is_claude_code {
        true => Standing::Background,
        false => Standing::Alone,
    }
}

struct Turn {
    gateway: Gateway,
    request: anthropic::Request,
    body: Bytes,
    /// The room that it takes.
    _taken: Taken,
    /// The longest reply that was asked for, in tokens. The request's own is what is left of the window, if that is less.
    asked: u64,
    /// Of the prompt, until it is answered.
    parts: Option<Parts>,
    caller: Caller,
    running: Running,
    /// The prompt's length as the engine counts it, once it was asked.
    counted: Option<u64>,
    /// The reply has ended at a stop sequence, and the engine goes on.
    abandoned: bool,
}

/// Where the reply goes.
enum Client {
    Stream(EventSender),
    Plain(Vec<u8>),
}

impl Client {
    fn begun(&self) -> bool {
        match self {
            Self::Stream(sender) => sender.begun(),
            Self::Plain(_) => false,
        }
    }

    fn forget(&mut self) {
        if let Self::Stream(sender) = self {
            sender.forget();
        }
    }
}

impl Turn {
    async fn plain(mut self, place: Place) -> Result<Response, ApiError> {
        let mut client = Client::Plain(Vec::new());
        let done = self.run(place, &mut client).await;
        if let Err(failure) = done {
            return Err(api_error(failure));
        }
        let Client::Plain(reply) = client else {
            return Err(upstream::invalid_answer());
        };
        Ok(whole(reply))
    }

    /// A plain reply of what the engine streams.
    async fn gathered(self, place: Place) -> Result<Response, ApiError> {
        // Nobody reads it before its end.
        const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
        let (sender, reply) = sse_writer::channel(NEVER, upstream::REPLY_BODY);
        let _task = AbortOnDropHandle::new(tokio::spawn(self.fill(place, sender)));
        let broken = || api_error(Failure::Lost("the reply broke off".into()));
        let events = reply.gather().await.unwrap_or_else(|| Err(broken()))?;
        let message = anthropic::message(events);
        message
            .map(whole)
            .map_err(|error| error.unwrap_or_else(broken))
    }

    async fn streamed(self, place: Place) -> Result<Response, ApiError> {
        let limits = &self.gateway.limits;
        let hold = limits.hold;
        let (sender, reply) = sse_writer::channel(limits.ping, limits.unread);
        // The task ends with the reply, and the reply with the client's connection.
        let task = AbortOnDropHandle::new(tokio::spawn(self.fill(place, sender)));
        match reply.begin(hold).await {
            Beginning::Error(error) => Err(error),
            Beginning::Stream(streaming) => {
                let mut response = Response::new(Body::from_stream(streaming.body(task)));
                let headers = response.headers_mut();
                let value = header::HeaderValue::from_static;
                headers.insert(header::CONTENT_TYPE, value("text/event-stream"));
                headers.insert(header::CACHE_CONTROL, value("no-cache"));
                Ok(response)
            }
        }
    }

    async fn fill(mut self, place: Place, sender: EventSender) {
        let mut client = Client::Stream(sender);
        let done = self.run(place, &mut client).await;
        let Client::Stream(sender) = client else {
            return;
        };
        // It is counted before the client can know that this is over.
        drop(self);
        match done {
            Ok(()) => sender.end(),
            Err(Failure::Lost(_)) if sender.begun() => sender.break_off(),
            Err(failure) => sender.error(api_error(failure)),
        }
    }

    /// The whole of it, and how it ended, for the metrics.
    async fn run(&mut self, place: Place, client: &mut Client) -> Result<(), Failure> {
        let stop = self.gateway.stop.clone();
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.running.end(Ended::Stopped);
                return Err(Failure::Refused(ApiError::new(upstream::GONE, "api_error", "cclocal is stopping")));
            }
            done = self.take_turn(place, client) => done,
        };
        self.running.end(match &done {
            Ok(()) => match client {
                Client::Stream(sender) if sender.failed() => Ended::EngineError,
                _ => Ended::Answered,
            },
            Err(Failure::Lost(_)) => Ended::EngineLost,
            Err(Failure::Stalled) => Ended::Stalled,
            Err(Failure::Away(_) | Failure::Busy(..) | Failure::Refused(_)) => Ended::EngineError,
        });
        if done.is_ok() {
            self.look_for_break();
        }
        done
    }

    /// Says where the prefix cache was of no use, if it was of none.
    fn look_for_break(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        let (metrics, usage) = (&self.gateway.metrics, self.running.tokens());
        if let Some(found) = metrics.cache_watch().see(self.caller, parts, usage) {
            let why = match found.part {
                Some(part) => format!("{part} changed"),
                None => "it had the prompt no more".into(),
            };
            tracing::info!(tokens = found.tokens, "a break of the prefix cache: {why}");
        }
    }

    async fn take_turn(&mut self, place: Place, client: &mut Client) -> Result<(), Failure> {
        let mut engine = self.gateway.engine.clone();
        let mut turn = pin!(place.turn());
        // What is too long is refused without waiting for others, if the engine can count meanwhile.
        let mut held = None;
        if let Some(target) = upstream::ready_now(&engine) {
            tokio::select! {
                biased;
                mine = &mut turn => held = Some(mine),
                // Any other failure is met again when it is its turn.
                guarded = self.guard(&target) => if let Err(Failure::Refused(error)) = guarded {
                    return Err(Failure::Refused(error));
                },
            }
        }
        let held = match held {
            Some(mine) => mine,
            None => turn.await,
        };
        let mut in_flight = InFlight::new(&self.gateway, held);

        let mut replays = 0;
        let mut backoff = Backoff::new(&self.gateway.limits);
        loop {
            let target = upstream::ready(&mut engine)
                .await
                .map_err(Failure::Refused)?;
            in_flight.engine_has_it(target.clone());
            let done = self.attempt(&target, client).await;
            if matches!(
                done,
                Ok(()) | Err(Failure::Away(_) | Failure::Busy(..) | Failure::Refused(_))
            ) && !self.abandoned
            {
                in_flight.engine_is_free();
            }
            match done {
                Ok(()) => {
                    self.gateway.queue.speed_up();
                    if let Some(outages) = &self.gateway.outages {
                        outages.is_back();
                    }
                    return Ok(());
                }
                // Our own engine has nothing else to do.
                Err(Failure::Busy(error, wanted)) if !client.begun() && !self.gateway.exclusive => {
                    let Some(wait) = backoff.next(wanted) else {
                        return Err(Failure::Refused(error));
                    };
                    tracing::debug!(?wait, "the engine has too many requests");
                    self.gateway.queue.slow_down();
                    client.forget();
                    tokio::time::sleep(wait).await;
                }
                Err(failure) if !client.begun() && replays < self.gateway.limits.replays => {
                    let why = self.outage(&target, failure).await?;
                    tracing::debug!(why, "the engine was lost before it answered");
                    replays += 1;
                    client.forget();
                    match &self.gateway.outages {
                        None => upstream::wait_for_change(&mut engine, &self.gateway.limits).await,
                        Some(outages) => {
                            let upstream = &self.gateway.upstream;
                            let waited = outages.wait(upstream, &target, &why).await;
                            waited.map_err(Failure::Refused)?;
                            // It may be about to go.
                            tokio::time::sleep(self.gateway.limits.notice / 5 * replays).await;
                        }
                    }
                }
                done => return done,
            }
        }
    }

    /// Why the engine did not answer, if it is not there. Errors: it is, and has answered with this.
    async fn outage(&self, target: &Target, failure: Failure) -> Result<String, Failure> {
        match (failure, &self.gateway.outages) {
            (Failure::Lost(why), _) => Ok(why),
            (Failure::Away(error), Some(_)) => Ok(error.message),
            // vLLM answers so while it dies.
            (Failure::Refused(error), Some(_))
                if error.status == 500 && !self.gateway.upstream.is_up(target).await =>
            {
                Ok(error.message)
            }
            (failure, _) => Err(failure),
        }
    }

    async fn attempt(&mut self, target: &Target, client: &mut Client) -> Result<(), Failure> {
        self.guard(target).await?;
        self.running.start();
        loop {
            let done = self.send(target, client).await;
            let overflow = match &done {
                Err(Failure::Refused(error)) if !client.begun() => error.overflow,
                _ => None,
            };
            let Some(overflow) = overflow else {
                return done;
            };
            let Some(reply) = self.shorter_reply(&overflow) else {
                return Err(self.too_long(&overflow));
            };
            tracing::debug!(reply, "the engine's window leaves less");
            client.forget();
            self.limit_reply(reply);
        }
    }

    async fn send(&mut self, target: &Target, client: &mut Client) -> Result<(), Failure> {
        match client {
            Client::Stream(sender) => self.forward(target, sender).await,
            Client::Plain(reply) => {
                *reply = self.whole(target).await?;
                Ok(())
            }
        }
    }

    async fn whole(&mut self, target: &Target) -> Result<Vec<u8>, Failure> {
        let body = self
            .gateway
            .upstream
            .post_plain(
                target,
                "/v1/messages",
                self.body.clone(),
                self.gateway.limits.stall,
            )
            .await?;
        let (reply, usage) = anthropic::reply(&body, &self.request).map_err(Failure::Refused)?;
        self.running.usage(usage);
        Ok(reply)
    }

    async fn forward(&mut self, target: &Target, sender: &mut EventSender) -> Result<(), Failure> {
        let stall = self.gateway.limits.stall;
        let mut response = self
            .gateway
            .upstream
            .post(target, "/v1/messages", self.body.clone(), stall)
            .await?;
        if !is_event_stream(&response) {
            return Err(Failure::Refused(upstream::invalid_answer()));
        }
        let mut repair =
            anthropic::Streamed::new(&self.request, &self.gateway.served(), self.counted);
        let mut stall_timeout = upstream::StallTimeout::new(stall);
        let ended = loop {
            let piece = match stall_timeout.piece(&mut response).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            };
            let events = repair.push(&piece);
            if let Some(why) = events.iter().find_map(dying_words) {
                return Err(Failure::Lost(why));
            }
            sender.send(events)?;
            if sender.begun() {
                self.running.token();
            }
            if repair.is_over() {
                self.abandoned = repair.is_abandoned();
                // A whole reply is read to its end, so that the engine is not disturbed; what comes after an error is not waited for.
                if sender.complete() && !self.abandoned {
                    let rest = async {
                        while let Ok(Some(_)) = stall_timeout.piece(&mut response).await {}
                    };
                    let _ = tokio::time::timeout(REST, rest).await;
                }
                break Ok(());
            }
        };
        self.running.usage(repair.usage());
        if let Err(Failure::Stalled) = ended {
            return Err(Failure::Stalled);
        }
        if !sender.complete() && !sender.failed() {
            let rest = repair.finish();
            self.running.usage(repair.usage());
            // What it lacks is told by breaking off, not by an event.
            if rest.iter().all(|event| event.error().is_none()) {
                sender.send(rest)?;
            }
        }
        if sender.complete() || sender.failed() {
            return Ok(());
        }
        Err(match ended {
            Err(failure) => failure,
            Ok(()) => Failure::Lost("the engine ended its answer before its time".into()),
        })
    }
}

/// The error that vLLM puts into its streams when its engine core is dead: it takes it for a piece of a reply, which it is not.
fn dying_words(event: &anthropic::Event) -> Option<String> {
    let error = event.error()?;
    let marks = ["ChatCompletionStreamResponse", "EngineCore", "EngineDead"];
    let is_dying = marks.iter().any(|mark| error.message.contains(mark));
    is_dying.then(|| "its engine core is dead".to_owned())
}

fn is_event_stream(response: &reqwest::Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn whole(reply: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(reply));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// What the client is told.
fn api_error(failure: Failure) -> ApiError {
    match failure {
        // The real client tries again, streamed, after this one.
        Failure::Lost(why) => ApiError::new(
            529,
            "overloaded_error",
            format!("the engine was lost ({why})"),
        ),
        Failure::Stalled => ApiError::new(
            504,
            "timeout_error",
            "the engine has sent nothing for too long",
        ),
        Failure::Away(error) | Failure::Busy(error, _) | Failure::Refused(error) => error,
    }
}
