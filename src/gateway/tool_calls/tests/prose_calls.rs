//! Calls without a marker, of models whose catalogue entry says that they write them.

use super::*;

fn prose(reply: &str) -> Vec<Piece> {
    let options = Options {
        prose_calls: true,
        ..options(Form::Hermes)
    };
    outcome(&options, reply, &STOP)
}

fn write() -> Piece {
    call("Write", json!({"file_path": "/tmp/a", "content": "x"}))
}

const OBJECT: &str =
    "{\"name\": \"Write\", \"arguments\": {\"file_path\": \"/tmp/a\", \"content\": \"x\"}}";

#[test]
fn a_reply_that_ends_in_a_call_makes_it() {
    for last in [
        format!("```json\n{OBJECT}\n```"),
        format!("```\n{OBJECT}\n```"),
        format!("```json\n{OBJECT}\n```\n\n"),
        OBJECT.to_owned(),
        OBJECT.replace(", \"", ",\n  \""),
        format!("<tools>{OBJECT}</tools>"),
        format!("<tools>\n{OBJECT}\n</tools>"),
        "<Write path=\"/tmp/a\" content=\"x\"/>".to_owned(),
        "<Write file_path=\"/tmp/a\" content=\"x\" />".to_owned(),
        "<Write file_path='/tmp/a' content='x'></Write>".to_owned(),
        "```xml\n<Write file_path=\"/tmp/a\" content=\"x\"/>\n```".to_owned(),
    ] {
        assert_eq!(prose(&last), [write()], "{last}");
        let reply = format!("I write the file.\n\n{last}");
        assert_eq!(
            prose(&reply),
            [text("I write the file."), write()],
            "{last}"
        );
        let reply = format!("It was:\n```\nold\n```\nSo now:\n{last}<|im_end|>");
        let before = "It was:\n```\nold\n```\nSo now:";
        assert_eq!(prose(&reply), [text(before), write()], "{last}");
        // Other models say it only.
        assert_eq!(
            outcome(&options(Form::Hermes), &last, &STOP),
            [text(last.trim())]
        );
        // A cut one was not made.
        let options = Options {
            prose_calls: true,
            ..options(Form::Hermes)
        };
        assert_eq!(
            outcome(&options, &last, &Ending::Limit),
            [text(last.trim())]
        );
    }
}

#[test]
fn a_call_that_is_an_example_is_text() {
    let fenced = format!("```json\n{OBJECT}\n```");
    for reply in [
        // Text behind it.
        format!("{fenced}\nI have not run it."),
        format!("{OBJECT}\nI have not run it."),
        "<Write path=\"/tmp/a\" content=\"x\"/>\nShall I?".to_owned(),
        // Two of them.
        format!("{fenced}\n\n{fenced}"),
        format!("```json\n{OBJECT}\n{OBJECT}\n```"),
        format!("{OBJECT}\n{OBJECT}"),
        // Another tool, or arguments that don't fit.
        fenced.replace("Write", "my-app"),
        fenced.replace("content", "contents_of"),
        "{\"name\": \"Write\"}".to_owned(),
        "<Write path=\"/tmp/a\"/>".to_owned(),
        "<div class=\"a\"/>".to_owned(),
        // In a sentence, or in other code.
        format!("It would be {OBJECT}"),
        format!("It would be `{OBJECT}`"),
        format!("> {OBJECT}"),
        format!("```python\n{OBJECT}\n```"),
        format!("```md\nso:\n{OBJECT}\n```"),
        format!("````md\n```json\n{OBJECT}\n```\n````"),
    ] {
        assert_eq!(prose(&reply), [text(&reply)], "{reply}");
    }
}

#[test]
fn marked_calls_are_read_as_ever_and_text_comes_as_it_is_written() {
    let made = Style::Hermes.call("Bash", &json!({"command": "ls"}));
    let ls = call("Bash", json!({"command": "ls"}));
    assert_eq!(prose(&format!("So:\n{made}")), [text("So:"), ls.clone()]);
    let both = format!("```json\n{OBJECT}\n```\n{made}");
    let fenced = format!("```json\n{OBJECT}\n```");
    assert_eq!(prose(&both), [text(&fenced), ls]);
    let options = Options {
        prose_calls: true,
        ..options(Form::Hermes)
    };
    let mut reader = Reader::new(&options, tools());
    let pieces = reader.push("One line.\nAnother one.\n```\ncode\n```\nAnd ", &[]);
    assert_eq!(
        joined(pieces),
        [text("One line.\nAnother one.\n```\ncode\n```\nAnd")]
    );
}
