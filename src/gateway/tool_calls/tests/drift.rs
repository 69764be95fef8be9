//! Calls that are written in another way than the form's, as models do: they are read as they were meant, or told.

use super::*;

fn ls() -> Piece {
    call("Bash", json!({"command": "ls"}))
}

fn read_a() -> Piece {
    call("Read", json!({"file_path": "/tmp/a"}))
}

/// Asserts that nothing is made of a reply, and that its model is told so.
#[track_caller]
fn is_told(form: Form, reply: &str) {
    let got = outcome(&options(form), reply, &STOP);
    let is_told = matches!(
        got.as_slice(),
        [Piece::Wrong(_)] | [Piece::Text(_), Piece::Wrong(_)]
    );
    assert!(is_told, "{form:?}: {reply}\n{got:?}");
}

#[test]
fn an_end_marker_is_written_in_another_way() {
    const JSON: &str = "{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}";
    for (form, reply) in [
        (Form::Hermes, format!("<tool_call>\n{JSON}\n<tool_call>")),
        (Form::Hermes, format!("<tool_call>\n{JSON}\n<tool_call>\n")),
        (Form::Hermes, format!("<tool_call>\n{JSON}\n</tool_calls>")),
        (Form::Hermes, format!("<tool_call>\n{JSON}\n</function>")),
        (Form::Hermes, format!("<tool_call>\n{JSON}\n</tool_call")),
        (Form::Hermes, format!("<tool_call>\n{JSON}\n</tool_call>\n<tool_call>\n")),
        (Form::Hermes, format!("<tool_call>\n<tool_call>\n{JSON}\n</tool_call>")),
        (Form::Hermes, format!("<tool_call><tool_call>{JSON}</tool_call></tool_call>")),
        (
            Form::Qwen3Coder,
            "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n<tool_call>".into(),
        ),
        (
            Form::Qwen3Coder,
            "<tool_call>\n<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>".into(),
        ),
        (
            Form::Glm47,
            "<tool_call>Bash<arg_key>command</arg_key><arg_value>ls</arg_value><tool_call>".into(),
        ),
        (
            Form::Gemma4,
            "<|tool_call>call:Bash{command:<|\"|>ls<|\"|>}<|tool_call>".into(),
        ),
        (
            Form::Llama3,
            "<function=Bash>{\"command\": \"ls\"}<function>".into(),
        ),
        (
            Form::Llama3,
            "<function=Bash>{\"command\": \"ls\"}}</function>".into(),
        ),
        (Form::Mistral, format!("[TOOL_CALLS][{JSON}][/TOOL_CALLS]")),
        (
            Form::Mistral,
            "[TOOL_CALLS]Bash[ARGS]{\"command\": \"ls\"}}[/TOOL_CALLS]".into(),
        ),
    ] {
        arrives(form, &reply, &[ls()]);
    }
}

#[test]
fn names_are_written_in_another_way() {
    for style in STYLES {
        for name in ["bash", "BASH", "functions.bash"] {
            let reply = style.call(name, &json!({"command": "ls"}));
            arrives(style.form(), &reply, &[ls()]);
        }
    }
    for (form, reply) in [
        (
            Form::Qwen3Coder,
            "<tool_call>\n<function=\"Bash\">\n<parameter=\"command\">\nls\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            Form::Qwen3Coder,
            "<tool_call>\n<function= Bash >\n<parameter= command >\nls\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            Form::Glm47,
            "<tool_call>\"Bash\"<arg_key>command</arg_key><arg_value>ls</arg_value></tool_call>",
        ),
        (
            Form::Gemma4,
            "<|tool_call> call : Bash {command:<|\"|>ls<|\"|>} <tool_call|>",
        ),
        (
            Form::Harmony,
            "<|channel|>commentary to=functions.Bashjson<|message|>{\"command\": \"ls\"}<|call|>",
        ),
    ] {
        arrives(form, reply, &[ls()]);
    }
}

#[test]
fn arguments_are_wrapped_in_another_way() {
    for inside in [
        r#"{"name": "Bash", "params": {"command": "ls"}}"#,
        r#"{"tool": "Bash", "tool_input": {"command": "ls"}}"#,
        r#"{"action": "Bash", "action_input": {"command": "ls"}}"#,
        r#"{"tool_call": {"name": "Bash", "arguments": {"command": "ls"}}}"#,
        r#"{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}"#,
        r#"{"name": "Bash", "arguments": {}, "command": "ls"}"#,
        r#"{"name": "Bash", "arguments": {"arguments": {"command": "ls"}}}"#,
        "```json\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n```",
        "Bash\n{\"command\": \"ls\"}",
        "Bash{\"command\": \"ls\"}",
    ] {
        for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
            let reply = format!("<tool_call>\n{inside}\n</tool_call>");
            arrives(form, &reply, &[ls()]);
        }
    }
    for (form, reply) in [
        (
            Form::Mistral,
            "[TOOL_CALLS]Bash[ARGS]\"{\\\"command\\\": \\\"ls\\\"}\"",
        ),
        (
            Form::Harmony,
            "<|channel|>commentary to=functions.Bash json<|message|>\"{\\\"command\\\": \\\"ls\\\"}\"<|call|>",
        ),
        (
            Form::Harmony,
            "<|channel|>commentary to=functions.Bash json<|message|>{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}<|call|>",
        ),
        (
            Form::Llama3,
            "<function=Bash>\"{\\\"command\\\": \\\"ls\\\"}\"</function>",
        ),
        (
            Form::Gemma4,
            "<|tool_call>call:Bash{arguments:{command:<|\"|>ls<|\"|>}}<tool_call|>",
        ),
        (
            Form::Llama3,
            "[{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}]",
        ),
    ] {
        arrives(form, reply, &[ls()]);
    }
    // A tool's own argument of such a name.
    let input = json!({"pattern": "x", "type": "js"});
    let tools = Tools::new(&[
        json!({"name": "Find", "input_schema": {"type": "object", "properties": {"pattern": {"type": "string"}, "type": {"type": "string"}}}}),
    ]);
    let reply =
        "<tool_call>\n{\"name\": \"Find\", \"pattern\": \"x\", \"type\": \"js\"}\n</tool_call>";
    let mut reader = Reader::new(&options(Form::Hermes), Arc::new(tools));
    let mut got = reader.push(reply, &[]);
    got.extend(reader.finish(&STOP));
    assert_eq!(joined(got), [call("Find", input)]);
}

#[test]
fn several_calls_share_a_marker() {
    for (form, reply) in [
        (
            Form::Qwen3Coder,
            "<tool_call>\n<function=Read>\n<parameter=file_path>\n/tmp/a\n</parameter>\n</function>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            Form::Qwen3Coder,
            "<tool_call>\n<function=Read>\n<parameter=file_path>\n/tmp/a\n</parameter>\n</function>\n</tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            Form::Mistral,
            "[TOOL_CALLS]Read[ARGS]{\"file_path\": \"/tmp/a\"}Bash[ARGS]{\"command\": \"ls\"}",
        ),
        (
            Form::Mistral,
            "[TOOL_CALLS]Read{\"file_path\": \"/tmp/a\"}\nBash{\"command\": \"ls\"}",
        ),
        (
            Form::Mistral,
            "[TOOL_CALLS]{\"name\": \"Read\", \"arguments\": {\"file_path\": \"/tmp/a\"}}, {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}",
        ),
        (
            Form::Llama3,
            "[{\"name\": \"Read\", \"parameters\": {\"file_path\": \"/tmp/a\"}}, {\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}]",
        ),
    ] {
        arrives(form, reply, &[read_a(), ls()]);
    }
}

#[test]
fn an_end_of_a_parameter_is_damaged_or_gone() {
    for end in [
        "</parameter/>",
        "</parameter1>",
        "</parameter",
        "</parameter=command>",
        "</parameter>,",
        "</parameter>\n</function=Bash>",
        "</parameterfunction>",
    ] {
        for rest in ["\n</function>\n</tool_call>", "\n</tool_call>"] {
            let reply =
                format!("<tool_call>\n<function=Bash>\n<parameter=command>\nls\n{end}{rest}");
            arrives(Form::Qwen3Coder, &reply, &[ls()]);
        }
    }
    let want = call(
        "Bash",
        json!({"command": "ls", "timeout": 5, "run_in_background": true}),
    );
    for reply in [
        "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n<parameter=timeout>\n5\n</parameter>\n<parameter=run_in_background>\ntrue\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n<parameter=timeout>\n5\n<parameter=run_in_background>\ntrue\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n<parameter=timeout>\n5\n<parameter=run_in_background>\ntrue\n</function>\n</tool_call>",
        "<tool_call>\r\n<function=Bash>\r\n<parameter=command>\r\nls\r\n</parameter>\r\n<parameter=timeout>\r\n5\r\n</parameter>\r\n<parameter=run_in_background>\r\ntrue\r\n</parameter>\r\n</function>\r\n</tool_call>",
    ] {
        arrives(Form::Qwen3Coder, reply, std::slice::from_ref(&want));
    }
    // A file's lines keep their ends.
    let input = json!({"file_path": "/tmp/a", "content": "a\r\nb\r\n"});
    let reply = Style::Qwen3Coder.call("Write", &input);
    arrives(Form::Qwen3Coder, &reply, &[call("Write", input)]);
}

#[test]
fn gemma_leaves_quotes_out() {
    let input = |command: &str| [call("Bash", json!({"command": command}))];
    for (inside, command) in [
        ("command:echo ${HOME}", "echo ${HOME}"),
        (
            "command:cat a | grep \"x: y, z\" > b",
            "cat a | grep \"x: y, z\" > b",
        ),
        ("command='ls'", "ls"),
        ("command=<|\"|>ls<|\"|>", "ls"),
        ("command:42", "42"),
    ] {
        let reply = format!("<|tool_call>call:Bash{{{inside}}}<tool_call|>");
        arrives(Form::Gemma4, &reply, &input(command));
    }
    for inside in [
        "command:<|\"|>ls,timeout:5",
        "command:'ls<|\"|>",
        ":command:<|\"|>ls<|\"|>",
    ] {
        is_told(
            Form::Gemma4,
            &format!("<|tool_call>call:Bash{{{inside}}}<tool_call|>"),
        );
    }
    is_told(
        Form::Gemma4,
        "<|tool_call>call:Bash:\nBEGIN_ARG:\nls\nEND_ARG\n<tool_call|>",
    );
}

#[test]
fn a_guess_that_would_swallow_an_argument_is_none() {
    for arguments in [
        r#"{"command": "ls" "timeout": 5}"#,
        r#"{"command": "ls"; "timeout": 5}"#,
        r#"{"command": "ls"}, "timeout": 5}"#,
        r#"{"command": "ls", "timeout"#,
        "{\"command\": \"ls\" // all of it\n, \"timeout\": 5}",
    ] {
        for reply in [
            format!(
                "<tool_call>\n{{\"name\": \"Bash\", \"arguments\": {arguments}}}\n</tool_call>"
            ),
            format!(
                "<tool_call>\n{{\"arguments\": {arguments}, \"name\": \"Bash\"}}\n</tool_call>"
            ),
        ] {
            let got = outcome(&options(Form::Hermes), &reply, &STOP);
            let is_meant = |piece: &Piece| match piece {
                Piece::Call(call) => call.input["command"] == "ls",
                _ => true,
            };
            assert!(got.iter().all(is_meant), "{reply}\n{got:?}");
        }
    }
    // A name among the arguments is none.
    is_told(
        Form::Hermes,
        "<tool_call>\n{\"arguments\": {\"file_path\": \"/tmp/a\", \"content\": \"{\"name\": \"my-app\"}\"}, \"name\": \"Write\"}\n</tool_call>",
    );
    is_told(
        Form::Hermes,
        "<tool_call>\n{\"arguments\": {\"command\": \"ls\"}}, \"name\": \"Bash\"}\n</tool_call>",
    );
}

#[test]
fn nothing_that_was_to_be_a_call_is_silent() {
    for (form, reply) in [
        (Form::Hermes, "<tool_call>\nnull\n</tool_call>"),
        (Form::Hermes, "<tool_call>\n</tool_call>"),
        (Form::Hermes, "<tool_call>\n{}\n</tool_call>"),
        (Form::Hermes, "I read.\n<tool_call>\n"),
        (Form::Glm47, "I read.\n<tool_call>Read"),
        (Form::Gemma4, "I read.<|tool_call>"),
        (Form::Gemma4, "I read.\n<|tool_call>call:Re"),
        (Form::Mistral, "I read.[TOOL_CALLS]"),
        (Form::Mistral, "[TOOL_CALLS]```json\n[]\n```"),
        (
            Form::Llama3,
            "{\"name\": \"Bash\", \"parameters\": \"ls -la\"}",
        ),
        (
            Form::Llama3,
            "{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls",
        ),
        (Form::Llama3, "<|python_tag|>import os\nprint(os.listdir())"),
    ] {
        is_told(form, reply);
    }
}
