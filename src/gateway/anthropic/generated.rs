//! A reply that the engine hands over as the model wrote it, on its way to the client.
//!
//! Its text is read by [`crate::gateway::tool_calls`]. Text goes on as it comes; the end of a block and every call wait for the end of the reply, as
//! for any other engine (see [`mod@crate::gateway::anthropic::stream`]).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::catalog::Form;
use crate::gateway::anthropic::event::{Data, Delta, Event};
use crate::gateway::anthropic::stop_sequences::StopSequences;
use crate::gateway::anthropic::streamed::Stage;
use crate::gateway::anthropic::{Request, Served, Usage, notice};
use crate::gateway::tool_calls::schema::Tools;
use crate::gateway::tool_calls::{Call, Ending, Options, Piece, Reader, Start, Wrong};

/// A reply that is read here.
#[derive(Debug)]
pub(super) struct Generated {
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
    /// Whether the engine still works at what is not wanted any more.
    is_abandoned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thought,
}

impl Generated {
    pub(super) fn new(request: &Request, served: &Served) -> Self {
        Self {
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
            is_abandoned: false,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the engine goes on with what is not wanted any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// Takes the beginning of the reply.
    pub(super) fn start(&mut self, data: Data, out: &mut Vec<Event>) {
        let Data::MessageStart {
            mut message,
            as_generated,
        } = data
        else {
            return;
        };
        let vocabulary = as_generated["vocabulary"].as_array();
        self.knows_thought_end = vocabulary.is_some_and(|words| {
            let ends = ["</think>", "[/THINK]"];
            words
                .iter()
                .filter_map(Value::as_str)
                .any(|word| ends.contains(&word))
        });
        message["model"] = json!(self.asked_model);
        let id = message["id"].as_str().unwrap_or_default();
        self.id = id.trim_start_matches("msg_").to_owned();
        out.push(Event::message_start(message));
    }

    /// Takes an event of a reply that has begun, and puts what is ready for the client into `out`.
    pub(super) fn take(&mut self, data: Data, out: &mut Vec<Event>) -> Stage {
        match data {
            Data::BlockStart { prompt_tail, .. } => {
                self.begin(&prompt_tail);
            }
            Data::Delta {
                delta: Delta::Text { text, marks },
                ..
            } => {
                let marks = marks_of(&text, &marks);
                let pieces = self.begin("").push(&text, &marks);
                self.pieces(pieces, out);
            }
            Data::MessageDelta {
                delta,
                usage,
                stopped_by,
            } => {
                self.message_delta(&delta, &usage, stopped_by, out);
                if !self.is_abandoned {
                    return Stage::Complete;
                }
            }
            _ => {}
        }
        match self.is_abandoned {
            true => Stage::Over,
            false => Stage::Running,
        }
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
    fn pieces(&mut self, pieces: Vec<Piece>, out: &mut Vec<Event>) -> Option<Wrong> {
        for piece in pieces {
            if self.is_abandoned {
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

    fn text(&mut self, text: &str, out: &mut Vec<Event>) {
        let (text, stopped) = self.stops.push(text);
        self.delta(Block::Text, &text, out);
        if let Some(sequence) = stopped {
            self.is_abandoned = true;
            self.end("stop_sequence", Some(&sequence), out);
            out.push(Event::message_stop());
        }
    }

    fn thought(&mut self, thought: &str, out: &mut Vec<Event>) {
        if self.served.shows_thoughts {
            self.delta(Block::Thought, thought, out);
        }
    }

    fn delta(&mut self, block: Block, text: &str, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(block) {
            self.close(out);
            let content = match block {
                Block::Text => json!({"type": "text", "text": ""}),
                Block::Thought => json!({"type": "thinking", "thinking": "", "signature": ""}),
            };
            out.push(Event::block_start(self.blocks, content));
            self.blocks += 1;
            self.open = Some(block);
        }
        let delta = match block {
            Block::Text => Delta::text(text),
            Block::Thought => Delta::Thinking(text.to_owned()),
        };
        out.push(Event::delta(self.blocks - 1, delta));
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            out.push(Event::block_stop(self.blocks - 1));
        }
    }

    fn call(&mut self, call: Call, out: &mut Vec<Event>) {
        self.rest_of_text(out);
        self.close(out);
        let name = self.aliases.get(&call.name).unwrap_or(&call.name).clone();
        let id = format!("toolu_{}_{}", self.id, self.calls);
        self.calls += 1;
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        let input = Value::Object(call.input).to_string();
        out.extend(Event::call(self.blocks, block, input));
        self.blocks += 1;
    }

    /// Sends what was kept back as the possible beginning of a stop sequence.
    fn rest_of_text(&mut self, out: &mut Vec<Event>) {
        let rest = self.stops.finish();
        self.delta(Block::Text, &rest, out);
    }

    fn message_delta(
        &mut self,
        delta: &Value,
        usage: &Value,
        stopped_by: Option<String>,
        out: &mut Vec<Event>,
    ) {
        self.usage = Usage::of(usage);
        let ending = match delta["stop_reason"].as_str() {
            Some("max_tokens") => Ending::Limit,
            _ => Ending::Stop(stopped_by),
        };
        self.begin("");
        let pieces = self.reader.take().map(|reader| reader.finish(&ending));
        let wrong = self.pieces(pieces.unwrap_or_default(), out);
        if self.is_abandoned {
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
            out.push(Event::block_start(0, json!({"type": "text", "text": ""})));
            self.blocks = 1;
            self.open = Some(Block::Text);
        }
        self.end(reason, None, out);
    }

    fn end(&mut self, reason: &str, sequence: Option<&str>, out: &mut Vec<Event>) {
        self.close(out);
        out.push(Event::message_delta(
            reason,
            sequence,
            json!({
                "input_tokens": self.usage.input_tokens,
                "cache_read_input_tokens": self.usage.cache_read_input_tokens,
                "output_tokens": self.usage.output_tokens,
            }),
        ));
    }
}

/// The real marker tokens of a text: where each stands, in bytes (the engine counts in code points), and which it is.
fn marks_of<'a>(text: &str, marks: &'a Value) -> Vec<(usize, &'a str)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_by_their_code_points() {
        let text = "é😀<tool_call>x</tool_call>";
        let told = json!([[2, "<tool_call>"], [14, "</tool_call>"]]);
        let want = [(6, "<tool_call>"), (18, "</tool_call>")];
        assert_eq!(marks_of(text, &told), want);
        for odd in [
            json!(null),
            json!([[99, "<tool_call>"]]),
            json!([["a", 1], [], 3]),
            json!("x"),
        ] {
            assert_eq!(marks_of(text, &odd), []);
        }
    }
}
