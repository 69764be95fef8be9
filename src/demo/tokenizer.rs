//! The demo model's tokenizer: one token per byte, a few marks, and the pieces of the texts that the model can say.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::{Map, Value, json};

/// The vocabulary as it is made: ids are given in the order in which tokens are added, the 256 bytes first.
pub struct Vocabulary {
    tokens: Vec<String>,
    marks: Vec<usize>,
    taken: HashSet<String>,
}

impl Vocabulary {
    pub fn new() -> Self {
        let tokens: Vec<String> = (0..=u8::MAX).map(|byte| spelled(&[byte])).collect();
        Self {
            taken: tokens.iter().cloned().collect(),
            marks: Vec::new(),
            tokens,
        }
    }

    /// How many tokens there are.
    pub fn size(&self) -> usize {
        self.tokens.len()
    }

    /// Adds a special token: the tokenizer finds it in a prompt as a whole, and no answer shows it.
    pub fn mark(&mut self, content: &str) -> usize {
        let id = self.add(content.into());
        self.marks.push(id);
        id
    }

    /// Cuts a text into new tokens, each of `least` bytes or more unless the text is shorter, and returns their ids. Two tokens can't be
    /// the same, so a piece that exists already grows until it doesn't; what is left at the end joins the piece before it.
    /// The text is ASCII, and no token yet.
    pub fn cut(&mut self, text: &str, least: usize) -> Vec<usize> {
        debug_assert!(text.is_ascii());
        let least = least.clamp(1, text.len().max(1));
        let piece = |range: &Range<usize>| spelled(&text.as_bytes()[range.clone()]);

        let mut cuts: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        while let Some(next) = (start + least..=text.len())
            .map(|end| start..end)
            .find(|range| !self.taken.contains(&piece(range)))
        {
            self.taken.insert(piece(&next));
            start = next.end;
            cuts.push(next);
        }
        // The text as a whole is new, so this ends with the first piece at the latest.
        while start < text.len()
            && let Some(last) = cuts.pop()
        {
            self.taken.remove(&piece(&last));
            start = last.start;
            let rest = start..text.len();
            if self.taken.insert(piece(&rest)) {
                cuts.push(rest);
                break;
            }
        }
        cuts.iter().map(|range| self.add(piece(range))).collect()
    }

    fn add(&mut self, token: String) -> usize {
        self.taken.insert(token.clone());
        self.tokens.push(token);
        self.tokens.len() - 1
    }

    /// The content of `tokenizer.json`. No merges lead to the pieces, so a prompt never contains one: it has the same tokens whatever
    /// the model was made to say.
    pub fn tokenizer_json(&self) -> Value {
        let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let added: Vec<Value> = self
            .marks
            .iter()
            .map(|&id| {
                json!({
                    "id": id, "content": self.tokens[id], "special": true,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        let vocabulary: Map<String, Value> = self
            .tokens
            .iter()
            .cloned()
            .zip((0..self.size()).map(Value::from))
            .collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": null,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": [],
            },
        })
    }
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes as a byte-level tokenizer spells them: one printable character for each.
fn spelled(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| letter(byte)).collect()
}

/// GPT-2's table: a printable Latin-1 byte stands for itself, and the others take the characters from U+0100 on, in order.
fn letter(byte: u8) -> char {
    let offset = match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => return char::from(byte),
        0..=b' ' => 0,
        0x7F..=0xA0 => 0x7F - 0x21,
        0xAD => 0xAD - 0x43,
    };
    char::from_u32(0x100 + u32::from(byte) - offset).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes tokens with `tokenizer.json`, as the engine does: vocabulary and byte-level decoder.
    pub fn decode(tokenizer: &Value, ids: &[usize]) -> String {
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let spelled: String = ids
            .iter()
            .map(|id| {
                vocabulary
                    .iter()
                    .find(|(_, value)| **value == json!(id))
                    .unwrap()
                    .0
                    .as_str()
            })
            .collect();
        let bytes: Vec<u8> = spelled
            .chars()
            .map(|char| (0..=u8::MAX).find(|&byte| letter(byte) == char).unwrap())
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn letters_are_those_of_gpt2() {
        // From the table that every byte-level tokenizer shares.
        for (byte, char) in [
            (0, 'Ā'),
            (b'\t', 'ĉ'),
            (b'\n', 'Ċ'),
            (b' ', 'Ġ'),
            (b'!', '!'),
            (b'~', '~'),
            (0x7F, 'ġ'),
            (0xA0, 'ł'),
            (0xA1, '¡'),
            (0xAC, '¬'),
            (0xAD, 'Ń'),
            (0xAE, '®'),
            (0xFF, 'ÿ'),
        ] {
            assert_eq!(letter(byte), char, "{byte:#x}");
        }
        let distinct: HashSet<char> = (0..=u8::MAX).map(letter).collect();
        assert_eq!(distinct.len(), 256);
    }

    #[test]
    fn repeated_text_is_cut_into_pieces_that_differ() {
        let mut vocabulary = Vocabulary::new();
        let ids = vocabulary.cut(&"/a".repeat(40), 2);
        let pieces: Vec<_> = ids
            .iter()
            .map(|&id| vocabulary.tokens[id].as_str())
            .collect();
        assert_eq!(&pieces[..4], ["/a", "/a/", "a/", "a/a"]);
        assert_eq!(pieces.concat(), "/a".repeat(40));
    }

    #[test]
    fn a_short_text_is_one_piece() {
        let mut vocabulary = Vocabulary::new();
        assert_eq!(vocabulary.cut("abc", 6), [256]);
        assert_eq!(vocabulary.cut("", 6), [0_usize; 0]);
    }

    proptest! {
        #[test]
        fn pieces_differ_and_join_back(texts in proptest::collection::vec("[a-b /]{0,60}|[ -~\n]{0,200}", 1..4), least in 1_usize..9) {
            let mut vocabulary = Vocabulary::new();
            for (index, text) in texts.iter().enumerate() {
                // The number makes each text as a whole a new one, as cut() asks.
                let text = format!("{index}{index}{text}");
                let ids = vocabulary.cut(&text, least);
                prop_assert_eq!(decode(&vocabulary.tokenizer_json(), &ids), text.as_str());
                prop_assert!(ids.len() <= (text.len() / least).max(1));
            }
            let distinct: HashSet<&String> = vocabulary.tokens.iter().collect();
            prop_assert_eq!(distinct.len(), vocabulary.size());
        }
    }
}
