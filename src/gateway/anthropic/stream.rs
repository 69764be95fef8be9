//! A streamed reply on its way to the client.
//!
//! Events pass unchanged, but for the model's name and the tokens. What is held back, and until when:
//!
//! - The beginning (`message_start` and an empty block) until something follows, so that a reply that fails before can be asked for again unseen.
//! - Text from what looks like the markup of a tool call on, until the call is closed.
//! - The end of a block, and every tool call, until the reply is complete: Claude Code carries a call out as soon as its block ends, and asks again by
//!   itself after an `error` event only as long as no block has ended (2.1.197; newer ones do so in any case). This engine sends a call
//!   as one event after all text, so nothing is late for it.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::gateway::anthropic::delta::{EMPTY_DELTA, contains, event, shortened};
use crate::gateway::anthropic::parsed_call::ParsedCall;
use crate::gateway::anthropic::sse::{self, Event};
use crate::gateway::anthropic::{ApiError, Request, Usage, markup, markup::Markup, notice};
use crate::gateway::tool_calls::schema::Tools;

/// The most that is held back, in bytes. A reply has some tens of thousands of tokens.
const MOST_HELD: usize = 64 << 20;

/// A streamed reply on its way to the client: repaired, event by event.
#[derive(Debug)]
pub struct Repair {
    reader: sse::Reader,
    asked_model: String,
    aliases: Arc<HashMap<String, String>>,
    max_tokens: u64,
    prompt_tokens: Option<u64>,
    usage: Usage,
    stage: Stage,
    hold: Hold,
    held: Vec<Held>,
    held_bytes: usize,
    /// The text of what is held for its markup.
    suspect: String,
    /// From where on `suspect` is looked at: what stands before was found to open nothing.
    look_from: usize,
    is_markup_open: bool,
    calls: Vec<ParsedCall>,
    tools: Arc<Tools>,
    /// One more than the last block's index.
    next_index: u64,
    /// Bytes of text in the reply, about.
    text_bytes: u64,
    has_sent: bool,
}

/// How far the reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Expected,
    Running,
    /// `message_delta` has passed.
    Complete,
    /// `message_stop` or `error` has passed: whatever comes is not for the client.
    Over,
}

/// Why events are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    No,
    Beginning,
    Markup,
    End,
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Text that is part of `suspect`, from this byte on.
    Suspect(usize),
    /// Of the call with this number.
    Call(usize),
}

impl Repair {
    /// `prompt_tokens`: the prompt's length, if it was counted before.
    pub fn new(request: &Request, prompt_tokens: Option<u64>) -> Self {
        Self {
            reader: sse::Reader::default(),
            asked_model: request.asked_model.clone(),
            aliases: request.aliases.clone(),
            tools: request.tools.clone(),
            max_tokens: request.max_tokens,
            prompt_tokens,
            usage: Usage {
                input_tokens: prompt_tokens.unwrap_or(0),
                ..Usage::default()
            },
            stage: Stage::Expected,
            hold: Hold::Beginning,
            held: Vec::new(),
            held_bytes: 0,
            suspect: String::new(),
            look_from: 0,
            is_markup_open: false,
            calls: Vec::new(),
            next_index: 0,
            text_bytes: 0,
            has_sent: false,
        }
    }

    /// Takes bytes of the engine's stream as they come, split anywhere, and returns the bytes that are ready for the client.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.stage == Stage::Over {
            return out;
        }
        let mut reader = std::mem::take(&mut self.reader);
        reader.push(bytes);
        while self.stage != Stage::Over {
            match reader.next() {
                Ok(Some(event)) => self.take(&event, &mut out),
                Ok(None) => break,
                Err(sse::TooLarge) => self.fail("the engine sent too large an event", &mut out),
            }
            if self.held_bytes > MOST_HELD {
                self.fail("the engine sent too large a tool call", &mut out);
            }
        }
        self.reader = reader;
        out
    }

    /// The engine's stream has ended: what is left, and an `error` event if it ended before its time.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.stage {
            Stage::Over => {}
            Stage::Complete => {
                self.stage = Stage::Over;
                out.extend(event("message_stop", &json!({"type": "message_stop"})));
            }
            Stage::Expected | Stage::Running => {
                self.fail("the engine broke off its reply", &mut out);
            }
        }
        out
    }

    /// What is known of the tokens so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the client has seen anything of the reply, pings aside. If not, the request can be sent to the engine again, with another `Repair`.
    pub fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether the reply has come to its end, good or bad.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn take(&mut self, event: &Event, out: &mut Vec<u8>) {
        if event.name == b"content_block_delta"
            && self.stage == Stage::Running
            && contains(&event.data, b"\"text_delta\"")
        {
            // Most events are these: checked, and not read.
            return match serde_json::from_slice::<IgnoredAny>(&event.data) {
                Ok(IgnoredAny) => self.text(event, out),
                Err(_) => self.fail("the engine sent what is no event", out),
            };
        }
        if event.name == b"ping" {
            return self.ping(event, out);
        }
        let Ok(data) = serde_json::from_slice::<Value>(&event.data) else {
            return self.fail("the engine sent what is no event", out);
        };
        let kind = data["type"].as_str().unwrap_or_default();
        match (kind, self.stage) {
            ("error", _) => self.give_up(&ApiError::from_event(&data), out),
            ("ping", _) => self.ping(event, out),
            ("message_start", Stage::Expected) => self.message_start(data),
            // After an error of its own that it could not put into words, this engine ends like this.
            ("message_stop", Stage::Expected | Stage::Running) => {
                self.fail("the engine broke off its reply", out);
            }
            ("message_stop", _) => {
                out.extend_from_slice(event.raw);
                self.stage = Stage::Over;
            }
            // Nothing of it is known to the client outside of a message.
            (_, Stage::Expected | Stage::Complete | Stage::Over) | ("message_start", _) => {}
            ("content_block_start", _) => self.block_start(event, &data, out),
            ("content_block_delta", _) => self.delta(event, &data, out),
            ("content_block_stop", _) => self.block_stop(event, &data),
            ("message_delta", _) => self.message_delta(event, data, out),
            _ => self.pass(event.raw, out),
        }
    }

    /// Before the reply the client gets pings of our own, and these would only be held.
    fn ping(&self, event: &Event, out: &mut Vec<u8>) {
        if self.has_sent {
            out.extend_from_slice(event.raw);
        }
    }

    fn message_start(&mut self, mut data: Value) {
        if let Some(message) = data["message"].as_object_mut() {
            message.insert("model".into(), self.asked_model.clone().into());
            let usage = message.entry("usage").or_insert_with(|| json!({}));
            self.read_usage(usage);
            if let Some(usage) = usage.as_object_mut() {
                usage.insert("input_tokens".into(), self.usage.input_tokens.into());
                usage.entry("output_tokens").or_insert(json!(0));
            }
        }
        self.stage = Stage::Running;
        self.keep(event("message_start", &data), Kind::Plain);
    }

    fn block_start(&mut self, event: &Event, data: &Value, out: &mut Vec<u8>) {
        let index = data["index"].as_u64().unwrap_or(self.next_index);
        self.next_index = self.next_index.max(index.saturating_add(1));
        let block = &data["content_block"];
        if block["type"] == "tool_use" {
            let told = block["name"].as_str().unwrap_or_default();
            let name = self.aliases.get(told).cloned();
            let bytes = match &name {
                Some(name) => {
                    let mut data = data.clone();
                    data["content_block"]["name"] = name.as_str().into();
                    self::event("content_block_start", &data)
                }
                None => event.raw.to_vec(),
            };
            self.calls.push(ParsedCall::new(index, data, name));
            self.hold = Hold::End;
            return self.keep(bytes, Kind::Call(self.calls.len() - 1));
        }
        // The block before has ended, and the reply has not.
        if self.hold == Hold::End && self.calls.is_empty() {
            if self.suspect.is_empty() {
                self.release(out);
            } else {
                self.hold = Hold::Markup;
            }
        }
        self.pass(event.raw, out);
    }

    fn delta(&mut self, event: &Event, data: &Value, out: &mut Vec<u8>) {
        let delta = &data["delta"];
        if delta["type"] == "text_delta" {
            return self.text(event, out);
        }
        if let Some(call) = self.call(data) {
            let piece = delta["partial_json"].as_str().unwrap_or_default();
            self.calls[call].push(piece);
            return self.keep(event.raw.to_vec(), Kind::Call(call));
        }
        if self.hold == Hold::Beginning {
            self.release(out);
        }
        self.pass(event.raw, out);
    }

    fn text(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.text_bytes += event.data.len().saturating_sub(EMPTY_DELTA) as u64;
        if self.hold == Hold::Beginning {
            self.release(out);
        }
        if self.hold == Hold::End || (self.suspect.is_empty() && !event.data.contains(&b'<')) {
            return self.pass(event.raw, out);
        }
        let text = serde_json::from_slice::<Value>(&event.data)
            .ok()
            .and_then(|data| data["delta"]["text"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let begins = self.suspect.len();
        self.suspect.push_str(&text);
        self.hold = Hold::Markup;
        self.keep(event.raw.to_vec(), Kind::Suspect(begins));
        // An open call is looked at again only when this could have closed it.
        if self.is_markup_open && !markup::closes(&self.suspect[self.look_from..], text.len()) {
            return;
        }
        let markup = markup::look(&self.suspect, self.look_from);
        self.is_markup_open = matches!(markup, Markup::Open(_));
        match markup {
            Markup::None => self.release(out),
            Markup::Open(start) | Markup::Perhaps(start) => self.look_from = start,
        }
    }

    fn block_stop(&mut self, event: &Event, data: &Value) {
        let kind = self.call(data).map_or(Kind::Plain, Kind::Call);
        if self.hold != Hold::Beginning || kind != Kind::Plain {
            self.hold = Hold::End;
        }
        self.keep(event.raw.to_vec(), kind);
    }

    /// The reply is complete: what is held can be judged.
    fn message_delta(&mut self, raw: &Event, mut data: Value, out: &mut Vec<u8>) {
        let before = data.clone();
        // An engine that says how long the prompt was says the true reason of the end as well.
        let is_truthful = data["usage"]["input_tokens"]
            .as_u64()
            .is_some_and(|tokens| tokens > 0);
        if !data["usage"].is_object() {
            data["usage"] = json!({});
        }
        self.read_usage(&data["usage"]);
        if !is_truthful && self.usage.input_tokens > 0 {
            data["usage"]["input_tokens"] = self.usage.input_tokens.into();
        }
        let was_cut = data["delta"]["stop_reason"] == "max_tokens"
            || (!is_truthful && self.usage.output_tokens >= self.max_tokens);
        let (open, leak) = match markup::look(&self.suspect, 0) {
            Markup::Open(start) if was_cut => (Some(start), Some(start)),
            // Where a marker is several tokens, the engine sends it as text before it knows it for a call.
            Markup::Perhaps(start) if !self.calls.is_empty() => (None, Some(start)),
            Markup::Open(start)
                if !self.calls.is_empty() && markup::is_bare(&self.suspect[start..]) =>
            {
                (None, Some(start))
            }
            _ => (None, None),
        };
        let whole = self.whole_calls(was_cut, is_truthful);
        let dropped = self.calls.get(whole).map(|call| call.name.clone());
        let is_lost = was_cut && !is_truthful && self.calls.is_empty() && self.has_lost_text();
        let notice = if was_cut && (open.is_some() || dropped.is_some() || is_lost) {
            let leaked = open.and_then(|start| markup::tool_name(&self.suspect[start..]));
            let name = dropped.as_deref().or(leaked);
            let name = name.map(|name| self.aliases.get(name).map_or(name, String::as_str));
            Some(notice::cut_call(name, self.max_tokens))
        } else {
            dropped.as_deref().map(notice::broken_call)
        };
        if let Some(notice) = notice {
            self.release_without(whole, leak, out);
            out.extend(self.block(&notice));
            data["delta"]["stop_reason"] = "max_tokens".into();
        } else {
            self.release_without(whole, leak, out);
            if was_cut {
                data["delta"]["stop_reason"] = "max_tokens".into();
            }
        }
        if data == before {
            out.extend_from_slice(raw.raw);
        } else {
            out.extend(event("message_delta", &data));
        }
        self.stage = Stage::Complete;
    }

    /// How many of the calls are whole. Those after it are not for the client.
    fn whole_calls(&self, was_cut: bool, is_truthful: bool) -> usize {
        let whole = self
            .calls
            .iter()
            .position(|call| !call.is_whole())
            .unwrap_or(self.calls.len());
        if was_cut && !is_truthful {
            // Some parsers close what was cut, so the last call cannot be trusted.
            return whole.min(self.calls.len().saturating_sub(1));
        }
        whole
    }

    /// Whether more was generated than came as text: what is missing was the beginning of a call. A token is at least a byte, nearly always more.
    fn has_lost_text(&self) -> bool {
        self.text_bytes < self.usage.output_tokens
    }

    fn read_usage(&mut self, usage: &Value) {
        let tokens = |name: &str| usage[name].as_u64();
        if let Some(input) = tokens("input_tokens").filter(|tokens| *tokens > 0) {
            self.usage.input_tokens = input;
            self.usage.cache_read_input_tokens = tokens("cache_read_input_tokens").unwrap_or(0);
        } else if let Some(prompt) = self.prompt_tokens {
            self.usage.input_tokens = prompt;
        }
        if let Some(output) = tokens("output_tokens") {
            self.usage.output_tokens = output;
        }
    }

    /// The call that an event of a block belongs to.
    fn call(&self, data: &Value) -> Option<usize> {
        let index = data["index"].as_u64()?;
        self.calls.iter().rposition(|call| call.index == index)
    }

    fn pass(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        if self.hold == Hold::No {
            self.has_sent = true;
            out.extend_from_slice(raw);
        } else {
            self.keep(raw.to_vec(), Kind::Plain);
        }
    }

    fn keep(&mut self, bytes: Vec<u8>, kind: Kind) {
        self.held_bytes += bytes.len();
        self.held.push(Held { bytes, kind });
    }

    /// Sends all that is held.
    fn release(&mut self, out: &mut Vec<u8>) {
        self.release_without(usize::MAX, None, out);
    }

    /// Sends what is held, but for the calls from `whole` on and the text from `open` on.
    fn release_without(&mut self, whole: usize, open: Option<usize>, out: &mut Vec<u8>) {
        // The call that was looked at last, and whether it was sent already.
        let mut last = (usize::MAX, false);
        for held in self.held.drain(..) {
            match (held.kind, open) {
                (Kind::Call(call), _) if call >= whole || last == (call, true) => {}
                (Kind::Call(call), _) => {
                    if last.0 != call {
                        let fitted = self.calls[call].fitted(&self.tools);
                        last = (call, fitted.is_some());
                        for data in fitted.into_iter().flatten() {
                            out.extend(event(data["type"].as_str().unwrap_or_default(), &data));
                        }
                    }
                    if !last.1 {
                        out.extend_from_slice(&held.bytes);
                    }
                }
                (Kind::Suspect(begins), Some(open)) if begins >= open => {}
                (Kind::Suspect(begins), Some(open)) => {
                    out.extend(shortened(&held.bytes, open - begins));
                }
                _ => out.extend_from_slice(&held.bytes),
            }
            self.has_sent = true;
        }
        self.next_index = self
            .calls
            .get(whole)
            .map_or(self.next_index, |call| call.index);
        self.held_bytes = 0;
        self.suspect.clear();
        self.look_from = 0;
        self.is_markup_open = false;
        self.hold = Hold::No;
    }

    /// A text block of our own, after all others.
    fn block(&self, text: &str) -> Vec<u8> {
        let index = self.next_index;
        let mut block = event(
            "content_block_start",
            &json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
        );
        block.extend(event(
            "content_block_delta",
            &json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}),
        ));
        block.extend(event(
            "content_block_stop",
            &json!({"type": "content_block_stop", "index": index}),
        ));
        block
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        self.give_up(&ApiError::new(500, "api_error", message), out);
    }

    /// Ends the reply with an error. What is held is not sent: the end of a block would keep the client from asking again.
    fn give_up(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        self.held.clear();
        self.held_bytes = 0;
        self.stage = Stage::Over;
        out.extend(error.event());
    }
}
