//! One conversation attends as it does outside of batches, and computes the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::real;
use crate::turns::{Gateway, stage};

/// Cases of two sequences.
const OF_TWO: [&str; 2] = ["two together", "two, then one"];

/// Tokens that a sliding layer sees in `models/masks.py`, so that a short prompt is longer.
const BEYOND_THE_WINDOW: [&str; 3] = [
    "beyond the window",
    "a step beyond the window",
    "going on beyond the window",
];

#[derive(Debug, Deserialize)]
struct Measured {
    name: String,
    cases: BTreeMap<String, Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    same: bool,
    steps: u64,
    before: Vec<Mask>,
    masks: Vec<Mask>,
    as_alone: Option<bool>,
}

/// Kind of cache, its sequences, tokens, and what the mask is: `array`, `causal` or none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Mask(String, u64, u64, Option<String>);

impl Mask {
    fn is_array(&self) -> bool {
        self.3.as_deref() == Some("array")
    }
}

#[test]
fn one_conversation_attends_without_arrays_and_computes_the_same() {
    let mut lines = measure().into_iter();
    let others: BTreeMap<String, String> =
        serde_json::from_value(lines.next().expect("a line")).expect("words");
    let begins = [
        (
            "another signature",
            "BatchKVCache makes masks in another way",
        ),
        ("no arrays", "BatchRotatingKVCache makes no array"),
        ("an error", "ZeroDivisionError: "),
        ("another attribute", "Other has no _idx"),
        (
            "a missing kind",
            "cannot import name 'BatchRotatingKVCache'",
        ),
    ];
    assert_eq!(others.len(), begins.len());
    for (name, reason) in begins {
        let expected = format!("[cclocal] patch masks: not applied ({reason}");
        let said = &others[name];
        assert!(said.starts_with(&expected), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let mut models = 0;
    for line in lines {
        let model: Measured = serde_json::from_value(line).expect("cases");
        models += 1;
        for (name, case) in &model.cases {
            check(&model.name, name, case);
        }
        for name in OF_TWO.iter().chain(&BEYOND_THE_WINDOW) {
            assert!(model.cases.contains_key(*name), "{name}");
        }
    }
    assert_eq!(models, 6);
}

/// The pinned engine is as the patch expects it.
#[test]
fn a_served_model_attends_without_arrays() {
    let stage = stage(&["qwen2"]);
    let gateway = Gateway::start(&stage, "../models/qwen2", &["--no-mem-check"]);
    let log = gateway.log(&stage);
    gateway.end();
    assert!(log.contains("[cclocal] patch masks: applied"), "{log}");
}

fn check(model: &str, name: &str, case: &Case) {
    assert!(case.same && case.steps > 6, "{model}, {name}: {case:?}");
    // Recurrent layers have no masks but for padding. The others attend as they did where there are several sequences.
    let attention = |masks: &[Mask], several: bool| -> Vec<Mask> {
        let chosen = |mask: &&Mask| mask.0 != "ArraysCache" && (mask.1 > 1) == several;
        masks.iter().filter(chosen).cloned().collect()
    };
    let several = attention(&case.masks, true);
    assert_eq!(several, attention(&case.before, true), "{model}, {name}");
    if OF_TWO.contains(&name) {
        assert!(!several.is_empty(), "{model}, {name}");
        assert!(several.iter().all(Mask::is_array), "{model}, {name}");
        return;
    }
    // So that there is something to be changed, and the test would fail without the patch.
    let before = attention(&case.before, false);
    assert!(before.iter().all(Mask::is_array), "{model}, {name}");
    assert_ne!(case.as_alone, Some(false), "{model}, {name}: {case:?}");
    // GLM's layers ask for an array in a prompt, and what is beyond a sliding window is left out by one.
    let arrays = case.masks.iter().filter(|mask| mask.is_array());
    for Mask(kind, _, tokens, _) in arrays {
        let allowed = model == "glm4_moe_lite" || kind == "RotatingKVCache";
        assert!(allowed && *tokens > 1, "{model}, {name}: {case:?}");
    }
    if BEYOND_THE_WINDOW.contains(&name) {
        let beyond = case.masks.iter().any(Mask::is_array);
        let arrays = model == "glm4_moe_lite" || model.starts_with("gemma4");
        assert_eq!(beyond, arrays, "{model}, {name}: {case:?}");
    }
}

fn measure() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let models = root.join("tests/e2e/models");
    let home = tempfile::tempdir().expect("a folder");
    let ran = Command::new(real::engine().with_file_name("python"))
        .args(["-W", "ignore"])
        .arg(models.join("masks.py"))
        .arg(models.join("architectures.json"))
        .arg(root.join("src/engine/patches"))
        .env("HOME", home.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the engine's Python runs");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    String::from_utf8_lossy(&ran.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
