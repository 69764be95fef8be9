//! The ways of writing a call that models have in each form.

use super::*;

fn ls() -> Piece {
    call("Bash", json!({"command": "ls"}))
}

fn read_a() -> Piece {
    call("Read", json!({"file_path": "/tmp/a"}))
}

#[test]
fn calls_and_the_text_around_them_arrive_in_their_order() {
    for style in STYLES {
        let form = style.form();
        let object = |value: Value| value.as_object().cloned().unwrap();
        let calls = [
            ("Read".to_owned(), object(json!({"file_path": "/tmp/a"}))),
            ("Bash".to_owned(), object(json!({"command": "ls"}))),
            (
                "mcp__my-server__do-it".to_owned(),
                object(json!({"arg": "x"})),
            ),
        ];
        let made = [
            read_a(),
            ls(),
            call("mcp__my-server__do-it", json!({"arg": "x"})),
        ];
        for count in 1..=3 {
            arrives(form, &style.reply("", &calls[..count]), &made[..count]);
            if style.takes_text() {
                let before = "First I look at the file, then I decide.";
                let want = [&[text(before)], &made[..count]].concat();
                arrives(form, &style.reply(before, &calls[..count]), &want);
            }
        }
        if matches!(style, Style::Llama3 | Style::Llama3Tag | Style::Harmony) {
            continue;
        }
        let one = style.reply("", &calls[..1]);
        let two = style.reply("", &calls[1..2]);
        arrives(
            form,
            &format!("I read.\n{one}\nThen I list.\n\n{two}\nThat is all."),
            &[
                text("I read."),
                read_a(),
                text("Then I list."),
                ls(),
                text("That is all."),
            ],
        );
    }
}

#[test]
fn no_arguments_are_an_empty_object() {
    for style in STYLES {
        arrives(
            style.form(),
            &style.call("List", &json!({})),
            &[call("List", json!({}))],
        );
    }
    for reply in [
        "<tool_call>\n{\"name\": \"List\"}\n</tool_call>",
        "<tool_call>\n{\"name\": \"List\", \"arguments\": null}\n</tool_call>",
        "<tool_call>\n{\"name\": \"List\", \"arguments\": \"\"}\n</tool_call>",
        "<tool_call>\n{\"name\": \"List\", \"arguments\": \"{}\"}\n</tool_call>",
        "<tool_call>\n<function=List>\n</function>\n</tool_call>",
        "<tool_call><function=List></function></tool_call>",
        "<tool_call>List</tool_call>",
        "<tool_call>List\n</tool_call>",
    ] {
        for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
            arrives(form, reply, &[call("List", json!({}))]);
        }
    }
}

#[test]
fn odd_keys_names_and_namespaces() {
    for style in STYLES {
        let form = style.form();
        let input = json!({"pattern": "TODO", "-n": true, "-A": 3, "output_mode": "content"});
        arrives(form, &style.call("Grep", &input), &[call("Grep", input)]);
        for space in ["default_api:", "functions.", "tools/", "google:"] {
            let reply = style.call(&format!("{space}Bash"), &json!({"command": "ls"}));
            if style != Style::MistralNamed || space != "tools/" {
                arrives(form, &reply, &[ls()]);
            }
        }
        // The client tells the model of unknown ones.
        let input = json!({"path": "/tmp/a", "mode": 3});
        let reply = style.call("write_file", &input);
        if style != Style::Llama3 {
            let want = match style.escapes() {
                true => json!({"path": "/tmp/a", "mode": 3}),
                false => json!({"path": "/tmp/a", "mode": 3}),
            };
            arrives(form, &reply, &[call("write_file", want)]);
        }
        let input = json!({"file_path": "/tmp/a", "content": "x", "mode": "w"});
        arrives(form, &style.call("Write", &input), &[call("Write", input)]);
    }
}

#[test]
fn qwen3_coder_leaves_markers_out() {
    let want = call("Write", json!({"file_path": "/tmp/a", "content": "x\ny"}));
    for reply in [
        // As it should be, and in one line.
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</parameter>\n</function>\n</tool_call>",
        "<tool_call><function=Write><parameter=file_path>/tmp/a</parameter><parameter=content>x\ny</parameter></function></tool_call>",
        // Without the opening marker.
        "<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</parameter>\n</function>\n</tool_call>",
        "<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</parameter>\n</function>",
        // Without end markers.
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</parameter>\n</function>",
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</parameter>",
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</parameter>\n</tool_call>",
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\nx\ny\n</function>\n</tool_call>",
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n<parameter=content>\nx\ny\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n<parameter=content>\nx\ny\n</function>\n</tool_call>",
        "<function=Write>\n<parameter=file_path>\n/tmp/a\n<parameter=content>\nx\ny\n</function>\n</tool_call>",
        // Another form.
        "<tool_call>\n{\"name\": \"Write\", \"arguments\": {\"file_path\": \"/tmp/a\", \"content\": \"x\\ny\"}}\n</tool_call>",
        "<tool_call>Write\n<arg_key>file_path</arg_key>\n<arg_value>/tmp/a</arg_value>\n<arg_key>content</arg_key>\n<arg_value>x\ny</arg_value>\n</tool_call>",
    ] {
        arrives(Form::Qwen3Coder, reply, &[want.clone()]);
        if reply.starts_with("<tool_call>") {
            arrives(Form::Hermes, reply, &[want.clone()]);
            arrives(Form::Glm47, reply, &[want.clone()]);
        }
    }
    // Two calls, the first one without its last marker.
    let one =
        "<tool_call>\n<function=Read>\n<parameter=file_path>\n/tmp/a\n</parameter>\n</function>\n";
    let two = "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>";
    arrives(Form::Qwen3Coder, &format!("{one}{two}"), &[read_a(), ls()]);
    // A call that begins and goes on in another way.
    for reply in [
        "<tool_call>\nI will call Bash now.\n</tool_call>",
        "<tool_call>\n<function=Write>\nfile_path: /tmp/a\n</function>\n</tool_call>",
        "<tool_call>\n<function=Write>\n<parameter=file_path>\n/tmp/a\n",
    ] {
        let got = outcome(&options(Form::Qwen3Coder), reply, &STOP);
        let is_told = matches!(got.as_slice(), [Piece::Wrong(Wrong::Unreadable { .. })]);
        assert!(is_told, "{reply}: {got:?}");
    }
}

#[test]
fn glm_writes_lines_or_none() {
    for reply in [
        "<tool_call>Read\n<arg_key>file_path</arg_key>\n<arg_value>/tmp/a</arg_value>\n</tool_call>",
        "<tool_call>Read<arg_key>file_path</arg_key><arg_value>/tmp/a</arg_value></tool_call>",
        "<tool_call>\nRead\n<arg_key>file_path</arg_key>\n<arg_value>/tmp/a</arg_value>\n</tool_call>",
        "<tool_call> Read <arg_key> file_path </arg_key> <arg_value>/tmp/a</arg_value> </tool_call>",
        "<tool_call>Read\n\n<arg_key>file_path</arg_key>\n\n<arg_value>/tmp/a</arg_value>\n\n</tool_call>",
        "<tool_call>Read\n<arg_key>file_path</arg_key>\n<arg_value>/tmp/a</arg_value>\n",
        "<tool_call>Read\n<arg_key>file_path</arg_key>\n<arg_value>/tmp/a\n</tool_call>",
    ] {
        let got = outcome(&options(Form::Glm47), reply, &STOP);
        let [Piece::Call(Call { name, input })] = got.as_slice() else {
            panic!("{reply}: {got:?}");
        };
        let path = input["file_path"].as_str().unwrap();
        assert_eq!(
            (name.as_str(), path.trim_end()),
            ("Read", "/tmp/a"),
            "{reply}"
        );
    }
    let one = "<tool_call>Read\n<arg_key>file_path</arg_key>\n<arg_value>/tmp/a</arg_value>\n";
    let two = "<tool_call>Bash<arg_key>command</arg_key><arg_value>ls</arg_value></tool_call>";
    arrives(Form::Glm47, &format!("{one}{two}"), &[read_a(), ls()]);
    arrives(
        Form::Glm47,
        "<tool_call>Bash<arg_key>command</arg_key><arg_value>ls</arg_value><arg_key>run_in_background</arg_key><arg_value>True</arg_value><arg_key>timeout</arg_key><arg_value>5000</arg_value></tool_call>",
        &[call(
            "Bash",
            json!({"command": "ls", "run_in_background": true, "timeout": 5000}),
        )],
    );
}

#[test]
fn gemma_writes_as_it_likes() {
    let form = Form::Gemma4;
    for inside in [
        "call:Read{file_path:<|\"|>/tmp/a<|\"|>}",
        "call: Read{file_path:<|\"|>/tmp/a<|\"|>}",
        "call:Read {file_path: <|\"|>/tmp/a<|\"|>}",
        "call:Read{<|\"|>file_path<|\"|>:<|\"|>/tmp/a<|\"|>}",
        "call:Read{\"file_path\": \"/tmp/a\"}",
        "call:Read{'file_path': '/tmp/a'}",
        "call:Read{file_path:\"/tmp/a\"}",
        "call:Read{file_path:'/tmp/a'}",
        "call:Read{file_path:/tmp/a}",
        "call:Read{file_path=/tmp/a}",
        "call:Read(file_path=\"/tmp/a\")",
        "call:Read(file_path='/tmp/a')",
        "call:Read{file_path:<|\"|>/tmp/a<|\"|>,}",
        "call:Read{\n  file_path: <|\"|>/tmp/a<|\"|>\n}\n",
        "call:Read{file_path:<|\"|>/tmp/a<|\"|>}}",
        "call:default_api:Read{file_path:<|\"|>/tmp/a<|\"|>}",
        "Read{file_path:<|\"|>/tmp/a<|\"|>}",
        "{\"name\": \"Read\", \"arguments\": {\"file_path\": \"/tmp/a\"}}",
    ] {
        arrives(
            form,
            &format!("<|tool_call>{inside}<tool_call|>"),
            &[read_a()],
        );
        arrives(form, &format!("<|tool_call>{inside}"), &[read_a()]);
        arrives(
            form,
            &format!("So:\n<|tool_call>{inside}<tool_call|>\nDone."),
            &[text("So:"), read_a(), text("Done.")],
        );
    }
    let read = "call:Read{file_path:<|\"|>/tmp/a<|\"|>}";
    let bash = "call:Bash{command:<|\"|>ls<|\"|>}";
    for reply in [
        format!("<|tool_call>{read}<tool_call|><|tool_call>{bash}<tool_call|>"),
        format!("<|tool_call>{read}<tool_call|>\n<|tool_call>{bash}"),
        format!("<|tool_call>{read}{bash}<tool_call|>"),
        format!("<|tool_call>{read}\n{bash}<tool_call|>"),
        format!("<|tool_call>{read},{bash}<tool_call|>"),
        format!("<|tool_call>{read}<|tool_call>{bash}<tool_call|>"),
        format!("<|tool_call>{read}{bash}"),
    ] {
        arrives(form, &reply, &[read_a(), ls()]);
    }
    arrives(
        form,
        "<|tool_call>call:TodoWrite{meta:{deep:{x:true,y:None},n:1.5},todos:[{content:<|\"|>a, b: c<|\"|>,n:-2},{content:<|\"|>d}e]<|\"|>},[1,[]],null,<|\"|><|\"|>]}<tool_call|>",
        &[call(
            "TodoWrite",
            json!({
                "meta": {"deep": {"x": true, "y": null}, "n": 1.5},
                "todos": [{"content": "a, b: c", "n": -2}, {"content": "d}e]"}, [1, []], null, ""],
            }),
        )],
    );
    arrives(
        form,
        "<|tool_call>call:Bash{command:ls -la | grep x, then y,timeout:5000,run_in_background:True}<tool_call|>",
        &[call(
            "Bash",
            json!({"command": "ls -la | grep x, then y", "timeout": 5000, "run_in_background": true}),
        )],
    );
    arrives(
        form,
        "<|tool_call>call:Read{file_path:<|\"|>/tmp/a<tool_call|>",
        &[unreadable(Some("Read"))],
    );
}

#[test]
fn mistral_has_an_old_form_and_a_new_one() {
    for reply in [
        "[TOOL_CALLS][{\"name\": \"Read\", \"arguments\": {\"file_path\": \"/tmp/a\"}}, {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}]",
        "[TOOL_CALLS] [{\"name\": \"Read\", \"arguments\": {\"file_path\": \"/tmp/a\"}, \"id\": \"123456789\"}, {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}, \"id\": \"123456780\"}]</s>",
        "[TOOL_CALLS][{\"name\": \"Read\", \"arguments\": \"{\\\"file_path\\\": \\\"/tmp/a\\\"}\"}, {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}",
        "[TOOL_CALLS]Read[ARGS]{\"file_path\": \"/tmp/a\"}[TOOL_CALLS]Bash[ARGS]{\"command\": \"ls\"}",
        "[TOOL_CALLS]Read[CALL_ID]123456789[ARGS]{\"file_path\": \"/tmp/a\"}[TOOL_CALLS]Bash[CALL_ID]12[ARGS]{\"command\": \"ls\"}</s>",
        "[TOOL_CALLS]Read{\"file_path\": \"/tmp/a\"}\n[TOOL_CALLS] Bash {\"command\": \"ls\"}",
        "[TOOL_CALLS]{\"name\": \"Read\", \"arguments\": {\"file_path\": \"/tmp/a\"}}\n[TOOL_CALLS]{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}",
    ] {
        arrives(Form::Mistral, reply, &[read_a(), ls()]);
    }
    arrives(
        Form::Mistral,
        "[TOOL_CALLS]Read[ARGS]/tmp/a",
        &[unreadable(Some("Read"))],
    );
}

#[test]
fn llama_writes_objects_tags_or_functions() {
    let form = Form::Llama3;
    for reply in [
        "{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}",
        "\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n",
        "{\"type\": \"function\", \"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}",
        "{\"type\": \"function\", \"function\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}",
        "{\"function\": {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}}",
        "{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}",
        "<|python_tag|>{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}",
        "<|python_tag|>{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}<|eom_id|>",
        "<|python_tag|>Bash.call(command=\"ls\")",
        "<function=Bash>{\"command\": \"ls\"}</function>",
        "<function=Bash>{\"command\": \"ls\"}</function><|eot_id|>",
        "<function=Bash>{\"command\": \"ls\"}",
    ] {
        arrives(form, reply, &[ls()]);
    }
    let two = "{\"name\": \"Read\", \"parameters\": {\"file_path\": \"/tmp/a\"}}; {\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}";
    for reply in [
        two.to_owned(),
        two.replace("; ", "\n"),
        two.replace("; ", ", "),
        format!("<|python_tag|>{two}"),
        "<function=Read>{\"file_path\": \"/tmp/a\"}</function>\n<function=Bash>{\"command\": \"ls\"}</function>".to_owned(),
    ] {
        arrives(form, &reply, &[read_a(), ls()]);
    }
    for answer in [
        "{\"name\": \"Rome\", \"parameters\": {\"country\": \"Italy\"}}",
        "{\"a\": 1, \"b\": [true, null]}",
        "{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}\n\nThis is how a call looks.",
        "{not json at all}",
        "{",
        "{}",
    ] {
        is_text(form, answer);
    }
    arrives(
        form,
        "{\"name\": \"Bash\", \"parameters\": {\"command\": ls}}",
        &[unreadable(Some("Bash"))],
    );
}
