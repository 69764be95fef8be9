//! The arithmetic of memory against what the engine's own code holds, for a tiny model of each architecture of the catalogue.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use cclocal::catalog::EngineProfile;
use cclocal::memory::architecture::{Architecture, Knowledge};
use cclocal::memory::plan::Planner;
use cclocal::memory::smallest_window;
use cclocal::memory::working::Device;
use cclocal::memory::{Asked, OUTPUTS};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::real;

/// Tokens of one step of reading a prompt.
const STEP: u64 = 256;

/// The same in the turns of a conversation.
const STEP_OF_TURNS: u64 = 64;

/// How many times what a step takes may be planned for it. On Metal more than on a CPU is there at once, and that cannot be measured here.
const GENEROUS: u64 = 3;

#[derive(Debug, Deserialize)]
struct Measured {
    name: String,
    updates: Vec<u64>,
    alone: Vec<Vec<u64>>,
    batched: Vec<Vec<u64>>,
    stored: u64,
    /// Tokens of context, and bytes.
    working: Vec<(u64, u64)>,
    /// With each of the limits.
    kept: Vec<Kept>,
}

/// How many entries the prefix cache kept: of a full window, and of one that is half as long again.
#[derive(Debug, Deserialize)]
struct Kept {
    full: u64,
    longer: u64,
}

/// As we start the engine; of the model whose cache can be cut back, also as it is without ours.
#[derive(Debug, Deserialize)]
struct Turns {
    turns: Vec<Turn>,
    copied: Option<Vec<Turn>>,
    /// Tokens that the next turn finds again of a conversation that filled its window.
    filled: Option<Vec<u64>>,
    /// Bytes of a dropped entry that are not given back, as the engine is, and as we start it.
    left: Option<u64>,
    left_with_ours: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    /// In the conversation at its end.
    tokens: u64,
    reused: u64,
    peak: u64,
    /// Tokens of the entries that are there then, and their bytes.
    entries: Vec<u64>,
    stored: u64,
}

/// What became of a request, as `held_once.py` says it.
#[derive(Debug, Deserialize)]
struct Ended {
    case: String,
    computed: u64,
    same: bool,
    entries: Vec<u64>,
    left: i64,
}

/// Bytes that a scheduler and its last batch hold beside a conversation.
const SCHEDULERS_OWN: i64 = 64 * 1024;

/// However a request ends, what is kept of it is right, and there once.
fn taken_over(model: &str) -> (Vec<Ended>, String) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/models");
    let ran = Command::new(real::engine().with_file_name("python"))
        .arg(models.join("held_once.py"))
        .arg(models.join("architectures.json"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/patches"))
        .arg(model)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the engine's Python runs");
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{errors}");
    let ended: Vec<Ended> = String::from_utf8_lossy(&ran.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for request in &ended {
        assert!(request.same, "{request:?}: {errors}");
        assert!(request.left < SCHEDULERS_OWN, "{request:?}: {errors}");
    }
    (ended, errors)
}

fn in_short(ended: &[Ended]) -> Vec<(&str, u64, &[u64])> {
    ended
        .iter()
        .map(|request| (&*request.case, request.computed, &*request.entries))
        .collect()
}

#[test]
fn memory_of_conversations_that_are_taken_over() {
    let (ended, errors) = taken_over("turns");
    let expected: [(&str, u64, &[u64]); 21] = [
        ("first", 500, &[512]),
        ("second", 150, &[674]),
        // A step of its 150 new tokens was read.
        ("cancelled while it is read", 150, &[738]),
        ("after that", 86, &[836]),
        ("cancelled while it is written", 50, &[879]),
        ("again", 1, &[886]),
        ("retried", 1, &[886]),
        ("failed", 100, &[991]),
        ("after the failure", 1, &[998]),
        ("failed for want of memory", 20, &[]),
        ("after want of memory", 986, &[998]),
        ("a background question", 30, &[342, 998]),
        ("goes on", 60, &[342, 1_070]),
        // Its first 300 tokens are those of both.
        ("another conversation", 400, &[712, 1_070]),
        ("in turn, first", 60, &[712, 1_142]),
        ("in turn, other", 60, &[784, 1_142]),
        ("at once 1", 40, &[784, 1_194]),
        ("at once 2", 40, &[784, 1_194]),
        ("tight", 650, &[662]),
        ("a background question without room", 100, &[412]),
        ("goes on without room", 402, &[714]),
    ];
    assert_eq!(in_short(&ended), expected, "{errors}");
    // What the other conversation does not share.
    let cost = "362 of 662 tokens of the other one have to be computed again";
    assert!(errors.contains(cost), "{errors}");
}

#[test]
fn memory_of_conversations_with_sliding_windows() {
    mixed("snapshots");
}

#[test]
fn memory_of_conversations_with_recurrent_layers() {
    mixed("qwen3_5");
}

/// What cannot be cut back begins at a snapshot. None lies between two conversations that begin alike.
fn mixed(model: &str) {
    let (ended, errors) = taken_over(model);
    let expected: [(&str, u64, &[u64]); 21] = [
        ("first", 500, &[512]),
        ("second", 150, &[674]),
        ("cancelled while it is read", 150, &[738]),
        ("after that", 86, &[836]),
        ("cancelled while it is written", 51, &[879]),
        ("again", 51, &[886]),
        ("retried", 51, &[886]),
        // Of a step that failed nobody knows what it did to which layer.
        ("failed", 100, &[985]),
        ("after the failure", 1, &[998]),
        ("failed for want of memory", 21, &[]),
        ("after want of memory", 986, &[998]),
        ("a background question", 330, &[342, 998]),
        ("goes on", 60, &[342, 1_070]),
        ("another conversation", 700, &[342, 712, 1_070]),
        ("in turn, first", 60, &[342, 712, 1_142]),
        ("in turn, other", 60, &[342, 784, 1_142]),
        ("at once 1", 40, &[342, 784, 1_194]),
        ("at once 2", 53, &[342, 784, 1_194]),
        ("tight", 650, &[662]),
        ("a background question without room", 400, &[412]),
        ("goes on without room", 702, &[714]),
    ];
    assert_eq!(in_short(&ended), expected, "{errors}");
}

#[test]
fn the_engine_holds_what_the_arithmetic_says() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/models");
    let file = models.join("architectures.json");
    let text = std::fs::read_to_string(&file).expect("read");
    let configs: BTreeMap<String, Value> = serde_json::from_str(&text).expect("JSON");
    let home = tempfile::tempdir().expect("a folder");
    let limits = home.path().join("limits.json");
    std::fs::write(&limits, self::limits(&configs).to_string()).expect("written");
    let ran = Command::new(real::engine().with_file_name("python"))
        .arg(models.join("memory.py"))
        .arg(&file)
        .arg(STEP.to_string())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/patches"))
        .arg(&limits)
        .env("HOME", home.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the engine's Python runs");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    let lines: Vec<Value> = String::from_utf8_lossy(&ran.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(lines.len(), configs.len(), "{errors}");
    for line in lines {
        let name = line["name"].as_str().expect("a name");
        let model = Architecture::of(&configs[name]).expect("an architecture");
        if ["turns", "snapshots"].contains(&name) {
            turns(&model, serde_json::from_value(line).expect("turns"));
        } else {
            caches(&model, serde_json::from_value(line).expect("sizes"));
        }
    }
}

/// A window of the conversation that a whole scheduler runs, in tokens: a step of it takes time on a processor.
const SHORT_WINDOW: u64 = 1_024;

/// Room for anything, in bytes.
const BUDGET: u64 = 1 << 40;

/// The limits of the prefix cache that are planned for full windows, where one conversation is kept whole and where two are.
fn limits(configs: &BTreeMap<String, Value>) -> Value {
    let limits = configs.iter().map(|(name, config)| {
        let architecture = Architecture::of(config).expect("an architecture");
        let window = match name == "turns" {
            true => SHORT_WINDOW,
            false => smallest_window(OUTPUTS[1]),
        };
        let profile = match architecture.constant_bytes() {
            0 => EngineProfile::Batched,
            _ => EngineProfile::Text,
        };
        let planner = Planner {
            architecture,
            profile,
            device: Device::Other,
            weights: 0,
            asked: Asked::default(),
            step: None,
            estimated: false,
        };
        let plans = [
            planner.thriftiest_on(BUDGET),
            planner.on(BUDGET).expect("a plan"),
        ];
        let limits = plans.map(|plan| {
            let plan = planner.narrowed(&plan, window, BUDGET);
            json!({ "mib": plan.cache_memory_mb.expect("a limit"), "conversations": plan.conversations })
        });
        assert_eq!(limits[0]["conversations"], 1);
        assert_eq!(limits[1]["conversations"], 2);
        (name.clone(), json!({ "window": window, "limits": limits }))
    });
    limits.collect()
}

fn caches(model: &Architecture, measured: Measured) {
    let name = &measured.name;
    assert_eq!(model.knowledge, Knowledge::Kind, "{name}");
    for (index, (alone, batched)) in measured.alone.iter().zip(&measured.batched).enumerate() {
        let expected = model.held(&measured.updates[..=index]);
        assert_eq!(alone, &expected, "{name}, after update {index}");
        assert_eq!(batched, &expected, "{name}, batched, after update {index}");
    }
    let tokens: u64 = measured.updates.iter().sum();
    let last: u64 = measured
        .alone
        .iter()
        .flatten()
        .rev()
        .take(measured.alone[0].len())
        .sum();
    assert_eq!(last, model.live_bytes(tokens), "{name}");
    assert_eq!(measured.stored, model.stored_bytes(tokens), "{name}");
    assert_eq!(measured.kept.len(), 2, "{name}");
    for (conversations, kept) in (1..).zip(&measured.kept) {
        assert_eq!(kept.full, conversations, "{name}");
        assert!(kept.longer < conversations, "{name}");
    }
    for (context, bytes) in measured.working {
        let planned = model.working_bytes(STEP, context, Device::Other);
        assert!(
            bytes <= planned,
            "{name}: {bytes} of {planned} at {context}"
        );
        assert!(
            planned <= GENEROUS * bytes,
            "{name}: {bytes} of {planned} at {context}"
        );
    }
}

/// At the worst moment there are the request's cache and the entries, and of what goes from one to the other no more than a layer.
fn turns(model: &Architecture, turns: Turns) {
    let snapshots = turns.copied.is_none();
    if let Some(copied) = turns.copied {
        assert!(
            turns.left > Some(0) && excess(model, &copied) > 1.5 * excess(model, &turns.turns),
            "the engine copies no more than it has to by now: entries.py can go"
        );
        assert_eq!(turns.left_with_ours, Some(0));
    }
    if let Some(filled) = turns.filled {
        assert_eq!(filled.len(), 2);
        for found in filled {
            assert!(found >= SHORT_WINDOW - 1, "{found}");
        }
    }
    for (index, turn) in turns.turns.iter().enumerate() {
        let least: u64 = (turn.entries.iter())
            .map(|&at| model.stored_bytes(at))
            .sum();
        // Of the layers that cannot be cut back: at the last question, at the end of the prompt, and at the end.
        let taken = model.constant_bytes();
        let entries = if snapshots { least + 2 * taken } else { least };
        assert!((least..=entries).contains(&turn.stored), "{turn:?}");
        assert_eq!(turn.reused > 0, index > 0, "{turn:?}");
        let running = model.most_live_bytes(turn.tokens, STEP_OF_TURNS);
        let working = model.working_bytes(STEP_OF_TURNS, turn.tokens, Device::Other);
        let beside = working.max(model.copied_bytes(turn.tokens));
        // A conversation is its entry until it begins to run, and again when it is done. Beside it there are the snapshots.
        let there = match (snapshots, index) {
            (false, _) => 0,
            (true, 0) => taken,
            (true, _) => 2 * taken,
        };
        let most = running + there + beside;
        assert!(turn.peak <= most, "{turn:?}, planned {most}");
        assert!(turn.peak >= most * 3 / 4, "{turn:?}, planned {most}");
    }
    let last = turns.turns.last().expect("turns");
    let conversation = model.stored_bytes(last.tokens);
    // A layer is copied, or it is there as it was and as a window that holds a step more.
    let (layers, taken) = match snapshots {
        true => (2, 2 * model.constant_bytes()),
        false => (1, 0),
    };
    let most = conversation * 115 / 100 + layers * largest_layer(model, last.tokens) + taken;
    assert!(
        last.peak <= most,
        "{last:?}, the conversation takes {conversation}"
    );
}

/// What of a conversation is in the one layer that takes most.
fn largest_layer(model: &Architecture, tokens: u64) -> u64 {
    let of_layers = model.held(&[tokens]);
    of_layers.into_iter().max().unwrap_or(0)
}

/// How many times what it keeps a conversation took in its last turn.
fn excess(model: &Architecture, turns: &[Turn]) -> f64 {
    let last = turns.last().expect("turns");
    last.peak as f64 / model.stored_bytes(last.tokens) as f64
}
