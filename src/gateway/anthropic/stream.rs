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

use serde_json::{Value, json};

use crate::gateway::anthropic::event::{Data, Delta, Event};
use crate::gateway::anthropic::parsed_call::ParsedCall;
use crate::gateway::anthropic::streamed::Stage;
use crate::gateway::anthropic::{Request, Usage, markup, markup::Markup, notice};
use crate::gateway::tool_calls::schema::Tools;

/// The most that is held back, in bytes. A reply has some tens of thousands of tokens.
const MAX_HELD: usize = 64 << 20;

/// A streamed reply on its way to the client: repaired, event by event.
#[derive(Debug)]
pub(super) struct Repair {
    asked_model: String,
    aliases: Arc<HashMap<String, String>>,
    max_tokens: u64,
    /// The prompt's are those that were counted before, until the engine states any.
    usage: Usage,
    /// The engine has said how long the prompt was.
    has_stated: bool,
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
    event: Event,
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
    pub(super) fn new(request: &Request, prompt_tokens: Option<u64>) -> Self {
        Self {
            asked_model: request.asked_model.clone(),
            aliases: request.aliases.clone(),
            tools: request.tools.clone(),
            max_tokens: request.max_tokens,
            has_stated: false,
            usage: Usage {
                input_tokens: prompt_tokens.unwrap_or(0),
                ..Usage::default()
            },
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

    /// What is known of the tokens so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the client has seen anything of the reply, pings aside. If not, the request can be sent to the engine again, with another `Repair`.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Takes the beginning of the reply.
    pub(super) fn start(&mut self, data: Data) {
        let Data::MessageStart { mut message, .. } = data else {
            return;
        };
        if let Some(message) = message.as_object_mut() {
            message.insert("model".into(), self.asked_model.clone().into());
            let usage = message.entry("usage").or_insert_with(|| json!({}));
            self.read_usage(usage);
            if let Some(usage) = usage.as_object_mut() {
                if !self.has_stated {
                    usage.insert("input_tokens".into(), self.usage.input_tokens.into());
                }
                usage.entry("input_tokens").or_insert(json!(0));
                usage.entry("output_tokens").or_insert(json!(0));
            }
        }
        self.keep(Event::message_start(message), Kind::Plain);
    }

    /// Takes an event of a reply that has begun, and puts what is ready for the client into `out`. Errors: the reply can't go on.
    pub(super) fn take(
        &mut self,
        event: Event,
        out: &mut Vec<Event>,
    ) -> Result<Stage, &'static str> {
        match &event.data {
            Data::BlockStart { .. } => self.block_start(event, out),
            Data::Delta { .. } => self.delta(event, out),
            Data::BlockStop { index } => self.block_stop(*index, event),
            Data::MessageDelta { .. } => {
                self.message_delta(event, out);
                return Ok(Stage::Complete);
            }
            _ => self.pass(event, out),
        }
        match self.held_bytes > MAX_HELD {
            true => Err("the engine sent too large a tool call"),
            false => Ok(Stage::Running),
        }
    }

    fn block_start(&mut self, mut event: Event, out: &mut Vec<Event>) {
        let Data::BlockStart { index, block, .. } = &mut event.data else {
            return;
        };
        let index = index.unwrap_or(self.next_index);
        self.next_index = self.next_index.max(index.saturating_add(1));
        if block["type"] == "tool_use" {
            let told = block["name"].as_str().unwrap_or_default();
            let name = self.aliases.get(told).cloned();
            self.calls.push(ParsedCall::new(index, block, name.clone()));
            if let Some(name) = name {
                block["name"] = name.into();
                event = event.data.into();
            }
            self.hold = Hold::End;
            return self.keep(event, Kind::Call(self.calls.len() - 1));
        }
        // The block before has ended, and the reply has not.
        if self.hold == Hold::End && self.calls.is_empty() {
            if self.suspect.is_empty() {
                self.release(out);
            } else {
                self.hold = Hold::Markup;
            }
        }
        self.pass(event, out);
    }

    fn delta(&mut self, event: Event, out: &mut Vec<Event>) {
        let Data::Delta { index, delta } = &event.data else {
            return;
        };
        if let Delta::Text { text, .. } = delta {
            self.text_bytes += text.len() as u64;
            return self.text(event, out);
        }
        if let Some(call) = self.call(*index) {
            self.calls[call].push(delta.content());
            return self.keep(event, Kind::Call(call));
        }
        if self.hold == Hold::Beginning {
            self.release(out);
        }
        self.pass(event, out);
    }

    fn text(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.hold == Hold::Beginning {
            self.release(out);
        }
        let text = match &event.data {
            Data::Delta { delta, .. } => delta.content(),
            _ => "",
        };
        if self.hold == Hold::End || (self.suspect.is_empty() && !text.contains('<')) {
            return self.pass(event, out);
        }
        let begins = self.suspect.len();
        self.suspect.push_str(text);
        let length = text.len();
        self.hold = Hold::Markup;
        self.keep(event, Kind::Suspect(begins));
        // An open call is looked at again only when this could have closed it.
        if self.is_markup_open && !markup::closes(&self.suspect[self.look_from..], length) {
            return;
        }
        let markup = markup::look(&self.suspect, self.look_from);
        self.is_markup_open = matches!(markup, Markup::Open(_));
        match markup {
            Markup::None => self.release(out),
            Markup::Open(start) | Markup::Perhaps(start) => self.look_from = start,
        }
    }

    fn block_stop(&mut self, index: Option<u64>, event: Event) {
        let kind = self.call(index).map_or(Kind::Plain, Kind::Call);
        if self.hold != Hold::Beginning || kind != Kind::Plain {
            self.hold = Hold::End;
        }
        self.keep(event, kind);
    }

    /// The reply is complete: what is held can be judged.
    fn message_delta(&mut self, mut event: Event, out: &mut Vec<Event>) {
        let Data::MessageDelta { delta, usage, .. } = &mut event.data else {
            return;
        };
        let before = (delta.clone(), usage.clone());
        if !usage.is_object() {
            *usage = json!({});
        }
        // An engine that says here how long the prompt was says the true reason of the end as well.
        let is_truthful = self.read_usage(usage);
        if !self.has_stated && self.usage.input_tokens > 0 {
            usage["input_tokens"] = self.usage.input_tokens.into();
        }
        let was_cut = delta["stop_reason"] == "max_tokens"
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
        self.release_without(whole, leak, out);
        let is_told = notice.is_some();
        if let Some(notice) = notice {
            out.extend(Event::text_block(self.next_index, notice));
        }
        if was_cut || is_told {
            delta["stop_reason"] = "max_tokens".into();
        }
        if before != (delta.clone(), usage.clone()) {
            event = event.data.into();
        }
        out.push(event);
    }

    /// How many of the calls are whole. Those after it are not for the client.
    fn whole_calls(&self, was_cut: bool, is_truthful: bool) -> usize {
        let whole = self
            .calls
            .iter()
            .position(|call| !call.is_whole())
            .unwrap_or(self.calls.len());
        if was_cut && !is_truthful {
            // Some parsers close what was cut, so the last call cannot be authenticated.
            return whole.min(self.calls.len().saturating_sub(1));
        }
        whole
    }

    /// Whether more was generated than came as text: what is missing was the beginning of a call. A token is at least a byte, nearly always more.
    fn has_lost_text(&self) -> bool {
        self.text_bytes < self.usage.output_tokens
    }

    /// Reads what an event states, and returns whether it says how long the prompt was. What stood in an event before and isn't stated again stands.
    fn read_usage(&mut self, usage: &Value) -> bool {
        let stated = Usage::of(usage);
        let is_stated = stated.computed() > 0 || stated.cache_read_input_tokens > 0;
        if is_stated && !std::mem::replace(&mut self.has_stated, true) {
            self.usage.input_tokens = 0;
        }
        let known = &mut self.usage;
        for (known, stated) in [
            (&mut known.input_tokens, stated.input_tokens),
            (
                &mut known.cache_creation_input_tokens,
                stated.cache_creation_input_tokens,
            ),
            (
                &mut known.cache_read_input_tokens,
                stated.cache_read_input_tokens,
            ),
            (&mut known.output_tokens, stated.output_tokens),
        ] {
            if stated > 0 {
                *known = stated;
            }
        }
        is_stated
    }

    /// The call that the block with this index is.
    fn call(&self, index: Option<u64>) -> Option<usize> {
        let index = index?;
        self.calls.iter().rposition(|call| call.index == index)
    }

    fn pass(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.hold == Hold::No {
            self.has_sent = true;
            out.push(event);
        } else {
            self.keep(event, Kind::Plain);
        }
    }

    fn keep(&mut self, event: Event, kind: Kind) {
        self.held_bytes += event.size();
        self.held.push(Held { event, kind });
    }

    /// Sends all that is held.
    fn release(&mut self, out: &mut Vec<Event>) {
        self.release_without(usize::MAX, None, out);
    }

    /// Sends what is held, but for the calls from `whole` on and the text from `open` on.
    fn release_without(&mut self, whole: usize, open: Option<usize>, out: &mut Vec<Event>) {
        // The call that was looked at last, and whether it was sent already.
        let mut last = (usize::MAX, false);
        for held in self.held.drain(..) {
            match (held.kind, open) {
                (Kind::Call(call), _) if call >= whole || last == (call, true) => {}
                (Kind::Call(call), _) => {
                    if last.0 != call {
                        let fitted = self.calls[call].fitted(&self.tools);
                        last = (call, fitted.is_some());
                        out.extend(fitted.into_iter().flatten());
                    }
                    if !last.1 {
                        out.push(held.event);
                    }
                }
                (Kind::Suspect(begins), Some(open)) if begins >= open => {}
                (Kind::Suspect(begins), Some(open)) => {
                    out.push(shortened(held.event, open - begins));
                }
                _ => out.push(held.event),
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
}

/// A text delta with the first `length` bytes of its text.
fn shortened(event: Event, length: usize) -> Event {
    match event.data {
        Data::Delta {
            index,
            delta: Delta::Text { mut text, marks },
        } => {
            text.truncate(length);
            let delta = Delta::Text { text, marks };
            Data::Delta { index, delta }.into()
        }
        data => data.into(),
    }
}
