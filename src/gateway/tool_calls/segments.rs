//! Where calls begin and end, for forms whose content isn't escaped.
//!
//! The end marker of a call can stand inside of what it writes: a file about tool calls. So openings and closings are taken together. Where they
//! nest, an inner pair is content. Where they don't, the content has an opening or a closing too many: then the only end that leaves no closing over
//! is taken, and if there are several, the text has several meanings and none is guessed.

use std::ops::Range;

/// An opening or a closing in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub range: Range<usize>,
    pub is_opening: bool,
}

/// Openings and closings, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    marks: Vec<Mark>,
    /// Openings less closings in front of each mark, and at the end.
    depth: Vec<i64>,
    /// The least depth from each mark on.
    least: Vec<i64>,
    /// For each opening the first closing that brings the depth back.
    matching: Vec<Option<usize>>,
    /// The closings with an opening or nothing behind them.
    lasts: Vec<usize>,
}

/// Where a call ends that begins with a certain mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// With this closing.
    Closing(usize),
    /// There is no closing.
    Missing,
    /// Several closings may be its end.
    Several,
}

impl Marks {
    /// `length`: of the text. A last call without a closing is closed at the end of the text.
    pub(super) fn new(mut marks: Vec<Mark>, length: usize) -> Self {
        if marks.last().is_some_and(|mark| mark.is_opening) {
            marks.push(Mark {
                range: length..length,
                is_opening: false,
            });
        }
        let mut depth = vec![0];
        for mark in &marks {
            let now = depth[depth.len() - 1];
            depth.push(now + if mark.is_opening { 1 } else { -1 });
        }
        let mut least = depth.clone();
        for index in (0..marks.len()).rev() {
            least[index] = least[index].min(least[index + 1]);
        }
        let mut matching = vec![None; marks.len()];
        let mut open = Vec::new();
        for (index, mark) in marks.iter().enumerate() {
            if mark.is_opening {
                open.push(index);
            } else if let Some(opening) = open.pop() {
                matching[opening] = Some(index);
            }
        }
        let is_last = |index: &usize| {
            let next = marks.get(index + 1);
            !marks[*index].is_opening && next.is_none_or(|next| next.is_opening)
        };
        let lasts = (0..marks.len()).filter(is_last).collect();
        Self {
            marks,
            depth,
            least,
            matching,
            lasts,
        }
    }

    pub(super) fn mark(&self, index: usize) -> &Mark {
        &self.marks[index]
    }

    /// The opening that stands at this place.
    pub(super) fn opening_at(&self, at: usize) -> Option<usize> {
        let index = self.marks.partition_point(|mark| mark.range.start < at);
        let mark = self.marks.get(index)?;
        (mark.is_opening && mark.range.start == at).then_some(index)
    }

    /// Where the opening behind this one stands.
    pub(super) fn next_opening(&self, opening: usize) -> Option<usize> {
        let behind = &self.marks[opening + 1..];
        behind
            .iter()
            .find(|mark| mark.is_opening)
            .map(|mark| mark.range.start)
    }

    /// The end of the call that begins with this opening.
    pub(super) fn end(&self, opening: usize) -> End {
        if let Some(closing) = self.matching[opening]
            && self.is_whole_from(closing + 1)
        {
            return End::Closing(closing);
        }
        // Behind a call comes the next one, or no mark at all.
        let from = self.lasts.partition_point(|last| *last <= opening);
        match &self.lasts[from..] {
            [] => End::Missing,
            [end] => End::Closing(*end),
            [_, _, ..] => End::Several,
        }
    }

    /// Whether something is opened between these two marks that has no end.
    pub(super) fn is_left_open(&self, opening: usize, closing: usize) -> bool {
        self.depth[closing + 1] > self.depth[opening]
    }

    /// Whether the marks from here on are pairs.
    fn is_whole_from(&self, index: usize) -> bool {
        let depth = self.depth[index];
        self.least[index] >= depth && self.depth[self.marks.len()] == depth
    }

    /// The pairs between two marks: content of the call that they belong to. Empty if they are no pairs.
    pub(super) fn pairs(&self, opening: usize, closing: usize) -> Vec<Range<usize>> {
        let mut pairs = Vec::new();
        let base = self.depth[opening + 1];
        let mut start = None;
        for index in opening + 1..closing {
            if self.depth[index + 1] < base {
                return Vec::new();
            }
            if self.marks[index].is_opening && self.depth[index] == base {
                start = Some(self.marks[index].range.start);
            }
            if self.depth[index + 1] == base
                && let Some(start) = start.take()
            {
                pairs.push(start..self.marks[index].range.end);
            }
        }
        if start.is_some() { Vec::new() } else { pairs }
    }
}

/// The length of white space at the beginning of a text.
pub(super) fn space(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// The beginning of a text, so many bytes long at most.
pub(super) fn prefix(text: &str, most: usize) -> &str {
    let most = most.min(text.len());
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// The end of a text, so many bytes long at most.
pub(super) fn suffix(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    let from = (from..).find(|at| text.is_char_boundary(*at));
    &text[from.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `O` opens, `E` closes; each is one byte long.
    fn marks(text: &str) -> Marks {
        let marks = text
            .char_indices()
            .filter(|(_, letter)| "OE".contains(*letter));
        let marks = marks.map(|(at, letter)| Mark {
            range: at..at + 1,
            is_opening: letter == 'O',
        });
        Marks::new(marks.collect(), text.len())
    }

    #[test]
    fn a_call_ends_where_no_closing_is_left_over() {
        for (text, end) in [
            ("OE", End::Closing(1)),
            ("OEOE", End::Closing(1)),
            ("OOEE", End::Closing(3)),
            ("OOEOEE", End::Closing(5)),
            ("OEE", End::Closing(2)),
            ("OEEE", End::Closing(3)),
            ("OOE", End::Closing(2)),
            ("O", End::Closing(1)),
            ("OEO", End::Closing(1)),
            // A closing or an opening too many, and another call: it has two meanings.
            ("OEEOE", End::Several),
            ("OOEOE", End::Several),
        ] {
            assert_eq!(marks(text).end(0), end, "{text}");
        }
    }

    #[test]
    fn pairs_in_a_call_are_its_content() {
        let pairs = |text: &str| {
            let marks = marks(text);
            let End::Closing(end) = marks.end(0) else {
                panic!("{text}");
            };
            marks.pairs(0, end)
        };
        assert_eq!(pairs("O O E OOEE E"), [2..5, 6..10]);
        assert!(pairs("OE").is_empty());
        assert!(pairs("OEE").is_empty());
        assert!(pairs("OOE").is_empty());
    }
}
