//! Files that Claude Code shows again behind a summary, as far as the window has room for them.
//!
//! After a compaction Claude Code puts up to five files behind the summary that were read before, each of up to 5,000 tokens. In a small window that is
//! most of the room: it would compact again two turns later, and give up after the third time ("Autocompact is thrashing"). Here the first, which
//! were read last, stay while there is room; each of the others becomes the sentence that Claude Code itself has for files that are too long.

use serde_json::{Value, json};

/// How the summary begins. Source: requests of Claude Code 2.1.197 and 2.1.332.
const SUMMARY: &str = "This session is being continued from a previous conversation";
/// How a file's two parts begin. Source: as before. The newer sends two reminders for a file, the older a system message of all.
const CALL: &str = "Called the Read tool with the following input: ";
const RESULT: &str = "Result of calling the Read tool:\n";

const BEGIN: &str = "<system-reminder>\n";
const END: &str = "\n</system-reminder>";

/// Bytes of text for each token, about.
const BYTES_PER_TOKEN: u64 = 4;

/// Leaves no more of them than `room`, in tokens. `messages` are as the client sent them.
pub(super) fn limit(messages: &mut [Value], room: u64) {
    let Some(summary) = messages.iter().rposition(holds_summary) else {
        return;
    };
    let mut room = Room(room.saturating_mul(BYTES_PER_TOKEN));
    for message in &mut messages[summary..] {
        let is_system = message["role"] == "system";
        let found = match (&mut message["content"], is_system) {
            (Value::Array(blocks), false) => in_blocks(blocks, &mut room),
            (Value::String(text), true) => in_text(text, &mut room),
            _ => false,
        };
        // They all stand in one message.
        if found {
            return;
        }
    }
}

/// The room that is left, in bytes.
struct Room(u64);

impl Room {
    /// Whether this much more fits; then it is taken.
    fn takes(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes as u64) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

fn holds_summary(message: &Value) -> bool {
    match &message["content"] {
        Value::String(text) => text.starts_with(SUMMARY),
        Value::Array(blocks) => blocks.iter().any(is_summary),
        _ => false,
    }
}

fn is_summary(block: &Value) -> bool {
    text(block).is_some_and(|text| text.starts_with(SUMMARY))
}

fn text(block: &Value) -> Option<&str> {
    block["text"].as_str()
}

/// The text of a reminder.
fn reminder(block: &Value) -> Option<&str> {
    text(block)?
        .trim_end()
        .strip_prefix(BEGIN)?
        .strip_suffix(END)
}

/// True if there were any. Files beside the user's own words are those that the user named.
fn in_blocks(blocks: &mut Vec<Value>, room: &mut Room) -> bool {
    let is_own = |block: &Value| {
        text(block).is_some_and(|text| !text.starts_with(BEGIN) && !text.starts_with(SUMMARY))
    };
    let end = match blocks.iter().any(is_own) {
        true => blocks.iter().position(is_summary).unwrap_or(0),
        false => blocks.len(),
    };
    let mut found = false;
    let mut kept = Vec::with_capacity(blocks.len());
    let mut rest = std::mem::take(blocks).into_iter().enumerate().peekable();
    while let Some((index, block)) = rest.next() {
        let path = reminder(&block)
            .filter(|_| index < end)
            .and_then(|said| path(said.strip_prefix(CALL)?));
        let result = path.is_some().then(|| {
            rest.next_if(|(_, next)| reminder(next).is_some_and(|said| said.starts_with(RESULT)))
        });
        match (path, result.flatten()) {
            (Some(path), Some((_, result))) => {
                found = true;
                if room.takes(text(&result).map_or(0, str::len)) {
                    kept.extend([block, result]);
                } else {
                    let words = format!("{BEGIN}{}{END}", left_out(&path));
                    kept.push(json!({"type": "text", "text": words}));
                }
            }
            (_, result) => {
                kept.push(block);
                kept.extend(result.map(|(_, result)| result));
            }
        }
    }
    *blocks = kept;
    found
}

/// The same in one text.
fn in_text(text: &mut String, room: &mut Room) -> bool {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let mut found = false;
    while let Some((before, path, file, behind)) = next_file(rest) {
        found = true;
        kept.push_str(before);
        match room.takes(file.len()) {
            true => kept.push_str(file),
            false => {
                kept.push_str(&left_out(&path));
                kept.push('\n');
            }
        }
        rest = behind;
    }
    kept.push_str(rest);
    *text = kept;
    found
}

/// The next file: the text before it, its path, its own text, and the text behind it. A file's lines are numbered, so none of them is taken for the
/// end or for another file.
fn next_file(text: &str) -> Option<(&str, String, &str, &str)> {
    let at = match text.starts_with(CALL) {
        true => 0,
        false => text.find(&format!("\n{CALL}"))? + 1,
    };
    let (before, here) = text.split_at(at);
    let (call, result) = here.split_once('\n')?;
    let lines = result.strip_prefix(RESULT)?;
    let length: usize = lines
        .split_inclusive('\n')
        .take_while(|line| is_numbered(line))
        .map(str::len)
        .sum();
    let (file, behind) = here.split_at(call.len() + 1 + RESULT.len() + length);
    Some((before, path(call.strip_prefix(CALL)?)?, file, behind))
}

fn is_numbered(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
    number.len() < line.len() && (number.starts_with('\t') || number.starts_with('→'))
}

fn path(input: &str) -> Option<String> {
    let input: Value = serde_json::from_str(input.trim_end()).ok()?;
    input["file_path"].as_str().map(str::to_owned)
}

/// As Claude Code says it.
fn left_out(path: &str) -> String {
    format!(
        "Note: {path} was read before the last conversation was summarized, but the contents are too large to include. Use Read tool if you need to access it."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }

    fn restored(path: &str, line: &str) -> [Value; 2] {
        let call = format!("{BEGIN}{CALL}{}{END}\n", json!({"file_path": path}));
        [
            said(&call),
            said(&format!("{BEGIN}{RESULT}1\t{line}{END}\n")),
        ]
    }

    fn summary() -> Value {
        said(&format!("{SUMMARY} that ran out of context."))
    }

    fn note(path: &str) -> Value {
        said(&format!("{BEGIN}{}{END}", left_out(path)))
    }

    fn limited(mut messages: Value, room: u64) -> Value {
        limit(messages.as_array_mut().expect("messages"), room);
        messages
    }

    #[test]
    fn files_behind_a_summary_stay_while_there_is_room() {
        let long = "x".repeat(300);
        let [a, b] = restored("/a", &long);
        let [c, d] = restored("/c", &long);
        let [e, f] = restored("/e", "short");
        let result = json!({"type": "tool_result", "tool_use_id": "t", "content": "1\tread"});
        let sent = json!([
            {"role": "user", "content": [summary()]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]},
            {"role": "user", "content": [result, a, b, c, d, e, f, said("<system-reminder>\nmind\n</system-reminder>")]},
        ]);
        assert_eq!(limited(sent.clone(), 1_000), sent);
        let content = |room| limited(sent.clone(), room)[2]["content"].clone();
        let mind = said("<system-reminder>\nmind\n</system-reminder>");
        assert_eq!(content(150), json!([result, a, b, note("/c"), e, f, mind]));
        assert_eq!(
            content(0),
            json!([result, note("/a"), note("/c"), note("/e"), mind])
        );
        // What a turn became does not depend on later ones.
        let mut longer = sent.clone();
        let [g, h] = restored("/g", &long);
        longer.as_array_mut().expect("messages").extend([
            json!({"role": "assistant", "content": "Read."}),
            json!({"role": "user", "content": [g, h, said("look at @/g")]}),
        ]);
        let after = limited(longer.clone(), 0);
        assert_eq!(after[2], limited(sent, 0)[2]);
        assert_eq!(after[4], longer[4]);
    }

    #[test]
    fn files_that_the_user_named_stay() {
        let long = "x".repeat(300);
        let [a, b] = restored("/a", &long);
        // No compaction, and files named in the first prompt after one.
        let named = json!([{"role": "user", "content": [a, b, said("look at @/a")]}]);
        assert_eq!(limited(named.clone(), 0), named);
        let [c, d] = restored("/c", &long);
        let both =
            json!([{"role": "user", "content": [c, d, summary(), a, b, said("look at @/a")]}]);
        assert_eq!(
            limited(both, 0),
            json!([{"role": "user", "content": [note("/c"), summary(), a, b, said("look at @/a")]}])
        );
    }

    #[test]
    fn files_in_a_system_message_are_told_by_their_numbered_lines() {
        let file = |path: &str| {
            format!(
                "{CALL}{}\n{RESULT}1\tx\n2\t{CALL}{{}}\n  3→\n",
                json!({"file_path": path})
            )
        };
        let sent = |text: String| json!([{"role": "user", "content": [summary()]}, {"role": "system", "content": text}]);
        let text = format!("{}\n{}\nMind.", file("/a"), file("/b"));
        assert_eq!(limited(sent(text.clone()), 1_000), sent(text.clone()));
        assert_eq!(
            limited(sent(text), 0),
            sent(format!("{}\n\n{}\n\nMind.", left_out("/a"), left_out("/b")))
        );
    }

    #[test]
    fn what_looks_like_a_file_and_is_none_stays() {
        let [call, _] = restored("/a", "x");
        for content in [
            json!([call]),
            json!([call, said("<system-reminder>\nmind\n</system-reminder>")]),
            json!([
                said(&format!("{BEGIN}{CALL}no JSON{END}")),
                said(&format!("{BEGIN}{RESULT}1\tx{END}"))
            ]),
            json!(format!("{CALL}{{\"file_path\":\"/a\"}}\nno result")),
            json!(CALL),
            json!(null),
        ] {
            for role in ["user", "system"] {
                let sent = json!([{"role": "user", "content": [summary()]}, {"role": role, "content": content}]);
                assert_eq!(limited(sent.clone(), 0), sent);
            }
        }
    }
}
