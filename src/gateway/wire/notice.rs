//! What the model and its user are told of a tool call that was cut.
//!
//! Measured with Claude Code 2.1.197 and 2.1.331: a reply that ends in text and `stop_reason: "max_tokens"` is followed by the client's own
//! request to go on in smaller pieces, up to three times, and then by an error that names the limit. Whole tool calls of such a reply are carried out, and the
//! loop goes on with their results; the text stands before them. With `end_turn` the turn would simply be over.

/// The sentence that stands in place of the call. `max_tokens`: the limit that was reached.
pub fn cut_call(tool: Option<&str>, max_tokens: u64) -> String {
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
pub fn broken_call(tool: &str) -> String {
    format!(
        "[The call of the tool {tool} arrived incomplete. It was not made, and nothing of it was done. Make it again.]"
    )
}
