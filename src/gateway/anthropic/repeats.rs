//! Calls that are made again and again with the same result.
//!
//! Calls count that bring nothing new: the same tool, input and result as before, since the user last said something. Another call, or another result of
//! the same call, begins the count anew. So a test that runs again after an edit is no repetition, and neither is a status that changes.
//! The count comes from the conversation alone, so an earlier result has the same note in each later request.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::gateway::anthropic::fold;

/// The count from which a result has a note.
const NOTED: u32 = 3;
/// The count that ends the turn.
const LAST: u32 = 5;

/// Adds a note to results that tell nothing new for the third time or more.
///
/// Returns what the user is told when the newest is the fifth: then the model is not asked again.
pub(super) fn note(messages: &mut [Value]) -> Option<String> {
    let mut calls: HashMap<String, (String, Key)> = HashMap::new();
    let mut span = Span::default();
    let mut end = None;
    for message in messages {
        match message["role"].as_str() {
            Some("user") if is_said(&message["content"]) => {
                span = Span::default();
                end = None;
            }
            Some("assistant") => end = None,
            _ => {}
        }
        let Some(blocks) = message["content"].as_array_mut() else {
            continue;
        };
        let mut results = Vec::new();
        for block in blocks {
            match block["type"].as_str() {
                Some("tool_use") => {
                    let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
                    calls.insert(text("id"), (text("name"), call_key(block)));
                }
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    if let Some((name, call)) = calls.get(id) {
                        let result = result_key(&block["content"]);
                        results.push((name.clone(), (*call, result), block));
                    }
                }
                _ => {}
            }
        }
        let counts = span.count(results.iter().map(|(_, key, _)| *key));
        for (name, key, block) in results {
            let count = counts[&key];
            if count >= NOTED {
                fold::append(block, &words(count));
            }
            if count >= LAST {
                end = Some(name);
            }
        }
    }
    end.map(|name| {
        format!(
            "The model called the tool {name} five times with the same result, so cclocal ended this turn. Say what to do instead, or \"continue\"."
        )
    })
}

fn words(count: u32) -> String {
    let beginning = match count {
        3 => "This call was made three times with this result",
        4 => "This call was made four times with this result",
        _ => "This call was made five times or more with this result",
    };
    format!(
        "[{beginning}, and nothing else is new. Making it once more will not help: do something else, or say what you need. The fifth time ends your turn.]"
    )
}

type Key = [u8; 32];

/// Calls with their results since the user last said something.
#[derive(Debug, Default)]
struct Span {
    seen: HashSet<(Key, Key)>,
    /// Since something was last new.
    counts: HashMap<(Key, Key), u32>,
}

impl Span {
    /// Takes the results that came together, and returns how often each has come since something was last new. Calls that are the same
    /// and were made together count once: the model had seen none of their results.
    fn count(&mut self, together: impl Iterator<Item = (Key, Key)>) -> HashMap<(Key, Key), u32> {
        let together: HashSet<_> = together.collect();
        if !together.is_subset(&self.seen) {
            // A new one: to clear a map takes as long as it was ever large.
            self.counts = HashMap::new();
        }
        for key in &together {
            *self.counts.entry(*key).or_default() += 1;
        }
        self.seen.extend(&together);
        let counted = |key: &(Key, Key)| (*key, self.counts[key]);
        together.iter().map(counted).collect()
    }
}

/// True if the user says something here, beside results, reminders of the client, and files that came with results.
fn is_said(content: &Value) -> bool {
    match content {
        Value::String(text) => !text.trim().is_empty() && !fold::is_reminder(text),
        Value::Array(blocks) => blocks
            .iter()
            .any(|block| block["type"] == "text" && fold::of_the_client(block).is_none()),
        _ => false,
    }
}

/// The same for the same result, but for what the client added to it.
fn result_key(content: &Value) -> Key {
    let mut digest = Sha256::new();
    match content {
        Value::String(text) => feed(&mut digest, &fold::without_reminders(text).into()),
        Value::Array(parts) => {
            for part in parts
                .iter()
                .filter(|part| fold::of_the_client(part).is_none())
            {
                match part["text"].as_str() {
                    Some(text) => feed(&mut digest, &fold::without_reminders(text).into()),
                    None => feed(&mut digest, part),
                }
            }
        }
        other => feed(&mut digest, other),
    }
    digest.finalize().into()
}

fn call_key(call: &Value) -> Key {
    let mut digest = Sha256::new();
    feed(&mut digest, &call["name"]);
    feed(&mut digest, &call["input"]);
    digest.finalize().into()
}

/// Adds a value, in whatever order an object has its fields.
fn feed(digest: &mut Sha256, value: &Value) {
    let mut add = |kind: u8, bytes: &[u8]| {
        digest.update([kind]);
        digest.update(bytes.len().to_le_bytes());
        digest.update(bytes);
    };
    match value {
        Value::String(text) => add(b's', text.as_bytes()),
        Value::Array(items) => {
            add(b'a', &items.len().to_le_bytes());
            items.iter().for_each(|item| feed(digest, item));
        }
        Value::Object(fields) => {
            add(b'o', &fields.len().to_le_bytes());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                digest.update(name.len().to_le_bytes());
                digest.update(name);
                feed(digest, value);
            }
        }
        plain => add(b'p', plain.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A conversation that grows by one reply and its results at a time.
    #[derive(Default)]
    struct Talk(Vec<Value>, usize);

    impl Talk {
        fn said(&mut self, text: &str) {
            self.said_as("user", text);
        }

        fn said_as(&mut self, role: &str, text: &str) {
            self.0.push(json!({"role": role, "content": text}));
        }

        /// Calls made together, each with its result. Returns what the request that tells the results comes to: how many of them have a note, and whether
        /// the turn ends.
        fn called(&mut self, calls: &[(&str, &str)]) -> (usize, bool) {
            let (mut made, mut results) = (Vec::new(), Vec::new());
            for (input, result) in calls {
                self.1 += 1;
                let id = self.1.to_string();
                made.push(json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"command": input, "timeout": 1}}));
                results.push(json!({"type": "tool_result", "tool_use_id": id, "content": result}));
            }
            self.0.push(json!({"role": "assistant", "content": made}));
            self.0.push(json!({"role": "user", "content": results}));
            let mut messages = self.0.clone();
            let end = note(&mut messages);
            let last = messages.last().expect("a message")["content"].to_string();
            (last.matches("This call was made").count(), end.is_some())
        }

        fn each(calls: &str) -> Vec<(usize, bool)> {
            let mut talk = Self::default();
            talk.said("go on");
            calls
                .split(' ')
                .map(|call| {
                    let calls: Vec<_> = call.split('+').map(|call| call.split_at(1)).collect();
                    talk.called(&calls)
                })
                .collect()
        }
    }

    const NOTHING: (usize, bool) = (0, false);
    const NOTE: (usize, bool) = (1, false);
    const END: (usize, bool) = (1, true);

    #[test]
    fn the_same_call_with_the_same_result_is_noted_and_then_ends_the_turn() {
        assert_eq!(
            Talk::each("a1 a1 a1 a1 a1"),
            [NOTHING, NOTHING, NOTE, NOTE, END]
        );
        let ends = |calls: &str| {
            Talk::each(calls)
                .into_iter()
                .map(|(_, end)| end)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ends("a1 b1 a1 b1 a1 b1 a1 b1 a1 b1")
                .iter()
                .filter(|end| **end)
                .count(),
            1
        );
        assert_eq!(Talk::each("a1 b1 a1 b1 a1 b1")[4..], [NOTHING, NOTE]);
        let both = Talk::each("a1+b1 a1+b1 b1+a1 a1+b1 a1+b1");
        assert_eq!(both[1..], [NOTHING, (2, false), (2, false), (2, true)]);
    }

    #[test]
    fn what_brings_something_new_is_none_of_it() {
        for calls in [
            "a1 a2 a3 a4 a5 a6 a7",
            "a1 b1 a1 c1 a1 d1 a1 e1 a1 f1 a1",
            "a1+b1 a1+b2 a1+b3 a1+b4 a1+b5 a1+b6",
            "a1 a1 b1 a1 a1 c1 a1 a1",
            "a1+a1+a1+a1+a1",
        ] {
            assert!(
                Talk::each(calls).iter().all(|seen| *seen == NOTHING),
                "{calls}"
            );
        }
    }

    #[test]
    fn the_user_begins_the_count_anew_and_reminders_do_not() {
        let mut talk = Talk::default();
        for round in 0..3 {
            talk.said("go on");
            for (number, expected) in [NOTHING, NOTHING, NOTE, NOTE].into_iter().enumerate() {
                assert_eq!(talk.called(&[("a", "1")]), expected, "{round} {number}");
                let mind = "<system-reminder>mind</system-reminder>";
                talk.said_as("system", mind);
                talk.said_as("user", mind);
            }
        }
    }

    #[test]
    fn reminders_in_results_and_the_order_of_fields_make_no_difference() {
        let call = |id: &str, input: &str| {
            let input: Value = serde_json::from_str(input).expect("JSON");
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "Bash", "input": input}]})
        };
        let result = |id: &str, content: Value| json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": content}]});
        let mind = "<system-reminder>\n7 of 9\n</system-reminder>";
        let mut messages = vec![
            call("a", r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
            result("a", json!("done")),
            call("b", r#"{"b": {"d": 3, "c": 2}, "a": 1}"#),
            result("b", json!(format!("done\n\n{mind}"))),
            call("c", r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
            result("c", json!("done")),
        ];
        assert_eq!(note(&mut messages), None);
        assert!(messages[5].to_string().contains("three times"));
        assert!(!messages[3].to_string().contains("times"));
        // Another call with another result, as a number is not a text.
        let mut other = vec![
            call("a", r#"{"a": 1}"#),
            result("a", json!([{"type": "text", "text": "1"}])),
            call("b", r#"{"a": "1"}"#),
            result("b", json!([{"type": "text", "text": "1"}])),
            call("c", r#"{"a": [1]}"#),
            result("c", json!([{"type": "text", "text": "1"}])),
        ];
        let before = other.clone();
        assert_eq!(note(&mut other), None);
        assert_eq!(other, before);
    }

    #[test]
    fn an_earlier_result_has_the_same_note_in_each_later_request() {
        let mut talk = Talk::default();
        talk.said("go on");
        let mut before: Vec<Value> = Vec::new();
        for result in ["1", "1", "1", "1", "1", "2", "1", "1", "1", "1", "1", "1"] {
            talk.called(&[("a", result)]);
            let mut messages = talk.0.clone();
            let _ = note(&mut messages);
            assert_eq!(messages[..before.len()], before);
            before = messages;
        }
    }
}
