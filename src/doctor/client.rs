//! Claude Code: its version, and the settings that a local session does not take.

use super::Finding;
use crate::app::App;
use crate::claude::find;
use crate::claude::launch::{self, Review};
use crate::claude::version::{self as client, TESTED, Version};

pub(super) fn version(app: &App) -> Vec<Finding> {
    const CHECK: &str = "Claude Code";
    let found = find::find(&app.environment, &app.paths);
    vec![match found {
        Err(error) => Finding::error(CHECK, &error),
        Ok(None) => Finding::fail(CHECK, "not installed").next("cclocal setup --client"),
        Ok(Some(claude)) => {
            let program = app.environment.tilde(&claude);
            match client::ask(&app.environment, &app.paths.claude_profile(), &claude) {
                Ok(answer) => of_answer(&answer, &program),
                Err(error) => Finding::fail(CHECK, format!("{program} does not answer: {error:#}"))
                    .next(format!("run `{program} --version` to see why")),
            }
        }
    }]
}

fn of_answer(answer: &str, program: &str) -> Finding {
    const CHECK: &str = "Claude Code";
    let [oldest, newest] = TESTED;
    match Version::of(answer) {
        None => Finding::warn(CHECK, format!("{program} tells no version: {answer}"))
            .next("cclocal demo proves whether it works"),
        Some(version) if version < oldest => Finding::fail(
            CHECK,
            format!("{version} is too old: the oldest that was tested is {oldest}"),
        )
        .next("claude update"),
        Some(version) if version > newest => Finding::warn(
            CHECK,
            format!("{version} is newer than the newest that was tested, {newest}"),
        )
        .next("cclocal demo proves that it works"),
        Some(version) if version == oldest || version == newest => {
            Finding::ok(CHECK, format!("{version}, tested"))
        }
        Some(version) => Finding::ok(
            CHECK,
            format!("{version}, between the versions that were tested ({oldest}, {newest})"),
        ),
    }
}

pub(super) fn settings(app: &App) -> Vec<Finding> {
    if app.os().is_err() {
        return Vec::new();
    }
    match launch::review_settings(app) {
        Ok(review) => of_review(&review),
        Err(error) => vec![Finding::error("settings", &error)],
    }
}

fn of_review(review: &Review) -> Vec<Finding> {
    const CHECK: &str = "settings";
    let mut found: Vec<Finding> = Vec::new();
    found.extend((review.refused.iter()).map(|error| Finding::error(CHECK, error)));
    // A file for which a session is refused is said once.
    if review.refused.is_none() {
        found.extend(review.unread.iter().map(|words| {
            Finding::warn(CHECK, words.clone()).next("repair that file, or remove it")
        }));
    }
    found.extend(review.ignored.iter().map(|ignored| {
        let keys: Vec<String> = (ignored.keys.iter())
            .map(|(key, subject)| format!("{key} ({subject})"))
            .collect();
        Finding::ok(
            CHECK,
            format!(
                "shut out of local sessions, in {}: {}",
                ignored.file,
                keys.join(", ")
            ),
        )
    }));
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "nothing in them has to be shut out"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::claude::launch::Ignored;
    use crate::error::Error;

    #[test]
    fn a_version_is_known_newer_or_too_old() {
        let level = |answer: &str| of_answer(answer, "claude").level;
        assert_eq!(level("2.1.332 (Claude Code)"), Level::Ok);
        assert_eq!(level("2.1.197"), Level::Ok);
        assert_eq!(level("2.1.250 (Claude Code)"), Level::Ok);
        assert_eq!(level("2.1.333 (Claude Code)"), Level::Warn);
        assert_eq!(level("2.1.196 (Claude Code)"), Level::Fail);
        assert_eq!(level("hello"), Level::Warn);
    }

    #[test]
    fn what_is_shut_out_is_said_with_why() {
        let mut review = Review {
            ignored: vec![Ignored {
                file: "~/.claude/settings.json".into(),
                keys: vec![
                    ("apiKeyHelper".into(), "a credential"),
                    ("model".into(), "another model"),
                ],
            }],
            unread: vec!["x cannot be read: a pipe".into()],
            refused: None,
        };
        let found = of_review(&review);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].level, Level::Warn);
        assert_eq!(
            found[1],
            Finding::ok(
                "settings",
                "shut out of local sessions, in ~/.claude/settings.json: apiKeyHelper (a credential), model (another model)"
            )
        );
        review.refused = Some(Error::other("no").hint("ask your administrator"));
        let found = of_review(&review);
        let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fail, Level::Ok]);
        let none = Review {
            ignored: Vec::new(),
            unread: Vec::new(),
            refused: None,
        };
        assert_eq!(of_review(&none).len(), 1);
    }
}
