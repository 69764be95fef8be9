//! The options of Node.js from the user's shell, as Claude Code can live with them. Pure.

/// The variable.
pub const NAME: &str = "NODE_OPTIONS";

/// Words that make Claude Code take itself to be debugged, anywhere in [`NAME`]: then it ends without a word (2.1.197 and 2.1.332).
const DEBUGGERS: [&str; 2] = ["--inspect", "--debug"];

/// [`NAME`] without what has a debugger attached. None: there is nothing of it.
pub fn without_debugger(options: &str) -> Option<String> {
    let is_debugger = |word: &str| DEBUGGERS.iter().any(|mark| word.contains(mark));
    if !is_debugger(options) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut words = node_words(options).into_iter().peekable();
    while let Some(word) = words.next() {
        if !is_debugger(word) {
            kept.push(word);
            continue;
        }
        // A value goes with its option, and an option with its value.
        if !word.starts_with('-') && kept.last().is_some_and(|last| last.starts_with('-')) {
            kept.pop();
        } else if word.starts_with('-') && !word.contains('=') {
            words.next_if(|value| !value.starts_with('-'));
        }
    }
    Some(kept.join(" "))
}

/// The words of [`NAME`] as they are written. Source: Node.js, "NODE_OPTIONS": spaces part them, double quotes hold them together, a
/// backslash in quotes takes the next letter as it is.
fn node_words(options: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    options
        .split(|letter: char| {
            let parts = letter == ' ' && !quoted;
            if std::mem::take(&mut escaped) {
                return false;
            }
            match letter {
                '"' => quoted = !quoted,
                '\\' if quoted => escaped = true,
                _ => {}
            }
            parts
        })
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debugger_is_taken_out_of_the_options_of_node() {
        for (options, kept) in [
            ("", None),
            ("--max-old-space-size=4096", None),
            ("--require /x/bootloader.js --no-inspect", None),
            ("--inspect", Some("")),
            (
                "--inspect-brk=9229 --max-old-space-size=4096",
                Some("--max-old-space-size=4096"),
            ),
            (
                "--trace-warnings --inspect-port 1 --title=x",
                Some("--trace-warnings --title=x"),
            ),
            (r#"--require "/a b/--inspect" --title=x"#, Some("--title=x")),
            (
                r#"--title="a \" --debug" --no-warnings"#,
                Some("--no-warnings"),
            ),
            ("--debug", Some("")),
        ] {
            assert_eq!(without_debugger(options).as_deref(), kept, "{options}");
        }
    }
}
