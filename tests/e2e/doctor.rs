//! `cclocal doctor`, with the real engine's environment and both clients.

use std::path::Path;

use cclocal::claude::version::{self, Version};
use cclocal::sys::environment::Environment;
use serde_json::Value;

use crate::real;

/// Every patch that says at the start whether it applies.
const PATCHES: &str = "all 13 start-up patches that need no model apply";

/// `is_newest`: it may be newer than the newest that was tested, as the suite takes in each new one.
fn all_is_well(client: &Path, is_newest: bool) {
    let stage = real::stage(client);
    let ran = stage.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let message = |check: &str| {
        let checks = report["checks"].as_array().expect("a list");
        let found = checks.iter().find(|finding| finding["check"] == check);
        let found = found.unwrap_or_else(|| panic!("{check}: {report:#}"));
        let may_warn = is_newest && check == "Claude Code";
        assert!(
            found["status"] == "ok" || (may_warn && found["status"] == "warn"),
            "{found:#}"
        );
        found["message"].as_str().expect("words").to_owned()
    };
    let engine = message("engine");
    assert!(engine.ends_with("those of the lock"), "{engine}");
    assert_eq!(message("patches"), PATCHES);
    let asked = version::ask(
        &Environment::for_tests(&stage.path("home"), &[("PATH", "/usr/bin:/bin")]),
        &stage.path("none"),
        client,
    );
    let number = Version::of(&asked.expect("answered")).expect("a version");
    assert!(message("Claude Code").starts_with(&number.to_string()));
    assert_eq!(
        real::claude_files(&stage),
        Vec::<String>::new(),
        "the user's own folder was written"
    );
    stage.assert_nothing_left();
}

#[test]
fn the_real_engine_and_the_newest_client_are_well() {
    all_is_well(&real::client(), true);
}

#[test]
fn the_real_engine_and_an_old_client_are_well() {
    all_is_well(&real::old_client(), false);
}
