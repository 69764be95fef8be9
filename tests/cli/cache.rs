//! The cache: what is in it, and removing from it without touching anything else.

use std::os::unix::fs::symlink;

use nix::fcntl::{Flock, FlockArg};

use crate::fakes;
use crate::support::terminal::Terminal;
use crate::support::{Stage, finish, free_port};

pub const HUB: &str = "home/.cache/huggingface/hub";

/// A whole model of about this many bytes, which take no space.
pub fn model(stage: &Stage, name: &str, bytes: u64) -> String {
    let folder = format!("{HUB}/models--{}", name.replace('/', "--"));
    stage.write(&format!("{folder}/refs/main"), "abc");
    for (file, text) in [("config.json", "{}"), ("tokenizer.json", "{}")] {
        stage.write(&format!("{folder}/blobs/{file}"), text);
        std::fs::create_dir_all(stage.path(format!("{folder}/snapshots/abc"))).expect("made");
        let link = stage.path(format!("{folder}/snapshots/abc/{file}"));
        symlink(format!("../../blobs/{file}"), link).expect("linked");
    }
    let blob = stage.write(&format!("{folder}/blobs/weights"), "");
    let file = std::fs::File::options().write(true).open(blob);
    file.expect("open").set_len(bytes).expect("its size");
    let link = stage.path(format!("{folder}/snapshots/abc/model.safetensors"));
    symlink("../../blobs/weights", link).expect("linked");
    folder
}

fn three() -> Stage {
    let stage = fakes::stage();
    model(&stage, "mlx-community/gemma-4-e4b-it-4bit", 5_180_000_000);
    model(&stage, "org/other", 1_000_000);
    let partial = model(&stage, "org/partial", 2_000_000);
    stage.write(&format!("{partial}/blobs/more.incomplete"), "half");
    stage
}

#[test]
fn the_list() {
    let mut stage = three();
    fakes::mac(&mut stage, 24);
    for args in [["list"], ["--list"], ["-l"]] {
        let ran = stage.run(&args);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        insta::allow_duplicates! { insta::assert_snapshot!(ran.stdout, @"
        mlx-community/gemma-4-e4b-it-4bit    5.2 GB  --gemma-light, 128k tokens
        org/partial                            2 MB  partial
        org/other                              1 MB

        3 models, 5.2 GB, in ~/.cache/huggingface/hub
        "); }
    }
    let ran = stage.run(&["list", "--json"]);
    insta::assert_snapshot!(stage.filtered(&ran.stdout), @r#"
    {
      "cache": "[STAGE]/home/.cache/huggingface/hub",
      "models": [
        {
          "id": "mlx-community/gemma-4-e4b-it-4bit",
          "bytes": 5180000004,
          "shared_bytes": 0,
          "state": "complete",
          "flag": "--gemma-light",
          "context_window": 131072,
          "context_window_raised": null,
          "in_use": null,
          "path": "[STAGE]/home/.cache/huggingface/hub/models--mlx-community--gemma-4-e4b-it-4bit"
        },
        {
          "id": "org/partial",
          "bytes": 2000008,
          "shared_bytes": 0,
          "state": "partial",
          "flag": null,
          "context_window": null,
          "context_window_raised": null,
          "in_use": null,
          "path": "[STAGE]/home/.cache/huggingface/hub/models--org--partial"
        },
        {
          "id": "org/other",
          "bytes": 1000004,
          "shared_bytes": 0,
          "state": "complete",
          "flag": null,
          "context_window": null,
          "context_window_raised": null,
          "in_use": null,
          "path": "[STAGE]/home/.cache/huggingface/hub/models--org--other"
        }
      ],
      "total_bytes": 5183000016,
      "own": []
    }
    "#);
}

#[test]
fn an_empty_cache_and_one_that_cannot_be_read() {
    let stage = fakes::stage();
    let ran = stage.run(&["list"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "No models in ~/.cache/huggingface/hub.\n")
    );
    stage.write(HUB, "a file");
    let ran = stage.run(&["list"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(ran.stderr, @"
    error: the model cache ~/.cache/huggingface/hub cannot be read
      cause: Not a directory (os error 20)
    ");
}

#[test]
fn files_count_once_and_only_where_they_are() {
    let stage = fakes::stage();
    let folder = model(&stage, "org/name", 1_000_000);
    let blob = stage.path(format!("{folder}/blobs/weights"));
    std::fs::hard_link(&blob, stage.path(format!("{folder}/blobs/again"))).expect("linked");
    stage.write(
        &format!("{folder}/snapshots/abc/copy.bin"),
        &"x".repeat(1_000),
    );
    let hidden = stage.write("elsewhere/big", &"x".repeat(5_000));
    symlink(
        hidden,
        stage.path(format!("{folder}/snapshots/abc/outside")),
    )
    .expect("linked");
    stage.write(&format!("{HUB}/datasets--org--data/blobs/x"), "data");
    stage.write(&format!("{HUB}/models--no--folder"), "a file");
    std::fs::create_dir_all(stage.path(format!("{HUB}/models--org--empty"))).expect("made");
    let ran = stage.run(&["list", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["total_bytes"], 1_000_000 + 2 + 2 + 1_000);
    assert_eq!(report["models"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let stage = three();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = stage
        .command(&["list"])
        .stdout(writer)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn names_are_removed_and_what_was_freed_is_said() {
    let stage = three();
    stage.write(&format!("{HUB}/.locks/models--org--other/x.lock"), "");
    // What engines computed of system prompts.
    let kept = ["other", "partial"].map(|name| {
        stage.write(
            &format!("cclocal/cache/prefixes/models--org--{name}/key.safetensors"),
            "",
        )
    });
    let ran = stage.run(&[
        "--rm",
        "gemma-light",
        "models--org--other",
        "org/other",
        "--yes",
    ]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stderr, @"
    ✓ removed mlx-community/gemma-4-e4b-it-4bit (5.2 GB)
    ✓ removed org/other (1 MB)
    Freed 5.2 GB.
    ");
    assert!(!stage.path(HUB).join("models--org--other").exists());
    assert!(!stage.path(HUB).join(".locks/models--org--other").exists());
    assert!(!kept[0].parent().expect("a folder").exists());
    assert!(kept[1].exists());
    assert!(
        stage
            .path(HUB)
            .join("models--org--partial/blobs/weights")
            .exists()
    );
}

#[test]
fn nothing_is_removed_unless_all_is_well() {
    let stage = three();
    let mut said = String::new();
    for args in [
        &["rm", "org/other", "org/unknown", "--yes"][..],
        &["rm", "other", "--yes"],
        &["rm", "../other", "--yes"],
        &["rm", "", "--yes"],
        &["rm", "org/other"],
        &["--clean"],
    ] {
        let ran = stage.run(args);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
        said += &format!("{args:?}\n{}", ran.stderr);
    }
    insta::assert_snapshot!(said, @r#"
    ["rm", "org/other", "org/unknown", "--yes"]
    error: org/unknown is not in the cache
      cause: nothing was removed
      hint: `cclocal list` shows what is there
    ["rm", "other", "--yes"]
    error: other is not in the cache
      cause: nothing was removed
      hint: did you mean org/other? `cclocal list` shows what is there
    ["rm", "../other", "--yes"]
    error: ../other is not in the cache
      cause: nothing was removed
      hint: `cclocal list` shows what is there
    ["rm", "", "--yes"]
    error:  is not in the cache
      cause: nothing was removed
      hint: did you mean mlx-community/gemma-4-e4b-it-4bit? `cclocal list` shows what is there
    ["rm", "org/other"]
    error: nothing was removed
      cause: there is no terminal to ask on
      hint: add --yes to remove without a question
    ["--clean"]
    error: no model was given
      cause: choosing from a list needs a terminal
      hint: `cclocal list` shows what is there; then: cclocal rm --yes ORG/NAME
    "#);
    assert!(
        stage
            .path(HUB)
            .join("models--org--other/blobs/weights")
            .exists()
    );
}

#[test]
fn links_are_removed_and_never_followed() {
    let stage = three();
    let kept = stage.write("elsewhere/keep/blobs/weights", "mine");
    let folder = stage.path(HUB).join("models--org--other");
    symlink(
        stage.path("elsewhere/keep"),
        folder.join("snapshots/abc/folder"),
    )
    .expect("linked");
    std::fs::remove_dir_all(folder.join("blobs")).expect("removed");
    symlink(stage.path("elsewhere/keep/blobs"), folder.join("blobs")).expect("linked");
    let ran = stage.run(&["rm", "org/other", "--yes"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!folder.exists() && kept.exists());

    symlink(
        stage.path("elsewhere/keep"),
        stage.path(HUB).join("models--org--linked"),
    )
    .expect("linked");
    let ran = stage.run(&["rm", "org/linked", "--yes"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(stage.filtered(&ran.stderr), @"
    error: org/linked was not removed
      cause: it is a link to [STAGE]/elsewhere/keep
      hint: remove it by hand if you want to: rm [STAGE]/home/.cache/huggingface/hub/models--org--linked
    ");
    assert!(kept.exists());
}

#[test]
fn what_is_in_use_or_being_downloaded_stays() {
    let mut stage = three();
    let lock = stage.write(&format!("{HUB}/.locks/models--org--partial/x.lock"), "");
    let lock = Flock::lock(
        std::fs::File::open(lock).expect("open"),
        FlockArg::LockExclusiveNonblock,
    )
    .expect("locked");
    let ran = stage.run(&["rm", "org/partial", "--yes"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("a program is downloading it"),
        "{}",
        ran.stderr
    );
    drop(lock);

    fakes::client(
        &mut stage,
        "while [ ! -e \"$HOME/go-on\" ]; do sleep 0.05; done",
    );
    let snapshot = format!("{HUB}/models--org--other/snapshots/abc");
    stage.write(&format!("{snapshot}/chat_template.jinja"), fakes::TEMPLATE);
    let port = free_port();
    let session = stage.start(&["--model", "org/other", "--port", &port]);
    stage.wait_for("client/pid");
    let ran = stage.run(&["list"]);
    assert!(
        ran.stdout.contains(&format!("in use on port {port}")),
        "{}",
        ran.stdout
    );
    let ran = stage.run(&["rm", "org/other", "--yes"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr
            .contains(&format!("port {port}, 1 session, process {}", session.id())),
        "{}",
        ran.stderr
    );
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
    // What a killed session left behind holds nothing.
    stage.write(
        &format!("cclocal/state/run/{port}/record.json"),
        &format!(r#"{{"pid":1,"port":{port},"model":"org/other","version":"0"}}"#),
    );
    stage.write(&format!("cclocal/state/run/{port}/lock"), "");
    assert_eq!(
        stage
            .run(&["rm", "org/other", "org/partial", "--yes"])
            .status,
        0
    );
}

#[test]
fn on_a_terminal_enter_removes_nothing() {
    let stage = three();
    let mut terminal = Terminal::run(&stage, &["rm", "org/other"], 80, 24);
    let screen = terminal.wait_for("[y/N]");
    insta::assert_snapshot!(screen, @"
      org/other  1 MB
    Remove 1 MB? [y/N]
    ");
    terminal.keys("\r");
    assert_eq!(terminal.end(), 0);
    assert!(terminal.text().contains("Nothing was removed."));
    assert!(
        stage
            .path(HUB)
            .join("models--org--other/refs/main")
            .exists()
    );
    let mut terminal = Terminal::run(&stage, &["rm", "org/other"], 80, 24);
    terminal.wait_for("[y/N]");
    terminal.keys("y\r");
    assert_eq!(terminal.end(), 0);
    assert!(!stage.path(HUB).join("models--org--other").exists());
}

#[test]
fn the_cache_screen() {
    let stage = three();
    let mut terminal = Terminal::run(&stage, &["rm"], 80, 24);
    terminal.wait_for("org/other");
    terminal.keys("\r");
    // What is typed before the list is there again would be echoed.
    terminal.wait_until("the list, again", |screen| {
        (screen.split_once("Nothing is chosen"))
            .is_some_and(|(_, below)| below.contains("org/other"))
    });
    terminal.keys("j j ");
    let screen = terminal.wait_for("2 models, 3 MB chosen");
    insta::assert_snapshot!(screen, @"
    Nothing is chosen. Press Space to choose a model.
    5.2 GB in ~/.cache/huggingface/hub
    Space choose · a all · Enter remove · q back · ↑↓ j k move
      [ ] mlx-community/gemma-4-e4b-it-4bit   5.2 GB   --gemma-light
      [x] org/partial                           2 MB   partial
    > [x] org/other                             1 MB

    2 models, 3 MB chosen
    ");
    terminal.keys("\r");
    terminal.wait_for("Remove 2 models, 3 MB? [y/N]");
    terminal.keys("n\r");
    terminal.wait_for("2 models, 3 MB chosen");
    assert!(stage.path(HUB).join("models--org--other").exists());
    terminal.keys("\r");
    terminal.wait_until("the question", |screen| screen.ends_with("[y/N]"));
    terminal.keys("y\r");
    terminal.wait_for("Freed");
    let screen = terminal.wait_for("> [ ] mlx");
    insta::assert_snapshot!(screen, @"
    Nothing is chosen. Press Space to choose a model.
    Remove 2 models, 3 MB? no
    Remove 2 models, 3 MB? yes
    Freed 3 MB.
    5.2 GB in ~/.cache/huggingface/hub
    Space choose · a all · Enter remove · q back · ↑↓ j k move
    > [ ] mlx-community/gemma-4-e4b-it-4bit   5.2 GB   --gemma-light
    ");
    assert!(!stage.path(HUB).join("models--org--other").exists());
    terminal.keys("\x03");
    assert_eq!(terminal.end(), 130);
    terminal.assert_as_it_was();
}

#[test]
fn the_menu_leads_to_the_cache_and_back() {
    let stage = three();
    let mut terminal = Terminal::run(&stage, &[], 80, 24);
    terminal.wait_for("List models in the cache");
    terminal.keys("k\r");
    terminal.wait_for("3 models, 5.2 GB, in ~/.cache/huggingface/hub");
    terminal.wait_for("> List models in the cache");
    terminal.keys("k\r");
    terminal.wait_for("Enter remove");
    terminal.keys(" \r");
    terminal.wait_for("[y/N]");
    terminal.keys("y\r");
    terminal.wait_for("Freed 5.2 GB.");
    terminal.keys("q");
    let screen = terminal.wait_for("> Remove models from the cache");
    assert!(!screen.contains("yes "), "{screen}");
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    terminal.assert_as_it_was();
}

const SHARED: &str = "ab00000000000000000000000000000000000000000000000000000000000000";

/// Two whole models whose weights are one file of the store that models share, as huggingface_hub 2.4 leaves them.
fn sharing() -> Stage {
    let stage = fakes::stage();
    let stored = stage.path(HUB).join("blobs/ab").join(SHARED);
    stage.write(&format!("{HUB}/blobs/.huggingface-shared-blobs"), "1\n");
    let mut links = String::new();
    for name in ["org/first", "org/second"] {
        let folder = model(&stage, name, 3_000_000);
        let blob = stage.path(format!("{folder}/blobs/weights"));
        std::fs::create_dir_all(stored.parent().expect("a folder")).expect("made");
        std::fs::rename(&blob, &stored).expect("moved");
        symlink(format!("../../blobs/ab/{SHARED}"), &blob).expect("linked");
        links += &format!("models--{}/blobs/weights\n", name.replace('/', "--"));
    }
    stage.write(&format!("{HUB}/blobs/ab/{SHARED}.refs"), &links);
    stage
}

#[test]
fn what_models_share_counts_once_and_goes_with_the_last() {
    let stage = sharing();
    let ran = stage.run(&["list"]);
    insta::assert_snapshot!(ran.stdout, @"
    org/first       3 MB  3 MB shared
    org/second      3 MB  3 MB shared

    2 models, 3 MB, in ~/.cache/huggingface/hub
    ");
    let stored = stage.path(HUB).join("blobs/ab").join(SHARED);
    let ran = stage.run(&["rm", "org/first", "--yes"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stderr, @"✓ removed org/first (0 kB; 3 MB stay, as other models use them)");
    assert!(stored.exists() && !stage.path(HUB).join("models--org--first").exists());
    let ran = stage.run(&["rm", "org/second", "--yes"]);
    insta::assert_snapshot!(ran.stderr, @"✓ removed org/second (3 MB)");
    assert!(!stored.exists());
    assert!(!stage.path(format!("{HUB}/blobs/ab/{SHARED}.refs")).exists());
}

#[test]
fn both_that_share_go_at_once() {
    let stage = sharing();
    let mut terminal = Terminal::run(&stage, &["rm", "org/first", "org/second"], 80, 24);
    terminal.wait_for("Remove 3 MB? [y/N]");
    terminal.keys("y\r");
    assert_eq!(terminal.end(), 0);
    assert!(terminal.text().contains("Freed 3 MB."));
    assert!(!stage.path(HUB).join("blobs/ab").join(SHARED).exists());
}

#[test]
fn what_looks_like_the_shared_store_and_leads_elsewhere_stays() {
    let stage = sharing();
    let kept = stage.path("elsewhere");
    std::fs::rename(stage.path(HUB).join("blobs"), &kept).expect("moved");
    symlink(&kept, stage.path(HUB).join("blobs")).expect("linked");
    let ran = stage.run(&["rm", "org/first", "org/second", "--yes"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(kept.join("ab").join(SHARED).exists());
}

#[test]
fn a_model_that_is_served_by_the_path_of_its_snapshot_is_in_use() {
    let mut stage = three();
    let folder = stage.path(HUB).join("models--org--other/snapshots/abc");
    let template = folder.join("chat_template.jinja");
    std::fs::write(template, fakes::TEMPLATE).expect("written");
    let links = stage.path("own-folder");
    std::fs::create_dir_all(&links).expect("made");
    symlink(
        folder.join("model.safetensors"),
        links.join("model.safetensors"),
    )
    .expect("linked");
    for file in ["config.json", "tokenizer.json", "chat_template.jinja"] {
        symlink(stage.path("model").join(file), links.join(file)).expect("linked");
    }
    fakes::staying_client(&mut stage);
    for served in [folder.as_path(), links.as_path()] {
        let _ = std::fs::remove_file(stage.path("client/pid"));
        let _ = std::fs::remove_file(stage.path("home/go-on"));
        let (port, served) = (free_port(), served.display().to_string());
        let session = stage.start(&["--model", &served, "--port", &port]);
        stage.wait_for("client/pid");
        let ran = stage.run(&["rm", "org/other", "--yes"]);
        assert_eq!(ran.status, 1, "{served}");
        let name = served.rsplit('/').next().expect("a name");
        let told = ran
            .stderr
            .replace(&format!("{name} ("), "[NAME] (")
            .replace(&port, "[PORT]")
            .replace(&session.id().to_string(), "[PID]");
        insta::allow_duplicates! { insta::assert_snapshot!(told, @"
        error: org/other was not removed
          cause: it is loaded: [NAME] (1 MB, port [PORT], 1 session, process [PID])
          hint: close that session first
        "); }
        stage.write("home/go-on", "yes");
        assert_eq!(finish(session).status, 0);
    }
    assert_eq!(stage.run(&["rm", "org/other", "--yes"]).status, 0);
}

#[test]
fn locks_that_lead_elsewhere_are_not_followed() {
    let stage = three();
    let kept = stage.write("elsewhere/models--org--other/x.lock", "mine");
    symlink(stage.path("elsewhere"), stage.path(HUB).join(".locks")).expect("linked");
    let ran = stage.run(&["rm", "org/other", "--yes"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(kept.exists());
}
