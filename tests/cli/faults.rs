//! What goes wrong, said in words: message, cause, hint, and the right status.

use std::net::TcpListener;

use crate::fakes;
use crate::support::{Ran, Stage, finish, free_port};

fn said(stage: &Stage, ran: &Ran) -> String {
    stage
        .filtered(&ran.stderr)
        .lines()
        .filter(|line| !line.starts_with("loading "))
        .map(|line| line.replace(&std::process::id().to_string(), "[PID]") + "\n")
        .collect()
}

#[test]
fn the_engine_is_missing() {
    let stage = Stage::bare();
    let ran = stage.run(&["--gemma"]);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: the engine is not installed
      hint: run `cclocal setup`; it changes nothing outside cclocal's own folder
    ");
}

#[test]
fn a_named_engine_is_not_one() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_ENGINE", "/nowhere/vllm-mlx");
    let ran = stage.run(&["--gemma"]);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: CCLOCAL_ENGINE=/nowhere/vllm-mlx cannot be used
      cause: there is no such file
      hint: point it at a vllm-mlx executable, or unset it to use cclocal's own engine
    ");
    let binary = stage.script("vllm-mlx", "#!/bin/sh\necho hello\n");
    stage.set("CCLOCAL_ENGINE", binary.display().to_string());
    let ran = stage.run(&["--gemma"]);
    assert_eq!(ran.status, 10);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: CCLOCAL_ENGINE=[STAGE]/bin/vllm-mlx cannot be used
      cause: it is not a Python script, as every installed vllm-mlx is
      hint: point it at a vllm-mlx executable, or unset it to use cclocal's own engine
    ");
}

#[test]
fn the_client_is_missing() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_CLAUDE", "");
    std::fs::remove_file(stage.path("bin/claude")).expect("removed");
    stage.set(
        "PATH",
        format!("{}:/usr/bin:/bin", stage.path("bin").display()),
    );
    stage.script("npm", "#!/bin/sh\nexit 1\n");
    let ran = stage.run(&["--model", "../model"]);
    assert_eq!(ran.status, 11, "{}", ran.stderr);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: Claude Code is not installed
      cause: there is no `claude` on PATH, in ~/.local/bin or in ~/.claude/local
      | curl -fsSL https://claude.ai/install.sh | bash
      | brew install --cask claude-code
      | npm install -g @anthropic-ai/claude-code
      hint: install it in one of these ways and run this again, or let `cclocal setup --client` do it with npm
    ");
    assert_eq!(
        stage.read("engine/pid"),
        "",
        "the engine was started for nobody"
    );
}

#[test]
fn a_named_client_is_not_there() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_CLAUDE", "no-such-claude");
    let ran = stage.run(&["--model", "../model"]);
    assert_eq!(ran.status, 11);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: CCLOCAL_CLAUDE=no-such-claude cannot be used
      cause: there is no such executable
      hint: point it at a claude executable, or unset it to use the one on PATH
    ");
}

#[test]
fn the_port_is_somebody_elses() {
    let stage = fakes::stage();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let ran = stage.run(&["--model", "../model", "--port", &port.to_string()]);
    assert_eq!(ran.status, 13, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains(&format!("(process {})", std::process::id())),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("take a free port: --port "),
        "{}",
        ran.stderr
    );
    assert_eq!(stage.read("engine/pid"), "", "the engine was started");
    drop(listener);
}

#[test]
fn on_a_mac_lsof_names_who_has_the_port() {
    let stage = fakes::stage();
    stage.script(
        "lsof",
        "#!/bin/sh\ncase \"$*\" in *-sTCP:LISTEN*) printf 'p4242\\ncsome-server\\nf3\\n';; esac\n",
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let ran = stage.run(&["--model", "../model", "--port", &port.to_string()]);
    assert_eq!(ran.status, 13, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("some-server (process 4242) listens there"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_port_is_another_models_of_ours() {
    let mut stage = fakes::stage();
    fakes::client(
        &mut stage,
        "while [ ! -e \"$HOME/go-on\" ]; do sleep 0.05; done",
    );
    let port = free_port();
    let first = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    fakes::other_model(&stage);
    let ran = stage.run(&["--model", "../other", "--port", &port]);
    assert_eq!(ran.status, 13, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("serves model there") && ran.stderr.contains("cclocal stop"),
        "{}",
        ran.stderr
    );
    stage.write("home/go-on", "yes");
    assert_eq!(finish(first).status, 0, "the first session was disturbed");
}

#[test]
fn the_engine_does_not_start() {
    for (words, status) in [
        (
            "huggingface_hub.errors.GatedRepoError: Cannot access gated repo",
            15,
        ),
        ("Repository Not Found for url: https://huggingface.co/x", 15),
        ("ValueError: Model type foo not supported.", 14),
        ("OSError: [Errno 28] No space left on device", 12),
        ("something nobody has seen before", 14),
    ] {
        let stage = fakes::stage();
        stage.write("engine/die-before", words);
        let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
        assert_eq!(ran.status, status, "{words}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("| {words}")), "{}", ran.stderr);
        assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
        assert_eq!(stage.read("client/pid"), "");
    }
}

#[test]
fn the_engine_dies_under_the_client() {
    let mut stage = fakes::stage();
    stage.write("engine/die-after", "yes");
    let now = stage.path("engine/die-now");
    fakes::client(
        &mut stage,
        &format!("touch '{}'; while :; do sleep 0.05; done", now.display()),
    );
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the GPU ran out of memory"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("-- --continue"), "{}", ran.stderr);
}

#[test]
fn an_engine_without_a_flag_that_matters() {
    let stage = fakes::stage();
    let ran = stage.run(&["--coder", "--dry-run"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    // Not remembered yet, so the pinned engine's flags are assumed; a launch asks this one.
    assert!(ran.stdout.contains("--prefill-step-size"), "{}", ran.stdout);
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!stage.read("engine/args").contains("--prefill-step-size"));
    let ran = stage.run(&["--coder", "--dry-run"]);
    assert!(
        !ran.stdout.contains("--prefill-step-size"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_is_kept_cannot_be_removed() {
    let stage = fakes::stage();
    stage.write("cclocal/cache/prefixes", "no folder");
    let port = free_port();
    let args = ["--model", "../model", "--port", &port, "--forget-prefix"];
    let ran = stage.run(&args);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(said(&stage, &ran), @"
    error: the stored system prompts could not be removed
      cause: failed to remove directory `[STAGE]/cclocal/cache/prefixes`: Not a directory (os error 20)
      hint: remove it by hand: rm -r [STAGE]/cclocal/cache/prefixes
    ");
}

#[test]
fn what_is_kept_is_removed_before_anything_is_started() {
    let stage = fakes::stage();
    stage.write(
        "cclocal/cache/prefixes/models--org--name/old.safetensors",
        "x",
    );
    let port = free_port();
    let args = ["--model", "../model", "--port", &port, "--forget-prefix"];
    let ran = stage.run(&args);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!stage.path("cclocal/cache/prefixes").exists());
}
