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
