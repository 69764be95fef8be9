//! The first run of a model: fetched by the engine's own huggingface_hub from a hub on loopback.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fake_hub::{Hub, Manner};
use crate::real::{self, free_port};
use crate::support::terminal::Terminal;
use crate::support::{Ran, Stage, finish};

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

/// The MB that the line says are there.
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
fn download_by_itself_is_interrupted_goes_on_and_starts_nothing() {
    let (stage, hub) = stage(90);
    hub.behaves(slow());
    let mut terminal = Terminal::run(&stage, &["pull", ID], 80, 24);
    terminal.wait_until("some of it", |screen| so_far(screen) > 12);
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 130, "{}", terminal.text());
    terminal.assert_as_it_was();
    assert!(terminal.text().contains("are kept"), "{}", terminal.text());
    stage.assert_nothing_left();

    hub.behaves(Manner::default());
    let ran = stage.run(&["pull", ID]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let said = "✓ demo/hermes-llama downloaded in ";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let asked = hub.requests();
    let last = asked
        .iter()
        .rfind(|asked| asked.contains("/padding.txt from "));
    assert!(
        last.is_some_and(|asked| !asked.ends_with(" from 0")),
        "{asked:#?}"
    );
    assert_eq!(stage.read("engine/pid"), "");
    stage.assert_nothing_left();

    let before = hub.requests().len();
    let ran = stage.run(&["pull", ID]);
    let said = "✓ demo/hermes-llama is on this disk: ";
    assert!(ran.stderr.starts_with(said), "{}", ran.stderr);
    assert_eq!(run(&stage).status, 0);
    assert_eq!(hub.requests().len(), before, "nobody is asked");
    assert_eq!(stage.read("work/hello.txt"), real::TEXT);
}

#[test]
fn download_by_itself_that_fails_says_why() {
    let (mut stage, _hub) = stage(1);
    stage.set("HF_ENDPOINT", "http://127.0.0.1:1");
    let ran = stage.run(&["pull", ID]);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    assert!(
        said(&ran).starts_with("error: the model could not be downloaded\n"),
        "{}",
        ran.stderr
    );
    let ran = stage.run(&["pull", "../hermes-llama"]);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("there is nothing to download"),
        "{}",
        ran.stderr
    );
}

/// The blobs of the downloaded model whose content is nothing but the padding, and how long they are.
fn padding(stage: &Stage) -> Vec<u64> {
    let blobs = stage.path("home/.cache/huggingface/hub/models--demo--hermes-llama/blobs");
    std::fs::read_dir(blobs)
        .expect("blobs")
        .flatten()
        .filter(|blob| blob.file_type().expect("a kind").is_file())
        .map(|blob| std::fs::read(blob.path()).expect("read"))
        .filter(|bytes| bytes.iter().all(|byte| *byte == b'x'))
        .map(|bytes| bytes.len() as u64)
        .collect()
}

#[test]
fn download_by_two_launches_at_once() {
    let (stage, hub) = stage(60);
    hub.behaves(slow());
    let ports = [free_port(), free_port()];
    let launches = ports
        .each_ref()
        .map(|port| stage.start(&["--model", ID, "--port", port, "--", "-p", "write the file"]));
    for launch in launches {
        let ran = finish(launch);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        // Not on a terminal: plain lines.
        assert!(
            ran.stderr.contains("downloading demo/hermes-llama: "),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(padding(&stage), [60 * MB as u64]);
    let asked = hub.requests();
    let fetched = asked
        .iter()
        .filter(|asked| asked.starts_with("GET ") && asked.contains("/padding.txt"));
    assert_eq!(fetched.count(), 1, "{asked:#?}");
    assert_eq!(stage.read("work/hello.txt"), real::TEXT);
}

#[test]
fn download_of_what_the_hub_offers_by_xet_stands_in_the_models_own_folder() {
    let (stage, hub) = stage(1);
    hub.behaves(Manner {
        xet: true,
        ..Manner::default()
    });
    let ran = run(&stage);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(padding(&stage), [MB as u64]);
    assert!(!stage.path("home/.cache/huggingface/hub/blobs").exists());
}

/// Two processes fetch one file, without the library's own lock, from a hub that hands it out in small pieces.
const TWO_ATTEMPTS: &str = "
import pathlib, sys, time
from huggingface_hub import constants, file_download as hub

def slowly(url, file, *, resume_size=0, **_options):
    print('from', resume_size, flush=True)
    for at in range(resume_size // 10, 30):
        file.write(b'%09d\\n' % at)
        file.flush()
        time.sleep(0.02)

hub.http_get = slowly
resume_downloads()
folder = pathlib.Path(sys.argv[1])
whole = b''.join(b'%09d\\n' % at for at in range(30))
etag = hashlib.sha256(whole).hexdigest()
hub._download_to_tmp_and_move(folder / 'x.incomplete', folder / 'x', 'url', {}, 300, 'x', False, etag, None)
assert (folder / 'x').read_bytes() == whole
assert constants.DOWNLOAD_CHUNK_SIZE < 1 << 20
";

#[test]
fn download_of_one_file_by_two_processes_is_written_by_one_at_a_time() {
    let stage = real::stage(&real::client());
    let folder = stage.path("two");
    std::fs::create_dir_all(&folder).expect("made");
    // A part of it is there already.
    std::fs::write(folder.join("x.incomplete"), "000000000\n").expect("written");
    let script = Path::new(&stage.env()["CCLOCAL_ENGINE"]).to_owned();
    let code = format!(
        "{}{}{}{TWO_ATTEMPTS}",
        include_str!("../../src/engine/patches/patches.py"),
        include_str!("../../src/engine/patches/files.py"),
        include_str!("../../src/engine/patches/resume.py")
    );
    let attempts = [(); 3].map(|()| {
        Command::new(script.with_file_name("python"))
            .arg("-c")
            .arg(&code)
            .arg(&folder)
            .env_clear()
            .envs(stage.env())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started")
    });
    let mut said = String::new();
    for attempt in attempts {
        let ran = finish(attempt);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        said += &ran.stdout;
    }
    assert_eq!(said, "from 10\n", "the others had nothing left to fetch");
    let names: Vec<_> = std::fs::read_dir(&folder)
        .expect("read")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["x"]);
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
    insta::assert_snapshot!(said(&ran), @"
    error: the download has stalled
      cause: no data for 12 s; 23 MB of 43 MB downloaded so far, which are kept
      hint: check the network and run it again: the download resumes. CCLOCAL_STALL_LIMIT=600 waits longer
    ");
}

#[test]
fn download_by_a_slow_line_does_not_stall() {
    let (mut stage, hub) = stage(2);
    // Each of the two big files takes over 20 s, and neither is as long as what the library would write at a time.
    hub.behaves(Manner {
        bytes_per_second: Some(100_000),
        ..Manner::default()
    });
    stage.set("CCLOCAL_STALL_LIMIT", "12");
    let ran = run(&stage);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(stage.read("work/hello.txt"), real::TEXT);
    // Not on a terminal: a plain line every few seconds.
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("downloading demo/hermes-llama: "))
        .collect();
    assert!(lines.len() > 3, "{}", ran.stderr);
    assert!(lines.windows(2).all(|two| two[0] != two[1]), "{lines:#?}");
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
    stage.set("HF_HUB_OFFLINE", "1");
    let ran = run(&stage);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    insta::assert_snapshot!(said(&ran), @"
    error: demo/hermes-llama is not on this disk
      cause: offline mode is on (HF_HUB_OFFLINE), so it cannot be downloaded
      hint: unset HF_HUB_OFFLINE and run it again; cclocal list shows what is on this disk
    ");
    stage.set("HF_HUB_OFFLINE", "0");
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
      hint: remove the model (`cclocal rm ORG/NAME`; a local folder by hand) and run it again to download it again
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
    error: there is not enough disk space for demo/hermes-llama
      cause: 43 MB of 43 MB must still be downloaded to [STAGE]/small, and 21 MB are free there
      hint: free some space (`cclocal rm` removes models), or keep models on another disk with HF_HOME
    ");
    assert!(
        hub.requests()
            .iter()
            .all(|asked| asked.starts_with("GET /api/")
                || [
                    "config.json",
                    "tokenizer_config.json",
                    "chat_template.jinja"
                ]
                .iter()
                .any(|small| asked.ends_with(&format!("/{small}")))),
        "{:#?}",
        hub.requests()
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
