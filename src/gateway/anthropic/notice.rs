//! What the model and its user are told of a tool call that was cut.
//!
//! Measured with Claude Code 2.1.197 and 2.1.331: a reply that ends in text and `stop_reason: "max_tokens"` is followed by the client's own
//! request to go on in smaller pieces, up to three times, and then by an error that names the limit. Whole tool calls of such a reply are carried out, and the
//! loop goes on with their results; the text stands before them. With `end_turn` the turn would simply be over.

use crate::gateway::tool_calls::{Ending, Wrong};

/// The sentence that stands in place of the call. `max_tokens`: the limit that was reached.
pub(super) fn cut_call(tool: Option<&str>, max_tokens: u64) -> String {
    let tool = match tool {
        Some(name) if !name.is_empty() => format!("a call of the tool {name}"),
        _ => "a tool call".into(),
    };
    format!(
        "[The reply reached its limit of {max_tokens} tokens inside {tool}. The call was not made, and nothing of it was done. \
         Make it again in smaller parts: of a long file, write the first part, then add the others with further calls.]"
    )
}

/// The sentence for a call that arrived damaged although the reply was not cut.
pub(super) fn broken_call(tool: &str) -> String {
    format!(
        "[The call of the tool {tool} arrived incomplete. It was not made, and nothing of it was done. Make it again.]"
    )
}

/// The sentence in place of something that was marked as a call and isn't one. `name`: the tool's name as the client knows it.
pub(super) fn wrong<'a>(
    wrong: &'a Wrong,
    ending: &Ending,
    max_tokens: u64,
    name: impl Fn(&'a str) -> &'a str,
) -> String {
    let of = |tool: &'a Option<String>| match tool {
        Some(tool) => format!("the call of the tool {}", name(tool)),
        None => "the tool call".into(),
    };
    match wrong {
        Wrong::Cut { tool } => cut_call(tool.as_deref().map(name), max_tokens),
        Wrong::Unreadable { tool } => format!(
            "[Nothing was done: {} is not well formed, so it can't be read. Make it again, exactly in the format that the instructions on tools \
             give, with every value in its place and every marker closed.]",
            of(tool)
        ),
        Wrong::Ambiguous { tool } => format!(
            "[Nothing was done: the call of the tool {} contains the markers of tool calls, and can be read in several ways. Make it again by itself, \
             as the only call of the reply, and write such markers in another way, or in pieces.]",
            name(tool)
        ),
        Wrong::InThought => "[Nothing was done: the reply ended inside a thought, and a tool call in a thought is not made. End the thought first, \
                             then make the call.]"
            .into(),
        Wrong::OnlyThought if *ending == Ending::Limit => format!(
            "[The reply reached its limit of {max_tokens} tokens inside a thought. Think less, and answer.]"
        ),
        Wrong::OnlyThought => "[The model ended its reply inside a thought, without an answer.]".into(),
    }
}
