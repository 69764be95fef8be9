//! What a turn computes: only what is new, whatever the model's architecture.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cclocal::engine::executable::Executable;
use cclocal::engine::server::{Launch, Server};
use cclocal::memory::architecture::Architecture;
use cclocal::supervisor::reservation;
use cclocal::sys::environment::Environment;
use cclocal::sys::paths::Paths;
use cclocal::sys::secret::Secret;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::fake_hub::Hub;
use crate::real::{self, free_port};
use crate::support::{Stage, finish, signal};
use crate::tool_loop::{self, CLIENTS, SHORT, ToolLoop};

/// The flags of the scripts that cclocal replaces, where this engine has them. Source: their README, "Server flags".
const SCRIPTS_FLAGS: &str = "--max-tokens 32768 --kv-cache-quantization --cache-memory-percent 0.35 --prefill-step-size 4096 --stream-interval 4 --timeout 600 --enable-auto-tool-choice --tool-call-parser auto";

/// How many turns a test runs.
const TURNS: usize = 12;

/// How many tokens a turn may compute beside what is new. Source: `engine/snapshots.py`.
const STEP: u64 = 128;

/// A stage with tiny models of these architectures, in `models`.
pub fn stage(names: &[&str]) -> Stage {
    let stage = real::stage(&real::client());
    let mut args = vec![stage.path("models")];
    args.extend(names.iter().map(PathBuf::from));
    python(&stage, "turn_models.py", &args);
    stage
}

/// What a script of `tests/e2e/models` says, run by the engine's Python.
pub fn python(stage: &Stage, script: &str, args: &[PathBuf]) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/models");
    let ran = Command::new(engine(stage).python)
        .args(["-W", "ignore"])
        .arg(scripts.join(script))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

pub fn engine(stage: &Stage) -> Executable {
    let script = PathBuf::from(&stage.env()["CCLOCAL_ENGINE"]);
    Executable {
        python: script.with_file_name("python"),
        script,
    }
}

/// A server of cclocal's, with the gateway before the engine.
pub struct Gateway {
    child: Child,
    url: String,
    key: String,
    port: u16,
}

impl Gateway {
    pub fn start(stage: &Stage, model: &str, more: &[&str]) -> Self {
        let port = free_port();
        let mut args = vec!["--server", "--model", model, "--port", &port];
        args.extend(more);
        let name = format!("out-{port}");
        let out = std::fs::File::create(stage.path(&name)).expect("made");
        let child = stage
            .command(&args)
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        stage.wait_for(&name);
        let port: u16 = port.parse().expect("a port");
        let key =
            std::fs::read_to_string(reservation::key_file(&paths(stage), port)).expect("the key");
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            key: key.trim().to_owned(),
            port,
        }
    }

    pub fn tool_loop(&self, model: &str) -> ToolLoop {
        ToolLoop::new(&self.url, &self.key, model)
    }

    /// Its address and its key.
    pub fn address(&self) -> (&str, &str) {
        (&self.url, &self.key)
    }

    pub fn log(&self, stage: &Stage) -> String {
        stage.read(&format!("cclocal/state/server-{}.log", self.port))
    }

    pub fn end(self) {
        signal(&self.child, Signal::SIGINT);
        let ran = finish(self.child);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
}

fn paths(stage: &Stage) -> Paths {
    let home = stage.path("cclocal").display().to_string();
    Paths::of(&Environment::for_tests(
        &stage.path("home"),
        &[("CCLOCAL_HOME", &home)],
    ))
}

/// Turns through cclocal. `bytes`: of the first request.
fn turns(
    stage: &Stage,
    name: &str,
    bytes: usize,
    turns: usize,
    questions: &[usize],
) -> (ToolLoop, String) {
    let gateway = Gateway::start(stage, &format!("../models/{name}"), &[]);
    let mut ran = gateway.tool_loop(name).of_length(bytes);
    ran.run(turns, questions);
    let log = gateway.log(stage);
    gateway.end();
    (ran, log)
}

/// The engine by itself, with a model of the stage, these flags, and these variables beside the stage's own. Its log is `engine.log`.
pub fn serve(
    stage: &Stage,
    runtime: &Runtime,
    key: &Secret,
    name: &str,
    flags: &str,
    variables: &[(&str, String)],
) -> Server {
    let model = stage.path("models").join(name).display().to_string();
    let words = format!("--host 127.0.0.1 --port 0 --served-model-name {name} {flags}");
    let mut argv = vec!["serve".to_owned(), model];
    argv.extend(words.split(' ').map(str::to_owned));
    let mut env: BTreeMap<_, _> = stage
        .env()
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    env.insert("VLLM_MLX_ENABLE_THINKING".into(), "false".into());
    env.insert("HF_HUB_OFFLINE".into(), "1".into());
    env.extend(
        (variables.iter()).map(|(name, value)| (OsString::from(name), OsString::from(value))),
    );
    // Its process is watched from the runtime.
    runtime.block_on(async {
        let mut server = Server::start(Launch {
            executable: &engine(stage),
            argv: &argv,
            env,
            key: Some(key),
            folder: &stage.path("tmp"),
            log: stage.path("engine.log"),
            socket: stage.path("engine.sock"),
            served_name: name.into(),
        })
        .expect("started");
        server.ready().await.expect("ready");
        server
    })
}

/// Turns with the scripts' flags, on the engine itself.
fn turns_of_the_scripts(stage: &Stage, name: &str, turns: usize) -> ToolLoop {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let key = Secret::random().expect("a key");
    let mut server = serve(stage, &runtime, &key, name, SCRIPTS_FLAGS, &[]);
    let mut ran = ToolLoop::on(&server, key.expose(), name).of_length(CLIENTS);
    ran.run(turns, &[]);
    runtime.block_on(async {
        server.ask_to_end();
        server.ended().await
    });
    ran
}

/// On a processor a turn of the two mixtures takes seconds, so they get fewer: a turn that computed more than its own would show in any.
fn only_what_is_new(name: &str, count: usize) {
    let stage = stage(&[name]);
    let (ran, _) = turns(&stage, name, SHORT, count, &[]);
    assert!(ran.ratio() <= 1.05, "{}: {}", ran.ratio(), table(&ran));
}

#[test]
fn turns_of_two_terminals_compute_only_what_is_new() {
    let stage = stage(&["qwen2"]);
    let (first, other, _) = two_terminals(&stage, "qwen2", 10);
    for ran in [&first, &other] {
        assert!(ran.ratio() <= 1.05, "{}: {}", ran.ratio(), table(ran));
    }
    // It begins like the first.
    let beginning = &other.turns[0];
    assert!(
        beginning.prefilled * 10 < beginning.prompt,
        "{}",
        table(&other)
    );
}

/// Two conversations on one engine, turn by turn.
fn two_terminals(stage: &Stage, name: &str, turns: usize) -> (ToolLoop, ToolLoop, String) {
    let gateway = Gateway::start(stage, &format!("../models/{name}"), &[]);
    let mut first = gateway.tool_loop(name).of_length(SHORT);
    let mut other = gateway.tool_loop(name).of_length(SHORT);
    other.change(|request| {
        let said = &mut request["messages"][0]["content"][0]["text"];
        *said = format!("Something else. {}", said.as_str().expect("a text")).into();
    });
    for _ in 0..turns {
        first.run(1, &[]);
        other.run(1, &[]);
    }
    let log = gateway.log(stage);
    gateway.end();
    (first, other, log)
}

#[test]
fn turns_of_qwen3_moe_compute_only_what_is_new() {
    only_what_is_new("qwen3_moe", 8);
}

#[test]
fn turns_of_glm4_moe_lite_compute_only_what_is_new() {
    only_what_is_new("glm4_moe_lite", 8);
}

/// The text route: no turn computes more than the step between snapshots beside what is new, whatever the template ends a prompt with.
fn text_route(name: &str, questions: &[usize]) {
    let stage = stage(&[name]);
    let (ran, log) = turns(&stage, name, SHORT, TURNS, questions);
    assert!(log.contains("Model route: LLM"), "{log:.3000}");
    assert!(ran.most_beyond_new() <= STEP, "{}", table(&ran));
}

#[test]
fn turns_of_gemma4_e_take_the_text_route() {
    text_route("gemma4_e", &[3, 8]);
}

#[test]
fn turns_of_gemma4_moe_take_the_text_route() {
    text_route("gemma4_moe", &[3, 8]);
}

/// No snapshot lies where two conversations part, so the other one begins anew; from then on each computes what is new to it.
#[test]
fn turns_of_two_terminals_take_the_text_route() {
    let stage = stage(&["gemma4_e"]);
    let (first, other, log) = two_terminals(&stage, "gemma4_e", 6);
    assert!(log.contains("Model route: LLM"), "{log:.3000}");
    for ran in [&first, &other] {
        assert!(ran.most_beyond_new() <= STEP, "{}", table(ran));
    }
}

#[test]
fn turns_of_qwen3_5_take_the_text_route() {
    let stage = stage(&["qwen3_5"]);
    // The reminder after turn 5 comes far behind the last question.
    let questions = [8];
    let (ran, log) = turns(&stage, "qwen3_5", SHORT, TURNS, &questions);
    assert!(log.contains("Model route: LLM"), "{log:.3000}");
    assert!((0..TURNS - 1).any(tool_loop::reminds));
    assert_questions_are_kept(&ran, &questions);
}

/// As planned, the prefix cache holds two entries of a full window, and no third for the moment in which the newest is stored: the one at the last
/// question has to stay, not that of the turn before.
#[test]
fn turns_of_qwen3_5_keep_the_last_question_in_a_full_prefix_cache() {
    let mut stage = stage(&["qwen3_5"]);
    limit_prefix_cache(&mut stage, FULL_CACHE_MIB);
    let questions = [5, 7];
    let (ran, log) = turns(&stage, "qwen3_5", SHORT, 9, &questions);
    assert!(!log.contains("Cache entry too large"), "{}", table(&ran));
    let config = stage.read("models/qwen3_5/config.json");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let mut architecture = Architecture::of(&config).expect("an architecture");
    // The tiny models are written in single precision.
    architecture.number = 4;
    let entry = |turn: usize| architecture.stored_bytes(ran.turns[turn].prompt);
    let limit = FULL_CACHE_MIB << 20;
    assert!(2 * entry(8) <= limit && 3 * entry(5) > limit);
    assert_questions_are_kept(&ran, &questions);
}

/// In MiB, for the conversation of a test.
const FULL_CACHE_MIB: u64 = 16;

/// Has the engine start with this limit of its prefix cache, in MiB, whatever it is told.
fn limit_prefix_cache(stage: &mut Stage, mib: u64) {
    let engine = engine(stage);
    let script = format!(
        "#!{}
import runpy, sys
flag = \"--cache-memory-mb\"
if flag in sys.argv:
    sys.argv[sys.argv.index(flag) + 1] = \"{mib}\"
runpy.run_path({:?}, run_name=\"__main__\")
",
        engine.python.display(),
        engine.script
    );
    let script = stage.script("limited-vllm-mlx", &script);
    stage.set("CCLOCAL_ENGINE", script.display().to_string());
}

/// The template of Qwen3.5 writes the replies since the last question anew whenever a question comes: they are new to the model then, and what stands
/// before that question is not. A reminder is none.
fn assert_questions_are_kept(ran: &ToolLoop, questions: &[usize]) {
    let mut question = 0;
    for turn in 1..ran.turns.len() {
        let asks = questions.contains(&(turn - 1));
        let since = ran.turns[if asks { question } else { turn - 1 }].prompt;
        let new = ran.turns[turn].prompt - since;
        let beyond = ran.turns[turn].prefilled.saturating_sub(new);
        assert!(beyond <= STEP, "turn {turn}: {}", table(ran));
        if asks {
            question = turn;
        }
    }
}

/// Both routes compute the same of text: the same tokens, and logits that differ by no more than the order of sums.
#[test]
fn turns_routes_agree_token_by_token() {
    let names = ["gemma4_e", "gemma4_moe", "qwen3_5"];
    let stage = stage(&names);
    for name in names {
        let compared = python(
            &stage,
            "compare_routes.py",
            &[
                stage.path("models").join(name),
                stage.path(format!("compared-{name}")),
                Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/patches/text_route.py"),
            ],
        );
        let compared: Value = serde_json::from_str(compared.trim()).expect("figures");
        assert_eq!(compared["same"], compared["steps"], "{name}: {compared}");
        let apart = compared["apart"].as_f64().expect("a number");
        assert!(apart < 0.01, "{name}: {compared}");
        assert!(
            compared["distinct"].as_u64() > Some(3),
            "{name}: {compared}"
        );
    }
}

/// Weights of 4 GB for pictures, and as much for sound, are in the file: an engine that read them would hold them.
#[test]
fn turns_on_the_text_route_leave_other_weights_unread() {
    const UNUSED: u64 = 4 << 30;
    let stage = stage(&["gemma4_moe", "qwen3_5"]);
    for (name, parts) in [
        ("gemma4_moe", &["vision_tower", "audio_tower"][..]),
        ("qwen3_5", &["vision_tower"]),
    ] {
        let file = stage.path("models").join(name).join("model.safetensors");
        for part in parts {
            add_weights(&file, &format!("{part}.unused.weight"), UNUSED);
        }
        let gateway = Gateway::start(&stage, &format!("../models/{name}"), &["--no-mem-check"]);
        gateway.tool_loop(name).run(2, &[]);
        let status = stage.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).expect("the status");
        let resident = find(&status, "resident").as_u64().expect("bytes");
        assert!(resident < UNUSED / 2, "{name} holds {resident} bytes");
        gateway.end();
    }
}

/// The first run downloads the whole model into the hub's cache, and serves its text part; `--vision` serves all of it; `rm` leaves nothing.
#[test]
fn turns_of_a_model_that_is_downloaded_first() {
    let mut stage = stage(&["gemma4_moe"]);
    let id = "demo/gemma-4-tiny";
    let hub = Hub::of(&stage.path("models/gemma4_moe"), &[]);
    stage.set("HF_ENDPOINT", hub.url());
    let links = stage.path("cclocal/data/text-models/models--demo--gemma-4-tiny");
    for run in 0..2 {
        let asked = hub.requests().len();
        let gateway = Gateway::start(&stage, id, &[]);
        gateway.tool_loop(id).run(1, &[]);
        let log = gateway.log(&stage);
        assert!(log.contains("Model route: LLM"), "{log:.3000}");
        gateway.end();
        assert!(
            run == 0 || hub.requests().len() == asked,
            "the hub was asked"
        );
    }
    let folder = links.parent().expect("a folder");
    for private in [folder, &links] {
        let mode = std::fs::metadata(private)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    let weights = std::fs::read_link(links.join("model.safetensors")).expect("a link");
    assert!(
        weights.display().to_string().contains("/snapshots/"),
        "{weights:?}"
    );
    let config = std::fs::read_to_string(links.join("config.json")).expect("read");
    assert!(
        !config.contains("vision") && !config.contains("audio"),
        "{config}"
    );

    let gateway = Gateway::start(&stage, id, &["--vision"]);
    gateway.tool_loop(id).run(1, &[]);
    let log = gateway.log(&stage);
    assert!(log.contains("Model route: MLLM"), "{log:.3000}");
    gateway.end();

    let ran = stage.run(&["rm", id, "--yes"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!links.exists());
}

/// Adds weights of this many bytes, as a hole that takes no room on the disk.
fn add_weights(file: &Path, name: &str, bytes: u64) {
    use std::io::{Read, Write};
    // What comes after the first megabytes is a hole from the time before.
    let mut old = Vec::new();
    let whole = std::fs::File::open(file).expect("opened");
    whole.take(64 << 20).read_to_end(&mut old).expect("read");
    let length = u64::from_le_bytes(old[..8].try_into().expect("eight bytes"));
    let start = usize::try_from(8 + length).expect("small");
    let mut header: Value = serde_json::from_slice(&old[8..start]).expect("a header");
    let end = header
        .as_object()
        .into_iter()
        .flat_map(|tensors| tensors.values())
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64())
        .max()
        .expect("tensors");
    header[name] = serde_json::json!({"dtype": "F32", "shape": [bytes / 4], "data_offsets": [end, end + bytes]});
    let mut text = header.to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let new = file.with_extension("new");
    let mut out = std::fs::File::create(&new).expect("made");
    out.write_all(&(text.len() as u64).to_le_bytes())
        .expect("written");
    out.write_all(text.as_bytes()).expect("written");
    out.write_all(&old[start..]).expect("written");
    out.set_len(8 + text.len() as u64 + end + bytes)
        .expect("longer");
    std::fs::rename(new, file).expect("renamed");
}

/// The first value of this name, wherever it is.
fn find<'a>(value: &'a Value, name: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    let inside: Vec<&Value> = match value {
        Value::Object(map) => match map.get(name) {
            Some(found) => return found,
            None => map.values().collect(),
        },
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    (inside.into_iter().map(|value| find(value, name)))
        .find(|found| !found.is_null())
        .unwrap_or(NOTHING)
}

/// What each turn computed, for people who look into a failure.
fn table(ran: &ToolLoop) -> String {
    (0..ran.turns.len())
        .map(|turn| {
            let cost = &ran.turns[turn];
            format!(
                "\n{turn}: prompt {} new {} prefilled {} first {:.2?} whole {:.2?}",
                cost.prompt,
                ran.new_in(turn),
                cost.prefilled,
                cost.first,
                cost.whole
            )
        })
        .collect()
}

/// Not a test: the table of `docs/performance.md`. Run by `benches/bench-turns.sh`.
#[test]
#[ignore = "a measurement, of minutes"]
fn bench_turns() {
    let names = std::env::var("CCLOCAL_BENCH_TURNS")
        .unwrap_or_else(|_| "gemma4_e gemma4_moe glm4_moe_lite qwen3_moe qwen3_5 qwen2".to_owned());
    let names: Vec<&str> = names.split(' ').collect();
    let stage = stage(&names);
    println!(
        "| layout | prompt of turn 20 | tokens computed for each new one | the same with the scripts' flags | first token of turn 20 | the scripts' | 20 turns | the scripts' |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for name in names {
        let (ours, _) = turns(&stage, name, CLIENTS, 20, &[]);
        let theirs = turns_of_the_scripts(&stage, name, 20);
        let of = |part: std::time::Duration, whole: std::time::Duration| {
            part.as_secs_f64() / whole.as_secs_f64()
        };
        println!(
            "| {name} | {} | {:.2} | {:.2} | {:.2} s, {:.2} of it | {:.2} s | {:.1} s, {:.2} of it | {:.1} s |",
            ours.last().prompt,
            ours.ratio(),
            theirs.ratio(),
            ours.last().first.as_secs_f64(),
            of(ours.last().first, theirs.last().first),
            theirs.last().first.as_secs_f64(),
            ours.total().as_secs_f64(),
            of(ours.total(), theirs.total()),
            theirs.total().as_secs_f64(),
        );
        if std::env::var("CCLOCAL_BENCH_TABLES").is_ok() {
            println!("ours:{}\nthe scripts':{}", table(&ours), table(&theirs));
        }
    }
}
