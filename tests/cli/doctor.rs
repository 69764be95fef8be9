//! `cclocal doctor`: one page of what is well and what is not, which changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Ran, Stage, finish, free_port};

/// A Mac of 24 GB with an engine whose patches apply, and a client.
fn mac() -> Stage {
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, 24);
    stage.write(
        "engine/says",
        "[cclocal] patch listen: applied\n[cclocal] patch masks: applied\n[cclocal] patch text-route: not wanted\n",
    );
    // As an installer leaves it: this Python stands in `bin`, and its packages in `lib`.
    let packages = stage.path("lib/python3.12/site-packages");
    let lock = if cfg!(target_os = "macos") {
        include_str!("../../src/engine/locks/macos-arm64.lock")
    } else if cfg!(target_arch = "aarch64") {
        include_str!("../../src/engine/locks/linux-aarch64.lock")
    } else {
        include_str!("../../src/engine/locks/linux-x86_64.lock")
    };
    for line in lock.lines().filter(|line| line.contains("==")) {
        let (name, version) = line
            .trim_end_matches(" \\")
            .split_once("==")
            .expect("a pin");
        let name = format!("{}-{version}.dist-info", name.replace('-', "_"));
        std::fs::create_dir_all(packages.join(name)).expect("made");
    }
    stage
}

/// What is said of the checks that depend on the machine that runs the tests is left out.
fn page(stage: &Stage, ran: &Ran) -> String {
    let is_theirs =
        |line: &&str| !line.starts_with("ok    disk ") && !line.starts_with("ok    port ");
    let lines: Vec<&str> = ran.stdout.lines().filter(is_theirs).collect();
    stage.filtered(&lines.join("\n"))
}

/// Findings by the check's name, each with its level and message, and what to do.
fn findings(ran: &Ran) -> Vec<(String, String, String, Option<String>)> {
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("a word").to_owned();
    report["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|finding| {
            let next = finding["next"].as_str().map(str::to_owned);
            (
                text(finding, "check"),
                text(finding, "status"),
                text(finding, "message"),
                next,
            )
        })
        .collect()
}

/// Those of one check, their levels and messages.
fn of(ran: &Ran, check: &str) -> Vec<(String, String)> {
    let all = findings(ran).into_iter();
    let found = all.filter(|(name, ..)| name == check);
    found
        .map(|(_, level, message, _)| (level, message))
        .collect()
}

/// All files below the folder, with when they were changed and their modes.
fn listing(folder: &Path) -> BTreeMap<String, (i64, i64, u32)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let data = entry.metadata().expect("there");
        let path = entry.path();
        found.insert(
            path.display().to_string(),
            (data.mtime(), data.mtime_nsec(), data.mode()),
        );
        if data.is_dir() {
            found.extend(listing(&path));
        }
    }
    found
}

#[test]
fn a_mac_on_which_all_is_well() {
    let stage = mac();
    let before = listing(&stage.path(""));
    let ran = stage.run(&["doctor"]);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    insta::assert_snapshot!(page(&stage, &ran), @"
    ok    platform       macOS 15.1, Apple silicon
    ok    memory         24.0 GB RAM, 18.0 GB for a model (75 % of RAM, a rule of
                         thumb)
    ok    GPU limit      the system's own
    ok    engine         vllm-mlx 0.6.0, named by CCLOCAL_ENGINE; its 54 packages
                         are those of the lock
    ok    patches        all 2 start-up patches that need no model apply
    ok    last engine    no engine has run yet
    ok    Claude Code    2.1.330, between the versions that were tested (2.1.197,
                         2.1.332)
    ok    settings       nothing in them has to be shut out
    ok    models         none yet, in ~/.cache/huggingface/hub
    ok    running        no engine
    ok    folders        those of cclocal are yours alone

    All is well.
    ");
    assert_eq!(ran.stderr, "");
    assert_eq!(listing(&stage.path("")), before, "it changes nothing");
    assert!(
        ran.stdout.lines().all(|line| line.chars().count() <= 80),
        "{}",
        ran.stdout
    );
}

#[test]
fn linux_has_no_gpu_limit() {
    let stage = fakes::stage();
    let ran = stage.run(&["doctor", "--json"]);
    let checks: Vec<String> = findings(&ran)
        .into_iter()
        .map(|(check, ..)| check)
        .collect();
    if cfg!(target_os = "linux") {
        assert!(
            of(&ran, "platform")[0].1.starts_with("Linux "),
            "{}",
            ran.stdout
        );
        assert!(!checks.contains(&"GPU limit".into()), "{checks:?}");
    }
    assert!(checks.contains(&"memory".into()), "{checks:?}");
}

#[test]
fn what_is_missing_is_said_with_what_installs_it() {
    let stage = Stage::bare();
    let ran = stage.run(&["doctor"]);
    assert_eq!(ran.status, 1);
    let page = page(&stage, &ran);
    for said in [
        "fail  engine         the engine is not installed\n                     → cclocal setup\n",
        "fail  Claude Code    not installed\n                     → cclocal setup --client\n",
        "\n2 checks fail.",
    ] {
        assert!(page.contains(said), "{page}");
    }
    assert!(!page.contains("patches"), "{page}");
    assert_eq!(
        listing(&stage.path("cclocal")),
        BTreeMap::new(),
        "nothing was made"
    );
}

#[test]
fn each_check_fails_alone() {
    let mut stage = mac();
    stage.set("CCLOCAL_ENGINE", "/nowhere/vllm-mlx");
    stage.set("CCLOCAL_CLAUDE", "/nowhere/claude");
    stage.write("cclocal/state", "a file");
    stage.write("cclocal/data/engine/current.json", "{");
    let data = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(stage.path("cclocal/data"), data).expect("set");
    stage.set(
        "HF_HUB_CACHE",
        stage.write("hub", "a file").display().to_string(),
    );
    stage.write("home/.claude/settings.json", "{");
    stage.write("cclocal/config/config.toml", "ctxx = 1\n");
    let ran = stage.run(&["doctor", "--json"]);
    assert_eq!(ran.status, 1, "{}{}", ran.stdout, ran.stderr);
    let said: Vec<String> = findings(&ran)
        .into_iter()
        .filter(|(check, level, ..)| level != "ok" || check == "platform" || check == "running")
        .map(|(check, level, message, next)| {
            let next = next.map_or_else(String::new, |next| format!(" → {next}"));
            format!("{level} {check}: {message}{next}")
        })
        .collect();
    insta::assert_snapshot!(stage.filtered(&said.join("\n")), @"
    ok platform: macOS 15.1, Apple silicon
    fail engine: CCLOCAL_ENGINE=/nowhere/vllm-mlx cannot be used: there is no such file → point it at a vllm-mlx executable, or unset it to use cclocal's own engine
    fail Claude Code: CCLOCAL_CLAUDE=/nowhere/claude cannot be used: there is no such executable → point it at a claude executable, or unset it to use the one on PATH
    warn settings: ~/.claude/settings.json is not valid JSON: line 1, column 2 → repair that file, or remove it
    fail models: [STAGE]/hub cannot be read: Not a directory (os error 20) → make sure that it is a folder and that you may read it
    ok running: no engine
    fail folders: [STAGE]/cclocal/data can be changed by others → chmod 700 [STAGE]/cclocal/data
    fail folders: [STAGE]/cclocal/state is not a folder → move it away: mv [STAGE]/cclocal/state [STAGE]/cclocal/state.old
    fail settings file: [STAGE]/cclocal/config/config.toml has an unknown key `ctxx`: line 1: there is no such setting → perhaps `ctx`; to open the file: cclocal config edit
    ");
}

#[test]
fn patches_that_do_not_apply_are_named() {
    let stage = mac();
    stage.write(
        "engine/says",
        "[cclocal] patch listen: applied\n[cclocal] patch memory: not applied (mlx has no get_peak_memory)\n",
    );
    let ran = stage.run(&["doctor", "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    let said = of(&ran, "patches");
    assert_eq!(
        said[0],
        ("ok".into(), "1 of 2 start-up patches apply".into())
    );
    let memory = "memory does not apply: mlx has no get_peak_memory; the engine does not watch its own memory and may exceed its limit";
    assert_eq!(said[1], ("warn".into(), memory.into()));
}

#[test]
fn an_engine_that_cannot_be_started_is_said() {
    let stage = mac();
    std::fs::remove_file(stage.path("engine/says")).expect("removed");
    let ran = stage.run(&["doctor", "--json"]);
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    insta::assert_snapshot!(of(&ran, "patches")[0].1, @"the engine cannot be started to try its patches: it ended without a word");
}

#[test]
fn settings_that_are_shut_out_are_said_and_no_value_of_them() {
    let stage = mac();
    stage.write(
        "home/.claude/settings.json",
        r#"{"apiKeyHelper": "cat secret-place", "env": {"HTTPS_PROXY": "http://secret.example"}}"#,
    );
    let ran = stage.run(&["doctor"]);
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    assert!(!ran.stdout.contains("secret"), "{}", ran.stdout);
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    let said = "shut out of local sessions, in ~/.claude/settings.json: apiKeyHelper (a credential), env.HTTPS_PROXY (a proxy)";
    assert!(words.join(" ").contains(said), "{}", ran.stdout);
}

#[test]
fn a_limit_and_a_download_that_were_left_are_said_and_left() {
    let stage = mac();
    stage.write("wired", "21504\n");
    stage.write(
        "cclocal/state/gpu-limit.json",
        r#"{"original":0,"raised":21504}"#,
    );
    stage.write(
        "home/.cache/huggingface/hub/models--org--half/blobs/abc.incomplete",
        "some",
    );
    stage.write(
        "cclocal/state/run/session-999999999/claude-settings.json",
        "{}",
    );
    for folder in ["cclocal/state", "cclocal/state/run"] {
        let own = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(stage.path(folder), own).expect("set");
    }
    let before = listing(&stage.path(""));
    let ran = stage.run(&["doctor"]);
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    let page = page(&stage, &ran);
    for said in [
        "→ sudo sysctl iogpu.wired_limit_mb=0\n",
        "warn  models         org/half: a download that was not finished, 0 kB\n",
        "ok    running        files of sessions that were killed: 1;",
        "Nothing fails; 2 warnings.",
    ] {
        assert!(page.contains(said), "{page}");
    }
    assert_eq!(listing(&stage.path("")), before, "it changes nothing");
    assert_eq!(stage.read("sudo-log"), "", "sudo was not asked for");
}

#[test]
fn what_runs_and_how_the_last_one_ended() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let port = free_port();
    let session = stage.start(&["--model", "../model", "--port", &port]);
    stage.wait_for("client/pid");
    let ran = stage.run(&["doctor", "--json"]);
    assert_eq!(
        of(&ran, "running"),
        [("ok".into(), format!("model, ready, on port {port}"))]
    );
    assert_eq!(of(&ran, "last engine"), [("ok".into(), "it runs".into())]);
    let status: Value =
        serde_json::from_str(&stage.run(&["status", "--json"]).stdout).expect("JSON");
    let pid = i32::try_from(status[0]["pid"].as_i64().expect("a pid")).expect("small");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    finish(session);
    let ran = stage.run(&["doctor", "--json"]);
    let (level, words) = of(&ran, "last engine").remove(0);
    assert_eq!(level, "warn");
    assert!(
        words.starts_with("its supervisor was killed or lost power, "),
        "{words}"
    );
}

#[test]
fn colours_are_for_terminals() {
    let mut stage = mac();
    let mut coloured = Terminal::run(&stage, &["doctor"], 80, 40);
    assert_eq!(coloured.end(), 0);
    assert!(
        coloured.raw().contains("\u{1b}[32mok\u{1b}[0m    platform"),
        "{}",
        coloured.raw()
    );
    stage.set("NO_COLOR", "1");
    let mut plain = Terminal::run(&stage, &["doctor"], 80, 40);
    assert_eq!(plain.end(), 0);
    assert!(!plain.raw().contains("\u{1b}[32m"), "{}", plain.raw());
    assert!(
        plain.text().contains("ok    platform       macOS 15.1"),
        "{}",
        plain.text()
    );
}
