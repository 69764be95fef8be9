//! Arguments by the tool's schema, in every form.

use super::*;

#[test]
fn numbers_and_booleans_may_be_strings_and_lists_and_objects_too() {
    for style in STYLES {
        for (name, written, want) in [
            (
                "Read",
                json!({"file_path": "/tmp/a", "offset": "130", "limit": "80"}),
                json!({"file_path": "/tmp/a", "offset": 130, "limit": 80}),
            ),
            (
                "Read",
                json!({"file_path": "/tmp/a", "offset": 1.5, "limit": 80.0}),
                json!({"file_path": "/tmp/a", "offset": 1.5, "limit": 80}),
            ),
            (
                "Read",
                json!({"file_path": "/tmp/a", "limit": "all of it"}),
                json!({"file_path": "/tmp/a", "limit": "all of it"}),
            ),
            (
                "Bash",
                json!({"command": "ls", "run_in_background": "true", "timeout": "5000"}),
                json!({"command": "ls", "run_in_background": true, "timeout": 5000}),
            ),
            (
                "Bash",
                json!({"command": "ls", "run_in_background": "False"}),
                json!({"command": "ls", "run_in_background": false}),
            ),
            (
                "TodoWrite",
                json!({"todos": "[{\"content\": \"a\"}]", "meta": "{\"key\": \"value\"}"}),
                json!({"todos": [{"content": "a"}], "meta": {"key": "value"}}),
            ),
            (
                "TodoWrite",
                json!({"todos": "[{'content': 'a', 'done': True}]"}),
                json!({"todos": [{"content": "a", "done": true}]}),
            ),
            (
                "TodoWrite",
                json!({"meta": "some free text, {not json"}),
                json!({"meta": "some free text, {not json"}),
            ),
            ("TodoWrite", json!({"todos": []}), json!({"todos": []})),
            (
                "Odd",
                json!({"items": ["1", 2, "3"], "inside": {"on": "true", "text": "true"}}),
                json!({"items": [1, 2, 3], "inside": {"on": true, "text": "true"}}),
            ),
        ] {
            arrives(
                style.form(),
                &style.call(name, &written),
                &[call(name, want)],
            );
        }
    }
}

#[test]
fn nothing_for_an_optional_argument_is_no_argument() {
    let list = json!({"command": "ls"});
    for style in STYLES {
        for nothing in [json!(null), json!("null"), json!("None"), json!("")] {
            let written =
                json!({"command": "ls", "timeout": nothing, "run_in_background": nothing});
            let reply = style.call("Bash", &written);
            arrives(style.form(), &reply, &[call("Bash", list.clone())]);
        }
        // Where it is allowed, or is a string, it stays.
        for input in [
            json!({"listed": null}),
            json!({"any_of": "null"}),
            json!({"any_of": ""}),
        ] {
            let reply = style.call("Odd", &input);
            arrives(style.form(), &reply, &[call("Odd", input)]);
        }
    }
    // An argument that is required isn't left out: the client says what is wrong with it.
    let reply = Style::Hermes.call("Read", &json!({"file_path": null}));
    let want = call("Read", json!({"file_path": null}));
    arrives(Form::Hermes, &reply, &[want]);
}

#[test]
fn a_string_stays_as_it_was_written() {
    for style in STYLES {
        for content in [
            "{\"a\": 1}",
            "[1, 2]",
            "12",
            "true",
            "True",
            "null",
            "<p class=\"a\">1 &lt; 2</p>",
            "007",
            "1.0",
        ] {
            for input in [
                json!({"file_path": "/tmp/a", "content": content}),
                json!({"file_path": content, "content": ""}),
            ] {
                arrives(
                    style.form(),
                    &style.call("Write", &input),
                    &[call("Write", input)],
                );
            }
        }
    }
    // Where the form has types, one that the schema doesn't want is written out.
    for (written, want) in [
        ("12", "12"),
        ("1.0", "1.0"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("{\"a\":  [1, 2]}", "{\"a\":  [1, 2]}"),
    ] {
        let reply = format!(
            "<tool_call>\n{{\"name\": \"Write\", \"arguments\": {{\"file_path\": \"/tmp/a\", \"content\": {written}}}}}\n</tool_call>"
        );
        let input = json!({"file_path": "/tmp/a", "content": want});
        arrives(Form::Hermes, &reply, &[call("Write", input)]);
    }
}

#[test]
fn unions_references_and_enums() {
    for style in STYLES {
        for (key, written, want) in [
            ("any_of", json!("12"), json!("12")),
            ("any_of", json!("text"), json!("text")),
            ("number_or_list", json!("12"), json!(12)),
            ("number_or_list", json!("[1, 2]"), json!([1, 2])),
            ("listed", json!("5"), json!(5)),
            ("listed", json!("null"), json!(null)),
            ("referred", json!("true"), json!(true)),
            ("enum", json!("true"), json!("true")),
            ("enum", json!("1"), json!("1")),
            ("level", json!("1"), json!(1)),
        ] {
            let reply = style.call("Odd", &json!({key: written}));
            arrives(style.form(), &reply, &[call("Odd", json!({key: want}))]);
        }
        if style.escapes() {
            for (key, value) in [
                ("free", json!("12")),
                ("free", json!(12)),
                ("yes", json!("[1]")),
            ] {
                let input = json!({key: value});
                arrives(
                    style.form(),
                    &style.call("Odd", &input),
                    &[call("Odd", input)],
                );
            }
        }
    }
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let union = |members: usize| {
        let members = vec![json!({"$ref": "#/properties/a"}); members];
        json!({"type": "object", "properties": {"a": {"anyOf": members}}})
    };
    for schema in [
        union(2),
        union(12),
        json!({"$ref": "#"}),
        json!({"properties": {"a": {"$ref": "#/properties/a"}}}),
    ] {
        let tools = Tools::new(&[json!({"name": "Loop", "input_schema": schema})]);
        let reply = Style::Hermes.call("Loop", &json!({"a": "12"}));
        let mut reader = Reader::new(&options(Form::Hermes), Arc::new(tools));
        reader.push(&reply, &[]);
        let got = reader.finish(&STOP);
        assert!(matches!(got.as_slice(), [Piece::Call(_)]), "{got:?}");
    }
}
