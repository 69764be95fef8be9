//! `stop_sequences`: words at which a reply ends.

/// Looks for the sequences in a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct StopSequences {
    sequences: Vec<String>,
    /// The beginning of a sequence, perhaps.
    kept: String,
}

impl StopSequences {
    pub(super) fn new(sequences: &[String]) -> Self {
        let sequences = sequences
            .iter()
            .filter(|sequence| !sequence.is_empty())
            .cloned()
            .collect();
        Self {
            sequences,
            kept: String::new(),
        }
    }

    /// The text that can go on, and the sequence that ends it. Nothing may come behind that.
    pub(super) fn push(&mut self, text: &str) -> (String, Option<String>) {
        let mut text = std::mem::take(&mut self.kept) + text;
        let found = self
            .sequences
            .iter()
            .filter_map(|sequence| Some((text.find(sequence)?, sequence)))
            .min();
        if let Some((at, sequence)) = found {
            let sequence = sequence.clone();
            text.truncate(at);
            return (text, Some(sequence));
        }
        let longest = self.sequences.iter().map(String::len).max().unwrap_or(0);
        let from = text.len().saturating_sub(longest);
        let partial = text
            .char_indices()
            .map(|(at, _)| at)
            .filter(|at| *at >= from)
            .find(|at| {
                self.sequences
                    .iter()
                    .any(|sequence| sequence.starts_with(&text[*at..]))
            });
        if let Some(at) = partial {
            self.kept = text.split_off(at);
        }
        (text, None)
    }

    /// What was kept back.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sequences: &[&str], text: &str, size: usize) -> (String, Option<String>) {
        let sequences: Vec<String> = sequences.iter().map(|word| (*word).to_owned()).collect();
        let mut stops = StopSequences::new(&sequences);
        let letters: Vec<char> = text.chars().collect();
        let mut all = String::new();
        for part in letters.chunks(size) {
            let (text, stopped) = stops.push(&part.iter().collect::<String>());
            all.push_str(&text);
            if stopped.is_some() {
                return (all, stopped);
            }
        }
        (all + &stops.finish(), None)
    }

    #[test]
    fn a_reply_ends_at_the_first_sequence_however_it_is_split() {
        for size in [1, 2, 3, 100] {
            let stopped = |text: &str, sequence: &str| (text.to_owned(), Some(sequence.to_owned()));
            assert_eq!(
                read(&["</block>"], "yes</block>no", size),
                stopped("yes", "</block>")
            );
            assert_eq!(read(&["b", "ab"], "xxab", size), stopped("xx", "ab"));
            assert_eq!(
                read(&["</block>"], "a < b </bloc", size),
                ("a < b </bloc".into(), None)
            );
            assert_eq!(read(&["é"], "caféx", size), stopped("caf", "é"));
            assert_eq!(read(&["", "\n\n"], "a\nb", size), ("a\nb".into(), None));
        }
    }
}
