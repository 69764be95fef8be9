//! The conversation in an order that an engine can only continue.
//!
//! The engine puts all `system` messages of a conversation together in front of it, so that a reminder in turn 20 changes the prompt's beginning and
//! everything is computed again. Here each becomes a `<system-reminder>` where it stands: in the user's turn, or, behind the results of tools, in the
//! last of those. What an earlier turn became does not depend on later ones, so the prompt only grows at its end.
//!
//! Behind results a turn of the user's would do harm. Templates take it for a question, and write what they keep of the replies since the last one
//! (empty thoughts, with Qwen3.5) differently from then on, so that all of it is computed again. Claude Code has always put reminders into results
//! too, and says so in the system prompt of the versions that send no `system` messages.
//!
//! The engine also puts the text of a user's turn before the tool results of the same turn, which tears the results from their calls.
//! The two become turns of their own, results first.

//!
//! Pictures in results follow them as a turn of the user's, as no template takes them there. Files that the client sends beside results become part of the
//! last one, in words.

use serde_json::{Value, json};

use crate::gateway::anthropic::media::{Media, Part};

/// Folds `system` messages into the turns before them, and joins and splits those as the engine needs it. `messages` have been validated.
pub(super) fn fold(messages: Vec<Value>, media: &Media) -> Vec<Value> {
    let mut folded: Vec<Value> = Vec::with_capacity(messages.len());
    // Pictures of the results that the conversation ends in.
    let mut lifted = Vec::new();
    for mut message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        if role == "assistant" {
            show(&mut folded, &mut lifted);
            if let Value::Array(blocks) = &mut message["content"] {
                for block in blocks {
                    *block = media.part(block.take()).block();
                }
            }
            folded.push(message);
            continue;
        }
        let is_system = role == "system";
        let blocks = blocks(message["content"].take());
        if is_system {
            for reminder in blocks.iter().filter_map(reminder) {
                remind(&mut folded, reminder);
            }
            continue;
        }
        let (mut results, rest): (Vec<Value>, Vec<Value>) = blocks
            .into_iter()
            .partition(|block| block["type"] == "tool_result");
        for result in &mut results {
            lift(result, media, &mut lifted);
        }
        if !results.is_empty() {
            folded.push(json!({"role": "user", "content": results}));
        }
        for block in rest {
            if let Some(reminder) = of_the_client(&block) {
                remind(&mut folded, reminder);
                continue;
            }
            match media.part(block) {
                // It came with the result of a tool that reads files.
                Part::Words(words) => remind(&mut folded, words),
                said => {
                    show(&mut folded, &mut lifted);
                    say(&mut folded, said.block());
                }
            }
        }
    }
    show(&mut folded, &mut lifted);
    folded
}

/// Puts words in the place of what a result has beside text, and its pictures with those of others.
fn lift(result: &mut Value, media: &Media, lifted: &mut Vec<Value>) {
    let Value::Array(parts) = &mut result["content"] else {
        return;
    };
    for part in parts {
        *part = match media.part(part.take()) {
            Part::Picture(picture) => {
                lifted.push(picture);
                let words = format!("[picture {} stands behind the results]", lifted.len());
                json!({"type": "text", "text": words})
            }
            other => other.block(),
        };
    }
}

/// Shows the pictures of the results that the conversation ends in, as a turn of the user's.
fn show(messages: &mut Vec<Value>, lifted: &mut Vec<Value>) {
    for (number, picture) in (1..).zip(lifted.drain(..)) {
        let words = format!("[picture {number} of the results]");
        say(messages, json!({"type": "text", "text": words}));
        say(messages, picture);
    }
}

/// Adds a reminder to the result or to the user's turn that the conversation ends in, or begins a turn with it.
fn remind(messages: &mut Vec<Value>, reminder: String) {
    match last_result(messages) {
        Some(result) => append(result, &reminder),
        None => say(messages, json!({"type": "text", "text": reminder})),
    }
}

/// The result that the conversation ends in, if it ends in one.
fn last_result(messages: &mut [Value]) -> Option<&mut Value> {
    messages
        .last_mut()?
        .get_mut("content")?
        .as_array_mut()?
        .last_mut()
        .filter(|block| block["type"] == "tool_result")
}

/// Adds to what a tool said, whichever form that has.
pub(super) fn append(result: &mut Value, reminder: &str) {
    match &mut result["content"] {
        Value::String(text) => {
            text.push_str("\n\n");
            text.push_str(reminder);
        }
        Value::Array(parts) => parts.push(json!({"type": "text", "text": reminder})),
        nothing => *nothing = json!(reminder),
    }
}

/// Adds to the user's turn that the conversation ends in, or begins one.
fn say(messages: &mut Vec<Value>, block: Value) {
    if let Some(last) = messages.last_mut()
        && last["role"] == "user"
        && let Some(said) = last["content"].as_array_mut()
        // A turn of results holds nothing else, so the first block tells.
        && said.first().is_none_or(|block| block["type"] != "tool_result")
    {
        said.push(block);
        return;
    }
    messages.push(json!({"role": "user", "content": [block]}));
}

/// Content as a list of blocks: the client writes a single text as a string once it is no longer the last message.
fn blocks(content: Value) -> Vec<Value> {
    match content {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(blocks) => blocks,
        _ => Vec::new(),
    }
}

const BEGIN: &str = "<system-reminder>";
const END: &str = "</system-reminder>";

/// A block of a `system` message as a reminder. None if it holds no text.
fn reminder(block: &Value) -> Option<String> {
    let text = block["text"].as_str()?.trim();
    match text {
        "" => None,
        text if text.starts_with(BEGIN) => Some(text.to_owned()),
        text => Some(format!("{BEGIN}\n{text}\n{END}")),
    }
}

/// A block of the user's turn that is a reminder of the client's: older versions send all of them so.
pub(super) fn of_the_client(block: &Value) -> Option<String> {
    let text = block["text"].as_str()?;
    is_reminder(text).then(|| text.to_owned())
}

/// True if the text is one reminder and nothing else.
pub(super) fn is_reminder(text: &str) -> bool {
    let inside = text.trim().strip_prefix(BEGIN);
    inside
        .and_then(|text| text.strip_suffix(END))
        .is_some_and(|inside| !inside.contains(BEGIN))
}

/// The text without the reminders at its end.
pub(super) fn without_reminders(text: &str) -> &str {
    let mut text = text.trim_end();
    while text.ends_with(END)
        && let Some(at) = text.rfind(BEGIN)
    {
        text = text[..at].trim_end();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::anthropic::Pictures;
    use crate::gateway::anthropic::documents::PdfTexts;

    /// Without pictures.
    fn fold(messages: Vec<Value>) -> Vec<Value> {
        let media = Media {
            pictures: Pictures::Words,
            texts: &PdfTexts::default(),
        };
        crate::gateway::anthropic::fold::fold(messages, &media)
    }

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
    fn a_reminder_behind_results_is_part_of_the_last() {
        const MIND: &str = "<system-reminder>\nmind\n</system-reminder>";
        let result = |id: &str, content: Value| json!({"type": "tool_result", "tool_use_id": id, "content": content});
        for (said, expected) in [
            (json!("done"), json!(format!("done\n\n{MIND}"))),
            (json!([text("done")]), json!([text("done"), text(MIND)])),
            (Value::Null, json!(MIND)),
        ] {
            // As 2.1.331 sends it, and as 2.1.197 does.
            let (one, last) = (result("a", json!("x")), result("b", said));
            let by_system = vec![
                user(json!([one, last])),
                json!({"role": "system", "content": "mind"}),
            ];
            let by_user = vec![user(json!([one, last, text(MIND)]))];
            for messages in [by_system, by_user] {
                let mut longer = messages.clone();
                longer.push(user(json!("and now?")));
                let folded = fold(messages);
                assert_eq!(folded, [user(json!([one, result("b", expected.clone())]))]);
                assert_eq!(
                    fold(longer),
                    [folded[0].clone(), user(json!([text("and now?")]))]
                );
            }
        }
    }

    #[test]
    fn what_the_user_says_behind_results_is_a_turn() {
        let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "done"});
        for words in [
            "stop",
            "What is <system-reminder>?",
            "<system-reminder>a</system-reminder> and <system-reminder>b</system-reminder>",
        ] {
            let folded = fold(vec![user(json!([result, text(words)]))]);
            assert_eq!(folded, [user(json!([result])), user(json!([text(words)]))]);
        }
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

    /// The smallest picture.
    fn picture() -> Value {
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"}})
    }

    fn shown(messages: Vec<Value>) -> Vec<Value> {
        let media = Media {
            pictures: Pictures::Shown,
            texts: &PdfTexts::default(),
        };
        crate::gateway::anthropic::fold::fold(messages, &media)
    }

    #[test]
    fn pictures_in_results_stand_behind_all_of_them() {
        const MIND: &str = "<system-reminder>\nmind\n</system-reminder>";
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [text("done"), picture()]});
        let worded = |id: &str, words: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [text("done"), text(words)]});
        let mut messages = vec![
            user(json!([result("a")])),
            user(json!([result("b"), text(MIND)])),
        ];
        let mut last = worded("b", "[picture 2 stands behind the results]");
        append(&mut last, MIND);
        let expected = [
            user(json!([worded(
                "a",
                "[picture 1 stands behind the results]"
            )])),
            user(json!([last])),
            user(json!([
                text("[picture 1 of the results]"),
                picture(),
                text("[picture 2 of the results]"),
                picture()
            ])),
        ];
        assert_eq!(shown(messages.clone()), expected);
        messages.push(json!({"role": "assistant", "content": "yes"}));
        messages.push(user(json!([result("c"), text("look")])));
        let longer = shown(messages);
        assert_eq!(longer[..3], expected);
        assert_eq!(
            longer[5],
            user(json!([
                text("[picture 1 of the results]"),
                picture(),
                text("look")
            ]))
        );
    }

    #[test]
    fn what_a_file_holds_is_part_of_the_result_that_it_came_with() {
        let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "read"});
        let document = json!({"type": "document", "source": {"type": "text", "data": "hello"}});
        let read = |text: &str| {
            user(json!([{"type": "tool_result", "tool_use_id": "a", "content": text}]))
        };
        for messages in [
            vec![user(json!([result, document]))],
            vec![user(json!([result])), user(json!([document]))],
        ] {
            assert_eq!(fold(messages), [read("read\n\nhello")]);
        }
        // What the user attaches stays with what the user says.
        assert_eq!(
            fold(vec![user(json!([text("look"), document]))]),
            [user(json!([text("look"), text("hello")]))]
        );
    }
}
