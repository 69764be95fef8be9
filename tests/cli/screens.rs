//! The menu on a terminal of a real size: what a person sees, and what keys do.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Stage, free_port};

/// A stage with an engine, a client, and a Mac of this much RAM (GiB) whose GPU limit is not set.
fn mac(ram_gib: u64) -> Stage {
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, ram_gib);
    stage
}

/// Puts a catalogue model into the cache: whole, of this many bytes that take no space on the disk.
fn cached(stage: &Stage, id: &str, bytes: u64) {
    let folder = format!(
        "home/.cache/huggingface/hub/models--{}",
        id.replace('/', "--")
    );
    stage.write(&format!("{folder}/refs/main"), "abc");
    for (name, text) in [("config.json", "{}"), ("tokenizer.json", "{}")] {
        stage.write(&format!("{folder}/snapshots/abc/{name}"), text);
    }
    let blob = stage.write(&format!("{folder}/blobs/weights"), "");
    let file = std::fs::File::options().write(true).open(&blob);
    file.expect("open").set_len(bytes).expect("its size");
    std::os::unix::fs::symlink(
        "../../blobs/weights",
        stage.path(format!("{folder}/snapshots/abc/model.safetensors")),
    )
    .expect("linked");
}

const E4B: &str = "mlx-community/gemma-4-e4b-it-4bit";
const CODER: &str = "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit";

#[test]
fn the_menu_says_what_is_there_and_what_fits() {
    let stage = mac(24);
    cached(&stage, E4B, 5_180_000_000);
    stage.write(
        &format!(
            "home/.cache/huggingface/hub/models--{}/blobs/x.incomplete",
            CODER.replace('/', "--")
        ),
        &"x".repeat(3_000_000),
    );
    let mut terminal = Terminal::run(&stage, &[], 80, 24);
    let screen = terminal.wait_for("List models in the cache");
    insta::assert_snapshot!(screen, @"
    cclocal 0.1.0 · 18.0 GB for a model (75 % of RAM, a rule of thumb)
    Enter start · q quit · ↑↓ j k move
      MODEL                   SIZE   ON DISK           CONTEXT
    > Gemma-4-E4B           5.2 GB   yes               128k tokens
        --gemma-light · clean tool calls, the one to start with
      Gemma-4-26B-A4B      15.3 GB   not yet           ~40k tokens
        --gemma · mixture of experts, 3.8B active parameters
      GLM-4.7-Flash        16.9 GB   not yet           ~35k, GPU limit raised
        --review · stronger reasoning
      Qwen3-Coder-30B-A3B  17.2 GB   partly, 3 MB      ~35k, GPU limit raised
        --coder · the heavier code model
      Qwen3.5-9B            6.0 GB   not yet           ~160k tokens
        --qwen3 · general reasoning; leaks plain-text thinking
      Qwen2.5-Coder-7B      4.3 GB   not yet           ~32k tokens
        --coder7b · code analysis; tool calls unreliable
      Remove models from the cache
      List models in the cache
    ");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    terminal.assert_as_it_was();
    assert_eq!(terminal.text(), "", "something is left on the screen");
}

#[test]
fn a_small_terminal_shows_a_part_of_it() {
    let stage = mac(24);
    let mut terminal = Terminal::run(&stage, &[], 60, 11);
    terminal.wait_for("[Page 1/2]");
    terminal.keys("k");
    let screen = terminal.wait_for("> List models in the cache");
    insta::assert_snapshot!(screen, @"
    cclocal 0.1.0 · 18.0 GB for a model (75 % of R…
    Enter start · q quit · ↑↓ j k move
      MODEL                   SIZE   ON DISK      … [Page 2/2]
      Remove models from the cache
    > List models in the cache
    ");
    terminal.keys("j");
    terminal.wait_for("> Gemma-4-E4B");
    let screen = terminal.wait_for("Qwen2.5-Coder-7B");
    insta::assert_snapshot!(screen, @"
    cclocal 0.1.0 · 18.0 GB for a model (75 % of R…
    Enter start · q quit · ↑↓ j k move
      MODEL                   SIZE   ON DISK      … [Page 1/2]
    > Gemma-4-E4B           5.1 GB   not yet           ~128k to…
        --gemma-light · clean tool calls, the one to start with
      Gemma-4-26B-A4B      15.3 GB   not yet           ~40k tok…
      GLM-4.7-Flash        16.9 GB   not yet           ~35k, GP…
      Qwen3-Coder-30B-A3B  17.2 GB   not yet           ~35k, GP…
      Qwen3.5-9B            6.0 GB   not yet           ~160k to…
      Qwen2.5-Coder-7B      4.3 GB   not yet           ~32k tok…
    ");
    for size in [(100, 30), (20, 4)] {
        terminal.resize(size.0, size.1);
        terminal.keys("j");
        terminal.wait_for("> G");
    }
    terminal.keys("\x1b");
    assert_eq!(terminal.end(), 0);
    terminal.assert_as_it_was();
}

#[test]
fn keys_move_and_enter_starts() {
    let stage = mac(64);
    let port = free_port();
    let mut terminal = Terminal::run(&stage, &["--port", &port], 80, 24);
    terminal.wait_for("> Gemma-4-E4B");
    for (keys, wanted) in [
        ("\x1b[B", "> Gemma-4-26B"),
        ("\x1b[A", "> Gemma-4-E4B"),
        ("j", "> Gemma-4-26B"),
        ("k", "> Gemma-4-E4B"),
        ("k", "> List models in the cache"),
        ("x9", "> List models in the cache"),
        ("j\tjj", "> Qwen3-Coder"),
        // One that the disk has room for.
        ("jj", "> Qwen2.5-Coder"),
    ] {
        terminal.keys(keys);
        let screen = terminal.wait_for(wanted);
        assert_eq!(screen.matches("> ").count(), 1, "{screen}");
    }
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0);
    terminal.assert_as_it_was();
    assert!(
        stage.read("engine/args").contains("Qwen2.5-Coder-7B"),
        "{}",
        stage.read("engine/args")
    );
    assert_ne!(stage.read("client/pid"), "");
}

#[test]
fn signals_and_keys_that_are_signals_give_the_terminal_back() {
    let stage = mac(24);
    let mut terminal = Terminal::run(&stage, &[], 80, 24);
    terminal.wait_for("List models in the cache");
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 130);
    terminal.assert_as_it_was();
    assert_eq!(stage.read("engine/pid"), "");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let stage = mac(24);
        let mut terminal = Terminal::run(&stage, &[], 80, 24);
        terminal.wait_for("List models in the cache");
        let pid = i32::try_from(terminal.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
        assert_eq!(terminal.end(), 128 + signal as i32);
        terminal.assert_as_it_was();
    }
}

/// Not a test: takes the terminal as prompts do, and panics, for the test below.
#[test]
#[ignore = "run by the test of a panic"]
fn panics_at_a_prompt() {
    let _terminal = cclocal::sys::syscalls::prompting();
    eprint!("\x1b[?25l");
    panic!("a bug");
}

#[test]
fn a_panic_gives_the_terminal_back_and_can_be_read() {
    let stage = Stage::bare();
    let exe = std::env::current_exe().expect("this binary");
    let words = [
        &exe.display().to_string(),
        "--exact",
        "screens::panics_at_a_prompt",
        "--ignored",
        "--nocapture",
    ];
    let mut terminal = Terminal::of(&stage, &words, 80, 24);
    assert_eq!(terminal.end(), 101);
    assert!(terminal.raw().contains("\x1b[?25l"), "{}", terminal.raw());
    assert!(terminal.text().contains("a bug"), "{}", terminal.text());
    terminal.assert_as_it_was();
}

#[test]
fn colours_only_where_they_are_wanted() {
    let mut stage = mac(24);
    let styled = ["\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[36m"];
    let mut terminal = Terminal::run(&stage, &[], 80, 24);
    terminal.wait_for("List models in the cache");
    for style in styled {
        assert!(terminal.raw().contains(style), "{style:?}");
    }
    terminal.keys("q");
    terminal.end();
    stage.set("NO_COLOR", "1");
    let mut terminal = Terminal::run(&stage, &[], 80, 24);
    terminal.wait_for("List models in the cache");
    terminal.keys("j");
    terminal.wait_for("> Gemma-4-26B");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    for style in styled {
        assert!(!terminal.raw().contains(style), "{style:?}");
    }
}

#[test]
fn a_terminal_that_cannot_be_painted_on_gets_a_list_and_a_question() {
    let mut stage = mac(24);
    stage.set("TERM", "dumb");
    let mut terminal = Terminal::run(&stage, &[], 80, 24);
    let screen = terminal.wait_for("(Enter = 1)");
    insta::assert_snapshot!(screen, @"
    cclocal 0.1.0 · 18.0 GB for a model (75 % of RAM, a rule of thumb)
      1 Gemma-4-E4B           5.1 GB   not yet           ~128k tokens
      2 Gemma-4-26B-A4B      15.3 GB   not yet           ~40k tokens
      3 GLM-4.7-Flash        16.9 GB   not yet           ~35k, GPU limit raised
      4 Qwen3-Coder-30B-A3B  17.2 GB   not yet           ~35k, GPU limit raised
      5 Qwen3.5-9B            6.0 GB   not yet           ~160k tokens
      6 Qwen2.5-Coder-7B      4.3 GB   not yet           ~32k tokens
    Choose [1-6/q] (Enter = 1)
    ");
    terminal.keys("7\r");
    terminal.wait_for("Please enter a number from the list.");
    terminal.keys("q\r");
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.raw().contains('\x1b'), "{}", terminal.raw());
}

#[test]
fn off_a_terminal_the_flags_are_named() {
    let stage = fakes::stage();
    for args in [
        &[][..],
        &["--server"],
        &["server"],
        &["--port", "8123", "--", "-p", "x"],
    ] {
        let ran = stage.run(args);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
        insta::allow_duplicates! { insta::assert_snapshot!(ran.stderr, @"
        error: no model was given
          cause: the menu of models needs a terminal
          hint: choose one of them: --gemma-light, --gemma, --review, --coder, --qwen3, --coder7b or --model ID
        "); }
    }
    assert_eq!(stage.read("engine/pid"), "");
}
