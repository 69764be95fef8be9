//! `cclocal doctor`: looks at everything that a session needs, and says of each thing whether it is well and what to do if not.
//!
//! Each check looks first and then decides in a pure function, so that what it says is tested without the machine being so. All checks run side by side;
//! one that fails or hangs is a finding of its own. Nothing is changed and nothing is sent anywhere.

mod client;
mod engine;
mod machine;
mod models;
mod page;
mod runs;
mod settings_file;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::app::App;
use crate::error::Error;
use crate::sys::environment::Environment;

pub use page::text;

/// How long all checks together may take. The longest, the patches on a cold disk, ends itself before.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Sessions work, and something should be done or known.
    Warn,
    /// Sessions do not work, or not as they are meant to.
    Fail,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    #[serde(rename = "status")]
    pub level: Level,
    pub message: String,
    /// The one thing to do.
    pub next: Option<String>,
}

impl Finding {
    fn new(check: &'static str, level: Level, message: impl Into<String>) -> Self {
        Self {
            check,
            level,
            message: message.into(),
            next: None,
        }
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, message)
    }

    fn warn(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Warn, message)
    }

    fn fail(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Fail, message)
    }

    /// The error that a session would end with.
    fn error(check: &'static str, error: &Error) -> Self {
        let message = match &error.cause {
            Some(cause) => format!("{}: {cause}", error.message),
            None => error.message.clone(),
        };
        Self {
            next: error.hint.clone(),
            ..Self::fail(check, message)
        }
    }

    #[must_use]
    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

type Check = (&'static str, fn(&App) -> Vec<Finding>);

/// All checks, in the order of the page.
const CHECKS: &[Check] = &[
    ("platform", machine::platform),
    ("memory", machine::memory),
    ("GPU limit", machine::gpu_limit),
    ("disk", machine::disk),
    ("engine", engine::environment),
    ("patches", engine::patches),
    ("last engine", engine::last_end),
    ("Claude Code", client::version),
    ("settings", client::settings),
    ("models", models::cache),
    ("port", runs::port),
    ("running", runs::running),
    ("folders", runs::folders),
    ("settings file", settings_file::check),
];

/// Runs all checks side by side. Findings come in the order of the page.
pub fn examine(environment: &Environment) -> Vec<Finding> {
    run(CHECKS, environment, DEADLINE)
}

fn run(checks: &[Check], environment: &Environment, deadline: Duration) -> Vec<Finding> {
    // Shared with threads that may hang, on a disk that does not answer say.
    let app = Arc::new(App::new(environment.clone()));
    let until = Instant::now() + deadline;
    let started: Vec<_> = checks
        .iter()
        .map(|&(name, check)| {
            let (sender, found) = mpsc::channel();
            let app = app.clone();
            std::thread::spawn(move || {
                let looked = catch_unwind(AssertUnwindSafe(|| check(&app)));
                let _ = sender.send(looked.ok());
            });
            (name, found)
        })
        .collect();
    started
        .into_iter()
        .flat_map(|(name, found)| {
            match found.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Some(findings)) => findings,
                Ok(None) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                    vec![Finding::warn(name, "this check failed; the others did not")]
                }
                Err(mpsc::RecvTimeoutError::Timeout) => vec![Finding::warn(
                    name,
                    format!("not known: no answer within {} s", deadline.as_secs()),
                )],
            }
        })
        .collect()
}

/// The worst of the findings.
pub fn worst(findings: &[Finding]) -> Level {
    let levels = findings.iter().map(|finding| finding.level);
    levels.max().unwrap_or(Level::Ok)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_check_that_fails_or_hangs_is_a_finding_of_its_own() {
        fn hang(_: &App) -> Vec<Finding> {
            std::thread::sleep(Duration::from_secs(1_000));
            Vec::new()
        }
        let checks: &[Check] = &[
            ("hangs", hang),
            ("panics", |_| panic!("a defect")),
            ("works", |_| vec![Finding::ok("works", "well")]),
        ];
        let host = Environment::for_tests(Path::new("/nonexistent"), &[]);
        let found = run(checks, &host, Duration::from_secs(1));
        let said: Vec<_> = found
            .iter()
            .map(|finding| (finding.check, finding.level))
            .collect();
        assert_eq!(
            said,
            [
                ("hangs", Level::Warn),
                ("panics", Level::Warn),
                ("works", Level::Ok)
            ]
        );
        assert_eq!(worst(&found), Level::Warn);
    }
}
