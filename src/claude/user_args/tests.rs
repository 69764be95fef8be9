//! Arguments that pass, and arguments that are refused.

use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn checked(line: &str) -> Result<()> {
    check(&words(line), &Features::default(), false)
}

#[test]
fn sessions_pass() {
    for line in [
        "",
        "-p hello",
        "--continue",
        "-c",
        "-r",
        "--resume abc -p go",
        "fix the update",
        "-p update",
        "-p doctor",
        "-pc doctor",
        "-cp update",
        "-d2e hello",
        "-rabc hello",
        "--allowedTools Bash Edit -p mcp",
        "--append-system-prompt mcp hello",
        "--append-system-prompt -x hello",
        "--append-system-prompt -- hello",
        "--add-dir -- --continue",
        "--add-dir x -- --settings y",
        "--effort low",
        "-d api hello",
        "-- --model x",
        "hello mcp",
        "hello --permission-mode plan",
        "-p - --verbose",
    ] {
        assert!(checked(line).is_ok(), "{line}");
    }
}

#[test]
fn what_leaves_the_machine_is_a_usage_error_with_a_reason() {
    for line in [
        "--settings x.json",
        "--settings={}",
        "-p hello --settings x",
        "hello --model opus",
        "--model=opus",
        "--bg fix",
        "--cloud x",
        "--teleport",
        "--remote-control",
        "--tmux -w",
        "mcp list",
        "update",
        "-d update mcp",
        "-cd update mcp",
        "--permission-mode plan setup-token",
        "--allowedTools Bash --continue login --model x",
        "--project-config-root /x hi",
        "--project-config-root=/x hi",
        "--pool x",
        "--handle-uri claude-cli://open",
        "-p hi -- --handle-uri",
        "--append-system-prompt --attach-serve=x hi",
        "--append-system-prompt --settings={} hi",
        "--name -- --cloud x",
        "--add-dir x -- hi --handle-uri=x",
        "--add-dir -- --settings x",
        "--allowedTools -- --settings=x -p hi",
        "--betas -- x --model y",
        "cc://host/token",
        "-p cc+unix:///x",
        "hi -- cc://host",
        "--future",
        "--future=1",
        "-p hi --future x",
        "-pX hi",
        "-x",
        "--MODEL x",
        "---model x",
        "-p hi -model x",
        "open cc://host",
    ] {
        let error = checked(line).expect_err(line);
        assert_eq!(error.exit, crate::error::Exit::Usage, "{line}");
        assert!(error.cause.is_some() && error.hint.is_some(), "{line}");
    }
}

#[test]
fn what_is_not_known_passes_only_on_request_and_what_is_refused_never() {
    let insisted = |line: &str| check(&words(line), &Features::default(), true);
    for line in [
        "--future",
        "--future x hi",
        "-X hi",
        "--future=mcp",
        "-p hi --future",
    ] {
        assert!(checked(line).is_err() && insisted(line).is_ok(), "{line}");
    }
    for line in [
        "--settings x",
        "--future --model x",
        "--future x mcp",
        "--pool x",
        "cc://x",
    ] {
        assert!(insisted(line).is_err(), "{line}");
    }
    use std::os::unix::ffi::OsStringExt;
    let odd = [OsString::from_vec(b"--\xff".to_vec())];
    assert!(check(&odd, &Features::default(), false).is_err());
    let odd = [OsString::from_vec(b"\xff".to_vec())];
    assert!(check(&odd, &Features::default(), false).is_ok());
}

#[test]
fn a_refusal_says_why_and_what_instead() {
    let help = "Options:\n  --future <x>  y\n\nCommands:\n  new-command|alias [options]  x\n";
    let features = Features::from_help(help);
    let said = [
        checked("mcp list"),
        checked("--settings x"),
        checked("--future x"),
        check(&words("--future x"), &features, false),
        check(&words("--hidden x"), &features, false),
        check(&words("alias"), &features, false),
        checked("cc://host"),
        checked("-p hi --permission-mode auto"),
    ]
    .map(|refused| refused.expect_err("refused").to_string());
    insta::assert_snapshot!(said.join("\n"), @"
    error: `claude mcp` is not a session
      cause: cclocal starts sessions only
      hint: run `claude mcp` itself
    error: `--settings` cannot be passed to a local session
      cause: Claude Code takes one --settings, and cclocal needs it to keep the session on this machine
      hint: put them into .claude/settings.local.json
    error: `--future` is not an option that cclocal knows
      cause: cclocal cannot tell whether the session would stay on this machine
      hint: leave it out, or pass it anyway: cclocal … --pass-unknown -- --future …
    error: `--future` is not an option that cclocal knows
      cause: Claude Code has it, but cclocal cannot tell whether the session would stay on this machine
      hint: leave it out, or pass it anyway: cclocal … --pass-unknown -- --future …
    error: `--hidden` is not an option that cclocal knows
      cause: Claude Code's --help does not list it, and cclocal cannot tell whether the session would stay on this machine
      hint: leave it out, or pass it anyway: cclocal … --pass-unknown -- --hidden …
    error: `claude alias` is not a session
      cause: cclocal starts sessions only
      hint: run `claude alias` itself
    error: an address cannot be passed to a local session
      cause: Claude Code would join a session on another machine
      hint: if it is a prompt, begin it with another word
    error: auto mode does not work in a local session
      cause: Claude Code's check of each call runs on Anthropic's servers
      hint: leave it out; --ask before the `--` asks before tools run
    ");
}

#[test]
fn options_are_found_where_the_client_finds_them() {
    let value = |line: &str| last_value(&words(line), "--setting-sources");
    assert_eq!(value("-p hi"), None);
    assert_eq!(value("--setting-sources user -p"), Some("user".into()));
    assert_eq!(
        value("--setting-sources=user --setting-sources local"),
        Some("local".into())
    );
    assert_eq!(value("--setting-sources"), Some(String::new()));
    assert_eq!(value("-- --setting-sources user"), None);
    assert_eq!(value("--agent --setting-sources user"), None);
    assert!(has(&words("-p hi --plugin-dir=x"), "--plugin-dir"));
    assert!(!has(&words("--agent --plugin-dir"), "--plugin-dir"));
}

#[test]
fn both_system_prompts_are_kept() {
    let join = |line: &str| {
        let (args, joined) = join_system_prompt(&words(line), "ours");
        (
            args.iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>(),
            joined,
        )
    };
    assert_eq!(join("-p hi"), (vec!["-p".into(), "hi".into()], false));
    assert_eq!(
        join("--append-system-prompt theirs -p").0[1],
        "ours\n\ntheirs"
    );
    assert_eq!(
        join("--append-system-prompt=theirs"),
        (vec!["--append-system-prompt=ours\n\ntheirs".into()], true)
    );
    assert!(join("--append-system-prompt-file f").1);
    assert!(!join("-- --append-system-prompt x").1);
}
