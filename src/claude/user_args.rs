//! The user's arguments for Claude Code, after `--`: refused, passed on, or joined with ours.

use std::ffi::{OsStr, OsString};

use crate::claude::cli_options::{ADDRESSES, ALLOWED, ANYWHERE, COMMANDS, REFUSED, Values};
use crate::claude::command::Features;
use crate::error::{Error, Result};

/// The flag with which options that are not known are passed on.
pub(super) const INSIST: &str = "--pass-unknown";

/// Refuses what would take the session elsewhere, what is not known, and what is no session at all. `insists`: options that are not known pass.
pub(super) fn check(args: &[OsString], features: &Features, insists: bool) -> Result<()> {
    for word in args {
        let name = name(word);
        if ANYWHERE.contains(&name) {
            check_option(word, features, insists)?;
        }
        if ADDRESSES.iter().any(|address| name.starts_with(address)) {
            return Err(
                Error::usage("an address cannot be passed to a local session")
                    .cause("Claude Code would join a session on another machine")
                    .hint("if it is a prompt, begin it with another word"),
            );
        }
    }
    let mut words = Words::of(args);
    let mut print = false;
    let mut first = true;
    while let Some((word, values)) = words.next() {
        // Some options are looked for before there is a notion of values.
        for value in values.iter().map(|value| name(value)) {
            if REFUSED.iter().any(|(refused, _)| *refused == value) {
                check_name(value, features, insists)?;
            }
        }
        if !is_option(word) {
            // With -p the client takes the first word for the prompt, whatever it says. After the prompt options may follow, but no command.
            let command = word
                .to_str()
                .filter(|_| first && !print)
                .filter(|word| COMMANDS.contains(word) || features.commands.contains(*word));
            if let Some(command) = command {
                return Err(Error::usage(format!("`claude {command}` is not a session"))
                    .cause("cclocal starts sessions only")
                    .hint(format!("run `claude {command}` itself")));
            }
            first = false;
            continue;
        }
        check_option(word, features, insists)?;
        if name(word) == "--permission-mode"
            && last_value(args, "--permission-mode").as_deref() == Some("auto")
        {
            return Err(Error::usage("auto mode does not work in a local session")
                .cause("Claude Code's check of each call runs on Anthropic's servers")
                .hint("leave it out; --ask before the `--` asks before tools run"));
        }
        print |= has_letter(word, 'p') || word == "--print";
    }
    Ok(())
}

/// Number of words of an option of Claude Code at the start of these, with its values. None: they begin with no option that is known.
pub fn option_words(args: &[OsString]) -> Option<usize> {
    let word = args.first()?;
    let known = |name: &str| {
        let allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == name);
        allowed || REFUSED.iter().any(|(refused, _)| *refused == name)
    };
    let is_known = match letters(word) {
        None => is_option(word) && known(name(word)),
        Some(letters) => letters
            .chars()
            .next()
            .is_some_and(|letter| known(&format!("-{letter}"))),
    };
    let mut words = Words::of(args);
    let (_, values) = words.next().filter(|_| is_known)?;
    Some(1 + values.len())
}

/// The options that a session may have, in full.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    let names = ALLOWED.iter().map(|(name, _)| *name);
    names.filter(|name| name.starts_with("--"))
}

/// Whether an option is among the arguments.
pub(super) fn has(args: &[OsString], option: &str) -> bool {
    let mut words = Words::of(args);
    std::iter::from_fn(|| words.next()).any(|(word, _)| name(word) == option)
}

/// Whether Claude Code prints its answer and ends, rather than talks.
pub fn prints(args: &[OsString]) -> bool {
    let mut words = Words::of(args);
    std::iter::from_fn(|| words.next()).any(|(word, _)| has_letter(word, 'p') || word == "--print")
}

/// The value of an option that takes one, of its last place as the client takes it. Empty if it has none.
pub(super) fn last_value(args: &[OsString], option: &str) -> Option<String> {
    let text = |word: &OsStr| word.to_string_lossy().into_owned();
    let mut words = Words::of(args);
    let mut found = None;
    while let Some((word, values)) = words.next() {
        if name(word) == option {
            let inline = text(word)
                .split_once('=')
                .map(|(_, value)| value.to_owned());
            let next = || values.first().map(|word| text(word));
            found = inline.or_else(next).or(Some(String::new()));
        }
    }
    found
}

/// The words before `--`, without those that are values of options.
struct Words<'a> {
    args: &'a [OsString],
    /// Index of the next word.
    at: usize,
}

impl<'a> Words<'a> {
    fn of(args: &'a [OsString]) -> Self {
        Self { args, at: 0 }
    }

    /// The next word, and its values.
    fn next(&mut self) -> Option<(&'a OsStr, &'a [OsString])> {
        let (word, rest) = self.args.get(self.at..)?.split_first()?;
        if word == "--" {
            return None;
        }
        let plain = |words: &[OsString]| words.iter().take_while(|word| !is_option(word)).count();
        // The client takes a value that must be there whatever it looks like: `--`, too.
        let values = match values(word) {
            Values::None => 0,
            Values::One => rest.len().min(1),
            Values::Maybe => plain(rest).min(1),
            Values::Many => rest.get(1..).map_or(rest.len(), |more| 1 + plain(more)),
        };
        self.at += 1 + values;
        Some((word, &rest[..values]))
    }
}

/// Number of values that the client takes after an option. An option that is not known may have a value.
fn values(word: &OsStr) -> Values {
    let known = |name: &str| {
        let option = ALLOWED.iter().find(|(allowed, _)| *allowed == name);
        option.map_or(Values::Maybe, |(_, values)| *values)
    };
    if !is_option(word) || has_inline_value(word) {
        return Values::None;
    }
    match letters(word) {
        None => known(name(word)),
        // The first letter that takes a value takes what is left of the word, or else the next one.
        Some(letters) => {
            let found = letters
                .char_indices()
                .map(|(at, letter)| (at + letter.len_utf8(), known(&format!("-{letter}"))))
                .find(|(_, values)| *values != Values::None);
            match found {
                Some((end, values)) if end == letters.len() => values,
                _ => Values::None,
            }
        }
    }
}

fn check_option(word: &OsStr, features: &Features, insists: bool) -> Result<()> {
    let Some(letters) = letters(word) else {
        return check_name(name(word), features, insists);
    };
    for letter in letters.chars() {
        let name = format!("-{letter}");
        check_name(&name, features, insists)?;
        // What follows is its value.
        if ALLOWED
            .iter()
            .any(|(allowed, values)| *allowed == name && *values != Values::None)
        {
            break;
        }
    }
    Ok(())
}

fn check_name(name: &str, features: &Features, insists: bool) -> Result<()> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(
            Error::usage(format!("`{name}` cannot be passed to a local session"))
                .cause(reason.why)
                .hint(reason.instead),
        );
    }
    if insists || ALLOWED.iter().any(|(allowed, _)| *allowed == name) {
        return Ok(());
    }
    let why = match (features.options.is_empty(), features.has(name)) {
        (_, true) => {
            "Claude Code has it, but cclocal cannot tell whether the session would stay on this machine"
        }
        (false, false) => {
            "Claude Code's --help does not list it, and cclocal cannot tell whether the session would stay on this machine"
        }
        (true, false) => "cclocal cannot tell whether the session would stay on this machine",
    };
    Err(
        Error::usage(format!("`{name}` is not an option that cclocal knows"))
            .cause(why)
            .hint(format!(
                "leave it out, or pass it anyway: cclocal … {INSIST} -- {name} …"
            )),
    )
}

/// The option's name. What is not UTF-8 names no option; the part before `=` always is if it does.
fn name(word: &OsStr) -> &str {
    let bytes = word.as_encoded_bytes();
    let end = match bytes.starts_with(b"--") {
        true => bytes.iter().position(|byte| *byte == b'='),
        false => None,
    };
    let name = &bytes[..end.unwrap_or(bytes.len())];
    std::str::from_utf8(name).unwrap_or(if bytes.starts_with(b"-") { "--?" } else { "" })
}

/// The letters of a word such as `-pc`, which is several options in one.
fn letters(word: &OsStr) -> Option<&str> {
    let letters = word.to_str()?.strip_prefix('-')?;
    (!letters.is_empty() && !letters.starts_with('-')).then_some(letters)
}

fn has_letter(word: &OsStr, letter: char) -> bool {
    letters(word).is_some_and(|letters| {
        let boolean = |name: &char| {
            let name = format!("-{name}");
            ALLOWED
                .iter()
                .any(|(allowed, values)| *allowed == name && *values == Values::None)
        };
        letters
            .chars()
            .take_while(boolean)
            .any(|found| found == letter)
    })
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().first() == Some(&b'-') && word.len() > 1
}

fn has_inline_value(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"--") && word.as_encoded_bytes().contains(&b'=')
}

/// The user's arguments with our addition to the system prompt joined to theirs, and whether it was. The client takes only the last one
/// given. None is joined to a file of theirs, which the client does not take together with a text.
pub(super) fn join_system_prompt(args: &[OsString], ours: &str) -> (Vec<OsString>, bool) {
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
mod tests;
