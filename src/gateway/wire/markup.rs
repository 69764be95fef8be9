//! Tool calls as models write them, for the case that an engine lets them through as text.

/// What a tool call opens and closes with, of every parser of the catalogue.
const MARKERS: [(&str, &str); 3] = [
    ("<tool_call>", "</tool_call>"),
    ("<|tool_call>", "<tool_call|>"),
    ("<function=", "</function>"),
];

/// Where a text stands with respect to tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// All that was opened is closed.
    None,
    /// It ends in what could become an opening, from this byte on.
    Perhaps(usize),
    /// It ends inside a call that opens at this byte.
    Open(usize),
}

/// Looks for the tool call that `text` ends inside of.
pub fn look(text: &str) -> Markup {
    let mut position = 0;
    while let Some((start, opening, closing)) = next_opening(text, position) {
        match text[start + opening.len()..].find(closing) {
            Some(end) => position = start + opening.len() + end + closing.len(),
            None => return Markup::Open(start),
        }
    }
    match partial(&text[position..]) {
        Some(start) => Markup::Perhaps(position + start),
        None => Markup::None,
    }
}

/// The name of the tool in the markup of a call.
pub fn tool_name(call: &str) -> Option<&str> {
    let rest = call
        .trim_start_matches("<tool_call>")
        .trim_start_matches("<|tool_call>")
        .trim_start();
    let rest = match rest.strip_prefix('{') {
        Some(json) => json
            .trim_start()
            .strip_prefix("\"name\"")?
            .trim_start()
            .strip_prefix(':')?
            .trim_start()
            .strip_prefix('"')?,
        None => rest
            .strip_prefix("<function=")
            .or_else(|| rest.strip_prefix("call:"))
            .unwrap_or(rest),
    };
    let end = rest
        .find(|letter: char| !(letter.is_alphanumeric() || "_-.".contains(letter)))
        // A name that the text ends in may be half of one.
        ?;
    (end > 0).then(|| &rest[..end])
}

/// Whether this is an opening and nothing more.
pub fn is_bare(call: &str) -> bool {
    let call = call.trim_end();
    MARKERS.into_iter().any(|(opening, _)| opening == call)
}

fn next_opening(text: &str, position: usize) -> Option<(usize, &'static str, &'static str)> {
    MARKERS
        .into_iter()
        .filter_map(|(opening, closing)| {
            let start = text[position..].find(opening)?;
            Some((position + start, opening, closing))
        })
        .min_by_key(|(start, ..)| *start)
}

/// Where the end of `text` is the beginning of an opening.
fn partial(text: &str) -> Option<usize> {
    let start = text.rfind('<')?;
    MARKERS
        .into_iter()
        .any(|(opening, _)| opening.starts_with(&text[start..]))
        .then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_that_a_text_ends_inside_of_is_found() {
        assert_eq!(look("a < b, <i>x</i>"), Markup::None);
        assert_eq!(look("so <tool"), Markup::Perhaps(3));
        assert_eq!(look("so <"), Markup::Perhaps(3));
        assert_eq!(look("so <tool_call>{\"name\""), Markup::Open(3));
        assert_eq!(look("<tool_call>a</tool_call> b"), Markup::None);
        assert_eq!(
            look("<tool_call>a</tool_call><function=b"),
            Markup::Open(24)
        );
        assert_eq!(
            look("<|tool_call>call:A{}<tool_call|><"),
            Markup::Perhaps(32)
        );
    }

    #[test]
    fn the_tools_name_is_read_from_every_form() {
        assert_eq!(
            tool_name("<tool_call>\n{\"name\": \"Write\", "),
            Some("Write")
        );
        assert_eq!(
            tool_name("<tool_call>\n<function=Write>\n<par"),
            Some("Write")
        );
        assert_eq!(tool_name("<function=Edit>"), Some("Edit"));
        assert_eq!(tool_name("<|tool_call>call:Write{file"), Some("Write"));
        assert_eq!(tool_name("<tool_call>Write<arg_key>"), Some("Write"));
        assert_eq!(tool_name("<tool_call>Wri"), None);
        assert_eq!(tool_name("<tool_call>"), None);
        assert_eq!(tool_name("<tool_call>{\"na"), None);
    }
}
