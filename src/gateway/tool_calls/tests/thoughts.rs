//! Thoughts: never answers, and never calls.

use super::*;

/// Forms with `<think>`, each with a call that is drafted.
const THINKERS: [Style; 4] = [
    Style::Hermes,
    Style::Qwen3Coder,
    Style::GlmLines,
    Style::GlmTight,
];

fn bash(style: Style, command: &str) -> String {
    style.call("Bash", &json!({"command": command}))
}

fn ls() -> Piece {
    call("Bash", json!({"command": "ls"}))
}

/// The outcome for a model that may think without an opening marker.
#[track_caller]
fn doubtful(form: Form, reply: &str, want: &[Piece]) {
    let options = Options {
        start: Start::Doubtful(2000),
        ..options(form)
    };
    assert_eq!(outcome(&options, reply, &STOP), want, "{form:?}: {reply}");
}

#[track_caller]
fn opened(form: Form, reply: &str, want: &[Piece]) {
    let options = Options {
        start: Start::Thought,
        ..options(form)
    };
    assert_eq!(outcome(&options, reply, &STOP), want, "{form:?}: {reply}");
}

#[test]
fn a_thought_stands_in_front_of_an_answer_or_a_call() {
    for style in THINKERS {
        let form = style.form();
        let made = bash(style, "ls");
        let thought = thought("I should add.");
        for reply in [
            "<think>\nI should add.\n</think>\n\nIt is 4.",
            "<think>I should add.</think>It is 4.",
            "\n<think>\n\nI should add.\n\n</think>It is 4.",
        ] {
            arrives(form, reply, &[thought.clone(), text("It is 4.")]);
            doubtful(form, reply, &[thought.clone(), text("It is 4.")]);
        }
        let reply = format!("<think>\nI should add.\n</think>\n\n{made}");
        arrives(form, &reply, &[thought.clone(), ls()]);
        doubtful(form, &reply, &[thought.clone(), ls()]);
        let reply = format!("<think></think>{made}");
        arrives(form, &reply, &[ls()]);
        // The prompt ends in the opening marker.
        let reply = format!("I should add.\n</think>\n\nSo:\n{made}");
        opened(form, &reply, &[thought.clone(), text("So:"), ls()]);
        doubtful(form, &reply, &[thought.clone(), text("So:"), ls()]);
        let reply = format!("I should add.</think>{made}");
        opened(form, &reply, &[thought.clone(), ls()]);
        doubtful(form, &reply, &[thought, ls()]);
    }
}

#[test]
fn a_call_drafted_in_a_thought_is_not_made() {
    for style in THINKERS {
        let form = style.form();
        let draft = bash(style, "rm -rf build");
        let made = bash(style, "ls");
        for (prefix, start) in [("<think>\n", false), ("", true)] {
            let thinks = format!("Maybe\n{draft}\nbut no, that is dangerous.");
            let reply = format!("{prefix}{thinks}\n</think>\n\nI will not do that.");
            let answer = text("I will not do that.");
            let check = if start { doubtful } else { arrives };
            check(form, &reply, &[thought(&thinks), answer.clone()]);
            let reply = format!("{prefix}{thinks}\n</think>\n\n{made}");
            check(form, &reply, &[thought(&thinks), ls()]);
            if start {
                opened(form, &reply, &[thought(&thinks), ls()]);
            }
            // Drafts in code.
            let thinks = format!("Maybe `{}` or so.", draft.replace('\n', ""));
            let reply = format!("{prefix}{thinks}\n</think>\n\n{made}");
            check(form, &reply, &[thought(&thinks), ls()]);
        }
        // No marker at all, and longer than what is kept back.
        let long = "I think and think. ".repeat(200);
        let reply = format!("{long}\n{draft}\nbut no.\n</think>\n\n{made}");
        let got = outcome(&options(form), &reply, &STOP);
        let calls = got.iter().filter(|piece| matches!(piece, Piece::Call(_)));
        assert_eq!(calls.collect::<Vec<_>>(), [&ls()]);
    }
    arrives(
        Form::Hermes,
        "<think>\nMaybe {\"name\": \"Bash\", \"arguments\": {\"command\": \"rm\"}} but no.\n</think>\n\nNo.",
        &[
            thought("Maybe {\"name\": \"Bash\", \"arguments\": {\"command\": \"rm\"}} but no."),
            text("No."),
        ],
    );
}

#[test]
fn a_preamble_is_a_thought_up_to_its_end() {
    let thinks = "Thinking Process:\n\n1. **Analyze** the request.\n2. Add `a` and <b>.";
    let reply = format!("{thinks}\n</think>\n\nIt is 4.");
    arrives(
        Form::Qwen3Coder,
        &reply,
        &[thought(thinks), text("It is 4.")],
    );
    let long = format!("{thinks}{}", "\n3. And more of it.".repeat(500));
    let made = bash(Style::Qwen3Coder, "ls");
    let reply = format!("{long}\n</think>\n\n{made}");
    arrives(Form::Qwen3Coder, &reply, &[thought(&long), ls()]);
    let drafted = format!("{thinks}\n{}\nno.", bash(Style::Qwen3Coder, "rm"));
    let reply = format!("{drafted}\n</think>\n\n{made}");
    arrives(Form::Qwen3Coder, &reply, &[thought(&drafted), ls()]);
    // Without an end it is an answer, unless it was cut.
    is_text(Form::Qwen3Coder, thinks);
    assert_eq!(
        outcome(&options(Form::Qwen3Coder), thinks, &Ending::Limit),
        [thought(thinks), Piece::Wrong(Wrong::OnlyThought)]
    );
}

#[test]
fn a_thought_without_an_end_is_told() {
    for style in THINKERS {
        let form = style.form();
        let only = |wrong: Wrong| [thought("I should list"), Piece::Wrong(wrong)];
        let reply = "<think>\nI should list";
        arrives(form, reply, &only(Wrong::OnlyThought));
        opened(form, "I should list", &only(Wrong::OnlyThought));
        let cut = outcome(&options(form), reply, &Ending::Limit);
        assert_eq!(cut, only(Wrong::OnlyThought));
        let thinks = format!("So I list.\n{}", bash(style, "ls"));
        let wrong = Piece::Wrong(Wrong::InThought);
        let reply = format!("<think>\n{thinks}");
        arrives(form, &reply, &[thought(&thinks), wrong.clone()]);
        opened(form, &thinks, &[thought(&thinks), wrong.clone()]);
        // An end, and nothing behind it.
        let reply = format!("{thinks}\n</think>");
        doubtful(form, &reply, &[thought(&thinks), wrong]);
    }
}

#[test]
fn a_thought_can_stand_between_calls() {
    for style in THINKERS {
        let form = style.form();
        let (one, two) = (bash(style, "ls"), bash(style, "pwd"));
        let pwd = call("Bash", json!({"command": "pwd"}));
        let reply = format!("{one}\n<think>\nAnd then.\n</think>\n{two}");
        arrives(form, &reply, &[ls(), thought("And then."), pwd.clone()]);
        let drafted = bash(style, "rm");
        let reply = format!("First.\n{one}\n<think>\n{drafted}\n</think>\n{two}");
        arrives(
            form,
            &reply,
            &[text("First."), ls(), thought(&drafted), pwd],
        );
        arrives(
            form,
            "Well.\n<think>\nHm.\n</think>\nSo be it.",
            &[text("Well."), thought("Hm."), text("So be it.")],
        );
    }
}

#[test]
fn a_thoughts_markers_in_a_file_are_content() {
    for style in STYLES {
        for content in [
            "text = text.split('</think>')[-1]\n",
            "<think>\nno\n</think>\n",
            "</think>",
            "\n</think>\n",
            "<think>",
            "a\n<think>\nb",
            "<|channel>thought\nx<channel|>",
            "[THINK]x[/THINK]",
        ] {
            let input = json!({"file_path": "/tmp/a.py", "content": content});
            let made = style.call("Write", &input);
            let want = [call("Write", input)];
            arrives(style.form(), &made, &want);
            if style != Style::Harmony {
                doubtful(style.form(), &made, &want);
            }
        }
    }
}

#[test]
fn gemma_thinks_in_a_channel() {
    let form = Form::Gemma4;
    let made = bash(Style::Gemma4, "ls");
    let draft = bash(Style::Gemma4, "rm");
    arrives(
        form,
        "<|channel>thought\nI should add.\n<channel|>It is 4.",
        &[thought("I should add."), text("It is 4.")],
    );
    arrives(
        form,
        "<|channel>thought\n<channel|>It is 4.",
        &[text("It is 4.")],
    );
    let reply = format!("<|channel>thought\nMaybe {draft}<channel|>{made}");
    arrives(form, &reply, &[thought(&format!("Maybe {draft}")), ls()]);
    let reply = format!("{made}<|channel>thought\nMore.<channel|>{made}");
    arrives(form, &reply, &[ls(), thought("More."), ls()]);
    let reply = format!("<|channel>thought\nSo {made}");
    arrives(
        form,
        &reply,
        &[
            thought(&format!("So {made}")),
            Piece::Wrong(Wrong::InThought),
        ],
    );
    opened(form, "Hm.<channel|>Yes.", &[thought("Hm."), text("Yes.")]);
}

#[test]
fn mistral_thinks_in_brackets() {
    let made = bash(Style::MistralNamed, "ls");
    arrives(
        Form::Mistral,
        &format!("[THINK]I list.[/THINK]{made}"),
        &[thought("I list."), ls()],
    );
    arrives(
        Form::Mistral,
        &format!("[THINK]Maybe {made}[/THINK]No."),
        &[thought(&format!("Maybe {made}")), text("No.")],
    );
}

#[test]
fn a_closing_marker_that_closes_nothing_is_dropped_in_a_line_of_its_own() {
    for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
        arrives(form, "</think>\n\nIt is 4.", &[text("It is 4.")]);
        arrives(form, "It is 4.\n</think>", &[text("It is 4.")]);
        is_text(form, "One ends it with `</think>`, always.");
        doubtful(
            form,
            "One ends it with `</think>`, always.",
            &[text("One ends it with `</think>`, always.")],
        );
        doubtful(
            form,
            "One ends it with </think> here, always.",
            &[text("One ends it with </think> here, always.")],
        );
    }
}

#[test]
fn a_closing_marker_in_quotes_closes_nothing() {
    for style in THINKERS {
        let form = style.form();
        for thinks in [
            "The tag `</think>` ends it. So I list.",
            "Split at \"</think>\" and then list.",
            "`</think>` ends it.",
        ] {
            let want = [thought(thinks), text("Yes.")];
            arrives(form, &format!("<think>\n{thinks}\n</think>\n\nYes."), &want);
            opened(form, &format!("{thinks}\n</think>\n\nYes."), &want);
            let made = bash(style, "ls");
            let reply = format!("{made}\n<think>\n{thinks}\n</think>\nYes.");
            arrives(form, &reply, &[ls(), thought(thinks), text("Yes.")]);
        }
        // A quotation that has ended in front of it.
        let want = [thought("I say \"4\""), text("\"4\"")];
        arrives(form, "<think>I say \"4\"</think>\"4\"", &want);
    }
    arrives(
        Form::Gemma4,
        "<|channel>thought\n`<channel|>` ends it.\n<channel|>Yes.",
        &[thought("`<channel|>` ends it."), text("Yes.")],
    );
    arrives(
        Form::Mistral,
        "[THINK]`[/THINK]` ends it.[/THINK]Yes.",
        &[thought("`[/THINK]` ends it."), text("Yes.")],
    );
}

#[test]
fn thoughts_one_after_the_other_are_paragraphs() {
    for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
        let want = [thought("a\n\nb"), text("Yes.")];
        arrives(
            form,
            "<think>\na\n</think>\n<think>\nb\n</think>\nYes.",
            &want,
        );
    }
    arrives(
        Form::Harmony,
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        &[thought("a\n\nb"), text("Yes.")],
    );
}

#[test]
fn an_opening_marker_that_is_in_the_prompt_may_be_written_again() {
    for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
        let want = [thought("I add."), text("It is 4.")];
        opened(form, "<think>\nI add.\n</think>\nIt is 4.", &want);
        opened(form, "\n<think>I add.</think>It is 4.", &want);
    }
}

#[test]
fn a_closing_marker_at_the_beginning_closes_nothing() {
    for style in THINKERS {
        let form = style.form();
        let made = bash(style, "ls");
        arrives(form, &format!("</think>{made}"), &[ls()]);
        let want = [text("I list."), ls()];
        arrives(form, &format!("</think>I list.\n{made}"), &want);
        is_text(form, "</think> is the marker of an end.");
    }
}

#[test]
fn a_reply_that_is_a_thought_and_nothing_else_is_told() {
    for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
        let want = [thought("Hm."), Piece::Wrong(Wrong::OnlyThought)];
        arrives(form, "<think>\nHm.\n</think>\n", &want);
        opened(form, "Hm.\n</think>", &want);
        arrives(form, "<think>\n\n</think>\n", &[]);
    }
}

#[test]
fn llama_can_think_in_front_of_its_json() {
    let made = "{\"name\": \"Bash\", \"parameters\": {\"command\": \"ls\"}}";
    let reply = format!("<think>\nI list.\n</think>\n\n{made}");
    arrives(Form::Llama3, &reply, &[thought("I list."), ls()]);
    let draft = format!("<think>\nMaybe {made}\n</think>\n\nNo.");
    let thinks = format!("Maybe {made}");
    arrives(Form::Llama3, &draft, &[thought(&thinks), text("No.")]);
}

#[test]
fn the_start_is_known_from_the_prompt() {
    for (tail, knows, may, want) in [
        (
            "<|im_start|>assistant\n<think>\n",
            true,
            true,
            Start::Thought,
        ),
        ("<|assistant|>\n<think></think>", true, true, Start::Answer),
        ("<|im_start|>assistant\n", true, true, Start::Doubtful(2000)),
        ("<|im_start|>assistant\n", true, false, Start::Answer),
        ("<|im_start|>assistant\n", false, true, Start::Answer),
        (
            "<|turn>model\n<|channel>thought\n<channel|>",
            false,
            true,
            Start::Answer,
        ),
    ] {
        assert_eq!(Start::of(tail, knows, may), want, "{tail:?}");
    }
}
