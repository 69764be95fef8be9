//! Every error that a person can meet has its whole text in a snapshot: its message, its causes and its hints are looked for there.
//!
//! The words are collected from the source: the message of `Error::new`, `usage`, `other` and `context`, what stands in `.cause(…)` and
//! `.hint(…)`, and the `cause:` and `hint:` of tables. They are looked for in the inline snapshots of all tests. A new error without a
//! snapshot fails here; so does a line of the list of exceptions that is none any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Errors that no test brings about: the system would have to fail in ways that cannot be had, or not as root, which tests may be.
/// The words as they stand in the source.
const NOT_BROUGHT_ABOUT: &[&str] = &[
    // The system gives no folder, port, thread, signal, terminal or random number.
    "the demo's folder cannot be created",
    "the demo's folder cannot be found",
    "the demo's folder cannot be written",
    "the demo model could not be written",
    "check that the disk has space and that you can write there",
    "no port is free",
    "the asynchronous runtime cannot be started",
    "signals cannot be received",
    "there are no random numbers",
    "{what} failed: /bin/sh cannot be started",
    // A rehearsal is nobody's errand: that there is none is logged.
    "a folder for the rehearsal cannot be made",
    "the profile for a rehearsal cannot be prepared",
    // A file or folder of ours that was good a moment before is not any more.
    "a folder for Claude Code's settings cannot be made",
    "Claude Code's settings cannot be written to {}",
    "the record of the GPU limit in cclocal's state folder cannot be read or written",
    "the engine's record cannot be removed",
    "its log cannot be written",
    "{} cannot be started",
    // An installation that went well and yet is none.
    "the engine was installed but cannot be used",
    "uv could not be unpacked",
    // A supervisor that ends or hangs between two moments.
    "start it again: cclocal {}",
    "the engine on port {} is shutting down",
    "the engine's supervisor ends right after it starts",
    "read supervisor.log in cclocal's state folder",
    "its supervisor stopped at once",
    "the demo failed while starting the engine",
    "other engines keep starting and stopping at the same time",
    "run it again; `cclocal status` shows what runs",
    "the supervisor on port {port} does not answer",
    "no answer within {} s",
    "it may be suspended (resume it with kill -CONT) or hang; `cclocal status` shows its process",
    "the engine has ended",
    "the gateway ended by itself",
    "the supervisor cannot be started",
    "it did not say that it is ready",
    "run it again; `cclocal doctor` looks for the reason",
    // The system gives it no socket, or a hundred ports are taken.
    "the folder {} cannot be used",
    "the socket {} cannot be used",
    "its socket",
    "the gateway's port",
    "the gateway's port cannot be used",
    "the gateway cannot make connections to the engine",
    "the specification cannot be read",
    "no port from {first} to {last} is free",
    "name one that is, with --port",
    // Another session is stopped at the moment at which it starts an engine.
    "another session of cclocal is starting an engine",
    "it has not finished within {seconds} s",
    "if that session is suspended, resume it or end it, then run this again",
    // It answers, and then does not end; or it is of a version before the locks that tell whose they are, or the system keeps it.
    "{} is still there after {} s",
    "cclocal cannot tell for certain which process it is: check {}, and end it with kill",
    "the system cannot end the process: restart the machine",
    // It takes three minutes.
    "Claude Code did not finish",
    "it was still running after {} s",
    "run it again with --keep and read the logs in the folder it names",
    // Another system than those of the tests.
    "cclocal does not run on {other}",
    "the engine exists for macOS on Apple Silicon and for Linux",
    "on Windows, use Linux in WSL 2",
    // What the code before has ruled out.
    "there is no such model",
    "cclocal --help lists the models",
];

/// Some words of an error.
struct Words {
    place: String,
    /// The parts between what is filled in.
    parts: Vec<String>,
    text: String,
    /// Of a message nothing may be missing at its start and its end.
    whole: bool,
}

#[test]
fn every_error_has_a_snapshot() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut said = Vec::new();
    let mut words = Vec::new();
    for file in sources(&root.join("src")) {
        let text = std::fs::read_to_string(&file).expect("read");
        let place = file
            .strip_prefix(root)
            .expect("below")
            .display()
            .to_string();
        words.extend(collected(&place, shipped(&text)));
        said.extend(snapshots(&text));
    }
    for file in sources(&root.join("tests")) {
        said.extend(snapshots(&std::fs::read_to_string(&file).expect("read")));
    }
    assert!(
        words.len() > 150 && said.len() > 50,
        "the source is not read as it is written"
    );
    let lines: Vec<&str> = said
        .iter()
        .flat_map(|snapshot| snapshot.lines())
        .map(bare)
        .collect();
    let missing: Vec<&Words> = words
        .iter()
        .filter(|words| !lines.iter().any(|line| words.are_in(line)))
        .collect();
    let unexpected: BTreeSet<String> = missing
        .iter()
        .filter(|words| !NOT_BROUGHT_ABOUT.contains(&words.text.as_str()))
        .map(|words| format!("{}: {}", words.place, words.text))
        .collect();
    assert!(unexpected.is_empty(), "in no snapshot: {unexpected:#?}");
    for exception in NOT_BROUGHT_ABOUT {
        assert!(
            missing.iter().any(|words| words.text == *exception),
            "no exception any more: {exception}"
        );
    }
}

impl Words {
    fn of(place: &str, literal: &str, whole: bool) -> Self {
        Self {
            place: place.to_owned(),
            parts: parts(literal),
            text: literal.to_owned(),
            whole,
        }
    }

    fn are_in(&self, line: &str) -> bool {
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else {
            return true;
        };
        if self.whole && !(line.starts_with(first.as_str()) && line.ends_with(last.as_str())) {
            return false;
        }
        let mut rest = line;
        self.parts
            .iter()
            .all(|part| match rest.find(part.as_str()) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
    }
}

/// What is between the braces of a format.
fn parts(literal: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for letter in literal.chars() {
        match letter {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                parts.push(String::new());
            }
            letter if depth == 0 => {
                parts.last_mut().expect("one").push(letter);
            }
            _ => {}
        }
    }
    parts
}

/// A line of an error without what it begins with.
fn bare(line: &str) -> &str {
    let line = line.trim();
    let bare = ["error: ", "cause: ", "hint: "]
        .iter()
        .find_map(|start| line.strip_prefix(start))
        .unwrap_or(line);
    // What failed in a demo is said after where it was.
    match bare.strip_prefix("the demo failed while ") {
        Some(rest) => rest.split_once(": ").map_or(bare, |(_, message)| message),
        None => bare,
    }
}

/// The source without its unit tests, which stand at the end of a file.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn collected(place: &str, text: &str) -> Vec<Words> {
    let mut found = Vec::new();
    for call in [
        "Error::new(Exit::",
        "Error::new(\n",
        "Error::usage(",
        "Error::other(",
        ".context(",
    ] {
        for (at, _) in text.match_indices(call) {
            let open = at + call.find('(').expect("a call");
            let argument = balanced(&text[open..]);
            // The standard library's own.
            // Nor those of the API, which programs read.
            if text[..at].ends_with("io::")
                || text[..at].ends_with("Api")
                || argument[1..].trim_start().starts_with("ErrorKind")
            {
                continue;
            }
            let message = literals(argument).into_iter().next();
            if let Some(message) = message.or_else(|| named(&text[..at], argument)) {
                found.push(Words::of(place, &message, true));
            }
        }
    }
    for call in [".cause(", ".hint("] {
        for (at, _) in text.match_indices(call) {
            let all = literals(balanced(&text[at + call.len() - 1..]));
            found.extend(sentences(place, all));
        }
    }
    for field in ["cause: ", "hint: "] {
        for (at, _) in text.match_indices(field) {
            let rest = &text[at + field.len()..];
            if rest.starts_with('"') {
                found.extend(sentences(
                    place,
                    literals(rest).into_iter().take(1).collect(),
                ));
            } else if rest.starts_with("format!(") {
                found.extend(sentences(
                    place,
                    literals(balanced(&rest["format!".len()..])),
                ));
            }
        }
    }
    found
}

/// Those that are words for people, not names.
fn sentences(place: &str, literals: Vec<String>) -> impl Iterator<Item = Words> {
    literals
        .into_iter()
        .filter(|literal| literal.trim().contains(' '))
        .map(move |literal| Words::of(place, &literal, false))
}

/// The message of a call that names it: a constant or a variable, defined before it in the same file.
fn named(before: &str, argument: &str) -> Option<String> {
    let name = argument.trim_matches(['(', ')']).split(',').nth(1)?.trim();
    let defined = [format!("const {name}: &str ="), format!("let {name} =")]
        .iter()
        .find_map(|start| before.rsplit_once(start.as_str()))?;
    literals(defined.1.split(';').next()?).into_iter().next()
}

/// From an opening parenthesis to the one that closes it.
fn balanced(text: &str) -> &str {
    let mut depth = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return &text[..=at];
                }
            }
            _ => {}
        }
    }
    text
}

/// The string literals in a piece of source.
fn literals(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        let Some((literal, length)) = literal(&rest[at..]) else {
            break;
        };
        found.push(literal);
        rest = &rest[at + length..];
    }
    found
}

/// The literal at the start of the text, and how long it is there.
fn literal(text: &str) -> Option<(String, usize)> {
    let mut literal = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((literal, at + 1)),
            '\\' => match letters.next()?.1 {
                'n' => literal.push('\n'),
                letter => literal.push(letter),
            },
            letter => literal.push(letter),
        }
    }
    None
}

/// The texts of the inline snapshots in a file.
fn snapshots(text: &str) -> Vec<String> {
    let plain = text
        .match_indices("@\"")
        .filter_map(|(at, _)| Some(literal(&text[at + 1..])?.0));
    let raw = text.match_indices("@r#\"").filter_map(|(at, start)| {
        let rest = &text[at + start.len()..];
        Some(rest[..rest.find("\"#")?].to_owned())
    });
    plain.chain(raw).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
