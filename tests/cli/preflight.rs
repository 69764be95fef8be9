//! The memory preflight on a Mac of fakes: asked where memory is tight, answered, and the GPU limit put back whatever happens.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Stage, finish, free_port};

/// A Mac of this much RAM (GiB) with a model of this many bytes, and sudo that does this (`yes`, `ask`, `no`).
fn stage(ram_gib: u64, weights: u64, sudo: &str) -> Stage {
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, ram_gib);
    let file = std::fs::File::options()
        .write(true)
        .open(stage.path("model/model.safetensors"));
    file.expect("open").set_len(weights).expect("its size");
    stage.write("sudo", sudo);
    // A client that stays until it is told to go, and tells the limit at its start.
    let wired = stage.path("wired").display().to_string();
    fakes::client(
        &mut stage,
        &format!(
            "cp '{wired}' \"$HOME/wired-in-session\"; while [ -e \"$HOME/stay\" ]; do sleep 0.05; done"
        ),
    );
    stage
}

const TIGHT: (u64, u64) = (24, 16_000_000_000);

fn tight(sudo: &str) -> Stage {
    stage(TIGHT.0, TIGHT.1, sudo)
}

fn launch(stage: &Stage, rest: &[&str]) -> Terminal {
    let port = free_port();
    let mut args = vec!["--model", "../model", "--port", &port];
    args.extend(rest);
    Terminal::run(stage, &args, 80, 30)
}

/// The window for which Claude Code was told a larger one.
fn window(stage: &Stage) -> String {
    let env = stage.read("client/env");
    let line = env
        .lines()
        .find_map(|line| line.strip_prefix("CLAUDE_CODE_MAX_CONTEXT_TOKENS="));
    fakes::real_window(line.unwrap_or_default())
}

fn wired(stage: &Stage) -> String {
    stage.read("wired").trim().to_owned()
}

#[test]
fn a_model_whose_layers_are_not_known_is_planned_as_a_general_one() {
    let stage = tight("yes");
    let mut terminal = launch(&stage, &[]);
    let screen = terminal.wait_for("Quit");
    insta::assert_snapshot!(screen, @"
    Memory for model: 18.0 GB, 75 % of RAM, a rule of thumb
      [#############################################################=========|+e.]
      # weights         14.9 GB
      = conversation     2.3 GB  22,980 tokens
      + prefix cache     212 MB  what is kept beside the conversation
      ~ working memory    99 MB  reading a prompt, 64 tokens at a time
      e engine           257 MB  the process itself
      | over by          722 MB
    Enter choose · q quit · ↑↓ j k move
    > Raise the GPU limit  none → 41k tokens (recommended)
                           0 → 21504 MiB, with sudo, until the session ends
      Start it anyway      (risky: the engine may crash)
      Quit
    ");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    assert_eq!(stage.read("sudo-log"), "", "sudo was not asked for");
    assert_eq!(wired(&stage), "0");
}

#[test]
fn the_limit_is_raised_for_the_session_and_put_back() {
    let stage = tight("yes");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0);
    let said = "✓ GPU memory limit raised to 21504 MiB until the session ends";
    assert!(terminal.text().contains(said), "{}", terminal.text());
    assert_eq!(stage.read("home/wired-in-session"), "21504\n");
    assert_eq!(wired(&stage), "0");
    assert_eq!(window(&stage), "41984");
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
}

#[test]
fn with_a_password_it_is_written_down_before() {
    let stage = tight("ask");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    terminal.wait_for("Password for sudo, to raise the GPU memory limit:");
    // Written down before it is raised.
    assert_eq!(
        stage.read("cclocal/state/gpu-limit.json"),
        r#"{"original":0,"raised":21504}"#
    );
    assert_eq!(wired(&stage), "0");
    terminal.keys("secret\r");
    // The credentials have timed out by the end: sudo asks again.
    terminal.wait_until("the second question", |screen| {
        screen.contains("Password for sudo, to restore the GPU memory limit:")
    });
    assert_eq!(stage.read("home/wired-in-session"), "21504\n");
    terminal.keys("secret\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(wired(&stage), "0");
}

#[test]
fn what_cannot_be_put_back_is_said_and_offered_at_the_next_start() {
    let stage = tight("ask");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    terminal.wait_for("Password for sudo, to raise the GPU memory limit:");
    terminal.keys("secret\r");
    terminal.wait_until("the second question", |screen| {
        screen.contains("Password for sudo, to restore the GPU memory limit:")
    });
    terminal.keys("wrong\r");
    assert_eq!(terminal.end(), 0, "Claude Code's own status");
    let said = "note: the GPU memory limit is still 21504 MiB; to restore it: sudo sysctl iogpu.wired_limit_mb=0";
    let screen = terminal.text().replace('\n', "");
    assert!(screen.contains(said), "{screen}");
    assert_eq!(wired(&stage), "21504");

    stage.write("sudo", "yes");
    let mut terminal = launch(&stage, &["--no-mem-check"]);
    let screen = terminal.wait_for("[Y/n]");
    insta::assert_snapshot!(screen, @"
    note: an interrupted session left the GPU memory limit raised: it is 21504 MiB, and was 0 (macOS decides)
    Restore it now? (If not, cclocal does it when this session ends.) [Y/n]
    ");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(stage.read("home/wired-in-session"), "0\n");
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
}

#[test]
fn a_refused_sudo_leaves_the_other_choices() {
    let stage = tight("no");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    terminal.wait_for("to raise it by hand: sudo sysctl iogpu.wired_limit_mb=21504");
    terminal.wait_until("the question again", |screen| screen.contains("> Quit"));
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
    terminal.keys("k\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(window(&stage), "22980");
}

#[test]
fn quitting_starts_nothing() {
    let stage = tight("no");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0, "it is what was asked for");
    let text = terminal.text();
    assert!(text.ends_with("\nNothing was started."), "{text}");
    assert_eq!(stage.read("engine/pid"), "");
}

#[test]
fn ctrl_c_at_the_password_ends_it_with_nothing_changed() {
    let stage = tight("ask");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    terminal.wait_for("Password for sudo, to raise the GPU memory limit:");
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 130);
    assert_eq!(wired(&stage), "0");
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
    assert_eq!(stage.read("engine/pid"), "");
}

#[test]
fn after_any_signal_the_limit_is_put_back() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ] {
        let stage = tight("yes");
        stage.write("home/stay", "yes");
        let mut terminal = launch(&stage, &[]);
        terminal.wait_for("Quit");
        terminal.keys("\r");
        stage.wait_for("home/wired-in-session");
        assert_eq!(wired(&stage), "21504");
        let pid = i32::try_from(terminal.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
        if matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            // On a terminal these are the client's: it decides.
            std::fs::remove_file(stage.path("home/stay")).expect("told to go");
            assert_eq!(terminal.end(), 0);
        } else {
            assert_eq!(terminal.end(), 128 + signal as i32);
        }
        assert_eq!(wired(&stage), "0", "{signal}");
    }
}

#[test]
fn after_a_kill_the_next_start_puts_it_back_and_knows_what_was_before() {
    let stage = tight("yes");
    stage.write("home/stay", "yes");
    let mut killed = launch(&stage, &[]);
    killed.wait_for("Quit");
    killed.keys("\r");
    stage.wait_for("home/wired-in-session");
    let pid = i32::try_from(killed.pid()).expect("a pid");
    // The supervisor tries to put it back, and cannot: sudo would ask.
    stage.write("sudo", "no");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    assert_eq!(killed.end(), 1009);
    stage.assert_nothing_left();
    assert_eq!(wired(&stage), "21504");
    stage.write("sudo", "yes");
    std::fs::remove_file(stage.path("home/stay")).expect("told to go");

    // Not now: then it is used, and put back at the end, to what was before the killed session.
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("[Y/n]");
    terminal.keys("n\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert_eq!(stage.read("home/wired-in-session"), "21504\n");
    assert_eq!(wired(&stage), "0");
}

#[test]
fn after_a_kill_the_supervisor_puts_it_back_where_that_takes_no_password() {
    let stage = tight("yes");
    stage.write("home/stay", "yes");
    let mut killed = launch(&stage, &[]);
    killed.wait_for("Quit");
    killed.keys("\r");
    stage.wait_for("home/wired-in-session");
    let pid = i32::try_from(killed.pid()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    assert_eq!(killed.end(), 1009);
    stage.assert_nothing_left();
    assert_eq!(wired(&stage), "0");
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
}

#[test]
fn an_engine_for_which_the_limit_was_raised_is_not_kept() {
    let mut stage = tight("yes");
    stage.set("CCLOCAL_LINGER", "300");
    let mut terminal = launch(&stage, &[]);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert!(!terminal.text().contains("stays loaded"));
    stage.assert_nothing_left();
    assert_eq!(wired(&stage), "0");
}

#[test]
fn another_session_in_between_shares_the_raised_limit() {
    let stage = tight("yes");
    stage.write("home/stay", "yes");
    let mut first = launch(&stage, &[]);
    first.wait_for("Quit");
    first.keys("\r");
    stage.wait_for("home/wired-in-session");
    std::fs::remove_file(stage.path("client/pid")).expect("removed");
    let second = stage.start(&["--model", "../model", "--yes"]);
    stage.wait_for("client/pid");
    // The one that raised it leaves first.
    let pid = i32::try_from(first.pid()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("ended");
    assert_eq!(first.end(), 143);
    assert_eq!(wired(&stage), "21504", "the second session needs it");
    std::fs::remove_file(stage.path("home/stay")).expect("told to go");
    assert_eq!(finish(second).status, 0);
    assert_eq!(wired(&stage), "0", "the last one puts it back");
}

#[test]
fn off_a_terminal_what_was_left_behind_is_put_back_without_a_question() {
    let stage = stage(TIGHT.0, 1_000_000_000, "yes");
    let record = r#"{"original":0,"raised":21504}"#;
    for (sudo, after, said) in [
        (
            "yes",
            "0",
            "left the GPU memory limit raised: it is 21504 MiB",
        ),
        (
            "no",
            "21504",
            "to restore it: sudo sysctl iogpu.wired_limit_mb=0",
        ),
    ] {
        stage.write("cclocal/state/gpu-limit.json", record);
        stage.write("wired", "21504\n");
        stage.write("sudo", sudo);
        let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(wired(&stage), after);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    assert_eq!(
        stage.read("cclocal/state/gpu-limit.json"),
        record,
        "it is still to be put back"
    );
}

#[test]
fn a_restart_has_put_it_back_already() {
    let stage = tight("yes");
    stage.write(
        "cclocal/state/gpu-limit.json",
        r#"{"original":0,"raised":21504}"#,
    );
    let mut terminal = launch(&stage, &["--no-mem-check"]);
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.text().contains("cut off"), "{}", terminal.text());
    assert_eq!(stage.read("sudo-log"), "");
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
}

#[test]
fn a_limit_that_is_high_enough_is_fine() {
    let stage = tight("yes");
    stage.write("wired", "21504\n");
    let mut terminal = launch(&stage, &[]);
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert!(!terminal.text().contains("Quit"), "{}", terminal.text());
    assert_eq!(window(&stage), "41984");
    assert_eq!(stage.read("sudo-log"), "");
}

#[test]
fn metal_is_asked_where_no_limit_is_set() {
    let stage = tight("no");
    stage.write(
        "engine/device",
        r#"{"gpu": true, "recommended": 17179869184}"#,
    );
    let mut terminal = launch(&stage, &[]);
    let screen = terminal.wait_for("Quit");
    assert!(
        screen.contains("16.0 GB, the limit that Metal recommends"),
        "{screen}"
    );
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);

    // It is asked once: it says the same until the system is another one.
    std::fs::remove_file(stage.path("engine/device")).expect("removed");
    let mut terminal = launch(&stage, &[]);
    let screen = terminal.wait_for("Quit");
    assert!(
        screen.contains("16.0 GB, the limit that Metal recommends"),
        "{screen}"
    );
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn weights_that_do_not_fit_are_refused_where_nothing_helps() {
    let stage = stage(16, 18_000_000_000, "no");
    let mut terminal = launch(&stage, &[]);
    assert_eq!(terminal.end(), 12);
    assert!(!terminal.text().contains("Quit"), "{}", terminal.text());
    assert_eq!(stage.read("engine/pid"), "");
}

#[test]
fn ample_memory_asks_nothing_unless_told_to() {
    let mut stage = stage(64, 5_000_000_000, "no");
    let mut terminal = launch(&stage, &[]);
    assert_eq!(terminal.end(), 0);
    assert!(
        !terminal.text().contains("Memory for"),
        "{}",
        terminal.text()
    );
    for variable in [None, Some("CCLOCAL_FORCE_MEMCHECK")] {
        let mut rest = vec!["--safe"];
        if let Some(name) = variable {
            stage.set(name, "1");
            rest.clear();
        }
        let mut terminal = launch(&stage, &rest);
        let screen = terminal.wait_for("Quit");
        assert!(screen.contains("Memory for model"), "{screen}");
        terminal.keys("\r");
        assert_eq!(terminal.end(), 0);
        assert_eq!(window(&stage), "65536");
    }
}

#[test]
fn the_check_can_be_skipped() {
    for variable in [None, Some("CCLOCAL_NO_MEMCHECK")] {
        let mut stage = tight("no");
        let mut rest = vec!["--no-mem-check"];
        if let Some(name) = variable {
            stage.set(name, "1");
            rest.clear();
        }
        let mut terminal = launch(&stage, &rest);
        assert_eq!(terminal.end(), 0);
        assert!(!terminal.text().contains("Quit"), "{}", terminal.text());
        assert_eq!(window(&stage), "22980", "the smallest of use");
    }
}

#[test]
fn off_a_terminal_the_window_is_what_memory_allows() {
    let stage = stage(28, TIGHT.1, "yes");
    let run = |rest: &[&str]| {
        let port = free_port();
        let mut args = vec!["--model", "../model", "--port", &port];
        args.extend(rest);
        stage.run(&args)
    };
    let ran = run(&[]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(window(&stage), "41984");
    assert_eq!(stage.read("sudo-log"), "", "nobody could be asked");
    let ran = run(&["--ctx", "26000"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(window(&stage), "26000", "what was asked for is kept");
}

#[test]
fn off_a_terminal_a_model_that_does_not_fit_is_refused() {
    let stage = stage(16, 18_000_000_000, "yes");
    let port = free_port();
    let ran = stage.run(&["--model", "../model", "--port", &port]);
    assert_eq!(ran.status, 12);
    insta::assert_snapshot!(ran.stderr, @"
    error: model does not fit in memory
      cause: it needs 19.8 GB even with a window of 22,980 tokens, and 11.4 GB are available: 16.8 GB for its weights, 2.4 GB for a conversation, 220 MB for the prefix cache, 101 MB for reading a prompt and for copies, 257 MB for the engine itself
      hint: cclocal --gemma-light fits, with a window of 131,072 tokens; --no-mem-check tries it anyway
    ");
    assert_eq!(stage.read("engine/pid"), "");
    let ran = stage.run(&["--model", "../model", "--port", &port, "--no-mem-check"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("it may run out of memory"),
        "{}",
        ran.stderr
    );
}

#[test]
fn on_linux_a_gpu_counts_only_if_the_engine_computes_on_it() {
    let mut stage = fakes::stage();
    let file = std::fs::File::options()
        .write(true)
        .open(stage.path("model/model.safetensors"));
    file.expect("open")
        .set_len(9_000_000_000)
        .expect("its size");
    stage.script("nvidia-smi", "#!/bin/sh\necho 8000\necho 24000\n");
    fakes::client(&mut stage, "");
    let run = |stage: &Stage| stage.run(&["--model", "../model", "--port", &free_port()]);
    stage.write("engine/device", r#"{"gpu": true, "recommended": null}"#);
    let ran = run(&stage);
    assert_eq!(ran.status, 12, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("and 7.4 GB are available"),
        "{}",
        ran.stderr
    );
    stage.write("engine/device", r#"{"gpu": false, "recommended": null}"#);
    let ran = run(&stage);
    assert!(
        !ran.stderr.contains("7.4 GB are available"),
        "{}",
        ran.stderr
    );
}
