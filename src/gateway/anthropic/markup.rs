//! Tool calls as models write them, for the case that an engine lets them through as text.

/// What a tool call opens and closes with, of every parser of the catalogue.
const MARKERS: [(&str, &str); 3] = [
    ("<tool_call>", "</tool_call>"),
    ("<|tool_call>", "<tool_call|>"),
    ("<function=", "</function>"),
];

/// Where a text stands with respect to tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Markup {
    /// All that was opened is closed.
    None,
    /// It ends in what could become an opening, from this byte on.
    Perhaps(usize),
    /// It ends inside a call that opens at this byte.
    Open(usize),
}

/// Looks for the tool call that `text` ends inside of. Before `position` none opens that is not closed there.
pub(super) fn look(text: &str, mut position: usize) -> Markup {
    // Where each opens next. What opens nowhere is looked for once.
    let find = |opening: &str, from: usize| text[from..].find(opening).map(|start| from + start);
    let mut next = MARKERS.map(|(opening, _)| find(opening, position));
    while let Some((start, (opening, closing))) = next
        .into_iter()
        .zip(MARKERS)
        .filter_map(|(start, marker)| Some((start?, marker)))
        .min_by_key(|(start, _)| *start)
    {
        match text[start + opening.len()..].find(closing) {
            Some(end) => position = start + opening.len() + end + closing.len(),
            None => return Markup::Open(start),
        }
        for (next, (opening, _)) in next.iter_mut().zip(MARKERS) {
            if next.is_some_and(|start| start < position) {
                *next = find(opening, position);
            }
        }
    }
    match partial(&text[position..]) {
        Some(start) => Markup::Perhaps(position + start),
        None => Markup::None,
    }
}

/// Whether the call that begins here may be closed in these bytes at its end, which are new.
pub(super) fn closes(call: &str, new: usize) -> bool {
    let Some((opening, closing)) = MARKERS
        .into_iter()
        .find(|(opening, _)| call.starts_with(opening))
    else {
        return true;
    };
    let from = (call.len().saturating_sub(new + closing.len())).max(opening.len());
    call.as_bytes()[from.min(call.len())..]
        .windows(closing.len())
        .any(|part| part == closing.as_bytes())
}

/// The name of the tool in the markup of a call.
pub(super) fn tool_name(call: &str) -> Option<&str> {
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
pub(super) fn is_bare(call: &str) -> bool {
    let call = call.trim_end();
    MARKERS.into_iter().any(|(opening, _)| opening == call)
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
        assert_eq!(look("a < b, <i>x</i>", 0), Markup::None);
        assert_eq!(look("so <tool", 0), Markup::Perhaps(3));
        assert_eq!(look("so <", 0), Markup::Perhaps(3));
        assert_eq!(look("so <tool_call>{\"name\"", 0), Markup::Open(3));
        assert_eq!(look("<tool_call>a</tool_call> b", 0), Markup::None);
        assert_eq!(
            look("<tool_call>a</tool_call><function=b", 0),
            Markup::Open(24)
        );
        assert_eq!(
            look("<|tool_call>call:A{}<tool_call|><", 0),
            Markup::Perhaps(32)
        );
    }

    #[test]
    fn a_call_is_looked_at_again_when_its_own_end_has_come() {
        assert!(!closes("<tool_call>é</function>", 11));
        assert!(closes("<tool_call>é</tool_call>", 1));
        assert!(closes("<tool_call>a</tool_call> b", 3));
        assert!(!closes("<function=", 10));
        assert_eq!(
            look("<tool_call></tool_call><function=b", 23),
            Markup::Open(23)
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
