//! Which flags an engine has, read from its `serve --help`, asked once per engine and remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Exit, Result};
use crate::sys::capabilities;
use crate::sys::environment::Environment;

/// `serve --help` imports the whole engine; measured 3 s on a warm disk, so a cold one gets ample time.
const HELP_DEADLINE: Duration = Duration::from_secs(90);

/// The flags of one engine, and for flags with named choices, the choices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    flags: BTreeSet<String>,
    choices: BTreeMap<String, BTreeSet<String>>,
}

impl Flags {
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// Whether the flag takes this value. A flag that lists no choices takes any.
    pub fn has_choice(&self, flag: &str, value: &str) -> bool {
        self.choices
            .get(flag)
            .map_or_else(|| self.has(flag), |choices| choices.contains(value))
    }

    /// Reads the text of `serve --help`.
    pub fn from_help(help: &str) -> Self {
        let mut flags = Self::default();
        let mut words = help
            .split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | ',' | '(' | ')'))
            .filter(|word| word.starts_with("--"))
            .map(|word| word.trim_end_matches(['.', ':', ';', '`', '\'']))
            .collect::<Vec<_>>();
        words.sort_unstable();
        words.dedup();
        flags.flags = words
            .into_iter()
            .filter(|word| word.len() > 2)
            .map(str::to_owned)
            .collect();
        for (before, after) in help
            .match_indices(" {")
            .map(|(at, _)| (&help[..at], &help[at + 2..]))
        {
            let flag = before
                .rsplit(|c: char| c.is_whitespace() || c == '[')
                .next()
                .unwrap_or_default();
            if let (true, Some((list, _))) = (flag.starts_with("--"), after.split_once('}')) {
                flags
                    .choices
                    .entry(flag.to_owned())
                    .or_default()
                    .extend(list.split(',').map(|choice| choice.trim().to_owned()));
            }
        }
        flags
    }

    /// The flags of the engine that the lock file pins, for a dry run before anything is installed. A test keeps the text true.
    pub fn of_pinned_engine() -> Self {
        Self::from_help(include_str!("serve-help.txt"))
    }
}

/// Asks the engine, or remembers what it answered. The answer is forgotten when the executable changes.
pub fn probe(host: &Environment, cache: &Path, executable: &Path) -> Result<Flags> {
    if let Some(flags) = remembered(cache, executable) {
        return Ok(flags);
    }
    let mut command = Command::new(executable);
    command
        .args(["serve", "--help"])
        .env_clear()
        .envs(crate::engine::env::inherited(host))
        // argparse breaks its lines at this width.
        .env("COLUMNS", "200");
    let help = capabilities::ask(&mut command, HELP_DEADLINE).map_err(|error| {
        Error::new(Exit::Engine, "the engine does not answer `serve --help`")
            .because(error)
            .hint(format!(
                "run `{} serve --help` to see why, or `cclocal setup` to install the engine again",
                host.tilde(executable)
            ))
    })?;
    let flags = Flags::from_help(&help);
    if !flags.has("--port") {
        return Err(Error::new(Exit::Engine, "this engine is not a vllm-mlx")
            .cause(format!(
                "`{} serve --help` names no --port",
                host.tilde(executable)
            ))
            .hint("unset CCLOCAL_ENGINE, or point it at a vllm-mlx executable"));
    }
    capabilities::remember(cache, "engine-flags", executable, &flags);
    Ok(flags)
}

/// The remembered answer of the engine, without asking it.
pub fn remembered(cache: &Path, executable: &Path) -> Option<Flags> {
    capabilities::remembered(cache, "engine-flags", executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_choices_are_read_from_the_help() {
        let flags = Flags::from_help(
            "usage: serve [-h] [--port PORT]\n  --port PORT  Port (use with --host).\n  --tool-call-parser {auto,qwen3.5,\n   hermes}\n  --x\n",
        );
        assert!(flags.has("--port") && flags.has("--x") && flags.has("--host"));
        assert!(!flags.has("--") && !flags.has("-h") && !flags.has("--po"));
        assert!(flags.has_choice("--tool-call-parser", "hermes"));
        assert!(flags.has_choice("--tool-call-parser", "qwen3.5"));
        assert!(!flags.has_choice("--tool-call-parser", "gemma4"));
        assert!(flags.has_choice("--port", "8000"));
    }

    #[test]
    fn the_pinned_engine_has_the_parser_of_every_model() {
        let flags = Flags::of_pinned_engine();
        for entry in &crate::catalog::catalog().models {
            assert!(
                flags.has_choice("--tool-call-parser", entry.form.engine_parser()),
                "{}",
                entry.flag
            );
        }
        assert!(!flags.has("--tool-call-truncation-notice"));
    }
}
