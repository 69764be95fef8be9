//! Counts of tokens as people write them: `65536`, or `64k` as screens show it. Pure.

/// The count in this text. `k`: 1,024 tokens. None: it is none, or too long to count.
pub fn parse(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_024),
        None => (text, 1),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    match is_number {
        true => digits.parse::<u64>().ok()?.checked_mul(unit),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_numbers_or_thousands() {
        assert_eq!(parse("65536"), Some(65_536));
        assert_eq!(parse("64k"), Some(65_536));
        assert_eq!(parse("8K"), Some(8_192));
        for none in [
            "",
            "k",
            "-1",
            "+1",
            "64kk",
            "6.4k",
            "64 k",
            "99999999999999999999",
            "99999999999999999k",
        ] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
