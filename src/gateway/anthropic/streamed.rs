//! A streamed reply on its way to the client, whichever way the engine writes it.

use serde_json::Value;

use crate::gateway::anthropic::generated::{self, Generated};
use crate::gateway::anthropic::stream::Repair;
use crate::gateway::anthropic::{Request, Served, Usage, sse};

/// A streamed reply: read here if the engine hands over what the model wrote, else repaired.
#[derive(Debug)]
pub struct Streamed(State);

#[derive(Debug)]
enum State {
    /// Until the first event says which it is.
    Expected {
        reader: sse::Reader,
        both: Option<Box<(Repair, Generated)>>,
    },
    Repaired(Box<Repair>),
    Generated(Box<Generated>),
}

impl Streamed {
    /// `prompt_tokens`: the prompt's length, if it was counted before.
    pub fn new(request: &Request, served: &Served, prompt_tokens: Option<u64>) -> Self {
        let repair = Repair::new(request, prompt_tokens);
        Self(State::Expected {
            reader: sse::Reader::default(),
            both: Some(Box::new((repair, Generated::new(request, served)))),
        })
    }

    /// Takes bytes of the engine's stream as they come, split anywhere, and returns the bytes that are ready for the client.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let State::Expected { reader, .. } = &mut self.0 else {
            return self.pass(bytes);
        };
        reader.push(bytes);
        let (mut seen, is_generated) = loop {
            match reader.next() {
                // Nothing of the reply: the client gets pings of our own.
                Ok(Some(event)) if event.name == b"ping" => {}
                Ok(Some(event)) => {
                    let data = serde_json::from_slice::<Value>(&event.data).unwrap_or_default();
                    let is_generated = data[generated::FIELD].is_object();
                    break (event.raw.to_vec(), is_generated);
                }
                Ok(None) => return Vec::new(),
                // It is told by whatever reads on.
                Err(sse::TooLarge) => break (Vec::new(), false),
            }
        };
        seen.extend_from_slice(reader.rest());
        self.decide(is_generated, &seen)
    }

    /// `seen`: what was read to decide it, and what came with it.
    fn decide(&mut self, is_generated: bool, seen: &[u8]) -> Vec<u8> {
        let State::Expected { both, .. } = &mut self.0 else {
            return Vec::new();
        };
        let Some(both) = both.take() else {
            return Vec::new();
        };
        let (repair, generated) = *both;
        self.0 = match is_generated {
            true => State::Generated(Box::new(generated)),
            false => State::Repaired(Box::new(repair)),
        };
        self.pass(seen)
    }

    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.0 {
            State::Expected { .. } => Vec::new(),
            State::Repaired(repair) => repair.push(bytes),
            State::Generated(generated) => generated.push(bytes),
        }
    }

    /// The engine's stream has ended: what is left, and an `error` event if it ended before its time.
    pub fn finish(&mut self) -> Vec<u8> {
        let seen = match &self.0 {
            State::Expected { reader, .. } => reader.rest().to_vec(),
            _ => Vec::new(),
        };
        let mut out = self.decide(false, &seen);
        out.extend(match &mut self.0 {
            State::Expected { .. } => Vec::new(),
            State::Repaired(repair) => repair.finish(),
            State::Generated(generated) => generated.finish(),
        });
        out
    }

    /// What is known of the tokens so far.
    pub fn usage(&self) -> Usage {
        match &self.0 {
            State::Expected { .. } => Usage::default(),
            State::Repaired(repair) => repair.usage(),
            State::Generated(generated) => generated.usage(),
        }
    }

    /// Whether the reply has come to its end, good or bad.
    pub fn is_over(&self) -> bool {
        match &self.0 {
            State::Expected { .. } => false,
            State::Repaired(repair) => repair.is_over(),
            State::Generated(generated) => generated.is_over(),
        }
    }

    /// Whether the engine goes on with what is not wanted any more.
    pub fn is_abandoned(&self) -> bool {
        matches!(&self.0, State::Generated(generated) if generated.is_abandoned())
    }
}
