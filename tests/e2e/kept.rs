//! What stands before a conversation is computed once, and not again by the next engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::interactive;
use crate::real::{self, free_port};
use crate::support::{HANG, Stage};
use crate::tool_loop::Turn;
use crate::turns::{self, Gateway};

/// Words of the engine's log. Source: `engine/patches/kept.py`.
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
    let deadline = Instant::now() + HANG;
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

/// As little as is worth a file, so that a processor is quick with it.
fn small(request: &mut Value) {
    let tools = request["tools"].as_array_mut().expect("tools");
    tools.truncate(1);
}

fn small_with_other_tools(request: &mut Value) {
    small(request);
    request["tools"][0]["description"] = "Does it all.".into();
}

/// Cannot be cut back, so that only the whole of it serves.
#[test]
fn kept_prefix_serves_what_begins_with_all_of_it_alone() {
    const MODEL: &str = "gemma4_e-random";
    let stage = turns::stage(&[MODEL]);
    let (cold, _) = asked(&stage, MODEL, &[], WRITTEN, small);
    let first = files(&stage);
    let front = tokens(&first[0]);

    // The folder of a newer client has other tools. Then a second conversation, in an engine that has the first in its memory.
    let gateway = Gateway::start(&stage, &format!("../models/{MODEL}"), &[]);
    let mut conversation = gateway.tool_loop(MODEL);
    conversation.change(|request| {
        request["max_tokens"] = 8.into();
        small_with_other_tools(request);
    });
    let other = conversation.ask_once();
    assert_eq!(other.prefilled, other.prompt, "nothing of it was there");
    until(WRITTEN, || gateway.log(&stage));
    assert_eq!(files(&stage).len(), 2);
    conversation.change(another);
    let second = conversation.ask_once();
    let log = gateway.log(&stage);
    assert!(log.contains(READ), "{log}");
    assert!(second.prefilled < second.prompt - front / 2, "{second:?}");
    gateway.end();

    // Other weights of the same size under the same name.
    let weights = stage.path("models").join(MODEL).join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).expect("written");
    let (changed, _) = asked(&stage, MODEL, &[], WRITTEN, small);
    assert_eq!(changed.prefilled, cold.prefilled);
    let left = files(&stage);
    assert_eq!(left.len(), 1, "what serves no more is gone: {left:?}");
    assert!(!first.contains(&left[0]));
}

/// A newer client's system prompt begins like the older one's, and a cache that can be cut back serves that far.
#[test]
fn kept_prefix_of_an_older_client_serves_as_far_as_it_is_the_same() {
    const MODEL: &str = "qwen2-random";
    let stage = turns::stage(&[MODEL]);
    asked(&stage, MODEL, &[], WRITTEN, small);
    let (newer, log) = asked(&stage, MODEL, &[], WRITTEN, small_with_other_tools);
    assert!(log.contains(READ), "{log}");
    assert!(newer.prefilled < newer.prompt / 2, "{newer:?}");
    assert_eq!(files(&stage).len(), 2);
    let (whole, _) = asked(&stage, MODEL, &[], READ, small_with_other_tools);
    assert!(whole.prefilled < newer.prefilled, "{whole:?}");
    assert_eq!(whole.content, newer.content);
    let (cold, _) = asked(&stage, MODEL, &["--forget-prefix"], NOTHING, |request| {
        small_with_other_tools(request);
    });
    assert_eq!(cold.prefilled, cold.prompt);
    assert_eq!(cold.content, newer.content);
}

#[test]
fn kept_prefix_that_cannot_be_written_or_read_breaks_nothing() {
    const MODEL: &str = "qwen2-random";
    let stage = turns::stage(&[MODEL]);
    // No folder can be made where a file is.
    std::fs::remove_dir_all(folder(&stage)).expect("removed");
    std::fs::write(folder(&stage), "").expect("written");
    let (cold, _) = asked(&stage, MODEL, &[], NOT_KEPT, small);
    assert_eq!(cold.prefilled, cold.prompt);
    std::fs::remove_file(folder(&stage)).expect("removed");
    asked(&stage, MODEL, &[], WRITTEN, small);

    // A file that lost its end, and what an engine left that ended while it wrote.
    let kept = files(&stage);
    let length = std::fs::metadata(&kept[0]).expect("there").len();
    let file = std::fs::File::options().write(true).open(&kept[0]);
    file.expect("opened").set_len(length - 1).expect("shorter");
    let unfinished = kept[0].with_file_name(format!(".key.{}", i32::MAX));
    std::fs::write(&unfinished, "half").expect("written");
    let (again, log) = asked(&stage, MODEL, &[], WRITTEN, small);
    assert!(!log.contains(READ), "{log}");
    assert_eq!(again.prefilled, again.prompt);
    assert_eq!(again.content, cold.content);
    assert_eq!(files(&stage), kept, "it was written anew");
    assert_eq!(std::fs::metadata(&kept[0]).expect("there").len(), length);
}

/// The disk lets no file become longer than this, in bytes: more than the engine's log is, and less than what is to be kept.
const LONGEST_FILE: u64 = 200_000;

/// As on a disk that is full, but for the number of the error: a file can be begun and not be finished.
#[test]
fn kept_prefix_that_does_not_fit_the_disk_leaves_nothing_of_itself() {
    const MODEL: &str = "qwen2-random";
    let mut stage = turns::stage(&[MODEL]);
    let (cold, _) = asked(&stage, MODEL, &["--forget-prefix"], NOTHING, small);
    let python = turns::engine(&stage).python;
    let script = format!(
        r#"#!/bin/sh
'''exec' '{}' "$0" "$@"
' '''
import resource, sys
from vllm_mlx.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({LONGEST_FILE}, {LONGEST_FILE}))
sys.exit(main())
"#,
        python.display()
    );
    let script = stage.script("bounded/vllm-mlx", &script);
    stage.set("CCLOCAL_ENGINE", script.display().to_string());

    let gateway = Gateway::start(&stage, &format!("../models/{MODEL}"), &[]);
    let mut conversation = gateway.tool_loop(MODEL);
    conversation.change(|request| {
        request["max_tokens"] = 48.into();
        small(request);
    });
    let first = conversation.ask_once();
    assert_eq!(first.prefilled, first.prompt);
    assert_eq!(first.content, cold.content);
    let log = until(NOT_KEPT, || gateway.log(&stage));
    assert!(log.contains("File too large"), "{log}");
    // What comes after it is computed as ever.
    conversation.change(another);
    let second = conversation.ask_once();
    assert!(second.prefilled < second.prompt, "{second:?}");
    let log = gateway.log(&stage);
    gateway.end();
    assert_eq!(log.matches("[kept_prefix]").count(), 1, "{log}");
    assert_eq!(files(&stage), Vec::<PathBuf>::new());
    stage.assert_nothing_left();
}

/// Another model, whose engine is asked by nobody yet: what the client sent to the first one is what it will send to this one.
#[test]
fn kept_prefix_is_computed_before_the_first_question() {
    const FIRST: &str = "qwen2-random";
    const SECOND: &str = "gemma4_e-random";
    let stage = turns::stage(&[FIRST, SECOND]);
    let fronts = folder(&stage).join("fronts.json");
    let gateway = Gateway::start(&stage, &format!("../models/{FIRST}"), &[]);
    let mut tool_loop = gateway.tool_loop(FIRST);
    tool_loop.client = "claude-cli/2.1.331 (external, cli)";
    tool_loop.change(|request| {
        request["max_tokens"] = 8.into();
        small(request);
    });
    tool_loop.ask_once();
    until("Bash", || {
        std::fs::read_to_string(&fronts).unwrap_or_default()
    });
    gateway.end();
    assert_eq!(mode(&fronts), 0o600);

    let gateway = Gateway::start(&stage, &format!("../models/{SECOND}"), &[]);
    until(WRITTEN, || gateway.log(&stage));
    let status = stage.run(&["status", "--json"]).stdout;
    let mut tool_loop = gateway.tool_loop(SECOND);
    tool_loop.change(|request| {
        request["max_tokens"] = 8.into();
        small(request);
    });
    let first = tool_loop.ask_once();
    assert!(first.prefilled < first.prompt / 2, "{first:?}");
    gateway.end();
    assert!(!status.contains(r#""turns": 1"#), "{status}");
    let (_, log) = asked(&stage, SECOND, &["--forget-prefix"], NOTHING, small);
    assert!(!log.contains("kept_prefix"), "{log}");
    assert!(!fronts.exists());
}

/// What a model computed for one session of the real client serves the next, and on a terminal it is there before anything is typed.
#[test]
fn kept_prefix_serves_the_real_client() {
    for client in [real::client(), real::old_client()] {
        let stage = real::fresh_stage(&client);
        let port = free_port();
        let log = || stage.read(&format!("cclocal/state/server-{port}.log"));
        for folder in ["work", "elsewhere"] {
            std::fs::create_dir_all(stage.path(folder)).expect("made");
            let mut command =
                stage.command(&real::launch(&port, &["--", "-p", "Create hello.txt"]));
            let ran = command.current_dir(stage.path(folder)).output();
            assert!(ran.expect("run").status.success());
        }
        assert!(log().contains(READ), "{}", log());
        for _ in 0..2 {
            let screen = interactive::start_in(
                &stage,
                "work",
                &format!("--model ../hermes-llama --port {port}"),
            );
            // The first time what is computed before is of the other kind, as no other is known.
            until(READ, log);
            let _ = std::fs::remove_file(stage.path("work/hello.txt"));
            screen.line("Create hello.txt");
            screen.wait_for("Done: the Write tool has written the file.");
            interactive::leave(&screen);
        }
        let fronts = stage.read("cclocal/cache/prefixes/fronts.json");
        let fronts: Value = serde_json::from_str(&fronts).expect("JSON");
        let scripted: Vec<Option<bool>> = (fronts.as_array().expect("a list").iter())
            .map(|front| front["scripted"].as_bool())
            .collect();
        assert_eq!(scripted, [Some(true), Some(false)]);
        stage.assert_nothing_left();
    }
}
