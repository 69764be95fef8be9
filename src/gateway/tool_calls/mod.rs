//! The reading of what a model writes: its answer, its thoughts and its tool calls.
//!
//! The engine hands over the text as it was generated. A call is what is marked as one: outside of thoughts, with the marker of the model's form in
//! front and what the form says behind it. Everything else is text, and all of it arrives: prose, quoted examples, other forms, the name of a marker.
//!
//! [`Reader`] takes the text piece by piece. Text and thoughts go on as they come. From the marker of a call on, the rest of the reply is kept until
//! its end, as only that tells which end marker is the call's own (see [`segments`]): Claude Code carries no call out before the reply has ended, so
//! nothing is late for it. Arguments are read by the tool's schema (see [`schema`]).
//!
//! The engine also tells where a real marker token stands. Letters count as markers as long as their meaning is clear; where it isn't, real tokens
//! decide (see [`evidence`]). A real token that ends the model's turn ends the reply, as the model talks to itself behind it.
//!
//! A call that can't be read is never dropped silently: it becomes a [`Wrong`], which the model is told of.

mod beginning;
mod body;
mod code;
mod ending;
mod evidence;
mod follows;
mod gemma;
mod harmony;
mod json;
mod llama;
mod marked;
mod markers;
mod mistral;
mod prose;
mod reader;
pub mod schema;
mod segments;
mod sentence;
mod strings;
mod tags;
#[cfg(test)]
mod tests;
mod thoughts;
mod value;

use serde_json::{Map, Value};

pub use reader::{Options, Reader};
use schema::{Argument, Tools};
pub use thoughts::Start;

/// A part of a reply, in the order in which the model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// More of the answer.
    Text(String),
    /// More of a thought.
    Thought(String),
    Call(Call),
    /// Something that is marked as a call and isn't one. Nothing follows it.
    Wrong(Wrong),
}

/// A tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool, as it is declared, or as it was written if it isn't.
    pub name: String,
    pub input: Map<String, Value>,
}

/// Why something that is marked as a call isn't one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The reply ends inside of it.
    Cut { tool: Option<String> },
    /// It can't be read.
    Unreadable { tool: Option<String> },
    /// It can be read in several ways.
    Ambiguous { tool: String },
    /// It stands in a thought, and nothing behind the thought.
    InThought,
    /// The whole reply is a thought.
    OnlyThought,
}

/// How the model's text came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The model ended it, with this token if it is known.
    Stop(Option<String>),
    /// It reached the limit of its length.
    Limit,
}

impl Call {
    fn new(name: &str, arguments: Vec<Argument<'_>>, tools: &Tools) -> Self {
        let input = match tools.get(name) {
            Some(tool) => tool.unwrapped(tool.fit(arguments)),
            None => schema::Tool::default().fit(arguments),
        };
        Self {
            name: name.to_owned(),
            input,
        }
    }
}

/// Calls that were found in one place, and where the text goes on behind them.
#[derive(Debug)]
struct Found {
    calls: Vec<Call>,
    end: usize,
    /// Its end marker or a bracket is missing.
    lacks_end: bool,
    /// Its content opens a call that has no end. So its end may be that one's, and its own may be missing.
    is_left_open: bool,
}

impl Found {
    fn new(calls: Vec<Call>, end: usize, lacks_end: bool) -> Self {
        Self {
            calls,
            end,
            lacks_end,
            is_left_open: false,
        }
    }
}
