//! The messages themselves: pure, bytes in and bytes out. No network, no clock.
//!
//! What lies between Claude Code and an engine, and is repaired here (vllm-mlx 0.6.0, Claude Code 2.1.197 and 2.1.331):
//!
//! - The engine knows one model by one name; the client asks for several. Requests are mapped, replies name what was asked for.
//! - The engine puts every `system` message of a conversation in front of all others, so each new one changes the prompt's beginning, and it puts
//!   the text of a user's turn before the tool results of the same turn. See [`mod@fold`].
//! - On a terminal the client's system prompt names the folder, so that nothing of it could be used in another one. See [`mod@system`].
//! - The engine takes calls and thoughts out of its stream by guesses. Ours hands over what the model wrote, which is read here. See [`mod@generated`].
//! - Engines that others run parse calls themselves. Their figures are completed, a call that was cut becomes a sentence and `max_tokens`, and arguments
//!   are made to fit the declared schema. See [`mod@stream`] and [`mod@notice`].
//! - A reply that breaks off is tried again by the client as long as it has not seen the end of a content block. See [`mod@stream`].

use crate::catalog::Form;
use crate::memory::ContextWindow;

mod assemble;
mod documents;
mod error;
mod event;
mod fold;
mod generated;
mod json;
mod markup;
mod media;
mod names;
mod notice;
mod overflow;
mod parsed_call;
mod repeats;
mod reply;
mod request;
mod restored_files;
mod sse;
mod stop_sequences;
mod stream;
mod streamed;
mod system;

pub use assemble::message;
pub use documents::PdfTexts;
pub(super) use documents::{MAX_CHARACTERS, PdfKey, PdfText};
pub use error::ApiError;
pub(super) use event::Delta;
pub use event::{Event, sse_bytes};
pub(super) use json::read as read_json;
pub(super) use media::decoded;
pub use overflow::Overflow;
pub use reply::reply;
pub use request::{Draft, Request, messages};
pub use streamed::Streamed;

/// The model as the engine serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The name that the engine knows it by.
    pub name: String,
    /// The window of which Claude Code was told. A request for a longer reply than its own is cut down to that.
    pub window: ContextWindow,
    /// How the model writes tool calls. None: not known. Text as it was generated is then read as [`Form::UNKNOWN`]; else the engine's own parser is relied on.
    pub form: Option<Form>,
    /// Whether thoughts are shown, as thinking blocks. Else they are left out.
    pub shows_thoughts: bool,
    /// Whether the model may write thoughts, asked to or not. Else none are looked for.
    pub may_think: bool,
    /// Whether a call that the model writes as prose, at the end of its reply, is one (see the catalogue's `prose_calls`).
    pub prose_calls: bool,
    pub pictures: Pictures,
}

/// The form in which pictures are passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pictures {
    /// The model sees none, so words stand in their place.
    #[default]
    Words,
    /// The model sees them in the user's turns, so those in results are moved behind them.
    Shown,
    /// They stay where they are: the engine is somebody else's.
    Untouched,
}

/// Tokens of one request, as they are reported to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that were computed, but for those of the next field.
    pub input_tokens: u64,
    /// Prompt tokens that were computed and put into the prefix cache, where the engine counts them apart.
    pub cache_creation_input_tokens: u64,
    /// Prompt tokens that were there already.
    pub cache_read_input_tokens: u64,
    pub output_tokens: u64,
}

impl Usage {
    /// All prompt tokens that were computed.
    pub(super) fn computed(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_creation_input_tokens)
    }

    /// As a reply states it.
    fn of(usage: &serde_json::Value) -> Self {
        let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
        Self {
            input_tokens: tokens("input_tokens"),
            cache_creation_input_tokens: tokens("cache_creation_input_tokens"),
            cache_read_input_tokens: tokens("cache_read_input_tokens"),
            output_tokens: tokens("output_tokens"),
        }
    }
}

#[cfg(test)]
mod tests;
