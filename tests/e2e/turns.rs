//! What a turn computes: only what is new, whatever the model's architecture.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use cclocal::engine::executable::Executable;
use cclocal::engine::server::{Launch, Server};
use cclocal::host::Host;
use cclocal::machine::port;
use cclocal::paths::Paths;
use cclocal::secret::Secret;
use cclocal::supervisor::record;
use nix::sys::signal::Signal;

use crate::real::{self, free_port};
use crate::support::{Stage, finish, signal};
use crate::tool_loop::ToolLoop;

/// The flags of the scripts that cclocal replaces, where this engine has them. Source: their README, "Server flags".
const SCRIPTS_FLAGS: &str = "--max-tokens 32768 --kv-cache-quantization --cache-memory-percent 0.35 --prefill-step-size 4096 --stream-interval 4 --timeout 600 --enable-auto-tool-choice --tool-call-parser auto";

/// A stage with tiny models of these architectures, in `models`.
fn stage(names: &[&str]) -> Stage {
    let stage = real::stage(&real::client());
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/models");
    let made = Command::new(engine(&stage).python)
        .arg(models.join("turn_models.py"))
        .arg(stage.path("models"))
        .args(names)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("run");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    stage
}

fn engine(stage: &Stage) -> Executable {
    let script = std::path::PathBuf::from(&stage.env()["CCLOCAL_ENGINE"]);
    Executable {
        python: script.with_file_name("python"),
        script,
    }
}

/// A server of cclocal's, with the gateway before the engine.
struct Gateway {
    child: Child,
    url: String,
    key: String,
    port: u16,
}

impl Gateway {
    fn start(stage: &Stage, model: &str, more: &[&str]) -> Self {
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
        let key = std::fs::read_to_string(record::key_file(&paths(stage), port)).expect("the key");
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            key: key.trim().to_owned(),
            port,
        }
    }

    fn tool_loop(&self, model: &str) -> ToolLoop {
        ToolLoop::new(&self.url, &self.key, model)
    }

    fn log(&self, stage: &Stage) -> String {
        stage.read(&format!("cclocal/state/server-{}.log", self.port))
    }

    fn end(self) {
        signal(&self.child, Signal::SIGINT);
        let ran = finish(self.child);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
}

fn paths(stage: &Stage) -> Paths {
    let home = stage.path("cclocal").display().to_string();
    Paths::of(&Host::for_tests(
        &stage.path("home"),
        &[("CCLOCAL_HOME", &home)],
    ))
}

/// Turns through cclocal.
fn turns(
    stage: &Stage,
    name: &str,
    more: &[&str],
    turns: usize,
    questions: &[usize],
) -> (ToolLoop, String) {
    let gateway = Gateway::start(stage, &format!("../models/{name}"), more);
    let mut ran = gateway.tool_loop(name);
    ran.run(turns, questions);
    let log = gateway.log(stage);
    gateway.end();
    (ran, log)
}

/// Turns with the scripts' flags, on the engine itself.
fn turns_of_the_scripts(stage: &Stage, name: &str, turns: usize, questions: &[usize]) -> ToolLoop {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let port = port::any_free().expect("a port");
    let model = stage.path("models").join(name).display().to_string();
    let mut argv = vec!["serve".to_owned(), model];
    argv.extend(
        [
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--served-model-name",
            name,
        ]
        .map(str::to_owned),
    );
    argv.extend(SCRIPTS_FLAGS.split(' ').map(str::to_owned));
    let key = Secret::random().expect("a key");
    let mut env: BTreeMap<_, _> = stage
        .env()
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    env.insert("VLLM_MLX_ENABLE_THINKING".into(), "false".into());
    env.insert("HF_HUB_OFFLINE".into(), "1".into());
    // Its process is watched from the runtime.
    let mut server = runtime.block_on(async {
        let mut server = Server::start(Launch {
            executable: &engine(stage),
            argv: &argv,
            env,
            key: Some(&key),
            folder: &stage.path("tmp"),
            log: stage.path("scripts.log"),
            port,
            served_name: name.into(),
        })
        .expect("started");
        server.ready().await.expect("ready");
        server
    });
    let mut ran = ToolLoop::new(&format!("http://127.0.0.1:{port}"), key.expose(), name);
    ran.run(turns, questions);
    runtime.block_on(async {
        server.ask_to_end();
        server.ended().await
    });
    ran
}

fn only_what_is_new(name: &str) {
    let stage = stage(&[name]);
    let (ran, _) = turns(&stage, name, &[], 20, &[]);
    assert!(ran.ratio() <= 1.05, "{}: {}", ran.ratio(), table(&ran));
}

#[test]
fn turns_of_qwen2_compute_only_what_is_new() {
    only_what_is_new("qwen2");
}

#[test]
fn turns_of_qwen3_moe_compute_only_what_is_new() {
    only_what_is_new("qwen3_moe");
}

#[test]
fn turns_of_glm4_moe_lite_compute_only_what_is_new() {
    only_what_is_new("glm4_moe_lite");
}

/// The text route: no turn computes more than the step between snapshots beside what is new, whatever the template ends a prompt with.
fn text_route(name: &str, questions: &[usize]) -> ToolLoop {
    let stage = stage(&[name]);
    let (ran, log) = turns(&stage, name, &[], 20, questions);
    assert!(log.contains("Model route: LLM"), "{log:.3000}");
    assert!(ran.most_beyond_new() <= 512, "{}", table(&ran));
    ran
}

#[test]
fn turns_of_gemma4_e_take_the_text_route() {
    text_route("gemma4_e", &[7, 13]);
}

#[test]
fn turns_of_gemma4_moe_take_the_text_route() {
    text_route("gemma4_moe", &[7, 13]);
}

#[test]
fn turns_of_qwen3_5_take_the_text_route() {
    text_route("qwen3_5", &[]);
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

/// Not a test: the table of `docs/performance.md`. Run by `scripts/bench-turns.sh`.
#[test]
#[ignore = "a measurement, of minutes"]
fn bench_turns() {
    let names = [
        "gemma4_e",
        "gemma4_moe",
        "glm4_moe_lite",
        "qwen3_moe",
        "qwen3_5",
        "qwen2",
    ];
    let stage = stage(&names);
    println!(
        "| architecture | prompt at turn 20 | prefilled / new | the scripts' flags | first token of turn 20 | the scripts' flags | total of 20 turns | the scripts' flags |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for name in names {
        let (ours, _) = turns(&stage, name, &[], 20, &[]);
        let theirs = turns_of_the_scripts(&stage, name, 20, &[]);
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
        if std::env::var("CCLOCAL_BENCH_TURNS").is_ok() {
            println!("ours:{}\nthe scripts':{}", table(&ours), table(&theirs));
        }
    }
}
