//! Where in a Markdown text code stands: a marker that is quoted there is no tool call.

/// The state at the end of the text so far. Fed piece by piece.
#[derive(Debug, Clone, Default)]
pub(super) struct Code {
    /// The fence that is open: its character and length.
    fence: Option<(char, usize)>,
    /// The beginning of the line that is being read.
    line: String,
    /// The length of the run of backticks that opened the code span of this line. 0: none is open.
    span: usize,
    /// The length of the run of backticks that the text ends in.
    run: usize,
    /// The end of the text so far.
    tail: String,
    has_closed_a_fence: bool,
}

/// As much of a line as can tell whether it is a fence, in bytes.
const LINE: usize = 120;

/// As much of the text's end as can tell what stands in front of a call, in bytes: twice as much at most.
const TAIL: usize = 64;

/// Elements of HTML whose content is code, or somebody else's words.
const ELEMENTS: [&str; 9] = [
    "code",
    "pre",
    "samp",
    "kbd",
    "tt",
    "xmp",
    "q",
    "blockquote",
    "example",
];

impl Code {
    pub(super) fn feed(&mut self, text: &str) {
        for letter in text.chars() {
            self.take(letter);
        }
    }

    fn take(&mut self, letter: char) {
        if letter == '`' {
            self.run += 1;
        } else if self.run > 0 {
            self.span = match self.span {
                0 => self.run,
                span if span == self.run => 0,
                span => span,
            };
            self.run = 0;
        }
        if letter == '\n' {
            self.end_line();
        } else if self.line.len() < LINE {
            self.line.push(letter);
        }
        self.tail.push(letter);
        if self.tail.len() > 2 * TAIL {
            let from = (self.tail.len() - TAIL..).find(|at| self.tail.is_char_boundary(*at));
            self.tail.drain(..from.unwrap_or(0));
        }
    }

    fn end_line(&mut self) {
        let line = self.line.trim();
        match (self.fence, fence(line)) {
            (None, opened) => self.fence = opened,
            (Some(open), _) if closes(open, line) => {
                self.fence = None;
                self.has_closed_a_fence = true;
            }
            _ => {}
        }
        self.line.clear();
        self.span = 0;
        self.run = 0;
    }

    /// Whether the next character stands in a fenced block, or in the line that opens one.
    pub(super) fn is_fenced(&self) -> bool {
        match self.fence {
            // Right behind the fence that closes a block, it is over.
            Some(open) => !closes(open, self.line.trim()),
            None => fence(self.line.trim_start()).is_some(),
        }
    }

    /// Whether the next character stands behind the beginning of a code span, or in a quoted line.
    pub(super) fn is_quoted(&self) -> bool {
        let span = match (self.span, self.run) {
            (span, 0) => span,
            (0, run) => run,
            (span, run) if span == run => 0,
            (span, _) => span,
        };
        self.fence.is_none() && span > 0 || self.is_in_a_quoted_line()
    }

    /// Whether the line begins as one of somebody else's words.
    pub(super) fn is_in_a_quoted_line(&self) -> bool {
        self.fence.is_none() && self.line.trim_start().starts_with('>')
    }

    /// Passes a call: the text behind it begins anew.
    pub(super) fn pass_call(&mut self) {
        *self = Self {
            has_closed_a_fence: self.has_closed_a_fence,
            ..Self::default()
        };
    }

    /// The end of what stands in front of the next character in its line.
    pub(super) fn before(&self) -> &str {
        self.tail.rsplit('\n').next().unwrap_or_default()
    }

    /// What would close the quotation mark, the bracket, the emphasis or the element of HTML that opens in front of the next character.
    pub(super) fn closings(&self) -> Vec<String> {
        let before = self.tail.trim_end();
        if let Some(name) = before
            .strip_suffix('>')
            .and_then(|tag| tag.rsplit('<').next())
            && ELEMENTS.contains(&name)
        {
            return vec![format!("</{name}>")];
        }
        let closings: &[&str] = match self.tail.chars().next_back() {
            Some('"') => &["\""],
            Some('\'') => &["'"],
            Some('*') => &["*"],
            Some('[') => &["]"],
            Some('“') => &["”"],
            Some('„') => &["”", "“"],
            Some('‘') => &["’"],
            Some('「') => &["」"],
            // French has a space inside of them.
            _ if before.ends_with('«') => &["»"],
            _ => &[],
        };
        closings
            .iter()
            .map(|closing| (*closing).to_owned())
            .collect()
    }

    /// Whether a fenced block has come to its end.
    pub(super) fn has_closed_a_fence(&self) -> bool {
        self.has_closed_a_fence
    }

    /// Whether nothing but white space stands in front of the next character in its line.
    pub(super) fn is_line_start(&self) -> bool {
        self.line.trim().is_empty()
    }
}

/// Whether a line without white space around it closes a block that this fence opened.
fn closes((open, length): (char, usize), line: &str) -> bool {
    fence(line).is_some_and(|(closing, run)| open == closing && run >= length && run == line.len())
}

/// The fence that a line without white space in front opens or closes.
fn fence(line: &str) -> Option<(char, usize)> {
    let mark = line
        .chars()
        .next()
        .filter(|mark| matches!(mark, '`' | '~'))?;
    let run = line.chars().take_while(|letter| *letter == mark).count();
    // A span of code that is closed in the same line is no fence.
    (run >= 3 && !(mark == '`' && line[run..].contains('`'))).then_some((mark, run))
}

/// Where the last fence stands that a line of `text` ends in, and that could close a block.
pub(super) fn last_fence(text: &str) -> Option<usize> {
    let mut end = text.len();
    for line in text.rsplit('\n') {
        let start = end - line.len();
        let words = line.trim_end();
        let before = words.trim_end_matches(['`', '~']);
        if words.len() - before.len() >= 3 {
            return Some(start + before.len());
        }
        end = start.saturating_sub(1);
    }
    None
}

/// The end of the next line of `text` that closes a block, from `from` on.
pub(super) fn next_fence(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    for line in text[from..].split('\n') {
        at += line.len();
        let words = line.trim();
        if fence(words).is_some_and(|(_, run)| run == words.len()) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_prose() {
        for (text, fenced, quoted) in [
            ("", false, false),
            ("call ", false, false),
            ("call `", false, true),
            ("call `x` ", false, false),
            ("call ``a ` b", false, true),
            ("a `stray\n", false, false),
            ("```\n", true, false),
            ("```xml\na\n", true, false),
            ("```\na\n```\n", false, false),
            ("````\n```\n", true, false),
            ("~~~\n```\n", true, false),
            ("```not``` ", false, false),
            ("  ```json", true, false),
            ("> said: ", false, true),
        ] {
            let mut code = Code::default();
            code.feed(text);
            assert_eq!(code.is_fenced(), fenced, "{text:?}");
            assert_eq!(code.is_quoted() && !fenced, quoted, "{text:?}");
            let mut split = Code::default();
            text.chars()
                .for_each(|letter| split.feed(&letter.to_string()));
            assert_eq!(split.is_fenced(), fenced, "{text:?}");
        }
        assert_eq!(last_fence("a\n```\nso"), Some(2));
        assert_eq!(last_fence("```rust\nso"), None);
        assert_eq!(next_fence("```rust\nso\n```\n", 0), Some(14));
    }
}
