//! The plan of memory decides: on a Mac of fakes, with folders that have the configurations of real models.

use cclocal::memory::architecture;
use serde_json::Value;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Ran, Stage, finish, free_port};

const GEMMA: &str = "mlx-community/gemma-4-26b-a4b-it-4bit";
const CODER: &str = "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit";

/// A Mac of this much RAM (GiB), and a model in `model` with this one's configuration and weights of so many bytes.
fn stage(ram_gib: u64, id: &str, weights: u64) -> Stage {
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, ram_gib);
    stage.write("sudo", "yes");
    model(&stage, "model", id, weights);
    stage
}

fn model(stage: &Stage, folder: &str, id: &str, weights: u64) {
    let mut config = architecture::known(id).expect("known").config.clone();
    if id == GEMMA {
        config["model_type"] = "gemma4".into();
    }
    stage.write(&format!("{folder}/config.json"), &config.to_string());
    stage.write(&format!("{folder}/tokenizer.json"), "{}");
    stage.write(&format!("{folder}/chat_template.jinja"), fakes::TEMPLATE);
    let file = stage.write(&format!("{folder}/model.safetensors"), "");
    let file = std::fs::File::options().write(true).open(file);
    file.expect("open").set_len(weights).expect("its size");
}

/// 24 GB and a Gemma-4 that does not fit within three quarters of it.
fn too_tight() -> Stage {
    stage(24, GEMMA, 17_800_000_000)
}

fn run(stage: &Stage, rest: &[&str]) -> Ran {
    let port = free_port();
    let mut args = vec!["--model", "../model", "--port", &port];
    args.extend(rest);
    stage.run(&args)
}

fn launch(stage: &Stage, rest: &[&str]) -> Terminal {
    let port = free_port();
    let mut args = vec!["--model", "../model", "--port", &port];
    args.extend(rest);
    Terminal::run(stage, &args, 80, 30)
}

/// What Claude Code was told of the window and of replies.
fn told(stage: &Stage) -> (String, String) {
    let env = stage.read("client/env");
    let value = |name: &str| {
        let line = env.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix('='))
            .unwrap_or("none")
            .to_owned()
    };
    (
        fakes::real_window(&value("CLAUDE_CODE_MAX_CONTEXT_TOKENS")),
        value("CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
    )
}

fn error(text: &str) -> String {
    text[text.find("error: ").expect("an error")..].to_owned()
}

/// The report of a dry run.
fn report(stage: &Stage, rest: &[&str]) -> Value {
    let ran = stage.run(&[&["--model", "../model", "--dry-run", "--json"], rest].concat());
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr))
}

/// The value of a flag of the engine's.
fn flag(report: &Value, flag: &str) -> Option<String> {
    let argv = report["engine"]["argv"].as_array().expect("words");
    let at = argv.iter().position(|word| word == flag)?;
    argv[at + 1].as_str().map(str::to_owned)
}

#[test]
fn a_model_that_needs_the_limit_raised_says_what_it_would_get() {
    let stage = too_tight();
    let mut terminal = launch(&stage, &[]);
    let screen = terminal.wait_for("Quit");
    insta::assert_snapshot!(screen, @"
    Memory for model: 18.0 GB, 75 % of RAM, a rule of thumb
      [###################################################################==|++~e]
      # weights         16.6 GB
      = conversation     666 MB  22,980 tokens
      + prefix cache     640 MB  what is kept beside the conversation
      ~ working memory   220 MB  reading a prompt, 64 tokens at a time
      e engine           257 MB  the process itself
      | over by          1.2 GB
    Enter choose · q quit · ↑↓ j k move
    > Raise the GPU limit  none → 53k tokens (recommended)
                           0 → 21504 MiB, with sudo, until the session ends
      Start it anyway      (risky: the engine may crash)
      Quit
    ");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert_eq!(stage.read("wired"), "0\n", "it is put back");
    assert!(
        stage
            .read("sudo-log")
            .contains("iogpu.wired_limit_mb=21504")
    );
    let raised = report(&stage, &[])["memory_raised"]["plan"]["context_window"].clone();
    assert_eq!(told(&stage).0, raised.to_string());
}

#[test]
fn a_limit_that_cannot_be_raised_leaves_a_try_and_the_way_out() {
    let stage = too_tight();
    stage.write("sudo", "no");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    terminal.wait_for("to raise it by hand: sudo sysctl iogpu.wired_limit_mb=21504");
    terminal.wait_for("> Quit");
    terminal.keys("k\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(told(&stage), ("22980".into(), "4096".into()));
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    assert!(terminal.text().ends_with("Nothing was started."));
}

#[test]
fn off_a_terminal_it_is_refused_with_the_arithmetic_and_what_helps() {
    let stage = too_tight();
    let ran = run(&stage, &[]);
    assert_eq!(ran.status, 12);
    insta::assert_snapshot!(ran.stderr, @"
    error: model does not fit in memory
      cause: it needs 18.3 GB even with a window of 22,980 tokens, and 17.1 GB are available: 16.6 GB for its weights, 666 MB for a conversation, 640 MB for the prefix cache, 220 MB for reading a prompt and for copies, 257 MB for the engine itself
      hint: with the GPU limit raised it gets 54,272 tokens: cclocal offers that on a terminal, or sudo sysctl iogpu.wired_limit_mb=21504 until the next restart; cclocal --gemma fits, with a window of 40,960 tokens; --no-mem-check tries it anyway
    ");
    assert_eq!(stage.read("engine/pid"), "");
    assert_eq!(stage.read("sudo-log"), "", "nobody could be asked");
}

#[test]
fn a_model_that_nothing_helps_is_refused_without_a_question() {
    let stage = stage(16, CODER, 17_200_000_000);
    let mut terminal = launch(&stage, &[]);
    assert_eq!(terminal.end(), 12);
    assert!(!terminal.text().contains("Choose"), "{}", terminal.text());
    let ran = run(&stage, &[]);
    insta::assert_snapshot!(error(&ran.stderr), @"
    error: model does not fit in memory
      cause: it needs 18.7 GB even with a window of 22,980 tokens, and 11.4 GB are available: 16.0 GB for its weights, 2.1 GB for a conversation, 192 MB for the prefix cache, 91 MB for reading a prompt and for copies, 257 MB for the engine itself
      hint: cclocal --gemma-light fits, with a window of 131,072 tokens; --no-mem-check tries it anyway
    ");
}

#[test]
fn without_the_check_it_is_tried_in_the_thriftiest_way() {
    let stage = too_tight();
    // Before the fake engine is asked, which has few flags.
    let report = report(&stage, &["--no-mem-check"]);
    assert_eq!(flag(&report, "--prefill-step-size").as_deref(), Some("64"));
    assert_eq!(flag(&report, "--max-tokens").as_deref(), Some("4096"));
    let ran = run(&stage, &["--no-mem-check"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let said =
        " with a window of 22,980 tokens, and 17.1 GB are available: it may run out of memory";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert_eq!(told(&stage), ("22980".into(), "4096".into()));
    let ran = run(&stage, &["--no-mem-check", "--ctx", "60000"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(told(&stage), ("60000".into(), "8192".into()));
}

#[test]
fn a_window_that_was_asked_for_and_does_not_fit_is_refused_and_one_that_was_never_made_for_it_too()
{
    let stage = stage(29, CODER, 17_200_000_000);
    let ran = run(&stage, &["--ctx", "100000"]);
    assert_eq!(ran.status, 12);
    insta::assert_snapshot!(error(&ran.stderr), @"
    error: model does not fit in memory with a window of 100,000 tokens
      cause: 43,008 tokens do
      hint: take --ctx 43008; --no-mem-check tries it anyway
    ");
    // With the limit raised this one fits.
    let ran = run(&stage, &["--ctx", "60000"]);
    assert_eq!(ran.status, 12);
    insta::assert_snapshot!(error(&ran.stderr), @"
    error: model does not fit in memory with a window of 60,000 tokens
      cause: 43,008 tokens do
      hint: take --ctx 43008; with the GPU limit raised it fits: cclocal offers that on a terminal, or sudo sysctl iogpu.wired_limit_mb=26624 until the next restart
    ");
    let mut terminal = launch(&stage, &["--ctx", "60000"]);
    terminal.wait_for("> Raise the GPU limit  none → 58k tokens (recommended)");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(told(&stage), ("60000".into(), "8192".into()));
    for checked in [&[][..], &["--no-mem-check"]] {
        let ran = run(&stage, &[checked, &["--ctx", "300000"]].concat());
        assert_eq!(ran.status, 2);
        assert!(
            ran.stderr
                .contains("has a context window of 262,144 tokens at most"),
            "{}",
            ran.stderr
        );
    }
    let ran = run(&stage, &["--ctx", "26000", "--out-tokens", "8000"]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(error(&ran.stderr), @"
    error: replies of 8000 tokens leave no room in a window of 26000 tokens
      cause: a session needs 18,884 tokens beside its longest reply: for Claude Code's first request, some work, and a summary when the window is full
      hint: take --out-tokens 7116 or less, or --ctx 26884 or more
    ");
}

#[test]
fn a_small_window_is_gone_on_with_by_enter_and_the_other_choices_say_what_they_give() {
    let stage = stage(29, CODER, 17_200_000_000);
    let mut terminal = launch(&stage, &[]);
    let screen = terminal.wait_for("Quit");
    insta::assert_snapshot!(screen, @"
    Memory for model: 21.8 GB, 75 % of RAM, a rule of thumb
      [#######################################################=============+e....]
      # weights         16.0 GB
      = conversation     4.0 GB  43,008 tokens
      + prefix cache     192 MB  what is kept beside the conversation
      ~ working memory   199 MB  reading a prompt, 256 tokens at a time
      e engine           257 MB  the process itself
      . free             1.1 GB
    Enter choose · q quit · ↑↓ j k move
      Smaller window       42k → 32k tokens: leaves 985 MB more to other programs
      Raise the GPU limit  42k → 83k tokens
                           0 → 26624 MiB, with sudo, until the session ends
    > Go on                42k tokens (recommended)
      Quit
    ");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0);
    let (window, _) = told(&stage);
    assert_eq!(
        report(&stage, &[])["memory_plan"]["context_window"].to_string(),
        window
    );
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.text().contains("error:"), "{}", terminal.text());
}

#[test]
fn with_room_nothing_is_asked_and_the_picture_is_there_for_who_wants_it() {
    let stage = stage(48, CODER, 17_200_000_000);
    let mut terminal = launch(&stage, &[]);
    assert_eq!(terminal.end(), 0);
    assert!(
        !terminal.text().contains("Memory for"),
        "{}",
        terminal.text()
    );
    let mut terminal = launch(&stage, &["--safe"]);
    let screen = terminal.wait_for("Quit");
    insta::assert_snapshot!(screen, @"
    Memory for model: 36.0 GB, 75 % of RAM, a rule of thumb
      [#################################===================================~~....]
      # weights         16.0 GB
      = conversation    17.0 GB  185,344 tokens
      + prefix cache     192 MB  what is kept beside the conversation
      ~ working memory   729 MB  reading a prompt, 512 tokens at a time
      e engine           257 MB  the process itself
      . free             1.8 GB
    Enter choose · q quit · ↑↓ j k move
      Smaller window       181k → 32k tokens: leaves 14.4 GB more to other programs
      Raise the GPU limit  181k → 195k tokens
                           0 → 46080 MiB, with sudo, until the session ends
    > Go on                181k tokens (recommended)
      Quit
    ");
    terminal.keys("kk\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(told(&stage).0, "32768");
    let ran = run(&stage, &["--safe"]);
    assert_eq!(ran.status, 0, "nobody can be asked: {}", ran.stderr);
    assert!(ran.stderr.contains("Memory for model: 36.0 GB"));
}

#[test]
fn a_dry_run_shows_the_picture_and_reports_the_choices() {
    let stage = too_tight();
    let ran = stage.run(&["--model", "../model", "--dry-run"]);
    let from = ran.stdout.find("Memory for").expect("the picture");
    let to = ran.stdout.find("\nengine\n").expect("the engine");
    insta::assert_snapshot!(&ran.stdout[from..to], @"
    Memory for model: 18.0 GB, 75 % of RAM, a rule of thumb
      [###################################################################==|++~e]
      # weights         16.6 GB
      = conversation     666 MB  22,980 tokens
      + prefix cache     640 MB  what is kept beside the conversation
      ~ working memory   220 MB  reading a prompt, 64 tokens at a time
      e engine           257 MB  the process itself
      | over by          1.2 GB
    ");
    let said =
        "note: on a terminal, a real run asks whether to raise the GPU limit, for a window of ";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
    assert!(ran.stdout.contains("; without a terminal it is refused"));
    let report = report(&stage, &[]);
    assert_eq!(report["memory_plan"]["refused"]["memory"]["window"], 22_980);
    assert_eq!(report["memory_plan"]["instead"]["flag"], "--gemma");
    assert_eq!(report["memory_raised"]["to_mib"], 21_504);
    assert!(report["memory_raised"]["plan"]["context_window"].as_u64() > Some(22_980));
    assert_eq!(report["memory_smaller"], Value::Null);
}

#[test]
fn the_engine_is_told_what_is_planned() {
    let stage = stage(48, CODER, 17_200_000_000);
    for rest in [&[][..], &["--out-tokens", "12000"], &["--ctx", "40000"]] {
        let report = report(&stage, rest);
        let plan = &report["memory_plan"];
        for (name, key) in [
            ("--cache-memory-mb", "cache_memory_mb"),
            ("--prefill-step-size", "prefill_step"),
            ("--max-tokens", "output_tokens"),
        ] {
            assert_eq!(flag(&report, name), Some(plan[key].to_string()), "{name}");
        }
        let env = |name: &str| report["claude"]["env"][name].as_str().unwrap_or_default();
        assert_eq!(
            fakes::real_window(env("CLAUDE_CODE_MAX_CONTEXT_TOKENS")),
            plan["context_window"].to_string()
        );
        assert_eq!(
            env("CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
            plan["output_tokens"].to_string()
        );
        assert_eq!(report["memory"]["context_window"], plan["context_window"]);
    }
}

/// Beside one that is used, the next has what the first does not claim: its plan, not a guess.
#[test]
fn what_an_engine_claims_is_what_was_planned_for_it() {
    let mut stage = stage(96, CODER, 17_200_000_000);
    model(&stage, "other", GEMMA, 16_000_000_000);
    fakes::staying_client(&mut stage);
    let port = free_port();
    let first = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    let planned = report(&stage, &[])["memory_plan"].clone();
    let shares = &planned["shares"];
    let bytes = |name: &str| shares[name].as_u64().expect("bytes");
    let moment = bytes("copies").max(bytes("working"));
    let taken =
        bytes("weights") + bytes("conversation") + bytes("prefix_cache") + bytes("engine") + moment;
    let ran = stage.run(&["status", "--json"]);
    assert!(
        ran.stdout.contains(&format!("\"claim\": {taken}")),
        "{taken}: {}",
        ran.stdout
    );
    let mut terminal = Terminal::run(&stage, &["--model", "../other", "--safe"], 80, 40);
    let screen = terminal.wait_for("Quit");
    assert!(screen.contains("o others"), "{screen}");
    assert!(
        screen.contains(&format!(
            "{:.1} GB  loaded models",
            taken as f64 / f64::from(1 << 30)
        )),
        "{screen}"
    );
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    stage.write("home/go-on", "yes");
    assert_eq!(finish(first).status, 0);
}

/// One that is used stays, one that is not is ended where that gives room.
#[test]
fn a_model_without_room_beside_another_waits_for_its_end_or_ends_it() {
    let mut stage = stage(48, CODER, 17_200_000_000);
    model(&stage, "other", GEMMA, 16_000_000_000);
    fakes::staying_client(&mut stage);
    let port = free_port();
    let first = ["--model", "../model", "--port", &port, "--linger", "300"];
    let first = stage.start(&first);
    stage.wait_for("client/pid");
    let second = |rest: &[&str]| stage.run(&[&["--model", "../other"], rest].concat());
    let ran = second(&[]);
    assert_eq!(ran.status, 12, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("error: other does not fit in memory beside the models that are loaded"),
        "{}",
        ran.stderr
    );
    stage.write("home/go-on", "yes");
    assert_eq!(finish(first).status, 0);
    let ran = second(&["--linger", "0"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("note: stopping model ("),
        "{}",
        ran.stderr
    );
    stage.assert_nothing_left();
}
