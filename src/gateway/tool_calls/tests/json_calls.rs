//! Arguments in JSON, and near it.

use super::*;

/// A call as this style writes it, around arguments that are written already.
fn around(style: Style, name: &str, arguments: &str) -> Option<String> {
    Some(match style {
        Style::Hermes => format!(
            "<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>"
        ),
        Style::Llama3 => format!("{{\"name\": \"{name}\", \"parameters\": {arguments}}}"),
        Style::Llama3Tag => {
            format!("<|python_tag|>{{\"name\": \"{name}\", \"parameters\": {arguments}}}")
        }
        Style::MistralList => {
            format!("[TOOL_CALLS][{{\"name\": \"{name}\", \"arguments\": {arguments}}}]")
        }
        Style::MistralNamed => format!("[TOOL_CALLS]{name}[ARGS]{arguments}"),
        Style::Harmony => format!(
            "<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}<|call|>"
        ),
        Style::Gemma4 => format!("<|tool_call>call:{name}{arguments}<tool_call|>"),
        Style::Qwen3Coder | Style::GlmLines | Style::GlmTight => return None,
    })
}

#[track_caller]
fn all_read(name: &str, arguments: &str, want: &Value) {
    for style in STYLES {
        if let Some(reply) = around(style, name, arguments) {
            arrives(style.form(), &reply, &[call(name, want.clone())]);
        }
    }
}

#[test]
fn json_that_is_not_quite_json_is_read() {
    for (arguments, command) in [
        (r#"{"command": "ls"}"#, "ls"),
        (r#"{"command":"ls"}"#, "ls"),
        (r#"{ "command" : "ls" }"#, "ls"),
        (
            r#"{"command": "grep -E '\d+' C:\path"}"#,
            r"grep -E '\d+' C:\path",
        ),
        (
            r#"{"command": "cd C:\Users\bob\files & dir"}"#,
            r"cd C:\Users\bob\files & dir",
        ),
        (r#"{"command": "C:\\Users\\bob"}"#, r"C:\Users\bob"),
        (r#"{"command": "\w+\s*\(.*\)"}"#, r"\w+\s*\(.*\)"),
        (
            "{\"command\": \"one\ntwo\tthree\r\n\"}",
            "one\ntwo\tthree\r\n",
        ),
        ("{\"command\": \"nul \0 bell \u{7}\"}", "nul \0 bell \u{7}"),
        (r#"{"command": "ls",}"#, "ls"),
        ("{'command': 'ls'}", "ls"),
        ("{'command': \"it's\"}", "it's"),
        (r#"{'command': 'say "hi"'}"#, "say \"hi\""),
        (r#"{'command': 'it\'s'}"#, "it's"),
        (r#"{"command": """ls"""}"#, "ls"),
        (
            "{\"command\": \"\"\"echo \"a\"\necho 'b'\n\"\"\"}",
            "echo \"a\"\necho 'b'\n",
        ),
        ("{'command': '''ls\n'''}", "ls\n"),
        (r#"{"command": "it\'s"}"#, "it's"),
        (r#"{"command": "echo 'it'\''s'"}"#, r"echo 'it'\''s'"),
        (r#"{"command": "grep '\d' \'a\'"}"#, r"grep '\d' \'a\'"),
        (r#"{command: "ls"}"#, "ls"),
        (r#"{"command": "smile \ud83d here"}"#, "smile \u{fffd} here"),
        (r#"{"command": "smile \ude00"}"#, "smile \u{fffd}"),
        (r#"{"command": "smile \ud83d\ude00 \u00e9"}"#, "smile 😀 é"),
        (r#"{"command": "smile 😀"}"#, "smile 😀"),
        (r#"{"command": "not hex \uZZZZ"}"#, r"not hex \uZZZZ"),
        (r#"{"command": ""}"#, ""),
        ("\n{\n  \"command\": \"ls\"\n}\n", "ls"),
    ] {
        all_read("Bash", arguments, &json!({"command": command}));
    }
    all_read(
        "Bash",
        "{\"command\": \"ls\", \"run_in_background\": True, \"timeout\": 5}",
        &json!({"command": "ls", "run_in_background": true, "timeout": 5}),
    );
    all_read(
        "Bash",
        "{\"command\": \"ls\", \"run_in_background\": false, \"timeout\": 1.5e3}",
        &json!({"command": "ls", "run_in_background": false, "timeout": 1500.0}),
    );
}

#[test]
fn quotes_in_a_string_without_escapes() {
    for (name, arguments, want) in [
        (
            "Bash",
            r#"{"command": "echo "hi" there"}"#,
            json!({"command": r#"echo "hi" there"#}),
        ),
        (
            "Bash",
            r#"{"command": "git commit -m "a, b: c"", "timeout": 5}"#,
            json!({"command": r#"git commit -m "a, b: c""#, "timeout": 5}),
        ),
        (
            "Write",
            r#"{"file_path": "/tmp/a.json", "content": "{"a": "b", "c": ["d", "e"]}"}"#,
            json!({"file_path": "/tmp/a.json", "content": r#"{"a": "b", "c": ["d", "e"]}"#}),
        ),
        (
            "Write",
            "{\"file_path\": \"/tmp/a.py\", \"content\": \"print(\"a\")\nx = {\"k\": \"v\"}\n\"}",
            json!({"file_path": "/tmp/a.py", "content": "print(\"a\")\nx = {\"k\": \"v\"}\n"}),
        ),
    ] {
        for style in STYLES.into_iter().filter(|style| *style != Style::Gemma4) {
            let Some(reply) = around(style, name, arguments) else {
                continue;
            };
            let got = outcome(&options(style.form()), &reply, &STOP);
            let is_told = matches!(got.as_slice(), [Piece::Wrong(Wrong::Unreadable { .. })]);
            let is_read = got == [call(name, want.clone())];
            let must_be_read = matches!(style, Style::Hermes | Style::Harmony);
            assert!(
                is_read || is_told && !must_be_read,
                "{style:?}: {reply}\n{got:?}"
            );
        }
    }
}

#[test]
fn brackets_too_many_or_too_few() {
    let ls = || call("Bash", json!({"command": "ls"}));
    for inside in [
        r#"{"name": "Bash", "arguments": {"command": "ls"}}"#,
        r#"{"name": "Bash", "arguments": {"command": "ls"}}}"#,
        r#"{"name": "Bash", "arguments": {"command": "ls"}}}}]"#,
        r#"{"name": "Bash", "arguments": {"command": "ls"}"#,
        r#"{"name": "Bash", "arguments": {"command": "ls""#,
        r#"[{"name": "Bash", "arguments": {"command": "ls"}}]"#,
        r#"{"arguments": {"command": "ls"}, "name": "Bash"}"#,
        r#"{"name": "Bash", "parameters": {"command": "ls"}}"#,
        r#"{"name": "Bash", "input": {"command": "ls"}}"#,
        r#"{"name": "Bash", "command": "ls"}"#,
        r#"{"tool_name": "Bash", "args": {"command": "ls"}}"#,
        r#"{"type": "function", "function": {"name": "Bash", "arguments": {"command": "ls"}}}"#,
        r#"{"id": "call_1", "type": "function", "function": {"name": "Bash", "arguments": "{\"command\": \"ls\"}"}}"#,
        r#"{"name": "Bash", "arguments": "{\"command\": \"ls\"}"}"#,
        r#"{"name": "Bash", "arguments": "\"{\\\"command\\\": \\\"ls\\\"}\""}"#,
        r#"{'name': 'Bash', 'arguments': {'command': 'ls'}}"#,
        r#"{"name": "functions.Bash", "arguments": {"command": "ls"}}"#,
    ] {
        for reply in [
            format!("<tool_call>\n{inside}\n</tool_call>"),
            format!("<tool_call>{inside}</tool_call>"),
            format!("<tool_call>\n{inside}\n"),
            format!("<tool_call>\n{inside}\n</tool_call>\n</tool_call>"),
        ] {
            for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
                arrives(form, &reply, &[ls()]);
            }
        }
    }
    for (reply, want) in [
        (
            "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
            vec![ls(), ls()],
        ),
        (
            "<tool_call>\n[{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}, {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}]\n</tool_call>",
            vec![ls(), ls()],
        ),
        (
            "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
            vec![ls(), ls()],
        ),
        (
            "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\nThat lists.",
            vec![ls(), text("That lists.")],
        ),
        (
            "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls}}\n</tool_call>",
            vec![unreadable(Some("Bash"))],
        ),
        (
            "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": ls}}\n</tool_call>",
            vec![unreadable(Some("Bash"))],
        ),
        (
            "<tool_call>\n{\"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
            vec![unreadable(None)],
        ),
        (
            "<tool_call>\n{\"name\": \"Bash\", \"arguments\": \"ls\"}\n</tool_call>",
            vec![unreadable(Some("Bash"))],
        ),
    ] {
        arrives(Form::Hermes, reply, &want);
    }
}

#[test]
fn deep_nesting_is_read_or_told() {
    for levels in [20, 200, 450, 5_000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\": ", "}")] {
            let inside = if open == "[" { "" } else { "1" };
            let value = format!("{}{inside}{}", open.repeat(levels), close.repeat(levels));
            let arguments = format!("{{\"meta\": {value}}}");
            for style in STYLES {
                let reply = match around(style, "TodoWrite", &arguments) {
                    Some(reply) => reply,
                    None => style.call("TodoWrite", &json!({"meta": value})),
                };
                let options = options(style.form());
                let got = read(&options, &reply, usize::MAX, &STOP);
                let is_call = matches!(got.as_slice(), [Piece::Call(_)]);
                let is_told = matches!(got.as_slice(), [Piece::Wrong(_)]);
                assert!(
                    is_call || is_told && levels > 450,
                    "{style:?} {levels}: {got:?}"
                );
            }
        }
    }
}
