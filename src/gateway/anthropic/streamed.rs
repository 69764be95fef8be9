//! A streamed reply on its way to the client, whichever way the engine writes it.

use crate::gateway::anthropic::event::{Data, Event};
use crate::gateway::anthropic::generated::Generated;
use crate::gateway::anthropic::stream::Repair;
use crate::gateway::anthropic::{ApiError, Request, Served, Usage, sse};

/// A streamed reply: read here if the engine hands over what the model wrote, else repaired.
#[derive(Debug)]
pub struct Streamed {
    reader: sse::Reader,
    stage: Stage,
    repair: Repair,
    generated: Generated,
    /// The engine hands over what the model wrote, as `message_start` says.
    is_generated: bool,
}

/// How far the reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Expected,
    Running,
    /// `message_delta` has passed.
    Complete,
    /// `message_stop` or `error` has passed: whatever comes is not for the client.
    Over,
}

impl Streamed {
    /// `prompt_tokens`: the prompt's length, if it was counted before.
    pub fn new(request: &Request, served: &Served, prompt_tokens: Option<u64>) -> Self {
        Self {
            reader: sse::Reader::default(),
            stage: Stage::Expected,
            repair: Repair::new(request, prompt_tokens),
            generated: Generated::new(request, served),
            is_generated: false,
        }
    }

    /// Takes bytes of the engine's stream as they come, split anywhere, and returns the events that are ready for the client.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut out = Vec::new();
        if self.is_over() {
            return out;
        }
        self.reader.push(bytes);
        while !self.is_over() {
            let event = match self.reader.next() {
                Ok(Some(event)) => Event::read(&event).ok_or("the engine sent what is no event"),
                Ok(None) => break,
                Err(sse::TooLarge) => Err("the engine sent too large an event"),
            };
            if let Err(failure) = event.and_then(|event| self.take(event, &mut out)) {
                self.fail(failure, &mut out);
            }
        }
        out
    }

    /// The engine's stream has ended: what is left, and an `error` event if it ended before its time.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        match self.stage {
            Stage::Over => {}
            Stage::Complete => self.end(Event::message_stop(), &mut out),
            Stage::Expected | Stage::Running => {
                self.fail("the engine broke off its reply", &mut out);
            }
        }
        out
    }

    /// What is known of the tokens so far.
    pub fn usage(&self) -> Usage {
        match self.is_generated {
            true => self.generated.usage(),
            false => self.repair.usage(),
        }
    }

    /// Whether the reply has come to its end, good or bad.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether the engine goes on with what is not wanted any more.
    pub fn is_abandoned(&self) -> bool {
        self.generated.is_abandoned()
    }

    /// Errors: the reply can't go on.
    fn take(&mut self, event: Event, out: &mut Vec<Event>) -> Result<(), &'static str> {
        match (&event.data, self.stage) {
            // Before the reply the client gets pings of our own.
            (Data::Ping, _) if !self.repair.has_sent() => {}
            (Data::Ping, _) => out.push(event),
            (Data::Error(_), _) | (Data::MessageStop, Stage::Complete) => self.end(event, out),
            // After an error of its own that it could not put into words, this engine ends like this.
            (Data::MessageStop, _) => return Err("the engine broke off its reply"),
            (Data::MessageStart { as_generated, .. }, Stage::Expected) => {
                self.is_generated = as_generated.is_object();
                self.stage = Stage::Running;
                match self.is_generated {
                    true => self.generated.start(event.data, out),
                    false => self.repair.start(event.data),
                }
            }
            // Nothing of it is known to the client outside of a message.
            (Data::MessageStart { .. }, _) => {}
            (_, Stage::Running) => {
                self.stage = match self.is_generated {
                    true => self.generated.take(event.data, out),
                    false => self.repair.take(event, out)?,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the reply with an error. What is held is not sent: the end of a block would keep the client from asking again.
    fn fail(&mut self, message: &str, out: &mut Vec<Event>) {
        self.end(ApiError::new(500, "api_error", message).into(), out);
    }

    fn end(&mut self, last: Event, out: &mut Vec<Event>) {
        self.stage = Stage::Over;
        out.push(last);
    }
}
