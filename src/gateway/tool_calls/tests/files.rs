//! Files that are written whole, whatever stands in them.

use super::*;

/// Contents that a form's own markers could be taken from.
fn contents() -> Vec<String> {
    let ends = [
        "</tool_call>",
        "</function>",
        "</parameter>",
        "</arg_value>",
        "<tool_call|>",
        "<|\"|>",
        "<|call|>",
        "<|end|>",
        "[/TOOL_CALLS]",
        "</think>",
        "<channel|>",
        "<|im_end|>",
        "<end_of_turn>",
        "</s>",
        "\"}}",
        "}",
        "```",
        "'''",
        "\"\"\"",
    ];
    let openings = [
        "<tool_call>",
        "<function=x>",
        "<parameter=y>",
        "<arg_key>k</arg_key>",
        "<arg_value>",
        "<|tool_call>",
        "<|tool_call>call:x",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<|channel|>commentary to=functions.x<|message|>",
    ];
    let mut contents: Vec<String> = Vec::new();
    for marker in ends.iter().chain(&openings) {
        contents.push(format!("It is called {marker} here.\nEnd.\n"));
        contents.push(format!("{marker}\n{marker}\nlast line"));
        contents.push(format!("one\n{marker}"));
    }
    for style in STYLES {
        let one = style.call("Bash", &json!({"command": "ls", "timeout": 1}));
        let nested = style.call("Write", &json!({"file_path": "/tmp/n", "content": one}));
        contents.push(format!("An example:\n{one}\nand that is it.\n"));
        contents.push(format!("{one}\n{one}\n"));
        contents.push(format!("Nested:\n\n{nested}\n"));
    }
    contents
}

#[test]
fn a_file_about_tool_calls_is_written_whole() {
    for style in STYLES {
        for content in contents() {
            let input = json!({"file_path": "/tmp/a.md", "content": content});
            let reply = style.call("Write", &input);
            let got = outcome(&options(style.form()), &reply, &STOP);
            // Unescaped, its own quotes around nothing have no meaning for Gemma.
            let has_none = style == Style::Gemma4 && content.contains("<|\"|>");
            let is_told = matches!(
                got.as_slice(),
                [Piece::Wrong(
                    Wrong::Unreadable { .. } | Wrong::Ambiguous { .. }
                )]
            );
            if has_none && is_told {
                continue;
            }
            assert_eq!(got, [call("Write", input)], "{style:?}: {content}");
        }
    }
}

#[test]
fn an_end_marker_too_many_is_content_if_the_end_is_clear() {
    for (style, content) in [
        (
            Style::Qwen3Coder,
            "x\n</parameter>\n</function>\n</tool_call>\ny",
        ),
        (
            Style::Qwen3Coder,
            "<tool_call>\n<function=Bash>\n<parameter=command>\nls",
        ),
        (
            Style::Qwen3Coder,
            "<parameter>\n  <hello></hello>\n</parameter>\nlast line",
        ),
        (Style::Qwen3Coder, "</parameter>\n</parameter>"),
        (Style::GlmLines, "x</arg_value>\n</tool_call>\ny"),
        (Style::GlmLines, "<arg_value>x</arg_value>\nlast line\n"),
        (Style::GlmTight, "x</arg_value></tool_call>y"),
        (
            Style::GlmTight,
            "<tool_call>Bash<arg_key>command</arg_key><arg_value>ls",
        ),
        (Style::Gemma4, "{x}<tool_call|>\ny"),
        (Style::Gemma4, "<|tool_call>call:Bash{"),
    ] {
        let input = json!({"file_path": "/tmp/a", "content": content});
        let reply = style.call("Write", &input);
        arrives(style.form(), &reply, &[call("Write", input)]);
    }
}

#[test]
fn calls_in_a_file_are_not_made_beside_others() {
    // An end and an opening too many, and another call: it may be two calls or one, and none is made.
    for style in [Style::Qwen3Coder, Style::GlmLines, Style::GlmTight] {
        let (one, two) = match style {
            Style::Qwen3Coder => ("\n</parameter>\n</function>\n</tool_call>", ""),
            _ => ("</arg_value>\n</tool_call>", ""),
        };
        let content = format!("a{one}b{two}");
        let first = style.call("Write", &json!({"file_path": "/tmp/a", "content": content}));
        let second = style.call("Bash", &json!({"command": "ls"}));
        arrives(
            style.form(),
            &format!("{first}\n{second}"),
            &[Piece::Wrong(Wrong::Ambiguous {
                tool: "Write".into(),
            })],
        );
    }
}

#[test]
fn white_space_and_odd_characters_are_kept() {
    for style in STYLES {
        for content in [
            "    indented first line\n\n\nthree newlines before\n\n",
            "\nnewline first",
            "\n\n\n",
            "\n",
            " ",
            "",
            "\t\ttabs\t\n\t",
            "windows\r\nlines\r\n",
            "trailing spaces  \n  ",
            "nul \0 bell \u{7} escape \u{1b}[0m delete \u{7f}",
            "bom \u{feff} separators \u{2028}\u{2029} joiner \u{200d}",
            "Grüße, 世界, 👩‍👩‍👧‍👦, 😀",
            "&lt; 2 &amp; 3 &nbsp; <br> <s>old</s>",
            "C:\\path\\new \\d+ \\\\server \\u0041 \\",
            "\"quoted\" 'single' `tick` \"",
            "{\"a\": 1, \"b\": [true, null]}",
            "[]",
            "true",
            "null",
            "None",
            "12",
            "1e999",
            "'",
            "\"",
            "\\",
        ] {
            for key in ["content", "file_path"] {
                let mut input = json!({"file_path": "/tmp/a", "content": "x"});
                input[key] = content.into();
                let reply = style.call("Write", &input);
                arrives(style.form(), &reply, &[call("Write", input)]);
            }
        }
    }
}
