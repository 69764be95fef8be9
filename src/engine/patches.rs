//! The start-up patches of an engine (`*.py`): those that did not apply, as its log tells it, and a try of all of them without a model.

use std::path::Path;
use std::time::Duration;

use super::executable::Executable;
use super::{env, server};
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::log;
use crate::sys::process;
use crate::sys::secret::Secret;

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

/// How long a try may take: what the engine imports takes some seconds, and on a cold disk many times that.
const TRY_DEADLINE: Duration = Duration::from_secs(45);

/// A start-up patch that was tried on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub name: String,
    /// Why it did not apply. None: it did.
    pub why_not: Option<String>,
    /// The effect of its absence, if people notice one.
    pub without: Option<&'static str>,
}

const NOT_TRIED: &str = "the engine cannot be started to try its patches";

/// Tries the patches on an engine that loads no model, serves nothing and writes nothing. Some know only with the model whether they apply, and are not
/// among the results. Errors: the engine cannot be started.
pub fn try_all(host: &Environment, executable: &Executable) -> Result<Vec<Tried>> {
    // As in a session that wants all of them. Nothing is made there before there is a model.
    let nowhere = Path::new("/nonexistent");
    let mut command = server::bootstrap(executable);
    command
        .arg("--help")
        .current_dir("/")
        .env_clear()
        .envs(env::of_supervisor(host))
        .envs(env::fixed())
        .env(env::OFFLINE, "1")
        .env(env::TEXT_ROUTE, nowhere)
        .env(env::KEPT_PREFIX, nowhere)
        .env(env::MEMORY_LIMIT, (1u64 << 40).to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let line = server::first_line("", &nowhere.join("socket"), &Secret::random()?);
    let finished = process::run_with_input(&mut command, line.as_bytes(), TRY_DEADLINE)
        .context(Exit::Engine, NOT_TRIED)?;
    of_output(&finished.stderr)
}

/// Errors: no patch was tried.
fn of_output(log: &str) -> Result<Vec<Tried>> {
    let tried = tried_in(log);
    if tried.is_empty() {
        let last = log.lines().rfind(|line| !line.is_empty());
        return Err(Error::new(Exit::Engine, NOT_TRIED)
            .cause(last.unwrap_or("it ended without a word").trim()));
    }
    Ok(tried)
}

/// The patches of which a log says whether they apply.
fn tried_in(log: &str) -> Vec<Tried> {
    log.lines()
        .filter_map(|line| line.split_once(BEGIN)?.1.split_once(": "))
        .filter(|(_, words)| *words != "not wanted")
        .map(|(name, words)| Tried {
            name: name.to_owned(),
            why_not: (words != "applied").then(|| {
                let reason = words.strip_prefix("not applied (");
                let reason = reason.and_then(|reason| reason.strip_suffix(')'));
                reason.unwrap_or(words).to_owned()
            }),
            without: (NOTICED.iter().find(|(noticed, _)| *noticed == name))
                .map(|(_, words)| *words),
        })
        .collect()
}

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
    fn what_was_tried_has_its_reason() {
        let tried = tried_in(
            "warning: x\n[cclocal] patch listen: applied\n\
             [cclocal] patch masks: not applied (BatchKVCache([0]) has no _idx)\n\
             [cclocal] patch text-route: not wanted\n",
        );
        let said: Vec<_> = tried
            .iter()
            .map(|tried| (tried.name.as_str(), tried.why_not.as_deref()))
            .collect();
        let why = "BatchKVCache([0]) has no _idx";
        assert_eq!(said, [("listen", None), ("masks", Some(why))]);
        assert_eq!(tried[1].without, Some(NOTICED[3].1));
    }

    #[test]
    fn an_engine_that_tries_nothing_is_an_error() {
        let error = of_output("Traceback\nImportError: no mlx\n\n").expect_err("nothing");
        insta::assert_snapshot!(error, @"
        error: the engine cannot be started to try its patches
          cause: ImportError: no mlx
        ");
        let silent = of_output("").expect_err("nothing");
        insta::assert_snapshot!(silent.cause.unwrap_or_default(), @"it ended without a word");
    }

    #[test]
    fn an_engine_that_says_nothing_lacks_nothing() {
        assert!(lacks("INFO: started\npatch raw-stream: not applied\n").is_empty());
        assert!(lacking(Path::new("/nonexistent/engine.log")).is_empty());
    }
}
