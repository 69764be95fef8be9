//! The text behind an opening marker: whether it goes on as a call, and of which kind.

use super::{CLOSE, FUNCTION, FUNCTION_CLOSE, KEY, NAME, OPEN, PARAMETER};

/// How a call goes on behind its opening marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Json,
    Function,
    /// `<function=` without `<tool_call>`.
    BareFunction,
    Keyed,
    /// The name, and a JSON object with the arguments.
    Named,
}

/// What stands behind an opening marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Call(Kind),
    /// It could still become a call.
    More,
    No,
}

/// Looks at a text that begins with a marker.
pub(crate) fn probe(text: &str) -> Probe {
    let Some(rest) = text.strip_prefix(OPEN) else {
        return function(text, Kind::BareFunction);
    };
    let rest = rest.trim_start();
    if rest.is_empty() || FUNCTION.starts_with(rest) {
        return Probe::More;
    }
    if rest.starts_with(FUNCTION) {
        return function(rest, Kind::Function);
    }
    let Some(rest) = in_fence(rest) else {
        return Probe::More;
    };
    if let Some(inside) = rest.strip_prefix(['{', '[']) {
        let inside = inside
            .trim_start()
            .trim_start_matches(['{', '['])
            .trim_start();
        return match inside.chars().next() {
            None => Probe::More,
            Some('"' | '\'') => Probe::Call(Kind::Json),
            Some(letter) if letter.is_ascii_alphabetic() => Probe::Call(Kind::Json),
            Some(_) => Probe::No,
        };
    }
    let Some(end) = name_length(rest) else {
        return if rest.len() > NAME {
            Probe::No
        } else {
            Probe::More
        };
    };
    let behind = rest[end..].trim_start();
    if end == 0 || end > NAME {
        Probe::No
    } else if behind.starts_with(KEY) || behind.starts_with(CLOSE) {
        Probe::Call(Kind::Keyed)
    } else if behind.starts_with('{') {
        Probe::Call(Kind::Named)
    } else if KEY.starts_with(behind) || CLOSE.starts_with(behind) {
        Probe::More
    } else {
        Probe::No
    }
}

/// The text inside of a block of code that begins here, or the text itself. None: it could still become such a block.
pub(super) fn in_fence(text: &str) -> Option<&str> {
    const FENCE: &str = "```";
    let Some(info) = text.strip_prefix(FENCE) else {
        return (!FENCE.starts_with(text)).then_some(text);
    };
    let line = info.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
    match info[line..].trim_start_matches([' ', '\r']) {
        "" => None,
        behind => Some(behind.strip_prefix('\n').map_or(text, str::trim_start)),
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '/')
}

/// The length of the name that a text begins with, in quotes or not. 0: there is none. None: the text ends in it.
pub(super) fn name_length(text: &str) -> Option<usize> {
    let quote = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let inside = &text[quote.map_or(0, char::len_utf8)..];
    let end = inside.find(|letter: char| !is_name(letter))?;
    let begins_well = inside.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if !begins_well {
        return Some(0);
    }
    match quote {
        None => Some(end),
        Some(quote) if inside[end..].starts_with(quote) => Some(end + 2),
        Some(_) => Some(0),
    }
}

fn function(text: &str, kind: Kind) -> Probe {
    let Some(rest) = text.strip_prefix(FUNCTION) else {
        return Probe::No;
    };
    let name = rest.trim_start_matches(' ');
    let Some(length) = name_length(name) else {
        return if rest.len() > NAME {
            Probe::No
        } else {
            Probe::More
        };
    };
    let behind = name[length..].trim_start_matches(' ');
    let Some(behind) = behind.strip_prefix('>').filter(|_| length > 0) else {
        return match behind.is_empty() && length > 0 {
            true => Probe::More,
            false => Probe::No,
        };
    };
    let behind = behind.trim_start();
    if behind.starts_with(PARAMETER) || behind.starts_with(FUNCTION_CLOSE) {
        Probe::Call(kind)
    } else if PARAMETER.starts_with(behind) || FUNCTION_CLOSE.starts_with(behind) {
        Probe::More
    } else if kind == Kind::Function {
        // Behind `<tool_call>` it is meant as a call, whatever is wrong with it.
        Probe::Call(kind)
    } else {
        Probe::No
    }
}

/// The tool that a call names which is one only if it is declared: it has no marker, or no arguments as its form has them.
pub(crate) fn loose_name(text: &str, kind: Kind) -> Option<&str> {
    let rest = text.strip_prefix(OPEN).unwrap_or(text).trim_start();
    let rest = match kind {
        Kind::BareFunction => rest.strip_prefix(FUNCTION)?.trim_start_matches(' '),
        Kind::Named => in_fence(rest)?,
        Kind::Keyed => rest,
        Kind::Json | Kind::Function => return None,
    };
    let name = &rest[..name_length(rest)?];
    let has_arguments = kind == Kind::Keyed && rest[name.len()..].trim_start().starts_with(KEY);
    (!has_arguments).then_some(name)
}
