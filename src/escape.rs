//! Text from elsewhere, as it may be shown on a terminal: names of files and models, answers, words of other programs. Pure.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with everything shown that a terminal would obey or hide: control characters, and marks that turn the direction of writing or take no
/// room. They become escapes, `\u{1b}`; a line break becomes `\n`. So it stays on its line, and takes the room that it seems to take.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| !is_hidden(character))
}

/// The same for text of several lines, which stay apart.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\n' || !is_hidden(character))
}

/// JSON, as `serde_json` writes it, with the same as escapes of JSON, so that it means what it meant.
pub fn visible_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // Between values line breaks stand as they are, and in strings none can.
        if character == '\n' || !is_hidden(character) {
            shown.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

fn escaped(text: &str, is_shown: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            character if is_shown(character) => shown.push(character),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            character => shown.extend(character.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal does something else with it than showing it. Source: Unicode 17, the general categories Cc, Zl and Zp, the property
/// Default_Ignorable_Code_Point, and of Cf what belongs to no writing by itself. Selectors of how an emoji looks (U+FE0E and U+FE0F) are in
/// ordinary names and hide nothing.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0d}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for plain in ["org/name-4bit", "Modèle 模型 ☕️", ""] {
            assert!(matches!(visible(plain), Cow::Borrowed(_)), "{plain}");
        }
        assert_eq!(
            visible("a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\r\n\t\u{7f}"),
            r"a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\r\n\t\u{7f}"
        );
        assert_eq!(
            visible("gpj.\u{202e}exe\u{200b}\u{2066}\u{feff}\u{e0041}"),
            r"gpj.\u{202e}exe\u{200b}\u{2066}\u{feff}\u{e0041}"
        );
        assert_eq!(visible_lines("a\nb\u{7}"), "a\nb\\u{7}");
    }

    proptest! {
        #[test]
        fn it_takes_one_line_and_the_room_that_it_seems_to_take(text in any::<String>()) {
            let shown = visible(&text);
            prop_assert!(!shown.chars().any(is_hidden));
            prop_assert_eq!(console::strip_ansi_codes(&shown), shown.as_ref());
            prop_assert_eq!(visible(&shown), shown.as_ref());
        }

        #[test]
        fn json_means_what_it_meant(texts in proptest::collection::vec(any::<String>(), 0..4)) {
            let written = serde_json::to_string_pretty(&texts).expect("JSON");
            let shown = visible_json(&written);
            prop_assert!(!shown.chars().any(|character| character != '\n' && is_hidden(character)));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&shown).expect("JSON"), texts);
        }
    }
}
