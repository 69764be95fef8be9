//! The first run of a model: fetched by the engine's own huggingface_hub from a hub on loopback.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fake_hub::{Hub, Manner};
use crate::real::{self, free_port};
use crate::support::terminal::Terminal;
use crate::support::{Ran, Stage};

const ID: &str = "demo/hermes-llama";
const MB: usize = 1_000_000;

/// A stage whose model is on a hub and not on the disk, with a file of this many MB beside it.
fn stage(padding: usize) -> (Stage, Hub) {
    let mut stage = real::stage(&real::client());
    let hub = Hub::of(
        &stage.path("hermes-llama"),
        &[
            ("padding.txt", vec![b'x'; padding * MB]),
            // What every repository has and the engine does not download: the next launch has to do without.
            ("README.md", b"# A model".to_vec()),
            (".gitattributes", b"*.safetensors filter=lfs".to_vec()),
        ],
    );
    stage.set("HF_ENDPOINT", hub.url());
    (stage, hub)
}

fn run(stage: &Stage) -> Ran {
    stage.run(&[
        "--model",
        ID,
        "--port",
        &free_port(),
        "--",
        "-p",
        "write the file",
    ])
}

/// The error without the log's lines, which differ from run to run.
fn said(ran: &Ran) -> String {
    let error = ran.stderr.find("error:").unwrap_or(0);
    ran.stderr[error..]
        .lines()
        .filter(|line| !line.starts_with("  |"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The MB that the line says are there. The hub's library writes 10 MB at a time, and before the first of them there is nothing to resume.
fn so_far(screen: &str) -> u64 {
    let before = screen.split(" MB of 93 MB, ").next().unwrap_or_default();
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

fn slow() -> Manner {
    Manner {
        bytes_per_second: Some(10 * MB as u64),
        ..Manner::default()
    }
}

#[test]
fn download_shown_interrupted_and_resumed() {
    for killed in [false, true] {
        let (stage, hub) = stage(90);
        hub.behaves(slow());
        let port = free_port();
        let args = ["--model", ID, "--port", &port, "--", "-p", "write the file"];
        let mut terminal = Terminal::run(&stage, &args, 80, 24);
        let screen = terminal.wait_until("the time left", |screen| {
            so_far(screen) > 12 && screen.contains("/s") && screen.contains(" s left")
        });
        assert!(
            screen
                .lines()
                .filter(|line| line.contains("downloading "))
                .all(|line| line.chars().count() <= 80),
            "{screen}"
        );
        if killed {
            let pid = i32::try_from(terminal.pid()).expect("a pid");
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
            assert_eq!(terminal.end(), 1009);
        } else {
            terminal.keys("\x03");
            assert_eq!(terminal.end(), 130, "{}", terminal.text());
            terminal.assert_as_it_was();
        }
        stage.assert_nothing_left();
        let listed = stage.run(&["list"]);
        assert!(listed.stdout.contains("partial"), "{}", listed.stdout);

        hub.behaves(Manner::default());
        let ran = run(&stage);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("(downloaded "), "{}", ran.stderr);
        let resumed = hub.requests().iter().any(|asked| {
            asked.starts_with("GET ")
                && asked.contains("/padding.txt from ")
                && !asked.ends_with(" from 0")
        });
        assert!(resumed, "{:#?}", hub.requests());
        assert_eq!(stage.read("work/hello.txt"), real::TEXT, "{}", ran.stderr);

        // Once it is there, nobody is asked any more.
        let before = hub.requests().len();
        let ran = run(&stage);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(hub.requests().len(), before);
    }
}

#[test]
fn download_that_stalls() {
    let (mut stage, hub) = stage(40);
    hub.behaves(Manner {
        stall_after: Some(20 * MB),
        ..Manner::default()
    });
    stage.set("CCLOCAL_STALL_LIMIT", "12");
    let ran = run(&stage);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("nothing has come for 12 s;"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("hint: check the network and run it again, it goes on where it stopped"),
        "{}",
        ran.stderr
    );
}

#[test]
fn download_of_what_is_not_to_be_had() {
    let (mut stage, hub) = stage(0);
    hub.behaves(Manner {
        missing: true,
        ..Manner::default()
    });
    let ran = run(&stage);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    insta::assert_snapshot!(said(&ran), @"
    error: the model could not be downloaded
      cause: the hub refused the credentials, or the model does not exist
      hint: check the model's name; for a private or gated model set HF_TOKEN to a valid token
    ");
    hub.behaves(Manner {
        gated: true,
        ..Manner::default()
    });
    let ran = run(&stage);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    insta::assert_snapshot!(said(&ran), @"
    error: the model could not be downloaded
      cause: the model is gated: its owner wants you to accept terms first
      hint: accept the terms on the model's page on huggingface.co, then run it with HF_TOKEN set to your token
    ");
    stage.set("HF_ENDPOINT", "http://127.0.0.1:9");
    let ran = run(&stage);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    insta::assert_snapshot!(said(&ran), @"
    error: the model could not be downloaded
      cause: the download failed: the hub could not be reached
      hint: check the network and run it again; what was downloaded is kept
    ");
}

#[test]
fn download_of_a_damaged_model() {
    let mut stage = real::stage(&real::client());
    let hub = Hub::of(
        &stage.path("hermes-llama"),
        &[("model.safetensors", b"not what it should be".to_vec())],
    );
    stage.set("HF_ENDPOINT", hub.url());
    let ran = run(&stage);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    insta::assert_snapshot!(said(&ran), @"
    error: the engine did not start
      cause: a file of the model is damaged or missing
      hint: remove the model (`cclocal rm ORG/NAME`; a local folder by hand) and run it again to download it anew
    ");
}

/// Runs it with a disk of 20 MB for models.
fn on_a_small_disk(stage: &mut Stage) -> Ran {
    let disk = stage.path("small");
    std::fs::create_dir_all(&disk).expect("made");
    stage.set("HF_HUB_CACHE", disk.display().to_string());
    let port = free_port();
    // In a mount namespace of its own: the mount is gone with the process.
    let output = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o size=20m tmpfs \"$0\" && exec \"$@\"",
        ])
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_cclocal"))
        .args(["--model", ID, "--port", &port, "--", "-p", "write the file"])
        .current_dir(stage.path("work"))
        .env_clear()
        .envs(stage.env())
        .output()
        .expect("run");
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn download_on_a_disk_without_room() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root may mount a small disk");
        return;
    }
    let (mut stage, hub) = stage(40);
    let ran = on_a_small_disk(&mut stage);
    assert_eq!(ran.status, 12, "{}", ran.stderr);
    insta::assert_snapshot!(stage.filtered(&said(&ran)), @"
    error: the disk has no room for demo/hermes-llama
      cause: 43 MB of 43 MB are still to be downloaded to [STAGE]/small, and 21 MB are free there
      hint: free some space (`cclocal rm` removes models), or keep models on another disk with HF_HOME
    ");
    assert!(
        hub.requests()
            .iter()
            .all(|asked| asked.starts_with("GET /api/"))
    );
    // Where nobody tells the size, the disk really fills up.
    hub.behaves(Manner {
        without_sizes: true,
        ..Manner::default()
    });
    let ran = on_a_small_disk(&mut stage);
    assert_eq!(ran.status, 12, "{}", ran.stderr);
    insta::assert_snapshot!(stage.filtered(&said(&ran)), @"
    error: the engine did not start
      cause: the disk is full
      hint: free some space and run it again; what was downloaded is kept
    ");
}
