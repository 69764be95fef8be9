//! The conversation in an order that an engine can only continue.
//!
//! The engine puts all `system` messages of a conversation together in front of it, so that a reminder in turn 20 changes the prompt's beginning and
//! everything is computed again. Here each becomes a `<system-reminder>` in the user's turn where it stands, which is where Claude Code itself
//! puts the reminders that it sends as text. What an earlier turn became does not depend on later ones, so the prompt only grows at its end.
//!
//! The engine also puts the text of a user's turn before the tool results of the same turn, which tears the results from their calls.
//! The two become turns of their own, results first.

use serde_json::{Map, Value, json};

/// Folds `system` messages into the user's turns, and joins and splits those as the engine needs it. `messages` have been validated.
pub fn fold(messages: Vec<Value>) -> Vec<Value> {
    let mut folded: Vec<Value> = Vec::with_capacity(messages.len());
    for mut message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        if role == "assistant" {
            folded.push(message);
            continue;
        }
        let is_system = role == "system";
        let blocks = blocks(message["content"].take());
        if is_system {
            say(
                &mut folded,
                blocks.into_iter().filter_map(reminder).collect(),
            );
            continue;
        }
        let (results, rest): (Vec<Value>, Vec<Value>) = blocks
            .into_iter()
            .partition(|block| block["type"] == "tool_result");
        if !results.is_empty() {
            folded.push(json!({"role": "user", "content": results}));
        }
        say(&mut folded, rest);
    }
    folded
}

/// Adds to the user's turn that the conversation ends in, or begins one.
fn say(messages: &mut Vec<Value>, mut blocks: Vec<Value>) {
    if blocks.is_empty() {
        return;
    }
    if let Some(last) = messages.last_mut()
        && last["role"] == "user"
        && let Some(said) = last["content"].as_array_mut()
        && said.iter().all(|block| block["type"] != "tool_result")
    {
        said.append(&mut blocks);
        return;
    }
    messages.push(json!({"role": "user", "content": blocks}));
}

/// Content as a list of blocks: the client writes a single text as a string once it is no longer the last message.
fn blocks(content: Value) -> Vec<Value> {
    match content {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(blocks) => blocks,
        _ => Vec::new(),
    }
}

/// A block of a `system` message as the user's. None if it holds no text.
fn reminder(block: Value) -> Option<Value> {
    let text = block["text"].as_str()?.trim();
    if text.is_empty() {
        return None;
    }
    let text = if text.starts_with("<system-reminder>") {
        text.to_owned()
    } else {
        format!("<system-reminder>\n{text}\n</system-reminder>")
    };
    let mut fields = Map::new();
    fields.insert("type".into(), "text".into());
    fields.insert("text".into(), text.into());
    Some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(content: Value) -> Value {
        json!({"role": "user", "content": content})
    }

    fn text(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }

    #[test]
    fn a_system_message_becomes_part_of_the_turn_before_it() {
        let folded = fold(vec![
            user(json!([text("hello")])),
            json!({"role": "system", "content": "# Environment"}),
            json!({"role": "assistant", "content": [text("yes")]}),
        ]);
        assert_eq!(
            folded,
            [
                user(json!([
                    text("hello"),
                    text("<system-reminder>\n# Environment\n</system-reminder>")
                ])),
                json!({"role": "assistant", "content": [text("yes")]}),
            ]
        );
    }

    #[test]
    fn results_stand_next_to_their_calls_and_text_after_them() {
        let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "done"});
        let folded = fold(vec![
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Write", "input": {}}]}),
            user(json!([result, text("and this")])),
            json!({"role": "system", "content": [text("<system-reminder>\nmind\n</system-reminder>")]}),
            user(json!("now")),
        ]);
        assert_eq!(folded[1], user(json!([result])));
        assert_eq!(
            folded[2],
            user(json!([
                text("and this"),
                text("<system-reminder>\nmind\n</system-reminder>"),
                text("now")
            ]))
        );
        assert_eq!(folded.len(), 3);
    }

    #[test]
    fn a_system_message_after_an_answer_begins_the_next_turn() {
        let folded = fold(vec![
            user(json!("a")),
            json!({"role": "assistant", "content": "b"}),
            json!({"role": "system", "content": "mind"}),
            user(json!("c")),
        ]);
        assert_eq!(
            folded[2],
            user(json!([
                text("<system-reminder>\nmind\n</system-reminder>"),
                text("c")
            ]))
        );
    }
}
