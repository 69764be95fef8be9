//! How the real client begins is known, and computed, before its first question is typed, whatever its version.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::interactive;
use crate::real::{self, free_port};
use crate::screen::Screen;
use crate::support::{HANG, Stage};

/// In the engine's log. Source: `engine/patches/kept.py`.
const WRITTEN: &str = "[kept_prefix] written";

fn until<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + HANG;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn prefixes(stage: &Stage) -> PathBuf {
    stage.path("cclocal/cache/prefixes")
}

/// What the gateway remembers: how sessions begin.
fn fronts(stage: &Stage) -> Vec<Value> {
    let text = std::fs::read_to_string(prefixes(stage).join("fronts.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// What was seen of clients, one for each.
fn seen(stage: &Stage) -> Vec<bool> {
    let entries = std::fs::read_dir(prefixes(stage)).into_iter().flatten();
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("rehearsal-")
        })
        .map(|entry| {
            let text = std::fs::read(entry.path()).expect("read");
            let kept: Value = serde_json::from_slice(&text).expect("JSON");
            kept["answer"].as_bool().expect("a flag")
        })
        .collect()
}

fn session<'a>(stage: &'a Stage, port: &str) -> Screen<'a> {
    let arguments = format!("--model ../hermes-llama --port {port}");
    interactive::start_in(stage, "work", &arguments)
}

fn ask(stage: &Stage, screen: &Screen) {
    let _ = std::fs::remove_file(stage.path("work/hello.txt"));
    screen.line("Create hello.txt");
    screen.wait_for("Done: the Write tool has written the file.");
}

/// All that Claude Code wrote of conversations into this profile.
fn transcripts(profile: &Path) -> String {
    let projects = profile.join("projects");
    let folders = std::fs::read_dir(projects).into_iter().flatten().flatten();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten())
        .flatten()
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .collect()
}

#[test]
fn rehearsal_shows_what_the_first_question_begins_with() {
    let mut stage = real::fresh_stage(&real::old_client());
    // What the user has set is in the system prompt and in the tools, and what the user has run at certain moments is not run for this.
    stage.write(
        "home/.claude/settings.json",
        r#"{
            "includeCoAuthoredBy": false,
            "language": "French",
            "statusLine": {"type": "command", "command": "echo \"$CLAUDE_CONFIG_DIR\" >> \"$HOME/status\""},
            "hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "echo \"$CLAUDE_CONFIG_DIR\" >> \"$HOME/hooks\""}]}]}
        }"#,
    );
    stage.write(
        "home/.claude/agents/reader.md",
        "---\nname: reader\ndescription: Reads every file twice\n---\nYou read.",
    );
    for (number, client) in [real::old_client(), real::client()].iter().enumerate() {
        stage.set("CCLOCAL_CLAUDE", client.display().to_string());
        let port = free_port();
        let log = || stage.read(&format!("cclocal/state/server-{port}.log"));
        let screen = session(&stage, &port);
        let shown = until("rehearsal", || {
            (seen(&stage).len() == number + 1).then(|| fronts(&stage))
        });
        assert_eq!(seen(&stage), vec![true; number + 1]);
        assert_eq!(shown.len(), number + 1);
        until("prefix", || log().contains(WRITTEN).then_some(()));
        let status = stage.run(&["status", "--json"]).stdout;
        assert!(!status.contains(r#""turns": 1"#), "{status}");

        ask(&stage, &screen);
        assert_eq!(fronts(&stage), shown, "the session begins in the same way");
        let status = stage.run(&["status", "--json"]).stdout;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let figures = &status[0]["figures"];
        let tokens = |name: &str| figures[name].as_u64().expect("a number");
        let (computed, cached) = (tokens("input_tokens"), tokens("cached_tokens"));
        // Of two requests. Cold, the first one alone would be nearly half.
        assert!(computed * 5 < computed + cached, "{figures}");
        interactive::leave(&screen);
        drop(screen);
        stage.run(&["stop"]);
        let profile = stage.path("cclocal/data/claude").display().to_string();
        for ran in ["hooks", "status"] {
            let ran = stage.read(&format!("home/{ran}"));
            assert!(ran.lines().all(|its| its == profile), "{ran}");
            assert!(ran.lines().count() > number, "{ran}");
        }
        let said = transcripts(&stage.path("cclocal/data/claude"));
        assert!(said.contains("Create hello.txt"));
        assert!(!said.contains("is a rehearsal"), "{said}");
        let left: Vec<_> = std::fs::read_dir(stage.path("cclocal/state/run"))
            .expect("read")
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().contains('-'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    stage.assert_nothing_left();
}

/// The kernel hangs up on it, and the real client heeds that.
#[test]
fn rehearsal_ends_with_a_session_that_is_killed() {
    let stage = real::fresh_stage(&real::client());
    let screen = interactive::launch_on(&stage, &free_port());
    let settings = "/claude-settings.json";
    let rehearsing = |pid: &i32| {
        let said = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let (_, after) = said.split_once("/run/rehearsal-")?;
        after.split_once(settings)?.0.parse().ok()
    };
    let session: i32 = until("rehearsal", || stage.pids().iter().find_map(rehearsing));
    kill(Pid::from_raw(session), Signal::SIGKILL).expect("killed");
    screen.wait_for("status=137");
    drop(screen);
    stage.assert_nothing_left();
}
