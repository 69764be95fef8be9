//! Markers and calls inside of a sentence: they are named or shown there, and not meant.

/// Whether a marker is named by what stands around it, in quotes or in a sentence. None: that is not known yet.
///
/// `before`: the end of the line in front of it. `after`: the text behind it. `is_end`: it is all of it.
pub(super) fn is_named(before: &str, after: &str, is_end: bool) -> Option<bool> {
    if is_quoted(before, after, is_end)? {
        return Some(true);
    }
    let words = before.trim_end_matches([' ', '\t']);
    if words.is_empty() || !before.ends_with([' ', '\t', '(', '[']) {
        return Some(false);
    }
    let mut behind = after.chars();
    let mut next = || behind.next().or(is_end.then_some('\n'));
    let first = next()?;
    if ends_a_sentence(words) {
        let goes_on = first == ' ' && next()?.is_lowercase();
        return Some(goes_on || is_punctuation(first));
    }
    Some(first.is_whitespace() || first.is_ascii_punctuation() || is_punctuation(first))
}

/// Whether a sentence begins with a marker, by the text behind it. None: that is not known yet.
pub(super) fn begins_with(after: &str, is_end: bool) -> Option<bool> {
    let mut behind = after.chars();
    let mut next = || behind.next().or(is_end.then_some('\n'));
    Some(next()? == ' ' && next()?.is_lowercase())
}

/// Whether a marker stands right inside of quotation marks.
pub(super) fn is_quoted(before: &str, after: &str, is_end: bool) -> Option<bool> {
    let quote = before.chars().next_back().unwrap_or(' ');
    let closing = match quote {
        '`' | '"' | '\'' => quote,
        '“' | '„' => '”',
        '‘' => '’',
        '«' => '»',
        '「' => '」',
        _ => return Some(false),
    };
    let prefix = &before[..before.len() - quote.len_utf8()];
    // A quotation mark behind a word closes.
    let opens = match quote {
        '`' | '"' => prefix.matches(quote).count().is_multiple_of(2),
        '\'' => !prefix.ends_with(char::is_alphanumeric),
        _ => true,
    };
    match (opens, after.chars().next()) {
        (false, _) => Some(false),
        (true, None) if !is_end => None,
        (true, None) => Some(false),
        (true, Some(next)) => Some(next == closing),
    }
}

/// Whether the sentence in which a call stands goes on behind it in the same line: then it is shown, and not made.
///
/// `before`: the end of the line in front of it. `after`: the text behind it.
pub(super) fn goes_on(before: &str, after: &str) -> bool {
    let words = before.trim_end_matches([' ', '\t']);
    let behind = after.trim_start_matches([' ', '\t']);
    let is_apart = behind.len() < after.len();
    let Some(next) = behind.chars().next() else {
        return false;
    };
    match next {
        '|' => words.contains('|'),
        '-' => is_apart && behind[1..].starts_with([' ', '-']),
        _ if is_punctuation(next) => true,
        _ if next.is_lowercase() => is_apart,
        _ if next.is_alphabetic() && !next.is_uppercase() => {
            !words.is_empty() && !ends_a_sentence(words)
        }
        _ => false,
    }
}

/// Whether words in front of something are no beginning of a sentence that goes on with it.
pub(super) fn ends_a_sentence(words: &str) -> bool {
    let words = words.trim_end_matches(['"', '\'', '”', '’', ')', '*', '_', '`']);
    words.ends_with(['.', '!', '?', ':', '…', '>', '。', '！', '？', '：'])
}

fn is_punctuation(letter: char) -> bool {
    matches!(
        letter,
        ',' | ';'
            | '.'
            | ':'
            | '?'
            | '!'
            | ')'
            | '…'
            | '—'
            | '–'
            | '，'
            | '。'
            | '；'
            | '：'
            | '、'
            | '）'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_named_in_quotes_or_in_a_sentence() {
        for (before, after, want) in [
            ("", "\nhm", Some(false)),
            ("Well.", "hm", Some(false)),
            ("Well. ", "hm", Some(false)),
            ("Well. ", "\nhm", Some(false)),
            ("So ", "hm", Some(false)),
            ("It opens with ", " and", Some(true)),
            ("It opens with ", ", and", Some(true)),
            ("It opens with ", "\nand", Some(true)),
            ("- ", "\n- ", Some(true)),
            ("It is over. ", " Yes.", Some(false)),
            ("It is over. ", " is its end.", Some(true)),
            ("It is `", "`.", Some(true)),
            ("It is \"", "\".", Some(true)),
            ("I say \"yes\"", "\"yes\"", Some(false)),
            ("as in `x`", "\n", Some(false)),
            ("It is `", "", None),
            ("It opens with ", "", None),
        ] {
            assert_eq!(is_named(before, after, false), want, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_sentence_goes_on_behind_a_call() {
        for (before, after, want) in [
            ("", "", false),
            ("", "\nThen.", false),
            ("", "Now I wait.", false),
            ("", " is a call.", true),
            ("It would be ", ".", true),
            ("It is (", ") there.", true),
            ("Written so: ", ", with the name first.", true),
            ("| it | ", " |", true),
            ("- ", " deletes it", true),
            ("- ", " - deletes it", true),
            ("Let me look: ", "\n", false),
            ("", "assistant", false),
            ("调用是", "这样的。", true),
            ("我来看看。", "现在我等待。", false),
        ] {
            assert_eq!(goes_on(before, after), want, "{before:?} {after:?}");
        }
    }
}
