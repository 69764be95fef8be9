//! Replies that were cut: a call is whole or it is told, never shorter.

use super::*;

#[test]
fn a_call_that_is_cut_anywhere_is_told_or_whole() {
    let inputs = [
        (
            "Write",
            json!({"file_path": "/tmp/a.txt", "content": "one\ntwo\n"}),
        ),
        (
            "Read",
            json!({"file_path": "/tmp/a", "offset": 12, "limit": 345}),
        ),
        (
            "TodoWrite",
            json!({"todos": [{"content": "a"}, {"content": "b"}], "meta": {"n": 1}}),
        ),
        ("Bash", json!({"command": "ls", "run_in_background": true})),
    ];
    for style in STYLES {
        for (name, input) in &inputs {
            let reply = style.call(name, input);
            let whole = [call(name, input.clone())];
            for end in (1..=reply.len()).filter(|end| reply.is_char_boundary(*end)) {
                let cut = &reply[..end];
                let got = read(&options(style.form()), cut, usize::MAX, &Ending::Limit);
                let is_told = matches!(got.as_slice(), [Piece::Wrong(Wrong::Cut { .. })]);
                // A single bracket is nothing yet.
                let is_text = end == 1 && got == [text(cut)];
                assert!(
                    is_told || is_text || got == whole,
                    "{style:?}: {cut}\n{got:?}"
                );
                let split = read(&options(style.form()), cut, 3, &Ending::Limit);
                assert_eq!(split, got, "{style:?}: {cut}");
            }
        }
    }
}

#[test]
fn a_call_that_the_model_does_not_finish_has_no_other_arguments() {
    let inputs = [
        (
            "Write",
            json!({"file_path": "/tmp/a.txt", "content": "one\ntwo\n"}),
        ),
        (
            "Read",
            json!({"file_path": "/tmp/a", "offset": 12, "limit": 345}),
        ),
        (
            "TodoWrite",
            json!({"todos": [{"content": "a"}, {"content": "b"}], "meta": {"n": 1}}),
        ),
        ("Bash", json!({"command": "ls", "run_in_background": true})),
    ];
    for style in STYLES {
        for (name, input) in &inputs {
            let reply = style.call(name, input);
            for end in (1..=reply.len()).filter(|end| reply.is_char_boundary(*end)) {
                let cut = &reply[..end];
                let got = read(&options(style.form()), cut, usize::MAX, &STOP);
                let is_good = match got.as_slice() {
                    [Piece::Wrong(_)] | [Piece::Text(_)] => true,
                    [Piece::Call(made)] => {
                        let tools = tools();
                        let tool = tools.get(name).unwrap();
                        let is_meant = |(key, value): (&String, &Value)| input[key] == *value;
                        made.input.iter().all(is_meant) && tool.has_required(&made.input)
                    }
                    _ => false,
                };
                assert!(is_good, "{style:?}: {cut}\n{got:?}");
            }
        }
    }
}

#[test]
fn a_call_in_quotes_that_are_cut_is_not_made() {
    for style in STYLES {
        if matches!(style, Style::Llama3 | Style::Harmony) {
            continue;
        }
        let made = style.call("Bash", &json!({"command": "rm -rf build"}));
        let line = made.replace('\n', "");
        for reply in [
            format!("So:\n```\n{made}"),
            format!("So:\n```\n{made}\n"),
            format!("It is `{line}"),
            format!("He said \"{line}"),
        ] {
            let got = outcome(&options(style.form()), &reply, &Ending::Limit);
            assert_eq!(got, [text(reply.trim())], "{style:?}");
        }
    }
}

#[test]
fn a_file_about_calls_that_is_cut_is_not_written() {
    for style in STYLES.into_iter().filter(|style| !style.escapes()) {
        let example = style.call("Bash", &json!({"command": "ls"}));
        let content = format!("A call:\n{example}\nand more of it");
        let reply = style.call("Write", &json!({"file_path": "/tmp/a", "content": content}));
        let from = reply.find(&example).unwrap() + example.len();
        for end in from..from + 10 {
            for ending in [Ending::Limit, STOP] {
                let got = outcome(&options(style.form()), &reply[..end], &ending);
                let is_told = matches!(got.as_slice(), [Piece::Wrong(_)]);
                let is_at_its_end = ending == STOP && reply[from..end].trim().is_empty();
                assert!(
                    is_told || is_at_its_end,
                    "{style:?}: {}\n{got:?}",
                    &reply[..end]
                );
            }
        }
    }
}

#[test]
fn a_draft_in_a_thought_that_is_cut_is_not_made() {
    for style in [Style::Hermes, Style::Qwen3Coder, Style::GlmTight] {
        let draft = style.call("Bash", &json!({"command": "rm"}));
        for (start, prefix) in [
            (Start::Answer, "Thinking Process:\n\n1. Maybe\n"),
            (Start::Doubtful(2000), "Maybe\n"),
        ] {
            let options = Options {
                start,
                ..options(style.form())
            };
            let reply = format!("{prefix}{draft}\nor so. But");
            let got = outcome(&options, &reply, &Ending::Limit);
            let is_made = got.iter().any(|piece| matches!(piece, Piece::Call(_)));
            assert!(!is_made, "{style:?}: {got:?}");
        }
    }
}

#[test]
fn the_second_of_two_calls_is_cut_and_the_first_one_stays() {
    for style in STYLES {
        let first = ("Read".to_owned(), json!({"file_path": "/tmp/a"}));
        let second = (
            "Write".to_owned(),
            json!({"file_path": "/tmp/b", "content": "x\ny"}),
        );
        let object = |value: &Value| value.as_object().cloned().unwrap();
        let one = style.reply("", &[(first.0.clone(), object(&first.1))]);
        let both = style.reply(
            "",
            &[
                (first.0.clone(), object(&first.1)),
                (second.0.clone(), object(&second.1)),
            ],
        );
        let (made, other) = (call(&first.0, first.1), call(&second.0, second.1));
        for end in one.len() + 2..=both.len() {
            let cut = &both[..end];
            let got = read(&options(style.form()), cut, usize::MAX, &Ending::Limit);
            let is_good = match got.as_slice() {
                [one] => *one == made || matches!(one, Piece::Wrong(Wrong::Cut { .. })),
                [one, Piece::Wrong(Wrong::Cut { .. })] => *one == made,
                [one, two] => *one == made && *two == other,
                _ => false,
            };
            assert!(is_good, "{style:?}: {cut}\n{got:?}");
        }
    }
}

#[test]
fn a_cut_call_names_its_tool() {
    for style in STYLES {
        let reply = style.call(
            "Write",
            &json!({"file_path": "/tmp/a", "content": "one two"}),
        );
        let end = reply.find("two").unwrap();
        let got = outcome(&options(style.form()), &reply[..end], &Ending::Limit);
        let tool = Some("Write".to_owned());
        assert_eq!(got, [Piece::Wrong(Wrong::Cut { tool })], "{style:?}");
    }
}

#[test]
fn a_file_that_names_end_markers_is_not_cut_short() {
    for style in STYLES {
        let content = "A call ends so:\n</parameter>\n</function>\n or <tool_call|> or </tool_call> or so </arg_value> and then it is";
        let reply = style.call("Write", &json!({"file_path": "/tmp/a", "content": content}));
        let end = reply.find(" and then").unwrap();
        for end in [end + 4, end + 9, end + 14] {
            let got = outcome(&options(style.form()), &reply[..end], &Ending::Limit);
            let is_told = matches!(got.as_slice(), [Piece::Wrong(Wrong::Cut { .. })]);
            assert!(is_told, "{style:?}: {got:?}");
            // The engine can say that the model stopped where it was cut.
            let got = outcome(&options(style.form()), &reply[..end], &STOP);
            let is_told = matches!(got.as_slice(), [Piece::Wrong(_)]);
            assert!(is_told, "{style:?}: {got:?}");
        }
    }
}

#[test]
fn a_text_that_is_cut_is_text() {
    for form in FORMS {
        for reply in ["It is", "a < b", "a <", "It is `<tool", "One uses <b"] {
            let got = outcome(&options(form), reply, &Ending::Limit);
            assert_eq!(got, [text(reply)], "{form:?}");
        }
    }
}
