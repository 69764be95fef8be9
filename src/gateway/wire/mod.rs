//! The messages themselves: pure, bytes in and bytes out. No network, no clock.
//!
//! What lies between Claude Code and an engine, and is repaired here (vllm-mlx 0.6.0, Claude Code 2.1.197 and 2.1.331):
//!
//! - The engine knows one model by one name; the client asks for several. Requests are mapped, replies name what was asked for.
//! - The engine puts every `system` message of a conversation in front of all others, so each new one changes the prompt's beginning, and it puts
//!   the text of a user's turn before the tool results of the same turn. See [`mod@fold`].
//! - On a terminal the client's system prompt names the folder, so that nothing of it could be used in another one. See [`mod@system`].
//! - The engine streams no `input_tokens` and never `stop_reason: "max_tokens"`. Ours says both in its `message_delta` (`engine/usage.py`); for
//!   others the prompt is counted before, and a reply as long as allowed was cut.
//! - A tool call that was cut is dropped by some parsers, leaks as text from others, and becomes a call without input in `qwen3_coder`. It is
//!   replaced by a sentence and `max_tokens`, on which the client lets the model try again. See [`mod@notice`].
//! - A reply that breaks off is tried again by the client as long as it has not seen the end of a content block. See [`mod@stream`].

use crate::catalog::Form;

mod error;
mod fold;
mod json;
mod markup;
mod notice;
mod reply;
mod request;
mod sse;
mod stream;
mod system;

pub use error::ApiError;
pub(super) use json::read as read_json;
pub use reply::reply;
pub use request::{Request, count_tokens, messages};
pub use stream::Repair;

/// The model as the engine serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The name that the engine knows it by.
    pub name: String,
    /// The longest reply, in tokens. A request for more is cut down to it.
    pub output_tokens: u64,
    /// How the model writes tool calls. None: not known, so the engine's own parser is relied on.
    pub form: Option<Form>,
    /// Whether thoughts are shown, as thinking blocks. Else they are left out.
    pub shows_thoughts: bool,
}

/// Tokens of one request, as they are reported to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that were computed.
    pub input_tokens: u64,
    /// Prompt tokens that were there already.
    pub cache_read_input_tokens: u64,
    pub output_tokens: u64,
}

#[cfg(test)]
mod tests;
