//! `--dry-run`: prints all, starts nothing, writes nothing.

use serde_json::Value;

use crate::fakes;
use crate::support::Stage;

#[test]
fn nothing_is_written_and_nothing_is_started() {
    let stage = fakes::stage();
    let ran = stage.run(&["--coder", "--dry-run"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!stage.path("cclocal").exists(), "it wrote");
    assert_eq!(
        std::fs::read_dir(stage.path("home")).expect("read").count(),
        0,
        "it wrote"
    );
    assert_eq!(stage.read("engine/pid") + &stage.read("client/pid"), "");
}

#[test]
fn what_is_held_back_of_the_shell_is_said_by_name() {
    let mut stage = fakes::stage();
    stage.set("ANTHROPIC_API_KEY", "sk-ant-real");
    let ran = stage.run(&["--coder", "--dry-run"]);
    assert!(
        ran.stdout.contains("not passed on: ANTHROPIC_API_KEY\n"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("sk-ant-real"), "{}", ran.stdout);
}

#[test]
fn it_works_with_nothing_installed() {
    let stage = Stage::bare();
    let ran = stage.run(&["--coder", "--dry-run"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("the engine is not installed"),
        "{}",
        ran.stdout
    );
}

#[test]
fn the_json_has_the_promised_shape_and_no_key() {
    let stage = fakes::stage();
    let ran = stage.run(&["--gemma", "--dry-run", "--json", "--", "-p", "x"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert!(report["model"]["served_name"].is_string());
    assert!(report["engine"]["argv"].is_array() && report["engine"]["env"].is_object());
    let claude = &report["claude"];
    assert!(claude["argv"].is_array() && claude["env"].is_object());
    assert!(claude["unset"].is_array() && claude["settings"].is_object());
    assert!(report["memory"]["context_window"].as_u64().is_some());
    assert_eq!(claude["env"]["ANTHROPIC_AUTH_TOKEN"], "<token>");
    assert_eq!(claude["settings"]["env"]["ANTHROPIC_AUTH_TOKEN"], "<token>");
}

#[test]
fn a_macs_gpu_limit_decides_whether_memory_is_tight() {
    let mut stage = fakes::stage();
    stage.set("CCLOCAL_PLATFORM", "macos");
    stage.script("sw_vers", "#!/bin/sh\necho 15.1\n");
    stage.script("uname", "#!/bin/sh\necho arm64\n");
    let sysctl = |limit: &str| {
        format!(
            "#!/bin/sh\ncase \"$*\" in *hw.memsize) echo 25769803776;; *wired_limit_mb) echo {limit};; *arm64) echo 1;; esac\n"
        )
    };
    let tight = |stage: &Stage| {
        let ran = stage.run(&["--gemma", "--dry-run", "--json"]);
        let report: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
        (
            report["notices"]
                .to_string()
                .contains("raise the GPU limit"),
            report["memory"]["machine"]["budget_source"]
                .as_str()
                .map(str::to_owned),
        )
    };
    stage.script("sysctl", &sysctl("0"));
    assert_eq!(tight(&stage), (true, Some("three-quarters-of-ram".into())));
    stage.script("sysctl", &sysctl("22528"));
    assert_eq!(tight(&stage), (false, Some("wired-limit".into())));
}

#[test]
fn the_json_has_the_plan_of_memory() {
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, 48);
    let plan = |args: &[&str]| -> Value {
        let ran = stage.run(&[args, &["--dry-run", "--json"]].concat());
        let report: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
        report["memory_plan"].clone()
    };
    let usual = plan(&["--coder"]);
    assert_eq!(usual["context_window"], 185_344);
    assert_eq!(usual["estimated"], true, "nothing is on the disk");
    assert!(usual["shares"]["weights"].is_u64(), "{usual}");
    let asked = plan(&["--coder", "--ctx", "30000", "--out-tokens", "5000"]);
    assert_eq!(
        (&asked["context_window"], &asked["output_tokens"]),
        (&30_000.into(), &5_000.into())
    );
    let refused = plan(&["--coder", "--ctx", "195000"]);
    let fits = refused["refused"]["asked"]["fits"].as_u64();
    assert!(
        (185_344..195_000).contains(&fits.expect("tokens")),
        "{refused}"
    );
    assert_eq!(plan(&["--model", "org/unknown"]), Value::Null);
}
