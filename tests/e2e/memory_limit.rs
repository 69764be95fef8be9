//! Conversations that take more than the memory that their engine may hold: what is kept of earlier ones is dropped before, and every turn succeeds.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cclocal::catalog::{Choice, EngineProfile, Form, ModelArgument, resolve};
use cclocal::engine::argv::{CacheLimit, Serve};
use cclocal::engine::flags::Flags;
use cclocal::engine::server::BASE_URL;
use cclocal::memory::{ContextWindow, WIDE_WINDOW, smallest_window};
use cclocal::supervisor::Lease;
use cclocal::supervisor::spec::{Port, Spec};
use cclocal::sys::environment::Environment;
use cclocal::sys::paths::Paths;
use cclocal::sys::secret::Secret;
use serde_json::Value;

use crate::real::free_port;
use crate::support::{HANG, Stage};
use crate::tool_loop::ToolLoop;
use crate::turns;

/// As cclocal starts the engine for a model whose cache can be cut back, with a prefix cache that has no bound of its own to speak of.
const FLAGS: &str = "--continuous-batching --max-num-seqs 1 --cache-memory-mb 4096 --prefill-step-size 512 --stream-interval 4 --max-tokens 1024 --enable-auto-tool-choice --tool-call-parser hermes";

/// A conversation of it takes more than a step of reading one.
const MODEL: &str = "qwen2_deep";

/// In bytes: enough for the loop's first turns, and not for the window.
const FEW_TURNS: u64 = 55_000_000;

/// How many conversations there are, one after the other. An entry is kept of each.
const CONVERSATIONS: usize = 3;

/// How many turns each has: before the first reminder, which the engine by itself puts at the front of the prompt.
const TURNS: usize = 3;

/// What a loop took.
#[derive(Debug)]
struct Taken {
    /// What was held before the first request.
    base: u64,
    /// The most that was held.
    peak: u64,
    /// Entries of the prefix cache that were dropped.
    dropped: u64,
    prompts: Vec<u64>,
    /// Tokens that were computed, in all turns.
    prefilled: u64,
    log: String,
}

#[test]
fn memory_stays_below_the_limit_that_it_would_exceed() {
    let stage = turns::stage(&[MODEL]);
    let free = run(&stage, None, CONVERSATIONS);
    assert_eq!(free.dropped, 0, "{free:?}");
    assert!(!free.log.contains("[memory]"), "{}", free.log);
    // Two entries of three conversations take nearly half of what is held beside the weights.
    let limit = free.base + (free.peak - free.base) / 100 * 65;
    let bound = run(&stage, Some(limit), CONVERSATIONS);
    println!(
        "base {}, peak {} without a limit, {} with a limit of {limit}; {} entries dropped; {} of {} tokens prefilled",
        free.base, free.peak, bound.peak, bound.dropped, bound.prefilled, free.prefilled
    );
    assert!(free.peak > limit);
    assert!(bound.peak <= limit, "{bound:?}");
    assert!(bound.dropped > 0, "{bound:?}");
    // They are the same conversations to their end, and no turn computes what the one before has computed: the newest entries stay.
    assert_eq!(bound.prompts, free.prompts);
    assert_eq!(bound.prefilled, free.prefilled);
}

#[test]
fn weights_that_exceed_the_limit_change_nothing() {
    let stage = turns::stage(&[MODEL]);
    let ran = run(&stage, Some(1_000_000), 1);
    assert_eq!(ran.dropped, 0, "{ran:?}");
    assert!(ran.log.contains("memory is not watched"), "{}", ran.log);
}

/// A conversation whose growth says that its window will not fit.
#[test]
fn a_window_that_does_not_fit_is_narrowed_by_the_supervisor() {
    const OUTPUT: u64 = 1_024;
    let stage = turns::stage(&[MODEL]);
    let home = stage.path("cclocal").display().to_string();
    let host = Environment::for_tests(&stage.path("home"), &[("CCLOCAL_HOME", &home)]);
    let paths = Paths::of(&host);
    let port: u16 = free_port().parse().expect("a port");
    let mut supervisor = stage
        .command(&["supervisor"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let text = serde_json::to_string(&spec(&stage, port, OUTPUT)).expect("JSON");
    let mut pipe = supervisor.stdin.take().expect("a pipe");
    pipe.write_all(text.as_bytes()).expect("written");
    drop(pipe);
    let mut said = String::new();
    let stdout = supervisor.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut said).expect("read");
    assert!(said.contains("running"), "{said}");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let lease = runtime.block_on(Lease::take(&paths, port, Duration::ZERO, None));
    let mut lease = lease.expect("an answer").expect("a lease");
    let url = format!("http://127.0.0.1:{port}");
    ToolLoop::new(&url, &lease.granted.token, MODEL).run(2, &[]);
    let since = Instant::now();
    let smallest = smallest_window(OUTPUT);
    loop {
        let said = stage.run(&["status", "--json"]).stdout;
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let status = &said[0];
        if status["memory"]["narrowed_from"] == WIDE_WINDOW {
            assert_eq!(status["context_window"], smallest, "{status}");
            println!("{}", status["memory"]);
            break;
        }
        assert!(since.elapsed() < HANG, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = stage.read(&format!("cclocal/state/server-{port}.log"));
    assert!(
        log.contains("[memory]") && log.contains("prompts are read in steps of"),
        "{log}"
    );
    let farewell = runtime.block_on(lease.leave(Duration::ZERO));
    assert_eq!(farewell.expect("a word").narrowed, Some(smallest));
    runtime.block_on(lease.gone());
    assert!(supervisor.wait().expect("ended").success());
}

/// An engine that may hold what a turn of the loop takes, but not its window.
fn spec(stage: &Stage, port: u16, output: u64) -> Spec {
    let folder = stage.path("models").join(MODEL);
    let choice = Choice::Argument(ModelArgument::Folder(folder));
    let mut model = resolve(&choice, None).expect("a model");
    model.served_name = MODEL.into();
    model.form = Some(Form::Hermes);
    model.engine_profile = EngineProfile::Batched;
    Spec {
        port: Port::Exactly(port),
        engine: turns::engine(stage),
        // As with FLAGS.
        serve: Serve {
            model,
            window: ContextWindow {
                tokens: WIDE_WINDOW,
                output,
            },
            step: 512,
            cache: CacheLimit::Planned(4_096),
            complete: true,
            hub_is_silent: false,
            flags: Flags::of_pinned_engine(),
            text_models: stage.path("text-models"),
            kept_prefixes: None,
        },
        cached_bytes: 0,
        download: None,
        weights: None,
        claim: None,
        cache_bytes_per_token: 0,
        kept_bytes_per_token: 0,
        memory_limit: Some(FEW_TURNS),
        hub_tokens: Default::default(),
        log: None,
    }
}

/// Runs conversations on an engine that may hold this much, in bytes.
fn run(stage: &Stage, limit: Option<u64>, conversations: usize) -> Taken {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let key = Secret::random().expect("a key");
    let limit = limit.map(|bytes| ("CCLOCAL_MEMORY_LIMIT", bytes.to_string()));
    let mut server = turns::serve(stage, &runtime, &key, MODEL, FLAGS, limit.as_slice());
    let client = cclocal::gateway::client_on(server.socket()).expect("a client");
    let ask = || -> Value {
        let request = client.get(format!("{BASE_URL}/cclocal/memory"));
        runtime.block_on(async {
            let answer = request.bearer_auth(key.expose()).send().await;
            let answer = answer.expect("an answer").error_for_status();
            answer.expect("allowed").json().await.expect("figures")
        })
    };
    let (mut peak, mut turns) = (0, Vec::new());
    for conversation in 0..conversations {
        let mut grows = ToolLoop::on(&server, key.expose(), MODEL);
        grows.change(|request| {
            let said = format!("{conversation} is the number of this conversation.");
            request["messages"][0]["content"][0]["text"] = said.into();
        });
        for _ in 0..TURNS {
            grows.run(1, &[]);
            peak = peak.max(ask()["peak"].as_u64().expect("a figure"));
        }
        turns.append(&mut grows.turns);
    }
    let said = ask();
    let figure = |name: &str| said[name].as_u64().expect("a figure");
    let taken = Taken {
        base: figure("base"),
        peak,
        dropped: figure("dropped"),
        prompts: turns.iter().map(|turn| turn.prompt).collect(),
        prefilled: turns.iter().map(|turn| turn.prefilled).sum(),
        log: stage.read("engine.log"),
    };
    runtime.block_on(async {
        server.ask_to_end();
        server.ended().await
    });
    taken
}
