//! A system prompt that is the same in every folder.
//!
//! Templates put the system prompt and the tools in front of everything, so what an engine has computed of them serves any session, as long as they are
//! the same to the byte. Claude Code can be asked to keep what belongs to one folder out of them (`--exclude-dynamic-system-prompt-sections`),
//! but 2.1.197 and 2.1.331 do so with `-p` only. Here the same sections are moved to where it puts them then: in front of the first message.
//! Nothing of them is lost, and the same prompt becomes the same messages every time.

use serde_json::{Map, Value, json};

/// What belongs to a folder or a session: how such a section begins, and words in it without which it is another one.
/// Source: the headings that 2.1.331 itself leaves out of the prompt.
const SECTIONS: [(&str, &str); 4] = [
    ("# Environment\n", "working directory: "),
    ("# Memory\n", " memory at `"),
    ("# auto memory\n", " memory at `"),
    ("# Scratchpad Directory\n", "`/"),
];

/// Stands at the prompt's end, after what the user appended (2.1.197).
const GIT_STATUS: &str = "gitStatus: This is the git status at the start of the conversation.";

/// Moves what belongs to the folder out of `system` and to the front of `messages`, which have been folded.
pub(super) fn settle(fields: &mut Map<String, Value>) {
    let mut moved = Vec::new();
    match fields.get_mut("system") {
        Some(Value::String(text)) => *text = without_folder(text, &mut moved),
        Some(Value::Array(blocks)) => {
            for block in blocks {
                if let Some(text) = block["text"].as_str() {
                    block["text"] = without_folder(text, &mut moved).into();
                }
            }
        }
        _ => {}
    }
    if moved.is_empty() {
        return;
    }
    let Some(Value::Array(messages)) = fields.get_mut("messages") else {
        return;
    };
    let block = json!({
        "type": "text",
        "text": format!("<system-reminder>\n{}\n</system-reminder>\n", moved.join("\n\n")),
    });
    match messages.first_mut() {
        Some(first) if first["role"] == "user" && first["content"].is_array() => {
            if let Some(said) = first["content"].as_array_mut() {
                said.insert(0, block);
            }
        }
        _ => messages.insert(0, json!({"role": "user", "content": [block]})),
    }
}

/// The text without the sections of the folder, which are added to `moved`. A section ends where the next one begins; one behind which none begins
/// stays, as it could not be told from what the user appended.
fn without_folder(text: &str, moved: &mut Vec<String>) -> String {
    let (text, status) = match text.find(GIT_STATUS) {
        Some(at) if text[..at].ends_with("\n\n") => text.split_at(at),
        _ => (text, ""),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut sections = text.split_inclusive("\n\n").peekable();
    let mut rest = text;
    while let Some(paragraph) = sections.next() {
        let mut length = paragraph.len();
        let here = rest;
        if is_heading(paragraph) {
            while let Some(next) = sections.next_if(|next| !is_heading(next)) {
                length += next.len();
            }
        }
        rest = &here[length..];
        let section = &here[..length];
        if is_of_folder(section) && sections.peek().is_some() {
            moved.push(section.trim_end().to_owned());
        } else {
            kept.push(section);
        }
    }
    if status.is_empty() {
        return kept.concat();
    }
    moved.push(status.trim_end().to_owned());
    kept.concat().trim_end().to_owned()
}

fn is_heading(paragraph: &str) -> bool {
    paragraph.starts_with("# ")
}

fn is_of_folder(section: &str) -> bool {
    SECTIONS
        .iter()
        .any(|(heading, words)| section.starts_with(heading) && section.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 2.1.197 writes it on a terminal, shortened.
    fn prompt(folder: &str) -> String {
        format!(
            "You are an interactive agent.\n\n# Harness\n - Text is displayed.\n\nWrite code.\n\n# Memory\n\n\
             You have a persistent file-based memory at `/data/{folder}/memory/`.\n\n```markdown\n---\nname: x\n```\n\nBefore saving, check.\n\n\
             # Environment\nYou have been invoked in the following environment: \n - Primary working directory: /work/{folder}\n - Shell: bash\n\n\
             # Context management\nIt is summarized.\n\nWhat the user appended.\n\n{GIT_STATUS}\n\nCurrent branch: {folder}\n\n# no heading\n"
        )
    }

    fn settled(system: Value) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("system".into(), system);
        let said = json!({"type": "text", "text": "hello"});
        fields.insert(
            "messages".into(),
            json!([{"role": "user", "content": [said]}]),
        );
        settle(&mut fields);
        fields
    }

    #[test]
    fn the_same_prompt_is_left_in_every_folder() {
        let blocks = |folder| json!([{"type": "text", "text": "You are Claude Code."}, {"type": "text", "text": prompt(folder)}]);
        let one = settled(blocks("one"));
        let other = settled(blocks("other"));
        assert_eq!(one["system"], other["system"]);
        insta::assert_snapshot!(one["system"][1]["text"].as_str().expect("text"), @"
        You are an interactive agent.

        # Harness
         - Text is displayed.

        Write code.

        # Context management
        It is summarized.

        What the user appended.
        ");
        insta::assert_snapshot!(one["messages"][0]["content"][0]["text"].as_str().expect("text"), @"
        <system-reminder>
        # Memory

        You have a persistent file-based memory at `/data/one/memory/`.

        ```markdown
        ---
        name: x
        ```

        Before saving, check.

        # Environment
        You have been invoked in the following environment: 
         - Primary working directory: /work/one
         - Shell: bash

        gitStatus: This is the git status at the start of the conversation.

        Current branch: one

        # no heading
        </system-reminder>
        ");
        assert_eq!(one["messages"][0]["content"][1]["text"], "hello");
        assert_eq!(
            settled(json!(prompt("one")))["system"],
            one["system"][1]["text"]
        );
    }

    #[test]
    fn what_does_not_belong_to_a_folder_stays() {
        let print_mode = "You are an agent.\n\n# Environment\n - The most recent models are these.\n\n# Context management\nIt is summarized.";
        let appended = "You are an agent.\n\n# Memory\n\nYou have a persistent memory at `/notes`.\n\nAnd be kind.";
        for text in [print_mode, appended, "", "\n\n", "# Memory\n\n"] {
            let fields = settled(json!(text));
            assert_eq!(fields["system"], text);
            assert_eq!(fields["messages"][0]["content"][0]["text"], "hello");
        }
    }
}
