//! The start-up patches of an engine (`*.py`) that did not apply, as its log tells it. Pure but for reading that.

use std::path::Path;

use crate::sys::log;

/// Start of a line that a patch logs. Source: `patches.py`.
const BEGIN: &str = "[cclocal] patch ";
/// Behind its name, when it did not apply.
const NOT_APPLIED: &str = ": not applied";

/// Patches that people notice, and what it is like without them.
const NOTICED: &[(&str, &str)] = &[
    (
        "raw-stream",
        "this engine parses tool calls itself and misses some",
    ),
    (
        "native-history",
        "this model's chat template has no place for tool calls: it reads earlier ones as plain text",
    ),
    (
        "memory",
        "the engine does not watch its own memory and may exceed its limit",
    ),
    (
        "masks",
        "this engine makes an array of each attention mask: long conversations take more time and memory than they need to",
    ),
    (
        "text-route",
        "this model's text part cannot be served alone: each turn computes the whole conversation again",
    ),
];

/// Missing abilities of an engine that is ready, one sentence each. None for an engine that logs no patches.
pub fn lacking(path: &Path) -> Vec<String> {
    lacking_in(&log::head(path))
}

fn lacking_in(lines: &[String]) -> Vec<String> {
    let missing: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_once(BEGIN)?.1.split_once(NOT_APPLIED))
        .map(|(name, _)| name)
        .collect();
    NOTICED
        .iter()
        .filter(|(name, _)| missing.contains(name))
        .map(|(_, words)| (*words).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(text: &str) -> Vec<String> {
        lacking_in(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_did_not_apply_and_is_noticed_is_said() {
        assert_eq!(
            lacks(
                "[cclocal] patch resume: not applied (it resumes by itself)\n\
                 [cclocal] patch raw-stream: applied\n\
                 [cclocal] patch memory: not applied (mlx has no get_peak_memory)\n\
                 [cclocal] patch text-route: not wanted\n\
                 Fetching 3 files: 100%[cclocal] patch native-history: not applied (the template raises: (1))\n"
            ),
            [NOTICED[1].1, NOTICED[2].1]
        );
    }

    #[test]
    fn an_engine_that_says_nothing_lacks_nothing() {
        assert!(lacks("INFO: started\npatch raw-stream: not applied\n").is_empty());
        assert!(lacking(Path::new("/nonexistent/engine.log")).is_empty());
    }
}
