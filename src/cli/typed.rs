//! The command line as people type it: names of models stand alone, options of Claude Code need no `--`, and an error names what was meant.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use super::args::Cli;
use super::options;
use crate::catalog::catalog;
use crate::claude::user_args;
use crate::error::Error;
use crate::settings::key;
use crate::sys::environment::Environment;

/// Options that lead off this machine: never suggested.
const LEAD_AWAY: &[&str] = &["connect", "token-env", "insecure"];

/// The commands that take arguments for Claude Code, beside none.
const CONNECT: &str = "connect";

/// Sorts the words: ours first, then `--` and Claude Code's. A model's name gets its `--model`. A word that is neither stays in its place, for an
/// error.
pub(super) fn arranged(
    arguments: Vec<OsString>,
    names_model: impl Fn(&str) -> bool,
) -> Vec<OsString> {
    let mut command = Cli::command();
    command.build();
    let mut at = 1;
    let mut syntax = &command;
    if let Some(sub) = arguments.get(1).and_then(|word| subcommand(&command, word)) {
        if sub.get_name() != CONNECT {
            return arguments;
        }
        (syntax, at) = (sub, 2);
    }
    let is_session = at == 1;
    let mut ours: Vec<OsString> = arguments.iter().take(at).cloned().collect();
    let mut theirs: Vec<OsString> = Vec::new();
    let mut has_model = false;
    while let Some(word) = arguments.get(at) {
        let rest = &arguments[at..];
        if word == "--" {
            theirs.extend_from_slice(&rest[1..]);
            break;
        }
        let taken = if !is_option(word) {
            let text = word.to_str().unwrap_or_default();
            let free = is_session && !has_model && !user_args::prints(&theirs);
            if free && names_model(text) {
                has_model = true;
                ours.extend(["--model".into(), word.clone()]);
            } else if theirs.is_empty() {
                ours.push(word.clone());
            } else {
                theirs.push(word.clone());
            }
            1
        } else if let Some(words) = own_words(syntax, word) {
            has_model |= names_a_model(word);
            let taken = words.min(rest.len());
            ours.extend_from_slice(&rest[..taken]);
            taken
        } else if let Some(taken) = user_args::option_words(rest) {
            theirs.extend_from_slice(&rest[..taken]);
            taken
        } else {
            ours.push(word.clone());
            1
        };
        at += taken;
    }
    if !theirs.is_empty() {
        ours.push("--".into());
        ours.extend(theirs);
    }
    ours
}

fn is_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

/// The command that a word is: by its name, or by the flag that stands for it.
fn subcommand<'a>(command: &'a Command, word: &OsStr) -> Option<&'a Command> {
    let word = word.to_str()?;
    command.get_subcommands().find(|sub| {
        let long = word.strip_prefix("--").is_some_and(|long| {
            sub.get_long_flag() == Some(long)
                || sub.get_all_long_flag_aliases().any(|it| it == long)
        });
        let short = word.strip_prefix('-').is_some_and(|short| {
            let letter = sub.get_short_flag().map(String::from);
            letter.as_deref() == Some(short)
        });
        sub.get_name() == word || long || short
    })
}

/// Number of words of one of our options with its value. None: not our option.
fn own_words(command: &Command, word: &OsStr) -> Option<usize> {
    let text = word.to_str()?;
    if subcommand(command, word).is_some() {
        return Some(1);
    }
    let (name, inline) = match text.split_once('=') {
        Some((name, _)) => (name, true),
        None => (text, false),
    };
    let option = command
        .get_arguments()
        .find(|arg| match name.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => arg.get_short() == name.chars().nth(1),
        })?;
    Some(match option.get_action().takes_values() && !inline {
        true => 2,
        false => 1,
    })
}

fn names_a_model(word: &OsStr) -> bool {
    let name = word.to_str().and_then(|word| word.strip_prefix("--"));
    name.is_some_and(|name| {
        let name = name.split('=').next().unwrap_or_default();
        name == "model" || name == "connect" || catalog().by_flag(name).is_some()
    })
}

/// The error for a word that is nothing, with what may have been meant. None: clap's own says it.
pub(super) fn unknown(
    error: &clap::Error,
    arguments: &[OsString],
    environment: Option<&Environment>,
) -> Option<Error> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let command = Cli::command();
    let sub = arguments.get(1).and_then(|word| subcommand(&command, word));
    if sub.is_some_and(|sub| sub.get_name() != CONNECT) {
        return None;
    }
    let place = match sub {
        Some(_) => "cclocal connect",
        None => "cclocal",
    };
    if is_option(OsStr::new(word)) {
        let syntax = sub.unwrap_or(&command);
        let ours = syntax
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|name| !LEAD_AWAY.contains(name))
            .map(|name| format!("--{name}"));
        let names: Vec<String> = ours
            .chain(user_args::option_names().map(str::to_owned))
            .collect();
        let hint = match key::nearest(word, names.iter().map(String::as_str)) {
            Some(near) => format!("perhaps: {place} {near}"),
            None => format!(
                "{place} --help lists the options; one that only Claude Code knows goes after `--`: {place} … -- {word}"
            ),
        };
        return Some(
            Error::usage(format!("`{word}` is not an option that cclocal knows")).hint(hint),
        );
    }
    let mut names: Vec<String> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| sub.get_name().to_owned())
        .collect();
    names.extend(catalog().models.iter().map(|model| model.flag.clone()));
    names.extend(environment.map(options::own_names).unwrap_or_default());
    let hint = match key::nearest(word, names.iter().map(String::as_str)) {
        Some(near) if sub.is_none() => format!("perhaps: cclocal {near}"),
        _ if sub.is_none() && word.contains('/') => {
            format!("a model's id or folder comes with --model: cclocal --model {word}")
        }
        _ => {
            let word =
                shlex::try_quote(word).map_or_else(|_| word.clone(), |word| word.into_owned());
            format!("if it is a prompt, it goes after `--`: {place} … -- {word}")
        }
    };
    let message = match sub {
        Some(_) => format!("`cclocal connect` takes no word such as `{word}`"),
        None => format!("`{word}` is neither a command nor a model"),
    };
    Some(Error::usage(message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(line: &str) -> String {
        let words = std::iter::once("cclocal").chain(line.split_whitespace());
        let arguments = words.map(OsString::from).collect();
        let names_model = |word: &str| ["gemma", "work"].contains(&word);
        let arranged = arranged(arguments, names_model);
        let words: Vec<String> = arranged[1..]
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn options_of_claude_code_need_no_dashes() {
        for (typed, meant) in [
            ("--gemma --continue", "--gemma -- --continue"),
            ("--gemma -c --ctx 64k", "--gemma --ctx 64k -- -c"),
            (
                "--gemma -p hello --ctx 64k",
                "--gemma --ctx 64k -- -p hello",
            ),
            ("-p hello --gemma", "--gemma -- -p hello"),
            ("--gemma -r 1234 --verbose", "--gemma -- -r 1234 --verbose"),
            ("--gemma --resume", "--gemma -- --resume"),
            ("--gemma -p hi -- --verbose", "--gemma -- -p hi --verbose"),
            (
                "--gemma --allowedTools Bash Edit --ask",
                "--gemma --ask -- --allowedTools Bash Edit",
            ),
            (
                "--gemma --permission-mode=plan",
                "--gemma -- --permission-mode=plan",
            ),
            // Refused there, with the reason.
            ("--gemma --settings x", "--gemma -- --settings x"),
            (
                "connect --continue --port 8001",
                "connect --port 8001 -- --continue",
            ),
            (
                "--connect http://x -p hi --model m",
                "--connect http://x --model m -- -p hi",
            ),
            ("--model --continue", "--model --continue"),
        ] {
            assert_eq!(sorted(typed), meant);
        }
    }

    #[test]
    fn a_models_name_may_stand_alone() {
        for (typed, meant) in [
            ("gemma", "--model gemma"),
            ("work --ctx 64k", "--model work --ctx 64k"),
            ("--ctx 64k gemma", "--ctx 64k --model gemma"),
            ("--continue gemma", "--model gemma -- --continue"),
            ("gemma -p gemma", "--model gemma -- -p gemma"),
            ("-p gemma", "-- -p gemma"),
            ("--gemma work", "--gemma work"),
        ] {
            assert_eq!(sorted(typed), meant);
        }
    }

    #[test]
    fn what_is_no_session_stays_as_it_is() {
        for line in [
            "",
            "--help",
            "--version",
            "status --json",
            "list gemma -p",
            "--list --json",
            "-l",
            "--rm gemma",
            "rm gemma",
            "server --gemma -p",
            "--gemma hello",
            "--unknown gemma.x",
            "logs -f",
            "-- -p hi",
        ] {
            assert_eq!(sorted(line), line);
        }
    }
}
