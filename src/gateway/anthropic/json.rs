//! JSON as clients in JavaScript write it.

use serde::Deserialize;
use serde_json::Value;

/// The deepest nesting that is read, in levels: a value is read by recursion, which takes stack. serde_json's own limit of 128 is less than the API takes.
pub(super) const DEEPEST: usize = 256;

/// The most values that are read, names of fields included: one of two bytes can take three hundred in memory. A conversation that fills the widest
/// window has some ten thousand.
pub(super) const MAX_VALUES: usize = 1_000_000;

/// Why bytes are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nested beyond [`DEEPEST`], at this byte.
    TooDeep(usize),
    /// More than [`MAX_VALUES`], at this byte.
    TooMany(usize),
    /// Not JSON, with the place.
    Invalid(String),
}

/// Reads JSON. A text that JavaScript cut in the middle of a character holds half of a surrogate pair, which is no character and which
/// `serde_json` refuses: it becomes U+FFFD.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, Unreadable> {
    look_over(bytes)?;
    let error = match parse(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    whole_characters(bytes)
        .and_then(|bytes| parse(&bytes).ok())
        .ok_or_else(|| Unreadable::Invalid(error.to_string()))
}

fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // The depth has been looked at.
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Looks whether it keeps to the limits, before anything of it is kept.
fn look_over(bytes: &[u8]) -> Result<(), Unreadable> {
    let mut depth = 0_usize;
    let mut values = 1_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > DEEPEST {
                    return Err(Unreadable::TooDeep(at));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b':' => {
                values += 1;
                if values > MAX_VALUES {
                    return Err(Unreadable::TooMany(at));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `bytes` with every lone surrogate escape replaced. None if there is none.
fn whole_characters(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(bytes.len());
    let mut found = false;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        whole.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let length = match code_unit(rest) {
            Some(0xD800..=0xDBFF) if matches!(code_unit(&rest[6..]), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                found = true;
                whole.extend_from_slice(b"\\ufffd");
                rest = &rest[6..];
                continue;
            }
            Some(_) => 6,
            None => 2.min(rest.len()),
        };
        whole.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    whole.extend_from_slice(rest);
    found.then_some(whole)
}

/// The code unit that a `\uXXXX` at the beginning of `bytes` stands for.
fn code_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_replaced_and_whole_ones_are_kept() {
        let text =
            |json: &str| read(json.as_bytes()).map(|value| value.as_str().map(str::to_owned));
        assert_eq!(text(r#""a\ud83d""#), Ok(Some("a\u{fffd}".into())));
        assert_eq!(text(r#""\ude00b""#), Ok(Some("\u{fffd}b".into())));
        assert_eq!(
            text(r#""\ud83d\ud83d\ude00""#),
            Ok(Some("\u{fffd}😀".into()))
        );
        assert_eq!(
            text(r#""\\ud83d\ud83d""#),
            Ok(Some("\\ud83d\u{fffd}".into()))
        );
        assert!(matches!(text(r#""\ud83d"#), Err(Unreadable::Invalid(_))));
    }

    #[test]
    fn what_is_nested_too_deep_is_found_before_it_is_read() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(DEEPEST).as_bytes()).is_ok());
        assert_eq!(
            read(nested(DEEPEST + 1).as_bytes()),
            Err(Unreadable::TooDeep(DEEPEST))
        );
        assert_eq!(
            read("[".repeat(1 << 20).as_bytes()),
            Err(Unreadable::TooDeep(DEEPEST))
        );
        let quoted = format!(r#"["{}\"{}"]"#, "[".repeat(1000), "{".repeat(1000));
        assert!(read(quoted.as_bytes()).is_ok());
        let flat = "[[],".to_owned() + &"[],".repeat(1000) + "1]";
        assert!(read(flat.as_bytes()).is_ok());
    }

    #[test]
    fn what_has_too_many_values_is_found_before_it_is_read() {
        let flat = format!("[{}1]", "1,".repeat(MAX_VALUES));
        assert!(matches!(read(flat.as_bytes()), Err(Unreadable::TooMany(_))));
        let text = format!("[\"{}\"]", "1,".repeat(MAX_VALUES));
        assert!(read(text.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_json_is_said_with_its_place() {
        for (bytes, place) in [
            ("{\"a\": }", "line 1 column 7"),
            ("[] 1", "line 1 column 4"),
        ] {
            match read(bytes.as_bytes()) {
                Err(Unreadable::Invalid(what)) => assert!(what.contains(place), "{what}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
