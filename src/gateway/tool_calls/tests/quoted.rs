//! Calls that are quoted, and markers that are named: all of it is text.

use super::*;

/// A call of each form in one line, which removes a folder if it is made.
fn samples() -> Vec<(Style, String)> {
    let input = json!({"command": "rm -rf build"});
    let samples = STYLES.map(|style| (style, style.call("Bash", &input).replace('\n', "")));
    samples.to_vec()
}

fn in_final(form: Form, answer: &str) -> String {
    match form {
        Form::Harmony => format!("<|channel|>final<|message|>{answer}<|return|>"),
        _ => answer.to_owned(),
    }
}

/// Asserts that all of an answer is text.
#[track_caller]
fn is_answer(form: Form, answer: &str) {
    arrives(form, &in_final(form, answer), &[text(answer)]);
}

#[test]
fn a_quoted_call_is_no_call() {
    let lines = [
        "A call is `CALL`, and I have not made it.",
        "A call is ``CALL`` here.",
        "For example:\n```\nCALL\n```\nI have not run it.",
        "For example:\n\n  ~~~xml\nCALL\n~~~\n\nShall I?",
        "1. First:\n   ```json\n   CALL\n   ```\n2. Then nothing.",
        "```\nCALL\nCALL\n```",
        "````md\n```\nCALL\n```\n````\nThat is all.",
        "> CALL\n\nThat was somebody else.",
        "He wrote:\n> so I say\n> CALL\n> and it is done\nbut it is not.",
        "The log holds \"CALL\", and no more.",
        "The log holds 'CALL', and no more.",
        "The log holds “CALL”, and «CALL», and „CALL”.",
        "`CALL` and `CALL`",
    ];
    for (style, sample) in samples() {
        for line in lines {
            is_answer(style.form(), &line.replace("CALL", &sample));
        }
    }
}

#[test]
fn a_call_of_several_lines_in_a_fence_is_no_call() {
    for style in STYLES {
        let input = json!({"file_path": "/tmp/a.md", "content": "a\n`b`\n"});
        let sample = style.call("Write", &input);
        is_answer(
            style.form(),
            &format!("It would be\n```\n{sample}\n```\nand then nothing."),
        );
    }
}

#[test]
fn a_call_of_another_form_is_text() {
    let family = |form: Form| match form {
        Form::Hermes | Form::Qwen3Coder | Form::Glm47 => 0,
        Form::Gemma4 => 1,
        Form::Llama3 => 2,
        Form::Mistral => 3,
        Form::Harmony => 4,
    };
    for (style, sample) in samples() {
        for form in FORMS {
            let shares_marker = form == Form::Llama3 && style == Style::Qwen3Coder;
            if family(form) != family(style.form()) && !shares_marker {
                is_answer(form, &format!("One would say {sample} there."));
                is_answer(form, &format!("One would say\n{sample}\nthere."));
            }
        }
    }
}

#[test]
fn json_and_code_in_an_answer_are_text() {
    for form in FORMS {
        for answer in [
            "A call looks like {\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}} in one form. That is all.",
            "Here it is:\n```json\n{\"name\": \"my-app\", \"arguments\": {\"port\": 8080}}\n```\nSave it.",
            "Here it is:\n{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}\nI have not run it.",
            "To start it, call:main(port=8080) or `tool_code = main(x=1)`.",
            "The entry is call:Bash{command:ls} in the module.",
            "Bash(command=\"ls\") is how Python calls it.",
            "<Write path=\"a\" content=\"b\"/>",
            "if (a < b && c > d) { x[0] = '<'; }",
            "Generic types are Vec<Option<T>> and [[1, 2], [3]].",
        ] {
            is_answer(form, answer);
        }
    }
}

#[test]
fn a_marker_that_is_named_withholds_nothing() {
    let markers = |form: Form| -> &[&str] {
        match form {
            Form::Gemma4 => &["<|tool_call>", "<tool_call|>", "<|\"|>", "<channel|>"],
            Form::Hermes => &["<tool_call>", "</tool_call>", "</think>"],
            Form::Qwen3Coder => &[
                "<tool_call>",
                "</tool_call>",
                "<function=foo>",
                "<parameter=x>",
                "</parameter>",
            ],
            Form::Glm47 => &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_value>"],
            Form::Llama3 => &["<function=foo>", "</function>"],
            Form::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[/THINK]"],
            Form::Harmony => &[
                "<|channel|>",
                "<|message|>",
                "<|call|>",
                "<|end|>",
                "<|start|>",
            ],
        }
    };
    for form in FORMS {
        for marker in markers(form) {
            for line in [
                "`MARK` is the marker, and it comes first.",
                "Qwen opens a call with `MARK` in its output. The engine reads on.",
                "It is called `MARK`",
                "It says \"MARK\" there.",
                "The form uses MARK and then something else. It is simple.",
                "The form uses MARK and MARK, in pairs.",
                "| marker | meaning |\n|---|---|\n| MARK | a marker |\n\nThat is all.",
                "- MARK: a marker\n- another one\n",
                "Look at MARK\nin that line.",
            ] {
                let answer = line.replace("MARK", marker);
                is_answer(form, answer.trim_end());
            }
        }
        let both = markers(form);
        is_answer(
            form,
            &format!("A pair is {} … {}, and so on.", both[0], both[1]),
        );
        is_answer(
            form,
            &format!("A pair is `{} … {}`, and so on.", both[0], both[1]),
        );
    }
    for (form, answer) in [
        (Form::Hermes, "<tool_call> is the marker of a call."),
        (Form::Qwen3Coder, "<tool_call> is the marker of a call."),
        (Form::Glm47, "<tool_call> is the marker of a call."),
        (Form::Gemma4, "<|tool_call> is the marker of a call."),
        (Form::Mistral, "[TOOL_CALLS] is the marker of a call."),
        (Form::Hermes, "The marker of a call is <tool_call>"),
        (Form::Gemma4, "The marker of a call is <|tool_call>"),
        (Form::Mistral, "The marker of a call is [TOOL_CALLS]"),
        (Form::Hermes, "A turn ends with <|im_end|>"),
        (Form::Hermes, "A turn ends with `<|im_end|>`"),
        (Form::Gemma4, "A turn ends with <end_of_turn>"),
        (Form::Gemma4, "<end_of_turn> ends a turn."),
        (Form::Hermes, "In HTML, <s>old</s>"),
        (
            Form::Qwen3Coder,
            "`<think>` opens a thought and `</think>` closes it.",
        ),
        (
            Form::Qwen3Coder,
            "A thought ends with </think> in this form.",
        ),
    ] {
        is_answer(form, answer);
    }
}

#[test]
fn a_stray_backtick_or_fence_in_front_of_a_call_quotes_nothing() {
    for style in STYLES.into_iter().filter(|style| style.takes_text()) {
        let want = call("Bash", json!({"command": "ls"}));
        let made = style.call("Bash", &json!({"command": "ls"}));
        if style == Style::Harmony {
            continue;
        }
        for before in [
            "The ` key is a backtick.",
            "Look: `a",
            "I'll list \"it\"",
            "```sh\nls",
            "> a quote\n\nNow:",
        ] {
            let reply = format!("{before}\n{made}");
            arrives(style.form(), &reply, &[text(before), want.clone()]);
        }
        let before = "It is a ` that";
        arrives(
            style.form(),
            &format!("{before} {made}"),
            &[text(before), want.clone()],
        );
    }
}

#[test]
fn nothing_is_nothing() {
    for form in FORMS {
        for reply in ["", " ", "\n\n", "\t \r\n", "\u{a0}\u{2003}"] {
            arrives(form, reply, &[]);
            assert_eq!(outcome(&options(form), reply, &Ending::Limit), []);
        }
    }
}

#[test]
fn the_end_of_a_turn_is_no_word() {
    for (form, end) in [
        (Form::Hermes, "<|im_end|>"),
        (Form::Hermes, "<|im_end|>\n<|endoftext|>"),
        (Form::Qwen3Coder, "<|im_end|>\n"),
        (Form::Glm47, "<|user|>"),
        (Form::Glm47, "<|observation|>"),
        (Form::Gemma4, "<turn|>\n"),
        (Form::Gemma4, "<end_of_turn>\n<eos>"),
        (Form::Gemma4, "<|tool_response>"),
        (Form::Llama3, "<|eot_id|>"),
        (Form::Llama3, "<|eom_id|>"),
        (Form::Mistral, "</s>"),
    ] {
        arrives(form, &format!("That is all.{end}"), &[text("That is all.")]);
        arrives(
            form,
            &format!("That is all.\n{end}"),
            &[text("That is all.")],
        );
        for style in STYLES.into_iter().filter(|style| style.form() == form) {
            let made = style.call("Bash", &json!({"command": "ls"}));
            let want = [call("Bash", json!({"command": "ls"}))];
            arrives(form, &format!("{made}{end}"), &want);
        }
    }
}
