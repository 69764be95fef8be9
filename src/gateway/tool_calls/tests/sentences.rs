//! Calls that are shown in an answer, and calls that are made, by what stands around them.

use super::*;

/// The styles that have a marker which text can stand in front of.
fn marked() -> impl Iterator<Item = Style> {
    let styles = STYLES.into_iter();
    styles.filter(|style| !matches!(style, Style::Llama3 | Style::Harmony))
}

fn bash(style: Style, command: &str) -> String {
    style.call("Bash", &json!({"command": command}))
}

#[test]
fn a_call_that_is_shown_is_text() {
    for style in marked() {
        let lines = bash(style, "rm -rf build");
        let line = lines.replace('\n', "");
        for answer in [
            // In a sentence that goes on behind it.
            "A call is CALL in this form.",
            "CALL is how it looks.",
            "With CALL, the folder is gone.",
            "That would be CALL.",
            "Should I run CALL?",
            "One call (CALL) is enough.",
            "One call [CALL] is enough.",
            "It is CALL — nothing more.",
            "It is CALL - nothing more.",
            "It is CALL; nothing more.",
            "CALL: deletes the folder",
            "I could write CALL but I will not.",
            "I did not run CALL because it deletes.",
            "Ein Aufruf sieht so aus: CALL, und mehr nicht.",
            "Вызов CALL удаляет папку.",
            "调用写成CALL这样。",
            "写成CALL，就可以了。",
            "- CALL deletes it\n- nothing else",
            "1. CALL deletes it\n2. ls lists",
            "## CALL explained\n\nIt deletes.",
            "| form | call |\n|---|---|\n| own | CALL |\n| other | none |",
            // In quotes of any kind.
            "Im Log steht „CALL“ dort.",
            "Le journal dit « CALL » ici.",
            "ログには「CALL」とある。",
            "**CALL** is the call.",
            "*CALL* is the call.",
            "**`CALL`** is the call.",
            "- `CALL`\n- `CALL`",
            "It is <code>CALL</code> there.",
            "<pre>\nLINES\n</pre>\nThat is it.",
            "<pre><code>LINES</code></pre>",
            "```python\nreply = \"\"\"LINES\"\"\"\nparse(reply)\n```\nDone.",
            "````\n```\nLINES\n```\n````\nDone.",
            "1. So:\n   ```\n   CALL\n   ```\n2. Done",
            "He wrote:\n> first\n> CALL\n> last\n\nI did not.",
        ] {
            let answer = answer.replace("CALL", &line).replace("LINES", &lines);
            arrives(style.form(), &answer, &[text(&answer)]);
        }
    }
}

#[test]
fn a_call_behind_words_is_made() {
    for style in marked() {
        let made = bash(style, "ls");
        let ls = call("Bash", json!({"command": "ls"}));
        for before in [
            "I list the files.\n\n",
            "I list the files:\n",
            "I list the files: ",
            "I list the files.",
            "Files:",
            "Let me list the files ",
            "Let me list the files\n",
            "I look at `main.rs`:\n",
            "Now:\n```sh\nls\n```\n",
            "I'll do it\n",
            "He said \"go\"\n",
            "1. list\n2. read\n\n",
            "**Step 1**\n\n",
            "🔍 Looking…\n",
            "我来看看。\n",
            "我来看看",
            "> do it\n\n",
            "## Plan\n",
            "<b>Now</b>\n",
            "| a |\n|---|\n| b |\n\n",
            "The ` key\n",
            "— ",
            "{\"a\": 1}, so:\n",
            "He wrote \"\n",
        ] {
            let want = [text(before.trim()), ls.clone()];
            arrives(style.form(), &format!("{before}{made}"), &want);
        }
        for behind in ["\nNow I wait.", "\n\nNow I wait.", "\n- one\n- two"] {
            let want = [ls.clone(), text(behind.trim())];
            arrives(style.form(), &format!("{made}{behind}"), &want);
        }
    }
}

#[test]
fn a_placeholder_is_no_call() {
    for answer in [
        "Calls are written as\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>\nand nothing else.",
        "It is <tool_call>...</tool_call>, always.",
        "It is\n<tool_call>\n...\n</tool_call>\nalways.",
        "Put it between <tool_call> and </tool_call>, as JSON.",
        "It stands in <tool_call>name</tool_call>, always.",
        "The markers are:\n- <tool_call>\n- </tool_call>\n- <think>\n- </think>\nThat is all.",
        "The pattern is `<tool_call>(.*?)</tool_call>`, and greedy is wrong.",
        "```python\nif text.startswith('<tool_call>'):\n    parse(text)\n```\nThat is the parser.",
    ] {
        for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
            arrives(form, answer, &[text(answer)]);
        }
    }
    for (form, answer) in [
        (
            Form::Qwen3Coder,
            "It is <function=foo><parameter=x>1</parameter></function> in this form.",
        ),
        (
            Form::Qwen3Coder,
            "It is <function=foo><parameter=x>1</parameter></function>",
        ),
        (
            Form::Qwen3Coder,
            "So:\n<function=example_name>\n<parameter=example>\nvalue\n</parameter>\n</function>\nis a call.",
        ),
        (
            Form::Llama3,
            "So:\n<function=example_name>{\"example\": \"value\"}</function>\nis a call.",
        ),
        (Form::Llama3, "The marker <|python_tag|> comes first."),
        (Form::Llama3, "The marker is <|python_tag|>"),
        (
            Form::Gemma4,
            "It is <|tool_call>call:NAME{KEY:<|\"|>VALUE<|\"|>}<tool_call|>, and so on.",
        ),
        (
            Form::Glm47,
            "It is <tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>, and so on.",
        ),
        (Form::Mistral, "In HTML one writes <s>old</s>"),
    ] {
        arrives(form, answer, &[text(answer)]);
    }
}

#[test]
fn a_call_without_its_marker_at_the_end_of_a_sentence_is_told() {
    arrives(
        Form::Qwen3Coder,
        "To delete it one writes <function=Bash><parameter=command>rm</parameter></function>",
        &[text("To delete it one writes"), unreadable(Some("Bash"))],
    );
}

#[test]
fn a_thoughts_markers_that_are_named_are_text() {
    for answer in [
        "Models write `<think>` first and `</think>` after it.",
        "Models write <think> first and </think> after it.",
        "It begins with `<think>`\nand ends with `</think>`\nas always.",
        "`<think>` and `</think>` mark thoughts.",
        "Thoughts stand between \"<think>\" and \"</think>\".",
        "- `<think>`: opens\n- `</think>`: closes",
        "```\n<think>\nhm\n</think>\n```\nThat is a thought.",
    ] {
        for form in [Form::Hermes, Form::Qwen3Coder, Form::Glm47] {
            arrives(form, answer, &[text(answer)]);
        }
        let gemma = answer
            .replace("<think>", "<|channel>thought")
            .replace("</think>", "<channel|>");
        arrives(Form::Gemma4, &gemma, &[text(&gemma)]);
        let mistral = answer
            .replace("<think>", "[THINK]")
            .replace("</think>", "[/THINK]");
        arrives(Form::Mistral, &mistral, &[text(&mistral)]);
    }
}
