//! Real marker tokens, where the letters alone have no clear meaning.

use super::*;

/// Reads a reply in which `«` and `»` stand around each real marker token.
fn told(form: Form, reply: &str) -> Vec<Piece> {
    let mut plain = String::new();
    let mut marks: Vec<(usize, usize)> = Vec::new();
    for letter in reply.chars() {
        match letter {
            '«' => marks.push((plain.len(), 0)),
            '»' => marks.last_mut().unwrap().1 = plain.len(),
            letter => plain.push(letter),
        }
    }
    let mut outcomes = Vec::new();
    for size in [1000, 24, 1] {
        let mut reader = Reader::new(&options(form), tools());
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < plain.len() {
            let mut end = (at + size).min(plain.len());
            // A real token comes in one piece.
            if let Some((_, last)) = marks
                .iter()
                .find(|(start, last)| *start < end && *last > end)
            {
                end = *last;
            }
            while !plain.is_char_boundary(end) {
                end += 1;
            }
            let inside = marks.iter().filter(|(start, _)| (at..end).contains(start));
            let marks: Vec<(usize, &str)> = inside
                .map(|(start, last)| (start - at, &plain[*start..*last]))
                .collect();
            pieces.extend(reader.push(&plain[at..end], &marks));
            at = end;
        }
        pieces.extend(reader.finish(&STOP));
        outcomes.push(joined(pieces));
    }
    assert_eq!(outcomes[0], outcomes[1], "{reply}");
    assert_eq!(outcomes[0], outcomes[2], "{reply}");
    outcomes.swap_remove(0)
}

fn write(content: &str) -> Piece {
    call("Write", json!({"file_path": "/tmp/a", "content": content}))
}

fn ls() -> Piece {
    call("Bash", json!({"command": "ls"}))
}

#[test]
fn real_markers_decide_where_letters_are_ambiguous() {
    let closed = "a\n</parameter>\n</function>\n</tool_call>b";
    let reply = format!(
        "«<tool_call>»\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\n{closed}\n</parameter>\n</function>\n«</tool_call>»\n«<tool_call>»\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n«</tool_call>»"
    );
    assert_eq!(told(Form::Qwen3Coder, &reply), [write(closed), ls()]);
    // By letters alone it is ambiguous.
    let letters = reply.replace(['«', '»'], "");
    let ambiguous = Piece::Wrong(Wrong::Ambiguous {
        tool: "Write".into(),
    });
    assert_eq!(told(Form::Qwen3Coder, &letters), [ambiguous]);

    let closed = "a</arg_value></tool_call>b";
    let reply = format!(
        "«<tool_call>»Write«<arg_key>»file_path«</arg_key>»«<arg_value>»/tmp/a«</arg_value>»«<arg_key>»content«</arg_key>»«<arg_value>»{closed}«</arg_value>»«</tool_call>»«<tool_call>»Bash«<arg_key>»command«</arg_key>»«<arg_value>»ls«</arg_value>»«</tool_call>»"
    );
    assert_eq!(told(Form::Glm47, &reply), [write(closed), ls()]);

    let closed = "a<|\"|>b";
    let reply = format!(
        "«<|tool_call>»call:Write{{content:«<|\"|>»{closed}<|\"|>, «<|\"|>»,file_path:«<|\"|>»/tmp/a«<|\"|>»}}«<tool_call|>»"
    );
    let got = told(Form::Gemma4, &reply);
    assert_eq!(got, [write("a<|\"|>b<|\"|>, ")]);
}

#[test]
fn a_marker_that_is_not_told_to_be_real_still_counts() {
    for style in STYLES {
        let made = style.call("Bash", &json!({"command": "ls"}));
        assert_eq!(told(style.form(), &made), [ls()]);
    }
    // The tokenizer merged the second opening with its neighbours.
    let reply = "«<tool_call>»\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n«</tool_call>»\n<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"ls\"}}\n«</tool_call>»";
    assert_eq!(told(Form::Hermes, reply), [ls(), ls()]);
    // Evidence that would leave a call outside is none.
    let reply = "«<tool_call>»\n<function=Write>\n<parameter=file_path>\n/tmp/a\n</parameter>\n<parameter=content>\na\n</parameter>\n</function>\n</tool_call>b\n</parameter>\n</function>\n«</tool_call>»\n<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>";
    let got = told(Form::Qwen3Coder, reply);
    assert!(
        matches!(got.as_slice(), [Piece::Wrong(Wrong::Ambiguous { .. })]),
        "{got:?}"
    );
}

#[test]
fn a_turn_ends_with_a_real_token_and_with_no_other() {
    let made = Style::Hermes.call("Bash", &json!({"command": "ls"}));
    let other = Style::Hermes.call("Bash", &json!({"command": "rm"}));
    for (reply, want) in [
        (
            "It is 4.«<|im_end|>»\n«<|im_start|>»user\nThanks!«<|im_end|>»".to_owned(),
            vec![text("It is 4.")],
        ),
        (
            "It is 4.<|im_end|>\n<|im_start|>user\nThanks!".to_owned(),
            vec![text("It is 4.<|im_end|>\n<|im_start|>user\nThanks!")],
        ),
        (
            "A turn ends with <|im_end|> there.".to_owned(),
            vec![text("A turn ends with <|im_end|> there.")],
        ),
        (
            format!("{made}«<|im_end|>»\n«<|im_start|>»user\nGo on.«<|im_end|>»\n{other}"),
            vec![ls()],
        ),
        (
            format!("So:\n{made}\nDone.«<|endoftext|>»{other}"),
            vec![text("So:"), ls(), text("Done.")],
        ),
        (
            "«<think>»\nHm.«<|im_end|>»\n«<|im_start|>»user\nNo.«</think>»Yes.".to_owned(),
            vec![thought("Hm."), Piece::Wrong(Wrong::OnlyThought)],
        ),
        // In a file it is content.
        (
            Style::Hermes
                .call(
                    "Write",
                    &json!({"file_path": "/tmp/a", "content": "a<|im_end|>b"}),
                )
                .replace("<|im_end|>", "«<|im_end|>»"),
            vec![write("a<|im_end|>b")],
        ),
        ("It is 4. «<|im_end|>»".to_owned(), vec![text("It is 4.")]),
    ] {
        assert_eq!(told(Form::Hermes, &reply), want, "{reply}");
    }
}

#[test]
fn a_real_marker_of_a_thought_needs_no_line_of_its_own() {
    assert_eq!(
        told(Form::Qwen3Coder, "So «<think>»hm«</think>» it is."),
        [text("So"), thought("hm"), text("it is.")]
    );
    assert_eq!(
        told(Form::Qwen3Coder, "So it is. «</think>» Yes."),
        [text("So it is.  Yes.")]
    );
}

#[test]
fn an_answer_can_name_harmonys_markers() {
    let reply = "«<|channel|>»final«<|message|>»A message ends with <|end|>\n<|start|>assistant begins one, and <|call|> a call.«<|return|>»";
    let want = "A message ends with <|end|>\n<|start|>assistant begins one, and <|call|> a call.";
    let known = "«<|channel|>»analysis«<|message|>»Hm.«<|end|>»«<|start|>»assistant";
    assert_eq!(
        told(Form::Harmony, &format!("{known}{reply}")),
        [thought("Hm."), text(want)]
    );
    assert_eq!(
        told(
            Form::Harmony,
            "«<|channel|>»analysis«<|message|>»Hm.«<|channel|>»final«<|message|>»Yes.«<|return|>»"
        ),
        [thought("Hm."), text("Yes.")]
    );
}
