//! What is no file where one is read: devices, pipes, folders, sockets, endless links, a gigabyte of nothing. Nothing hangs, nothing fills
//! the memory, and what is said is an error with its cause.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use crate::fakes;
use crate::support::{Ran, Stage, finish, free_port};

const HUB: &str = "home/.cache/huggingface/hub";

/// What a process may have of memory, in KiB of addresses. One that reads any of these to its end is killed by it at once.
const MEMORY: &str = "4194304";

const KINDS: &[&str] = &["device", "pipe", "folder", "socket", "endless", "sparse"];

/// Puts one of [`KINDS`] where a file is read. What was there is gone. The result is kept for as long as it is to be there.
fn put(kind: &str, path: &Path) -> Option<UnixListener> {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => std::fs::remove_dir_all(path).expect("removed"),
        Ok(_) => std::fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
    match kind {
        "device" => symlink("/dev/zero", path).expect("linked"),
        "pipe" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe"),
        "folder" => std::fs::create_dir(path).expect("made"),
        "endless" => symlink(path, path).expect("linked"),
        "sparse" => std::fs::File::create(path)
            .and_then(|file| file.set_len(1 << 30))
            .expect("its length"),
        _ => {
            // The path of a socket has little room.
            let folder = tempfile::tempdir().expect("a folder");
            let short = folder.path().join("s");
            let socket = UnixListener::bind(&short).expect("a socket");
            std::fs::rename(short, path).expect("moved");
            return Some(socket);
        }
    }
    None
}

/// Runs it with little memory.
fn run(stage: &Stage, args: &[&str]) -> Ran {
    let plain = stage.command(args);
    let mut command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -v \"$0\"; exec \"$@\"", MEMORY])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(stage.path("work"))
        .env_clear()
        .envs(stage.env())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command.spawn().expect("started"))
}

/// Each kind at each of these places, one after the other, and what may be made of it.
fn everywhere(places: &[&str], made: impl Fn() -> Stage, args: &[&str], is_fine: impl Fn(&Ran)) {
    for place in places {
        for kind in KINDS {
            let stage = made();
            let _kept = put(kind, &stage.path(place));
            let ran = run(&stage, args);
            let what = format!("{kind} at {place}: {} {}", ran.status, ran.stderr);
            assert!(ran.status < 128, "{what}");
            assert!(!ran.stderr.contains("panicked"), "{what}");
            let said = ran.stderr.contains("error: ") && ran.stderr.contains("\n  cause: ");
            assert!(ran.status == 0 || said, "{what}");
            is_fine(&ran);
        }
    }
}

/// A model that looks whole.
fn with_a_model() -> Stage {
    let stage = fakes::stage();
    let folder = format!("{HUB}/models--org--other");
    stage.write(&format!("{folder}/refs/main"), "abc");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        stage.write(&format!("{folder}/blobs/{file}"), "{}");
        std::fs::create_dir_all(stage.path(format!("{folder}/snapshots/abc"))).expect("made");
        let link = stage.path(format!("{folder}/snapshots/abc/{file}"));
        symlink(format!("../../blobs/{file}"), link).expect("linked");
    }
    stage.write(
        &format!("{HUB}/models--org--fine/blobs/some"),
        &"0".repeat(2_000_000),
    );
    stage
}

#[test]
fn the_list_shows_the_others() {
    let model = format!("{HUB}/models--org--other");
    let places: Vec<String> = [
        "refs/main",
        "refs",
        "blobs",
        "snapshots",
        "snapshots/abc/config.json",
        "snapshots/abc/tokenizer.json",
        "snapshots/abc/model.safetensors.index.json",
        "",
    ]
    .iter()
    .map(|name| format!("{model}/{name}").trim_end_matches('/').to_owned())
    .chain([
        format!("{HUB}/blobs/.huggingface-shared-blobs"),
        "cclocal/state/run/8000/lock".into(),
        "cclocal/state/run/8000/socket".into(),
    ])
    .collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    everywhere(&places, with_a_model, &["list"], |ran| {
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(ran.stdout.contains("org/fine"), "{}", ran.stdout);
    });
}

#[test]
fn a_dry_run_ends() {
    let made = || {
        let stage = fakes::stage();
        stage.write("home/.cache/huggingface/token", "hf_x");
        stage
    };
    let places = [
        "model/config.json",
        "model/chat_template.jinja",
        "model/tokenizer_config.json",
        "model/tokenizer.json",
        "model/model.safetensors",
        "work/.claude/settings.json",
        "work/.claude/settings.local.json",
        "home/.claude/settings.json",
        "work/.git",
        "home/.claude.json",
        "cclocal/data/claude/settings.json",
    ];
    everywhere(&places, made, &["--dry-run", "--model", "../model"], |_| {});
}

#[test]
fn a_session_starts_or_says_why_not() {
    let port = free_port();
    let run_folder = format!("cclocal/state/run/{port}");
    let places = [
        "home/.claude.json",
        "home/.claude/settings.json",
        "home/.claude/CLAUDE.md",
        "work/.claude/settings.json",
        "cclocal/data/claude/.claude.json",
        "cclocal/data/claude/settings.json",
        "cclocal/data/claude/cclocal.json",
        "cclocal/data/claude/.cclocal.lock",
        "cclocal/state/start.lock",
        &format!("{run_folder}/lock"),
        &format!("{run_folder}/record.json"),
        &format!("{run_folder}/key"),
        "model/model.safetensors.index.json",
    ];
    let args = ["--model", "../model", "--port", &port, "--", "-p", "hi"];
    everywhere(&places, fakes::stage, &args, |_| {});
}

#[test]
fn a_model_with_something_else_than_files_is_not_loaded() {
    let stage = fakes::stage();
    let _kept = put("pipe", &stage.path("model/tokenizer_config.json"));
    let ran = stage.run(&["--model", "../model", "--", "-p", "hi"]);
    insta::assert_snapshot!(stage.filtered(&ran.stderr), @"
    error: model cannot be loaded
      cause: [STAGE]/model/tokenizer_config.json: it is a pipe, not a file
      hint: remove that file, or the model: `cclocal rm ORG/NAME`; a local folder by hand
    ");
    assert_eq!(ran.status, 1);
    let stage = with_a_model();
    let _kept = put(
        "device",
        &stage.path(format!("{HUB}/models--org--other/blobs/config.json")),
    );
    let ran = run(&stage, &["--model", "org/other", "--", "-p", "hi"]);
    insta::assert_snapshot!(stage.filtered(&ran.stderr), @"
    error: org/other cannot be loaded
      cause: [STAGE]/home/.cache/huggingface/hub/models--org--other/snapshots/abc/config.json: it is a device, not a file
      hint: remove that file, or the model: `cclocal rm ORG/NAME`; a local folder by hand
    ");
}

#[test]
fn an_engine_whose_record_is_no_file_is_broken() {
    let made = || {
        let mut stage = fakes::stage();
        stage.set("CCLOCAL_ENGINE", "");
        stage
    };
    let places = ["cclocal/data/engine/current.json"];
    everywhere(&places, made, &["--dry-run", "--model", "../model"], |_| {});
}

#[test]
fn a_log_that_is_no_file_is_not_shown() {
    let places = ["cclocal/state/server.log"];
    for kind in KINDS.iter().filter(|kind| **kind != "sparse") {
        let stage = fakes::stage();
        let _kept = put(kind, &stage.path(places[0]));
        let ran = run(&stage, &["logs"]);
        assert_eq!(ran.status, 1, "{kind}");
        assert!(ran.stdout.is_empty(), "{kind}");
        assert!(ran.stderr.contains("error: there is no log"), "{kind}");
    }
}

#[test]
fn a_lock_that_is_none_holds_no_removal_off() {
    for kind in KINDS {
        let stage = with_a_model();
        let lock = stage.path(format!("{HUB}/.locks/models--org--other/x.lock"));
        let _kept = put(kind, &lock);
        let ran = run(&stage, &["rm", "org/other", "--yes"]);
        assert_eq!(ran.status, 0, "{kind}: {}", ran.stderr);
        assert!(!stage.path(format!("{HUB}/models--org--other")).exists());
    }
}
