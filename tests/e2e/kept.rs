//! What stands before a conversation is computed once, and not again by the next engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Stage;
use crate::tool_loop::Turn;
use crate::turns::{self, Gateway};

/// How long a file may take to be written. Far more than it does.
const DEADLINE: Duration = Duration::from_secs(60);

/// Words of the engine's log. Source: `engine/kept.py`.
const WRITTEN: &str = "[kept_prefix] written";
const READ: &str = "[kept_prefix] read";
const NOT_KEPT: &str = "[kept_prefix] not kept";
const NOTHING: &str = "";

/// One question to an engine that starts for it, and ends once its log has these words, and that log.
fn asked(
    stage: &Stage,
    model: &str,
    more: &[&str],
    words: &str,
    change: impl FnOnce(&mut Value),
) -> (Turn, String) {
    let gateway = Gateway::start(stage, &format!("../models/{model}"), more);
    let mut tool_loop = gateway.tool_loop(model);
    tool_loop.change(|request| {
        request["max_tokens"] = 48.into();
        change(request);
    });
    let turn = tool_loop.ask_once();
    let log = until(words, || gateway.log(stage));
    gateway.end();
    (turn, log)
}

/// The log once it has these words: files are written in the background.
fn until(words: &str, log: impl Fn() -> String) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let log = log();
        if log.contains(words) {
            return log;
        }
        let said: Vec<&str> = (log.lines())
            .filter(|line| line.contains("kept_prefix"))
            .collect();
        assert!(Instant::now() < deadline, "no {words}: {said:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A first question that is not the usual one.
fn another(request: &mut Value) {
    request["messages"] =
        json!([{"role": "user", "content": "What is the time of the day, and why?"}]);
}

fn folder(stage: &Stage) -> PathBuf {
    stage.path("cclocal/cache/prefixes")
}

/// All that is kept, of whatever model.
fn files(stage: &Stage) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    };
    list(&folder(stage))
        .iter()
        .flat_map(|model| list(model))
        .collect()
}

/// How many tokens a file has.
fn tokens(file: &Path) -> u64 {
    let bytes = std::fs::read(file).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let header = &bytes[8..8 + usize::try_from(length).expect("small")];
    let header: Value = serde_json::from_slice(header).expect("a header");
    let tokens = header["__metadata__"]["tokens"].as_str().expect("tokens");
    let tokens: Vec<u64> = serde_json::from_str(tokens).expect("a list");
    tokens.len() as u64
}

fn mode(path: &Path) -> u32 {
    let data = std::fs::metadata(path).expect("there");
    data.permissions().mode() & 0o777
}

/// Weights are random in these models, so that a reply depends on all that stands before it.
fn the_next_engine_begins_with_it(model: &str) {
    let stage = turns::stage(&[model]);
    let (cold, _) = asked(&stage, model, &[], WRITTEN, |_| {});
    assert_eq!(cold.prefilled, cold.prompt);
    let kept = files(&stage);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let front = tokens(&kept[0]);
    assert!(front > cold.prompt * 3 / 4, "{front} of {}", cold.prompt);
    assert_eq!(mode(&kept[0]), 0o600);
    assert_eq!(mode(kept[0].parent().expect("a folder")), 0o700);
    assert_eq!(mode(&folder(&stage)), 0o700);

    let (warm, log) = asked(&stage, model, &[], READ, another);
    assert!(warm.prompt < cold.prompt, "another question");
    assert_eq!(warm.prefilled, warm.prompt - front, "{log}");
    let (again, _) = asked(&stage, model, &[], READ, |_| {});
    assert_eq!(again.prefilled, again.prompt - front);
    assert_eq!(again.content, cold.content);
    assert_eq!(files(&stage), kept);

    // Keeps nothing, and removes what is there.
    let (cold, log) = asked(&stage, model, &["--forget-prefix"], NOTHING, another);
    assert_eq!(cold.prefilled, cold.prompt);
    assert_eq!(warm.content, cold.content);
    assert!(!log.contains("kept_prefix"), "{log}");
    assert!(!folder(&stage).exists());
    println!(
        "{model}: {front} of {} tokens kept; the first token after {:.2?}, and {:.2?} without: {:.3}",
        cold.prompt,
        warm.first,
        cold.first,
        warm.first.as_secs_f64() / cold.first.as_secs_f64()
    );
}

#[test]
fn kept_prefix_of_qwen2() {
    the_next_engine_begins_with_it("qwen2-random");
}

#[test]
fn kept_prefix_of_glm4_moe_lite() {
    the_next_engine_begins_with_it("glm4_moe_lite-random");
}

/// Its sliding windows cannot be cut back.
#[test]
fn kept_prefix_of_gemma4_e() {
    the_next_engine_begins_with_it("gemma4_e-random");
}

/// Its recurrent layers cannot be cut back.
#[test]
fn kept_prefix_of_qwen3_5() {
    the_next_engine_begins_with_it("qwen3_5-random");
}
