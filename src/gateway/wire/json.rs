//! JSON as clients in JavaScript write it.

use serde_json::Value;

/// Reads JSON. A text that JavaScript cut in the middle of a character holds half of a surrogate pair, which is no character and which
/// `serde_json` refuses: it becomes U+FFFD.
pub fn read(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes)
        .ok()
        .or_else(|| serde_json::from_slice(&whole_characters(bytes)?).ok())
}

/// `bytes` with every lone surrogate escape replaced. None if there is none.
fn whole_characters(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(bytes.len());
    let mut found = false;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        whole.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let length = match escaped(rest) {
            Some(0xD800..=0xDBFF) if matches!(escaped(&rest[6..]), Some(0xDC00..=0xDFFF)) => 12,
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
fn escaped(bytes: &[u8]) -> Option<u16> {
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
        assert_eq!(text(r#""a\ud83d""#), Some(Some("a\u{fffd}".into())));
        assert_eq!(text(r#""\ude00b""#), Some(Some("\u{fffd}b".into())));
        assert_eq!(
            text(r#""\ud83d\ud83d\ude00""#),
            Some(Some("\u{fffd}😀".into()))
        );
        assert_eq!(
            text(r#""\\ud83d\ud83d""#),
            Some(Some("\\ud83d\u{fffd}".into()))
        );
        assert_eq!(text(r#""\ud83d"#), None);
    }
}
