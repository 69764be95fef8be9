//! A reply that the engine hands over as the model wrote it, on its way to the client.
//!
//! Its text is read by [`crate::gateway::tool_calls`]. Text goes on as it comes; the end of a block and every call wait for the end of the reply, as
//! for any other engine (see [`mod@crate::gateway::anthropic::stream`]).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::catalog::Form;
use crate::gateway::anthropic::sse;
use crate::gateway::anthropic::stop_sequences::StopSequences;
use crate::gateway::anthropic::{ApiError, Request, Served, Usage, notice};
use crate::gateway::tool_calls::schema::Tools;
use crate::gateway::tool_calls::{Call, Ending, Options, Piece, Reader, Start, Wrong};

/// What a stream of a text as it was generated says in its first event.
pub const FIELD: &str = "as_generated";

/// A reply that is read here.
#[derive(Debug)]
pub struct Generated {
    sse: sse::Reader,
    asked_model: String,
    max_tokens: u64,
    tools: Arc<Tools>,
    /// See [`Request::aliases`].
    aliases: Arc<HashMap<String, String>>,
    served: Served,
    /// Made when it is known what the prompt ends in.
    reader: Option<Reader>,
    /// Whether the tokenizer has the end marker of a thought as a token.
    knows_thought_end: bool,
    stops: StopSequences,
    /// Part of every call's id, which no other reply has.
    id: String,
    usage: Usage,
    /// The block that is open.
    open: Option<Block>,
    /// The number of blocks that were begun.
    blocks: u64,
    calls: u64,
    stage: Stage,
    /// Whether the engine still works at what is not wanted any more.
    is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thought,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Expected,
    Running,
    /// `message_delta` has passed.
    Complete,
    Over,
}

impl Generated {
    pub fn new(request: &Request, served: &Served) -> Self {
        Self {
            sse: sse::Reader::default(),
            stops: StopSequences::new(&request.stop_sequences),
            asked_model: request.asked_model.clone(),
            max_tokens: request.max_tokens,
            tools: request.tools.clone(),
            aliases: request.aliases.clone(),
            served: served.clone(),
            reader: None,
            knows_thought_end: false,
            id: String::new(),
            usage: Usage::default(),
            open: None,
            blocks: 0,
            calls: 0,
            stage: Stage::Expected,
            is_abandoned: false,
        }
    }

    /// Takes bytes of the engine's stream, split anywhere, and returns those that are ready for the client.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reader = std::mem::take(&mut self.sse);
        reader.push(bytes);
        while self.stage != Stage::Over {
            match reader.next() {
                Ok(Some(event)) => match serde_json::from_slice::<Value>(&event.data) {
                    Ok(data) => self.take(&data, &mut out),
                    Err(_) => self.fail("the engine sent what is no event", &mut out),
                },
                Ok(None) => break,
                Err(sse::TooLarge) => self.fail("the engine sent too large an event", &mut out),
            }
        }
        self.sse = reader;
        out
    }

    /// The engine's stream has ended: an `error` event if that was before its time.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.stage {
            Stage::Over => {}
            Stage::Complete => self.stop(&mut out),
            Stage::Expected | Stage::Running => {
                self.fail("the engine broke off its reply", &mut out);
            }
        }
        out
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether the engine goes on with what is not wanted any more.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    fn take(&mut self, data: &Value, out: &mut Vec<u8>) {
        let kind = data["type"].as_str().unwrap_or_default();
        match (kind, self.stage) {
            ("error", _) => {
                self.stage = Stage::Over;
                out.extend(ApiError::from_event(data).event());
            }
            ("message_start", Stage::Expected) => self.message_start(data, out),
            ("content_block_start", Stage::Running) => {
                let tail = data["prompt_tail"].as_str().unwrap_or_default();
                self.begin(tail);
            }
            ("content_block_delta", Stage::Running) => {
                let text = data["delta"]["text"].as_str().unwrap_or_default();
                let marks = marks(text, &data["marks"]);
                let pieces = self.begin("").push(text, &marks);
                self.pieces(pieces, out);
            }
            ("message_delta", Stage::Running) => self.message_delta(data, out),
            ("message_stop", Stage::Complete) => self.stop(out),
            ("message_stop", _) => self.fail("the engine broke off its reply", out),
            _ => {}
        }
    }

    fn message_start(&mut self, data: &Value, out: &mut Vec<u8>) {
        let vocabulary = data[FIELD]["vocabulary"].as_array();
        self.knows_thought_end = vocabulary.is_some_and(|words| {
            let ends = ["</think>", "[/THINK]"];
            words
                .iter()
                .filter_map(Value::as_str)
                .any(|word| ends.contains(&word))
        });
        let mut message = data["message"].clone();
        message["model"] = json!(self.asked_model);
        let id = message["id"].as_str().unwrap_or_default();
        self.id = id.trim_start_matches("msg_").to_owned();
        self.stage = Stage::Running;
        out.extend(event(&json!({"type": "message_start", "message": message})));
    }

    fn begin(&mut self, prompt_tail: &str) -> &mut Reader {
        self.reader.get_or_insert_with(|| {
            let start = Start::of(prompt_tail, self.knows_thought_end, self.served.may_think);
            let options = Options {
                form: self.served.form.unwrap_or(Form::UNKNOWN),
                prose_calls: self.served.prose_calls,
                start,
            };
            Reader::new(&options, self.tools.clone())
        })
    }

    /// Returns what is wrong with the reply, if something is.
    fn pieces(&mut self, pieces: Vec<Piece>, out: &mut Vec<u8>) -> Option<Wrong> {
        for piece in pieces {
            if self.stage != Stage::Running {
                break;
            }
            match piece {
                Piece::Text(text) => self.text(&text, out),
                Piece::Thought(thought) => self.thought(&thought, out),
                Piece::Call(call) => self.call(call, out),
                Piece::Wrong(wrong) => return Some(wrong),
            }
        }
        None
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        let (text, stopped) = self.stops.push(text);
        self.delta(Block::Text, &text, out);
        if let Some(sequence) = stopped {
            self.is_abandoned = true;
            self.end("stop_sequence", Some(&sequence), out);
            self.stop(out);
        }
    }

    fn thought(&mut self, thought: &str, out: &mut Vec<u8>) {
        if self.served.shows_thoughts {
            self.delta(Block::Thought, thought, out);
        }
    }

    fn delta(&mut self, block: Block, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let (kind, field) = match block {
            Block::Text => ("text", "text"),
            Block::Thought => ("thinking", "thinking"),
        };
        if self.open != Some(block) {
            self.close(out);
            let mut content = json!({"type": kind, field: ""});
            if block == Block::Thought {
                content["signature"] = json!("");
            }
            self.start(&content, out);
            self.open = Some(block);
        }
        out.extend(event(&json!({
            "type": "content_block_delta",
            "index": self.blocks - 1,
            "delta": {"type": format!("{kind}_delta"), field: text},
        })));
    }

    fn start(&mut self, content: &Value, out: &mut Vec<u8>) {
        out.extend(event(&json!({
            "type": "content_block_start",
            "index": self.blocks,
            "content_block": content,
        })));
        self.blocks += 1;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            self.end_block(out);
        }
    }

    fn end_block(&self, out: &mut Vec<u8>) {
        out.extend(event(
            &json!({"type": "content_block_stop", "index": self.blocks - 1}),
        ));
    }

    fn call(&mut self, call: Call, out: &mut Vec<u8>) {
        self.rest_of_text(out);
        self.close(out);
        let name = self.aliases.get(&call.name).unwrap_or(&call.name).clone();
        let id = format!("toolu_{}_{}", self.id, self.calls);
        self.calls += 1;
        self.start(
            &json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
            out,
        );
        out.extend(event(&json!({
            "type": "content_block_delta",
            "index": self.blocks - 1,
            "delta": {"type": "input_json_delta", "partial_json": Value::Object(call.input).to_string()},
        })));
        self.end_block(out);
    }

    /// Sends what was kept back as the possible beginning of a stop sequence.
    fn rest_of_text(&mut self, out: &mut Vec<u8>) {
        let rest = self.stops.finish();
        self.delta(Block::Text, &rest, out);
    }

    fn message_delta(&mut self, data: &Value, out: &mut Vec<u8>) {
        let tokens = |name: &str| data["usage"][name].as_u64().unwrap_or(0);
        self.usage = Usage {
            input_tokens: tokens("input_tokens"),
            cache_read_input_tokens: tokens("cache_read_input_tokens"),
            output_tokens: tokens("output_tokens"),
        };
        let ending = match data["delta"]["stop_reason"].as_str() {
            Some("max_tokens") => Ending::Limit,
            _ => Ending::Stop(data["stopped_by"].as_str().map(str::to_owned)),
        };
        self.begin("");
        let pieces = self.reader.take().map(|reader| reader.finish(&ending));
        let wrong = self.pieces(pieces.unwrap_or_default(), out);
        if self.stage != Stage::Running {
            return;
        }
        self.rest_of_text(out);
        let mut reason = match ending {
            Ending::Limit => "max_tokens",
            Ending::Stop(_) if self.calls > 0 => "tool_use",
            Ending::Stop(_) => "end_turn",
        };
        if let Some(wrong) = wrong {
            let said = notice::wrong(&wrong, &ending, self.max_tokens, |name| {
                self.aliases.get(name).map_or(name, String::as_str)
            });
            self.close(out);
            self.delta(Block::Text, &said, out);
            // The client then lets the model try again, three times at most.
            if wrong != Wrong::OnlyThought {
                reason = "max_tokens";
            }
        }
        if self.blocks == 0 {
            // A reply always has a block.
            self.start(&json!({"type": "text", "text": ""}), out);
            self.open = Some(Block::Text);
        }
        self.end(reason, None, out);
    }

    fn end(&mut self, reason: &str, sequence: Option<&str>, out: &mut Vec<u8>) {
        self.close(out);
        self.stage = Stage::Complete;
        out.extend(event(&json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": {
                "input_tokens": self.usage.input_tokens,
                "cache_read_input_tokens": self.usage.cache_read_input_tokens,
                "output_tokens": self.usage.output_tokens,
            },
        })));
    }

    fn stop(&mut self, out: &mut Vec<u8>) {
        self.stage = Stage::Over;
        out.extend(event(&json!({"type": "message_stop"})));
    }

    fn fail(&mut self, message: &str, out: &mut Vec<u8>) {
        self.stage = Stage::Over;
        out.extend(ApiError::new(500, "api_error", message).event());
    }
}

/// The real marker tokens of a text: where each stands, in bytes (the engine counts in code points), and which it is.
fn marks<'a>(text: &str, marks: &'a Value) -> Vec<(usize, &'a str)> {
    let Some(marks) = marks.as_array() else {
        return Vec::new();
    };
    let mut letters = text.char_indices().map(|(at, _)| at).enumerate();
    let mut found = Vec::new();
    for mark in marks {
        let (Some(number), Some(marker)) = (mark[0].as_u64(), mark[1].as_str()) else {
            continue;
        };
        // They come in their order.
        let at = letters.find(|(letter, _)| *letter as u64 == number);
        if let Some((_, at)) = at {
            found.push((at, marker));
        }
    }
    found
}

fn event(data: &Value) -> Vec<u8> {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_by_their_code_points() {
        let text = "é😀<tool_call>x</tool_call>";
        let told = json!([[2, "<tool_call>"], [14, "</tool_call>"]]);
        let want = [(6, "<tool_call>"), (18, "</tool_call>")];
        assert_eq!(marks(text, &told), want);
        for odd in [
            json!(null),
            json!([[99, "<tool_call>"]]),
            json!([["a", 1], [], 3]),
            json!("x"),
        ] {
            assert_eq!(marks(text, &odd), []);
        }
    }
}
