//! The pieces that arrive of a reply.
//!
//! Each reply is read whole and in parts of 1, 3 and 7 characters, with its markers as letters and as real tokens, always with the same outcome.

mod drift;
mod files;
mod forms;
mod harmony;
mod json_calls;
mod limit;
mod properties;
mod prose_calls;
mod quoted;
mod real;
mod render;
mod schemas;
mod sentences;
mod thoughts;

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::schema::Tools;
use super::*;
use crate::catalog::Form;
use render::{STYLES, Style};

/// Tools like those of Claude Code, and one with odd types.
fn tools() -> Arc<Tools> {
    static TOOLS: LazyLock<Arc<Tools>> = LazyLock::new(declared);
    TOOLS.clone()
}

fn declared() -> Arc<Tools> {
    let (s, n, b, o) = (
        json!({"type": "string"}),
        json!({"type": "number"}),
        json!({"type": "boolean"}),
        json!({"type": "object"}),
    );
    let tool = |name: &str, required: Value, properties: Value| json!({"name": name, "input_schema": {"type": "object", "properties": properties, "required": required}});
    let mut odd = tool(
        "Odd",
        json!([]),
        json!({
            "any_of": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "number_or_list": {"oneOf": [{"type": "number"}, {"type": "array"}]},
            "listed": {"type": ["integer", "null"]},
            "referred": {"$ref": "#/$defs/flag"},
            "enum": {"enum": ["true", "1"]},
            "level": {"enum": [1, 2]},
            "free": {},
            "yes": true,
            "items": {"type": "array", "items": {"type": "integer"}},
            "inside": {"type": "object", "properties": {"on": {"type": "boolean"}, "text": {"type": "string"}}},
        }),
    );
    odd["input_schema"]["$defs"] = json!({"flag": {"type": "boolean"}});
    Arc::new(Tools::new(&[
        tool(
            "Write",
            json!(["file_path", "content"]),
            json!({"file_path": s, "content": s}),
        ),
        tool(
            "Read",
            json!(["file_path"]),
            json!({"file_path": s, "offset": n, "limit": {"type": "integer"}}),
        ),
        tool(
            "Bash",
            json!(["command"]),
            json!({"command": s, "run_in_background": b, "timeout": n}),
        ),
        tool("mcp__my-server__do-it", json!(["arg"]), json!({"arg": s})),
        tool(
            "TodoWrite",
            json!([]),
            json!({"todos": {"type": "array", "items": o}, "meta": o}),
        ),
        tool(
            "Grep",
            json!(["pattern"]),
            json!({"pattern": s, "path": s, "-A": n, "-n": b, "-i": b, "output_mode": {"type": "string", "enum": ["content"]}}),
        ),
        tool("List", json!([]), json!({})),
        odd,
    ]))
}

fn options(form: Form) -> Options {
    Options {
        form,
        prose_calls: false,
        start: Start::Answer,
    }
}

const STOP: Ending = Ending::Stop(None);

/// The markers that the tokenizers of a form's models have as tokens. The ends of a turn are none of them: a real one ends the reply.
fn vocabulary(form: Form) -> &'static [&'static str] {
    match form {
        Form::Gemma4 => &[
            "<|tool_call>",
            "<tool_call|>",
            "<|\"|>",
            "<|channel>",
            "<channel|>",
        ],
        Form::Hermes | Form::Qwen3Coder => &["<tool_call>", "</tool_call>", "<think>", "</think>"],
        Form::Glm47 => &[
            "<tool_call>",
            "</tool_call>",
            "<arg_key>",
            "</arg_key>",
            "<arg_value>",
            "</arg_value>",
            "<think>",
            "</think>",
        ],
        Form::Llama3 => &["<|python_tag|>"],
        Form::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"],
        // Here a real marker is none that an answer names.
        Form::Harmony => &[],
    }
}

/// How the markers of a reply come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// All of them as letters.
    Letters,
    /// The first of each as a real token.
    First,
    All,
}

/// The real marker tokens of a reply: where each begins, in bytes, and which it is.
fn real(form: Form, reply: &str, tokens: Tokens) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for marker in vocabulary(form) {
        let places = reply.match_indices(marker).map(|(at, _)| (at, *marker));
        match tokens {
            Tokens::Letters => {}
            Tokens::First => found.extend(places.take(1)),
            Tokens::All => found.extend(places),
        }
    }
    found.sort_unstable();
    found
}

/// The pieces of a reply that comes in pieces of this many characters, texts and thoughts joined.
fn read(options: &Options, reply: &str, size: usize, ending: &Ending) -> Vec<Piece> {
    read_as(options, reply, size, ending, Tokens::Letters)
}

fn read_as(
    options: &Options,
    reply: &str,
    size: usize,
    ending: &Ending,
    tokens: Tokens,
) -> Vec<Piece> {
    let real = real(options.form, reply, tokens);
    let mut reader = Reader::new(options, tools());
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < reply.len() {
        let letters = reply[at..].char_indices().map(|(offset, _)| at + offset);
        let mut end = letters.clone().nth(size).unwrap_or(reply.len());
        // A real token comes in one piece.
        if let Some((start, marker)) = real
            .iter()
            .find(|(start, marker)| (at..end).contains(start) && start + marker.len() > end)
        {
            end = start + marker.len();
        }
        let inside = real.iter().filter(|(start, _)| (at..end).contains(start));
        let marks: Vec<(usize, &str)> = inside.map(|(start, mark)| (start - at, *mark)).collect();
        pieces.extend(reader.push(&reply[at..end], &marks));
        at = end;
    }
    pieces.extend(reader.finish(ending));
    joined(pieces)
}

fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(last)), Piece::Text(more)) => last.push_str(&more),
            (Some(Piece::Thought(last)), Piece::Thought(more)) => last.push_str(&more),
            (_, piece) => joined.push(piece),
        }
    }
    joined.retain(|piece| !matches!(piece, Piece::Text(text) if text.trim().is_empty()));
    for piece in &mut joined {
        if let Piece::Text(text) | Piece::Thought(text) = piece {
            *text = text.trim().to_owned();
        }
    }
    joined
}

/// The outcome of a reply, which is the same however it is split, and whichever of its markers are real tokens.
#[track_caller]
fn outcome(options: &Options, reply: &str, ending: &Ending) -> Vec<Piece> {
    let whole = read(options, reply, usize::MAX, ending);
    for tokens in [Tokens::Letters, Tokens::First, Tokens::All] {
        for size in [1, 3, 7, usize::MAX] {
            let split = read_as(options, reply, size, ending, tokens);
            assert_eq!(
                split, whole,
                "in parts of {size}, {tokens:?}, {options:?}: {reply}"
            );
        }
    }
    whole
}

fn call(name: &str, input: Value) -> Piece {
    Piece::Call(Call {
        name: name.to_owned(),
        input: input.as_object().cloned().unwrap_or_default(),
    })
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn thought(text: &str) -> Piece {
    Piece::Thought(text.to_owned())
}

fn unreadable(tool: Option<&str>) -> Piece {
    Piece::Wrong(Wrong::Unreadable {
        tool: tool.map(str::to_owned),
    })
}

/// Asserts what arrives of a reply that the model ended.
#[track_caller]
fn arrives(form: Form, reply: &str, want: &[Piece]) {
    let got = outcome(&options(form), reply, &STOP);
    assert_eq!(got, want, "{form:?}: {reply}");
}

/// Asserts that all of a reply is text.
#[track_caller]
fn is_text(form: Form, reply: &str) {
    arrives(form, reply, &[text(reply)]);
}

const FORMS: [Form; 7] = [
    Form::Gemma4,
    Form::Hermes,
    Form::Qwen3Coder,
    Form::Glm47,
    Form::Llama3,
    Form::Mistral,
    Form::Harmony,
];
