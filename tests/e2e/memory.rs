//! The arithmetic of memory against what the engine's own code holds, for a tiny model of each architecture of the catalogue.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use cclocal::catalog::EngineProfile;
use cclocal::memory::architecture::{Architecture, Knowledge};
use cclocal::memory::cache::Stored;
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
    quantised: u64,
    /// Tokens of context, and bytes.
    working: Vec<(u64, u64)>,
    kept: BTreeMap<String, Kept>,
}

/// How many entries the prefix cache kept: of a full window, and of one that is a quarter longer.
#[derive(Debug, Deserialize)]
struct Kept {
    full: u64,
    longer: u64,
}

/// As we start the engine; of the model whose cache can be cut back, also as it is without ours.
#[derive(Debug, Deserialize)]
struct Turns {
    plain: Vec<Turn>,
    quantised: Vec<Turn>,
    copied: Option<Vec<Turn>>,
    /// Tokens that the next turn finds again of a conversation that filled its window.
    filled: Option<BTreeMap<String, u64>>,
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
    let cost = "362 of 662 tokens of the other one have to be computed again";
    assert!(errors.contains(cost), "{errors}");
}
