//! The engine: its environment, its start-up patches, its last end.

use std::time::Duration;

use super::{Finding, Level};
use crate::app::App;
use crate::engine::executable::{self, Executable, Found};
use crate::engine::install::{self, Packages, Status};
use crate::engine::patches::{self as start_up, Tried};
use crate::supervisor::last_end::{self as ends, LastEnd};
use crate::ui;

/// How many packages that differ are named.
const NAMED: usize = 2;

/// Commands that install the engine, and that reinstall it.
const SETUP: &str = "cclocal setup";
const AGAIN: &str = "cclocal setup --force";

pub(super) fn environment(app: &App) -> Vec<Finding> {
    const CHECK: &str = "engine";
    let named = app.environment.var("CCLOCAL_ENGINE").is_some();
    vec![match executable::find(&app.environment, &app.paths) {
        Err(error) => Finding::error(CHECK, &error),
        Ok(Found::Ready(engine)) => of_packages(install::packages(&engine.python), named),
        Ok(Found::Absent(_)) => of_status(&install::status(&app.paths)),
    }]
}

/// The installation, where there is no engine that can be started.
fn of_status(status: &Status) -> Finding {
    let next = match status {
        Status::Missing | Status::Outdated | Status::Ready(_) => SETUP,
        Status::Broken { .. } => AGAIN,
    };
    Finding::fail("engine", status.to_string()).next(next)
}

/// The packages of an engine that can be started. `named`: it is the one of `CCLOCAL_ENGINE`.
fn of_packages(packages: Option<Packages>, named: bool) -> Finding {
    const CHECK: &str = "engine";
    let whose = if named {
        ", named by CCLOCAL_ENGINE"
    } else {
        ""
    };
    let Some(packages) = packages else {
        return match named {
            true => Finding::warn(
                CHECK,
                format!("vllm-mlx{whose}; its packages are not known"),
            ),
            false => Finding::fail(CHECK, "its packages cannot be read").next(AGAIN),
        };
    };
    let Some(version) = packages.engine else {
        return Finding::fail(CHECK, format!("no vllm-mlx is installed there{whose}")).next(
            match named {
                true => "unset CCLOCAL_ENGINE to use cclocal's own engine",
                false => AGAIN,
            },
        );
    };
    if packages.different.is_empty() {
        let said = format!(
            "vllm-mlx {version}{whose}; its {} packages are those of the lock",
            packages.locked
        );
        return Finding::ok(CHECK, said);
    }
    let mut said = packages.different[..packages.different.len().min(NAMED)].join(", ");
    if packages.different.len() > NAMED {
        said += &format!(", and {} more differ", packages.different.len() - NAMED);
    }
    let said = format!("vllm-mlx {version}{whose}, not as in the lock: {said}");
    Finding::warn(CHECK, said).next(match named {
        true => "unset CCLOCAL_ENGINE to use the engine that cclocal is tested with",
        false => AGAIN,
    })
}

/// No finding without an engine: that is a finding of its own.
pub(super) fn patches(app: &App) -> Vec<Finding> {
    match executable::find(&app.environment, &app.paths) {
        Ok(Found::Ready(engine)) => try_on(app, &engine),
        _ => Vec::new(),
    }
}

fn try_on(app: &App, engine: &Executable) -> Vec<Finding> {
    match start_up::try_all(&app.environment, engine) {
        Ok(tried) => of_patches(&tried),
        Err(error) => vec![Finding::error("patches", &error).next(match error.hint {
            Some(hint) => hint,
            None => AGAIN.into(),
        })],
    }
}

fn of_patches(tried: &[Tried]) -> Vec<Finding> {
    const CHECK: &str = "patches";
    let failed: Vec<&Tried> = (tried.iter())
        .filter(|tried| tried.why_not.is_some())
        .collect();
    let said = match failed.len() {
        0 => format!(
            "all {} start-up patches that need no model apply",
            tried.len()
        ),
        _ => format!(
            "{} of {} start-up patches apply",
            tried.len() - failed.len(),
            tried.len()
        ),
    };
    let mut findings = vec![Finding::ok(CHECK, said)];
    findings.extend(failed.into_iter().map(|tried| {
        let why = tried.why_not.as_deref().unwrap_or_default();
        // Without this one no engine is started; without the others it is slower, or misses calls.
        let level = match tried.name.as_str() {
            "listen" => Level::Fail,
            // A library that does it by itself.
            "resume" => Level::Ok,
            _ => Level::Warn,
        };
        let without = tried
            .without
            .map_or_else(String::new, |words| format!("; {words}"));
        let finding = Finding::new(
            CHECK,
            level,
            format!("{} does not apply: {why}{without}", tried.name),
        );
        match level {
            Level::Ok => finding,
            Level::Warn | Level::Fail => {
                finding.next("use the engine that this cclocal was made for: cclocal setup")
            }
        }
    }));
    findings
}

/// How the last engine ended, where none runs.
pub(super) fn last_end(app: &App) -> Vec<Finding> {
    let log = ends::newest_log(&app.paths);
    let ago = |written: std::time::SystemTime| written.elapsed().unwrap_or_default();
    let found = log.and_then(|(path, written)| Some((ends::read(&path)?, ago(written))));
    vec![of_end(found, super::runs::an_engine_runs(app))]
}

fn of_end(end: Option<(LastEnd, Duration)>, runs: bool) -> Finding {
    const CHECK: &str = "last engine";
    const LOGS: &str = "cclocal logs shows its last words";
    let Some((end, ago)) = end else {
        return Finding::ok(CHECK, "no engine has run yet");
    };
    let ago = ui::roughly(ago);
    match end {
        _ if runs => Finding::ok(CHECK, "it runs"),
        LastEnd::Orderly { restarts: 0 } => {
            Finding::ok(CHECK, format!("ended in order, {ago} ago"))
        }
        LastEnd::Orderly { restarts } => Finding::warn(
            CHECK,
            format!(
                "ended in order, {ago} ago; before that it died and was started again ({restarts})"
            ),
        )
        .next(LOGS),
        LastEnd::Died { cause: Some(cause) } => {
            Finding::warn(CHECK, format!("died {ago} ago: {cause}")).next(LOGS)
        }
        LastEnd::Died { cause: None } => Finding::warn(CHECK, format!("died {ago} ago")).next(LOGS),
        LastEnd::CutOff => Finding::warn(
            CHECK,
            format!(
                "its supervisor was killed or lost power, {ago} ago, and the engine ended with it"
            ),
        )
        .next(LOGS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(different: &[&str]) -> Option<Packages> {
        Some(Packages {
            engine: Some("0.6.0".into()),
            locked: 54,
            different: different.iter().map(|words| (*words).to_owned()).collect(),
        })
    }

    #[test]
    fn an_environment_is_held_against_its_lock() {
        let same = of_packages(packages(&[]), false);
        assert_eq!(
            same,
            Finding::ok(
                "engine",
                "vllm-mlx 0.6.0; its 54 packages are those of the lock"
            )
        );
        let other = of_packages(
            packages(&["a is 1, not 2", "b 1 is missing", "c", "d"]),
            false,
        );
        assert_eq!(other.level, Level::Warn);
        assert_eq!(
            other.message,
            "vllm-mlx 0.6.0, not as in the lock: a is 1, not 2, b 1 is missing, and 2 more differ"
        );
        assert_eq!(other.next.as_deref(), Some(AGAIN));
        let named = of_packages(packages(&["a"]), true);
        assert!(named.message.contains("CCLOCAL_ENGINE"), "{named:?}");
        assert_eq!(of_packages(None, false).level, Level::Fail);
        assert_eq!(of_packages(None, true).level, Level::Warn);
        let none = Packages {
            engine: None,
            ..packages(&[]).expect("some")
        };
        assert_eq!(of_packages(Some(none), false).level, Level::Fail);
    }

    #[test]
    fn an_engine_that_cannot_be_started_fails_with_what_installs_it() {
        let of = |status: &Status| of_status(status).next;
        assert_eq!(of(&Status::Missing).as_deref(), Some(SETUP));
        assert_eq!(of(&Status::Outdated).as_deref(), Some(SETUP));
        let broken = Status::Broken {
            why: "its Python is gone".into(),
        };
        assert_eq!(of(&broken).as_deref(), Some(AGAIN));
    }

    #[test]
    fn each_patch_that_does_not_apply_has_a_line() {
        let tried = |name: &str, why_not: Option<&str>| Tried {
            name: name.into(),
            why_not: why_not.map(str::to_owned),
            without: None,
        };
        let whole = of_patches(&[tried("listen", None), tried("masks", None)]);
        assert_eq!(
            whole,
            [Finding::ok(
                "patches",
                "all 2 start-up patches that need no model apply"
            )]
        );
        let found = of_patches(&[
            tried("listen", Some("gone")),
            tried("masks", Some("x")),
            tried("resume", Some("itself")),
            tried("raw", None),
        ]);
        let levels: Vec<Level> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Fail, Level::Warn, Level::Ok]);
        assert_eq!(found[0].message, "1 of 4 start-up patches apply");
    }

    #[test]
    fn the_last_end_is_said_where_no_engine_runs() {
        let of = |end| of_end(Some((end, Duration::from_secs(120))), false);
        assert_eq!(
            of(LastEnd::Orderly { restarts: 0 }),
            Finding::ok("last engine", "ended in order, 2 min ago")
        );
        let died = of(LastEnd::Died {
            cause: Some("the GPU ran out of memory".into()),
        });
        assert_eq!(died.message, "died 2 min ago: the GPU ran out of memory");
        for end in [
            LastEnd::Orderly { restarts: 1 },
            LastEnd::Died { cause: None },
            LastEnd::CutOff,
        ] {
            assert_eq!(of(end).level, Level::Warn);
        }
        assert_eq!(
            of_end(Some((LastEnd::CutOff, Duration::ZERO)), true).level,
            Level::Ok
        );
        assert_eq!(of_end(None, false).level, Level::Ok);
    }
}
