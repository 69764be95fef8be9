//! The form of gpt-oss.

use super::*;

#[test]
fn messages_are_told_apart() {
    let ls = || call("Bash", json!({"command": "ls"}));
    let made = "<|message|>{\"command\": \"ls\"}<|call|>";
    for (reply, want) in [
        (
            "<|channel|>analysis<|message|>I add.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>".to_owned(),
            vec![thought("I add."), text("It is 4.")],
        ),
        (
            format!("<|channel|>analysis<|message|>I list.<|end|><|start|>assistant<|channel|>commentary to=functions.Bash <|constrain|>json{made}"),
            vec![thought("I list."), ls()],
        ),
        (
            format!("<|channel|>commentary to=functions.Bash{made}"),
            vec![ls()],
        ),
        (
            format!("<|start|>assistant to=functions.Bash<|channel|>commentary json{made}"),
            vec![ls()],
        ),
        (
            format!(" to=functions.Bash<|channel|>commentary<|constrain|>json{made}"),
            vec![ls()],
        ),
        (
            format!("<|channel|>analysis to=functions.Bash code{made}"),
            vec![ls()],
        ),
        (
            format!("<|channel|>commentary<|message|>I list, then I look.<|end|><|start|>assistant<|channel|>commentary to=functions.Bash{made}<|start|>assistant<|channel|>commentary to=functions.Bash{made}"),
            vec![text("I list, then I look."), ls(), ls()],
        ),
        (
            "<|channel|>commentary to=functions.List <|constrain|>json<|message|>{}<|call|>".to_owned(),
            vec![call("List", json!({}))],
        ),
        (
            "<|channel|>commentary to=functions.List<|message|><|call|>".to_owned(),
            vec![call("List", json!({}))],
        ),
        ("It is 4.".to_owned(), vec![text("It is 4.")]),
        ("assistant is a role.".to_owned(), vec![text("assistant is a role.")]),
        (
            "<|channel|>final<|message|>A message ends with <|end|>, a call with <|call|> and so on. <|start|> begins one.<|return|>".to_owned(),
            vec![text("A message ends with <|end|>, a call with <|call|> and so on. <|start|> begins one.")],
        ),
        (
            "<|channel|>final<|message|>It is 4.".to_owned(),
            vec![text("It is 4.")],
        ),
        // The model talks to itself.
        (
            "<|channel|>final<|message|>It is 4.<|end|><|start|>user<|message|>Thanks!<|end|><|start|>assistant<|channel|>final<|message|>Bye.<|return|>".to_owned(),
            vec![text("It is 4.")],
        ),
        (
            "<|channel|>analysis<|message|>Maybe I list.<|end|>".to_owned(),
            vec![thought("Maybe I list."), Piece::Wrong(Wrong::OnlyThought)],
        ),
        (
            "<|channel|>commentary to=python<|message|>print(1)<|call|>".to_owned(),
            vec![unreadable(Some("python"))],
        ),
    ] {
        arrives(Form::Harmony, &reply, &want);
    }
}

#[test]
fn markers_in_arguments_are_content() {
    for content in [
        "<|end|>",
        "a<|call|><|start|>assistant<|channel|>final<|message|>b",
        "<|return|>",
        "\"}<|call|>",
    ] {
        let input = json!({"file_path": "/tmp/a", "content": content});
        let reply = Style::Harmony.call("Write", &input);
        arrives(Form::Harmony, &reply, &[call("Write", input)]);
    }
}

#[test]
fn damaged_arguments_are_read() {
    let reply = |arguments: &str| {
        format!(
            "<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>{arguments}<|call|>"
        )
    };
    for arguments in [
        "{\"command\": \"ls\"}}",
        "{\"command\": \"ls\",}",
        "{'command': 'ls'}",
        "{\"command\": \"ls\"",
        "\n{\"command\":\n\"ls\"}\n",
    ] {
        arrives(
            Form::Harmony,
            &reply(arguments),
            &[call("Bash", json!({"command": "ls"}))],
        );
    }
    arrives(
        Form::Harmony,
        &reply("{\"command\": \"echo \"hi\" there\"}"),
        &[call("Bash", json!({"command": "echo \"hi\" there"}))],
    );
    arrives(Form::Harmony, &reply("ls -la"), &[unreadable(Some("Bash"))]);
}
