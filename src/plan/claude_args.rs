//! What the user passes to Claude Code after `--`: what is refused, and why, and what has to be joined with ours.

use std::ffi::{OsStr, OsString};

use crate::error::{Error, Result};

/// Options that take one value.
const ONE_VALUE: &[&str] = &[
    "--agent",
    "--agents",
    "--append-system-prompt",
    "--append-system-prompt-file",
    "--autocompact",
    "--debug-file",
    "--effort",
    "--input-format",
    "--json-schema",
    "--max-budget-usd",
    "--max-thinking-tokens",
    "--max-turns",
    "--name",
    "-n",
    "--output-format",
    "--permission-mode",
    "--permission-prompt-tool",
    "--permission-prompts",
    "--plugin-dir",
    "--session-id",
    "--setting-sources",
    "--system-prompt",
    "--system-prompt-file",
    "--system-prompt-snapshot",
    "--thinking",
];

/// Options whose value may be left out.
const MAYBE_VALUE: &[&str] = &[
    "--debug",
    "-d",
    "--from-pr",
    "--prompt-suggestions",
    "--resume",
    "-r",
    "--worktree",
    "-w",
];

/// Options that take every following word that is not an option.
const MANY_VALUES: &[&str] = &[
    "--add-dir",
    "--allowedTools",
    "--allowed-tools",
    "--betas",
    "--disallowedTools",
    "--disallowed-tools",
    "--mcp-config",
    "--tools",
];

const ELSEWHERE: &str = "the session would not stay on this machine";
const MODEL: &str = "the model is the one that cclocal serves";
const BACKGROUND: &str = "the session would go on without the server, which ends with cclocal";
const LEAVES: &str =
    "it would start Claude Code without the settings that keep the session on this machine";

/// Options that a local session cannot have, with the reason and what to do instead.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "--settings",
        "Claude Code reads one settings file from its command line, and that one keeps the session on this machine",
        "put them into .claude/settings.local.json",
    ),
    (
        "--managed-settings",
        ELSEWHERE,
        "put them into .claude/settings.local.json",
    ),
    (
        "--model",
        MODEL,
        "choose it before the `--`, for example `cclocal --gemma -- …`",
    ),
    ("--fallback-model", MODEL, "leave it out"),
    ("--advisor", MODEL, "leave it out"),
    (
        "--bg",
        BACKGROUND,
        "leave it out, and keep the terminal open",
    ),
    (
        "--background",
        BACKGROUND,
        "leave it out, and keep the terminal open",
    ),
    ("--tmux", LEAVES, "start tmux first, and cclocal in it"),
    ("--cloud", ELSEWHERE, "use `claude` itself for that"),
    ("--environment", ELSEWHERE, "use `claude` itself for that"),
    ("--remote", ELSEWHERE, "use `claude` itself for that"),
    ("--web", ELSEWHERE, "use `claude` itself for that"),
    (
        "--remote-control",
        ELSEWHERE,
        "use `claude` itself for that",
    ),
    (
        "--remote-control-session-name-prefix",
        ELSEWHERE,
        "use `claude` itself for that",
    ),
    ("--rc", ELSEWHERE, "use `claude` itself for that"),
    ("--teleport", ELSEWHERE, "use `claude` itself for that"),
    ("--sdk-url", ELSEWHERE, "use `claude` itself for that"),
    ("--client-data-url", ELSEWHERE, "leave it out"),
    ("--profile", ELSEWHERE, "leave it out"),
    ("--desktop", LEAVES, "use `claude` itself for that"),
    ("--chrome", ELSEWHERE, "use `claude` itself for that"),
    (
        "--file",
        "files of that kind are fetched from Anthropic",
        "copy the file here and name it in the prompt",
    ),
    (
        "--plugin-url",
        "plugins are left out of local sessions",
        "use `--plugin-dir` with a folder",
    ),
];

/// Commands of `claude` that are not a session.
const COMMANDS: &[&str] = &[
    "agents",
    "attach",
    "auth",
    "auto-mode",
    "critique",
    "daemon",
    "design-login",
    "doctor",
    "gateway",
    "import",
    "install",
    "kill",
    "logs",
    "mcp",
    "plugin",
    "plugins",
    "project",
    "purge",
    "rc",
    "remote-control",
    "respawn",
    "rm",
    "sandbox",
    "self-hosted-runner",
    "server",
    "setup",
    "setup-token",
    "ssh",
    "stop",
    "ultrareview",
    "update",
    "upgrade",
    "workspace-trust",
    "xaa",
];

/// Refuses what would take the session elsewhere, or is no session at all.
pub fn check(args: &[OsString]) -> Result<()> {
    let mut words = args.iter().peekable();
    let mut print = false;
    while let Some(word) = words.next() {
        if word == "--" {
            return Ok(());
        }
        if !is_option(word) {
            // With -p the client takes the first word for the prompt, whatever it says.
            let command = word
                .to_str()
                .filter(|word| !print && COMMANDS.contains(word));
            return match command {
                Some(command) => Err(Error::usage(format!("`claude {command}` is not a session"))
                    .cause("cclocal starts sessions only")
                    .hint(format!("run `claude {command}` itself"))),
                None => check_rest(words.cloned()),
            };
        }
        let name = check_option(word)?;
        print |= matches!(name, "-p" | "--print");
        if has_inline_value(word) {
            continue;
        }
        if ONE_VALUE.contains(&name) {
            words.next();
        } else if MAYBE_VALUE.contains(&name) {
            words.next_if(|next| !is_option(next));
        } else if MANY_VALUES.contains(&name) {
            while words.next_if(|next| !is_option(next)).is_some() {}
        }
    }
    Ok(())
}

/// After the prompt options may follow, but no command.
fn check_rest(words: impl Iterator<Item = OsString>) -> Result<()> {
    let mut skip = false;
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        if word == "--" {
            break;
        }
        if is_option(&word) {
            let name = check_option(&word)?;
            skip = ONE_VALUE.contains(&name) && !has_inline_value(&word);
        }
    }
    Ok(())
}

/// The option's name, if it may be passed on.
fn check_option(word: &OsStr) -> Result<&str> {
    // What is not UTF-8 names no option of ours; the part before `=` always is if it does.
    let text = word.to_str().unwrap_or_default();
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    match REFUSED.iter().find(|(refused, ..)| *refused == name) {
        Some((_, why, instead)) => Err(Error::usage(format!(
            "`{name}` cannot be passed to a local session"
        ))
        .cause(why)
        .hint(*instead)),
        None => Ok(name),
    }
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().first() == Some(&b'-') && word.len() > 1
}

fn has_inline_value(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"--") && word.as_encoded_bytes().contains(&b'=')
}

/// The user's arguments with our addition to the system prompt joined to theirs, and whether it was. The client takes only the last one
/// given. None is joined to a file of theirs, which the client does not take together with a text.
pub fn join_system_prompt(args: &[OsString], ours: &str) -> (Vec<OsString>, bool) {
    const NAME: &str = "--append-system-prompt";
    let end = args
        .iter()
        .position(|word| word == "--")
        .unwrap_or(args.len());
    let mut joined = args.to_vec();
    // The client takes the last.
    for at in (0..end).rev() {
        let Some(word) = args[at].to_str() else {
            continue;
        };
        if let Some(theirs) = word
            .strip_prefix(NAME)
            .and_then(|rest| rest.strip_prefix('='))
        {
            joined[at] = format!("{NAME}={ours}\n\n{theirs}").into();
            return (joined, true);
        }
        if word == NAME
            && let Some(theirs) = args
                .get(at + 1)
                .filter(|_| at + 1 < end)
                .and_then(|word| word.to_str())
        {
            joined[at + 1] = format!("{ours}\n\n{theirs}").into();
            return (joined, true);
        }
        if word.starts_with("--append-system-prompt-file") {
            return (joined, true);
        }
    }
    (joined, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
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
            "--allowedTools Bash Edit -p mcp",
            "--append-system-prompt mcp hello",
            "--effort low",
            "-d api hello",
            "-- --model x",
            "hello --permission-mode plan",
        ] {
            assert!(check(&words(line)).is_ok(), "{line}");
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
            "--permission-mode plan setup-token",
            "--allowedTools Bash --continue login --model x",
        ] {
            let error = check(&words(line)).expect_err(line);
            assert_eq!(error.exit, crate::error::Exit::Usage, "{line}");
            assert!(error.cause.is_some() && error.hint.is_some(), "{line}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_what_instead() {
        let said = ["mcp list", "--settings x"]
            .map(|line| check(&words(line)).expect_err(line).to_string());
        insta::assert_snapshot!(said.join("\n"), @"
        error: `claude mcp` is not a session
          cause: cclocal starts sessions only
          hint: run `claude mcp` itself
        error: `--settings` cannot be passed to a local session
          cause: Claude Code reads one settings file from its command line, and that one keeps the session on this machine
          hint: put them into .claude/settings.local.json
        ");
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
}
