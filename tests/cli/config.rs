//! The settings file and `cclocal config`: what is shown, what counts, what is refused.

use serde_json::Value;

use crate::fakes;
use crate::support::Stage;
use crate::support::terminal::Terminal;

const FILE: &str = "cclocal/config/config.toml";

/// Standard output of a command that works.
fn said(stage: &Stage, args: &[&str]) -> String {
    let ran = stage.run(args);
    assert_eq!(ran.status, 0, "{args:?}: {}", ran.stderr);
    ran.stdout
}

/// The error of a command that is refused.
fn refused(stage: &Stage, args: &[&str]) -> String {
    let ran = stage.run(args);
    assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
    ran.stderr
}

fn dry_run(stage: &Stage, args: &[&str]) -> Value {
    let ran = stage.run(&[args, &["--dry-run", "--json"]].concat());
    assert_eq!(ran.status, 0, "{args:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("JSON")
}

#[test]
fn every_value_is_shown_with_its_origin_in_80_columns() {
    let stage = fakes::stage();
    let nothing =
        said(&stage, &["config"]).replace(&stage.path("").display().to_string(), "STAGE/");
    insta::assert_snapshot!(nothing, @"
    SETTING        VALUE                             FROM
    model          the menu asks                     default
    ctx            auto                              default
    out-tokens     8192, or 4096 if memory is short  default
    vision         false                             default
    think          false                             default
    linger         0                                 CCLOCAL_LINGER
    port           8000, or the next that is free    default
    web-search     off                               default
    ask            false                             default
    mem-check      auto                              default
    forget-prefix  false                             default

    file: STAGE/cclocal/config/config.toml (not there yet)
    ");
    assert!(!stage.path("cclocal").exists(), "it wrote");
    stage.write(
        FILE,
        "# mine\nmodel = \"work\"\nctx = \"64k\"\nlinger = 60\nmem-check = \"never\"\n\n[models.work]\nid = \"mlx-community/Devstral-Small-2507-4bit\"\nparser = \"mistral\"\nctx = 32768\n",
    );
    let all = said(&stage, &["config"]).replace(&stage.path("").display().to_string(), "STAGE/");
    insta::assert_snapshot!(all, @"
    SETTING        VALUE                             FROM
    model          work                              file, line 2
    ctx            65536                             file, line 3
    out-tokens     8192, or 4096 if memory is short  default
    vision         false                             default
    think          false                             default
    linger         0                                 CCLOCAL_LINGER
    port           8000, or the next that is free    default
    web-search     off                               default
    ask            false                             default
    mem-check      never                             file, line 5
    forget-prefix  false                             default

    [models.work]
    id             mlx-community/Devstral-Small-2507-4bit file
    parser         mistral                           file
    ctx            32768                             file, line 10

    file: STAGE/cclocal/config/config.toml
    ");
    assert!(all.lines().all(|line| line.chars().count() <= 80));
    let json: Value = serde_json::from_str(&said(&stage, &["config", "--json"])).expect("JSON");
    assert_eq!(
        json["settings"]["ctx"],
        serde_json::json!({"source": "file", "line": 3, "value": 65_536})
    );
    assert_eq!(
        json["settings"]["linger"],
        serde_json::json!({"source": "variable", "variable": "CCLOCAL_LINGER", "value": 0})
    );
    assert_eq!(
        json["settings"]["vision"],
        serde_json::json!({"source": "default", "value": null})
    );
    assert_eq!(json["models"]["work"]["parser"], "mistral");
    assert_eq!(json["models"]["work"]["settings"]["ctx"]["value"], 32_768);
    assert_eq!(
        json["models"]["work"]["settings"]["mem-check"]["source"],
        "file"
    );
    let path = said(&stage, &["config", "path"]);
    assert_eq!(path.trim(), stage.path(FILE).display().to_string());
    for (key, value) in [
        ("ctx", "65536"),
        ("linger", "0"),
        ("vision", "false"),
        ("models.work.ctx", "32768"),
        ("models.work.parser", "mistral"),
        ("models.work.mem-check", "never"),
    ] {
        assert_eq!(said(&stage, &["config", "get", key]).trim(), value, "{key}");
    }
    insta::assert_snapshot!(refused(&stage, &["config", "get", "windw"]), @"
    error: there is no setting `windw`
      hint: perhaps `ctx`; all of them: cclocal config
    ");
    insta::assert_snapshot!(refused(&stage, &["config", "get", "models.work.colour"]), @"
    error: there is no setting `models.work.colour`
      hint: all of them: cclocal config; in a table: models.NAME.KEY, remotes.NAME.KEY
    ");
    insta::assert_snapshot!(refused(&stage, &["config", "get", "models.work.context"]), @"
    error: there is no setting `models.work.context`
      hint: perhaps `models.work.ctx`; all of them: cclocal config
    ");
    insta::assert_snapshot!(refused(&stage, &["config", "get", "models.home.ctx"]), @"
    error: there is no model `home` in the settings file
      hint: to see what is there: cclocal config
    ");
}

#[test]
fn a_session_goes_by_the_file_and_flags_go_first() {
    let stage = fakes::stage();
    let folder = stage.path("model").display().to_string();
    stage.write(
        FILE,
        &format!("model = \"mine\"\nthink = true\nout-tokens = \"2k\"\n[models.mine]\nfolder = \"{folder}\"\nparser = \"mistral\"\nctx = \"32k\"\nport = 8123\n"),
    );
    let plan = dry_run(&stage, &[]);
    assert_eq!(plan["model"]["name"], "mine");
    assert_eq!(
        plan["model"]["tool_call_form"], "mistral",
        "not the template's"
    );
    assert_eq!(plan["memory"]["context_window"], 32_768);
    assert_eq!(plan["memory"]["output_tokens"], 2_048);
    for words in [&["--model", "mine"][..], &["mine"]] {
        assert_eq!(dry_run(&stage, words)["model"], plan["model"]);
    }
    let flags = dry_run(&stage, &["--ctx", "40000", "--out-tokens", "1024"]);
    assert_eq!(flags["memory"]["context_window"], 40_000);
    assert_eq!(flags["memory"]["output_tokens"], 1_024);
    let ran = stage.run(&["mine"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("mine ready"), "{}", ran.stderr);
    assert!(stage.read("engine/args").contains("--tool-call-parser"));
    // Another model does not get the options of that one.
    let other = dry_run(&stage, &["--coder", "--ctx", "24576"]);
    assert_eq!(other["model"]["name"], "Qwen3-Coder-30B-A3B");
    assert_eq!(other["memory"]["output_tokens"], 2_048);
    let light = dry_run(&stage, &["light", "--ctx", "24576"]);
    assert_eq!(light["model"]["name"], "Gemma-4-E4B");
    assert_eq!(light["model"]["thinking"], true);
    let not = dry_run(
        &stage,
        &["--model", "light", "--ctx", "24576", "--no-think"],
    );
    assert_eq!(not["model"]["thinking"], false);
    insta::assert_snapshot!(refused(&stage, &["--model", "mina", "--dry-run"]), @"
    error: `mina` is not a model
      cause: it has no organisation
      hint: perhaps: cclocal --model mine
    ");
    // The menu, which needs a terminal, stays within reach.
    let menu = stage.run(&["--menu"]);
    assert_eq!(menu.status, 2);
    assert!(
        menu.stderr.contains("the menu of models needs a terminal"),
        "{}",
        menu.stderr
    );
}

#[test]
fn asking_is_a_setting_and_an_engine_of_others_has_its_own() {
    let stage = fakes::stage();
    let folder = stage.path("model").display().to_string();
    stage.write(
        FILE,
        &format!("ask = false\n[models.mine]\nfolder = \"{folder}\"\nask = true\n[remotes.team]\nurl = \"https://llm.example\"\n[remotes.own]\nurl = \"https://llm.example\"\nask = false\n"),
    );
    // Without a terminal all of Claude Code's own modes ask, so the tools that are allowed tell.
    let allowed = |words: &[&str]| {
        let plan = dry_run(&stage, words);
        let argv = plan["claude"]["argv"].to_string();
        let at = argv.find("--allowedTools=").expect("it");
        argv[at..].contains("Bash")
    };
    assert!(allowed(&["--model", &folder]), "as the file says");
    assert!(!allowed(&["mine"]), "as its table says");
    assert!(allowed(&["mine", "--no-ask"]), "a flag goes first");
    assert!(!allowed(&["--model", &folder, "--ask"]));
    assert!(
        !allowed(&["--connect", "team"]),
        "the top is for engines of this machine"
    );
    assert!(allowed(&["--connect", "own"]));
    assert!(!allowed(&["--connect", "own", "--ask"]));
}

#[test]
fn a_damaged_file_stops_a_start_and_nothing_else() {
    let stage = fakes::stage();
    stage.write(FILE, "ctx = \"64k\"\nwindow = 3\n");
    let start = refused(&stage, &["--coder"]);
    insta::assert_snapshot!(start.replace(&stage.path("").display().to_string(), "STAGE/"), @"
    error: STAGE/cclocal/config/config.toml has an unknown key `window`
      cause: line 2: there is no such setting
      hint: perhaps `ctx`; to open the file: cclocal config edit
    ");
    for args in [
        &["server", "--coder"][..],
        &["connect"],
        &["--connect", "http://127.0.0.1:1"],
        &["work"],
        &["config"],
        &["config", "get", "ctx"],
    ] {
        assert_eq!(refused(&stage, args), start, "{args:?}");
    }
    for args in [
        &["stop"][..],
        &["status"],
        &["rm", "--yes", "org/name"],
        &["logs"],
        &["config", "path"],
    ] {
        let ran = stage.run(args);
        assert!(
            !ran.stderr.contains("config.toml"),
            "{args:?}: {}",
            ran.stderr
        );
    }
    let doctor = stage.run(&["doctor", "--json"]).stdout;
    let doctor: Value = serde_json::from_str(&doctor).expect("JSON");
    let checks = doctor["checks"].as_array().expect("a list");
    let found = checks
        .iter()
        .find(|finding| finding["check"] == "settings file");
    assert_eq!(found.expect("a finding")["status"], "fail");
    std::fs::remove_file(stage.path(FILE)).expect("removed");
    std::fs::create_dir(stage.path(FILE)).expect("a folder in its place");
    let ran = stage.run(&["--coder"]);
    assert_eq!(ran.status, 1);
    insta::assert_snapshot!(ran.stderr.replace(&stage.path("").display().to_string(), "STAGE/"), @"
    error: the settings file STAGE/cclocal/config/config.toml cannot be read
      cause: STAGE/cclocal/config/config.toml: it is a folder, not a file
      hint: make it readable, or move it away: without it, all settings have their defaults
    ");
}

#[test]
fn set_and_unset_change_one_line() {
    let mut stage = fakes::stage();
    insta::assert_snapshot!(set(&stage, "ctx", "64k"), @"✓ ctx = 64k");
    assert_eq!(stage.read(FILE), "ctx = \"64k\"\n");
    insta::assert_snapshot!(set(&stage, "models.work.id", "org/name"), @"✓ models.work.id = org/name");
    insta::assert_snapshot!(set(&stage, "models.work.ctx", "32768"), @"✓ models.work.ctx = 32768");
    insta::assert_snapshot!(set(&stage, "ctx", "auto"), @"
    ✓ ctx = auto
    note: [models.work] has its own ctx
    ");
    insta::assert_snapshot!(set(&stage, "linger", "60"), @"
    ✓ linger = 60
    note: CCLOCAL_LINGER is set, and goes before the file
    ");
    stage.set("CCLOCAL_LINGER", "");
    let head = "# Mine, and only mine.\n\n";
    stage.write(FILE, &(head.to_owned() + &stage.read(FILE)));
    insta::assert_snapshot!(stage.read(FILE), @r#"
    # Mine, and only mine.

    ctx = "auto"
    linger = 60

    [models.work]
    id = "org/name"
    ctx = 32768
    "#);
    assert_eq!(said(&stage, &["config", "get", "linger"]), "60\n");
    let unset = |key: &str| {
        let ran = stage.run(&["config", "unset", key]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        ran.stderr
    };
    insta::assert_snapshot!(unset("ctx"), @"✓ ctx is not set any more");
    insta::assert_snapshot!(unset("ctx"), @"note: ctx was not set in the file");
    insta::assert_snapshot!(unset("models.work"), @"✓ models.work is not set any more");
    unset("linger");
    assert_eq!(stage.read(FILE).trim(), head.trim());
}

fn set(stage: &Stage, key: &str, value: &str) -> String {
    let ran = stage.run(&["config", "set", key, value]);
    assert_eq!(ran.status, 0, "{key}: {}", ran.stderr);
    ran.stderr
}

#[test]
fn a_change_that_would_not_load_is_refused() {
    let stage = fakes::stage();
    let kept = "# Mine.\nmodel = \"work\"\n[models.work]\nid = \"org/name\"\n";
    stage.write(FILE, kept);
    let no = |args: &[&str]| refused(&stage, &[&["config"], args].concat());
    insta::assert_snapshot!(no(&["set", "ctx", "3"]), @r#"
    error: `ctx` cannot be `3`
      cause: it is "auto", or 20480 to 1000000 tokens; "64k" is a number, too
      hint: to see what is set: cclocal config
    "#);
    insta::assert_snapshot!(no(&["set", "window", "64k"]), @"
    error: there is no setting `window`
      hint: perhaps `ctx`; all of them: cclocal config
    ");
    insta::assert_snapshot!(no(&["set", "models.home.ctx", "64k"]), @r#"
    error: `models.home.ctx` was not changed: the file would be wrong
      cause: it has neither an id nor a folder
      hint: such as [models.home] with id = "org/name"
    "#);
    insta::assert_snapshot!(no(&["set", "models.status.id", "org/name"]), @"
    error: `models.status.id` was not changed: the file would be wrong
      cause: `cclocal status` is a command, or may become one
      hint: to see what is there: cclocal config
    ");
    insta::assert_snapshot!(no(&["set", "models.work.folder", "/models/one"]), @r#"
    error: `models.work.folder` was not changed: the file would be wrong
      cause: it has an id and a folder, and it is one of them
      hint: such as [models.work] with id = "org/name"
    "#);
    insta::assert_snapshot!(no(&["set", "model", "wrk"]), @r#"
    error: `model` was not changed: the file would be wrong
      cause: it is a flag such as "gemma", a name of [models], a hub id or a folder
      hint: perhaps "work"
    "#);
    insta::assert_snapshot!(no(&["set", "models", "3"]), @"
    error: there is no setting `models`
      hint: perhaps `model`; all of them: cclocal config
    ");
    insta::assert_snapshot!(no(&["unset", "models.work"]), @r#"
    error: `models.work` was not changed: the file would be wrong
      cause: it is a flag such as "gemma", a name of [models], a hub id or a folder
      hint: to see what is there: cclocal config
    "#);
    insta::assert_snapshot!(no(&["set", "web-search", "http://me:word@searx.example"]), @"
    error: `web-search` cannot be that
      cause: a URL in this file has no user name and no password: others may read it
      hint: to see what is set: cclocal config
    ");
    assert_eq!(stage.read(FILE), kept);
    // One with a mistake in it is mended by taking that out, and by nothing else.
    stage.write(FILE, "ctxx = 3\nlinger = 60\n");
    let said =
        no(&["set", "linger", "90"]).replace(&stage.path("").display().to_string(), "STAGE/");
    insta::assert_snapshot!(said, @"
    error: STAGE/cclocal/config/config.toml has an unknown key `ctxx`
      cause: line 1: there is no such setting
      hint: perhaps `ctx`; to open the file: cclocal config edit
    ");
    let ran = stage.run(&["config", "unset", "ctxx"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(stage.read(FILE), "linger = 60\n");
}

#[test]
fn the_editor_gets_the_file_and_it_is_checked_afterwards() {
    let mut stage = fakes::stage();
    insta::assert_snapshot!(refused(&stage, &["config", "edit"]), @"
    error: no editor is known
      cause: neither VISUAL nor EDITOR is set
      hint: such as: EDITOR=nano cclocal config edit
    ");
    let editor = stage.script("editor", "#!/bin/sh\necho \"$1\" >> \"$HOME/options\"\nshift\ncat \"$1\" > \"$HOME/seen\"\n[ -n \"$TYPED\" ] && printf '%s' \"$TYPED\" > \"$1\"\nexit ${STATUS:-0}\n");
    stage.set("EDITOR", "false");
    stage.set("VISUAL", format!("{} --wait", editor.display()));
    let edit = |stage: &Stage, status: i32| {
        let ran = stage.run(&["config", "edit"]);
        assert_eq!(ran.status, status, "{}", ran.stderr);
        ran.stderr
            .replace(&stage.path("").display().to_string(), "STAGE/")
    };
    insta::assert_snapshot!(edit(&stage, 0), @"Nothing was set.");
    assert!(!stage.path(FILE).exists(), "nothing was set");
    assert_eq!(stage.read("home/options"), "--wait\n");
    insta::assert_snapshot!(stage.read("home/seen"), @r#"
    # Settings of cclocal. What counts: a flag, else a variable, else this file.
    # To see what counts now: cclocal config

    # model = "gemma-light"
    # ctx = "64k"
    # out-tokens = "8k"
    # vision = false
    # think = false
    # linger = 300
    # port = 8000
    # web-search = "off"
    # ask = false
    # mem-check = "auto"
    # forget-prefix = false

    # A model of your own, for: cclocal work
    # [models.work]
    # id = "org/name"

    # An engine that others run, for: cclocal --connect team
    # [remotes.team]
    # url = "https://llm.example"
    # token-env = "TEAM_KEY"
    "#);
    stage.set("TYPED", "ctx = '64k'\n");
    insta::assert_snapshot!(edit(&stage, 0), @"✓ STAGE/cclocal/config/config.toml is fine");
    stage.set("TYPED", "ctx = 64k\n");
    insta::assert_snapshot!(edit(&stage, 2), @"
    error: STAGE/cclocal/config/config.toml is not valid TOML
      cause: line 1: string values must be quoted, expected literal string
      hint: words stand in quotes, and 64k does, too; to open the file: cclocal config edit
    ");
    stage.set("STATUS", "3");
    insta::assert_snapshot!(edit(&stage, 1), @"
    error: the editor `STAGE/bin/editor --wait` failed
      cause: exit status: 3
      hint: set EDITOR to another one; the file is as the editor left it
    ");
}

/// A model of the hub in the cache that looks whole, of the same kind as the stage's folder.
fn cached(stage: &Stage, id: &str, template: Option<&str>) {
    let folder = format!(
        "home/.cache/huggingface/hub/models--{}",
        id.replace('/', "--")
    );
    stage.write(&format!("{folder}/refs/main"), "abc");
    let write = |name: &str, text: &str| {
        stage.write(&format!("{folder}/snapshots/abc/{name}"), text);
    };
    write("config.json", r#"{"model_type": "llama"}"#);
    write("tokenizer.json", "{}");
    write("model.safetensors", "weights");
    if let Some(template) = template {
        write("chat_template.jinja", template);
    }
}

/// A Mac with models of its own, one of which is gone, and some on the disk, one of which cannot chat.
fn with_models() -> Stage {
    let mut stage = fakes::stage();
    fakes::mac(&mut stage, 24);
    std::fs::rename(stage.path("model"), stage.path("home/model")).expect("moved");
    stage.write(
        FILE,
        "model = \"mine\"\n[models.work]\nid = \"org/work\"\nctx = \"32k\"\n[models.mine]\nfolder = \"~/model\"\n[models.gone]\nfolder = \"~/gone\"\n",
    );
    cached(&stage, "org/work", Some(fakes::TEMPLATE));
    cached(
        &stage,
        "some-org/A-model-with-a-rather-long-name-4bit",
        Some(fakes::TEMPLATE),
    );
    cached(&stage, "org/base", None);
    stage
}

#[test]
fn a_mistake_can_be_mended_at_once() {
    let mut stage = fakes::stage();
    let editor = stage.script(
        "editor",
        "#!/bin/sh\nif grep -q ctxx \"$1\"; then echo 'ctx = 30000' > \"$1\"; else echo 'ctxx = 3' > \"$1\"; fi\n",
    );
    stage.set("EDITOR", editor.display().to_string());
    let mut terminal = Terminal::run(&stage, &["config", "edit"], 200, 24);
    terminal.wait_for("Edit it again? [Y/n]");
    terminal.keys("y\r");
    terminal.wait_for("is fine");
    assert_eq!(terminal.end(), 0);
    assert_eq!(stage.read(FILE), "ctx = 30000\n");
    let mut terminal = Terminal::run(&stage, &["config", "edit"], 200, 24);
    terminal.wait_for("Edit it again? [Y/n]");
    terminal.keys("n\r");
    assert_eq!(terminal.end(), 2);
    let screen = terminal
        .text()
        .replace(&stage.path("").display().to_string(), "STAGE/");
    let error = screen.rfind("error: ").expect("an error");
    insta::assert_snapshot!(&screen[error..], @"
    error: STAGE/cclocal/config/config.toml was left with a mistake in it
      cause: no session starts with it
      hint: to open the file: cclocal config edit
    ");
}

#[test]
fn the_menu_has_every_model_that_can_be_started() {
    let stage = with_models();
    let mut terminal = Terminal::run(&stage, &["--menu"], 80, 36);
    let screen = terminal.wait_for("List models in the cache");
    // What the catalogue's rows say is told elsewhere.
    let of_catalogue = |line: &&str| {
        line.contains(" GB ") || (line.starts_with("    --") && !line.contains("--model"))
    };
    let others: Vec<&str> = screen.lines().filter(|line| !of_catalogue(line)).collect();
    insta::assert_snapshot!(others.join("\n"), @"
    Enter start · q quit · ↑↓ j k move
      MODEL                   SIZE   ON DISK           CONTEXT
      work                    0 kB   yes               unknown
        cclocal work · org/work
    > mine                    0 kB   yes               unknown
        cclocal mine · ~/model
      gone                           folder is gone    unknown
        cclocal gone · ~/gone
      A-model-with-a-rath…    0 kB   yes               unknown
        --model some-org/A-model-with-a-rather-long-name-4bit
      Remove models from the cache
      List models in the cache
    ");
    // The default is chosen already; the one below it is gone.
    terminal.keys("j\r");
    assert_eq!(terminal.end(), 2);
    let said = terminal.text();
    assert!(said.contains("there is no model folder ~/gone"), "{said}");
}

#[test]
fn the_list_has_ones_own_models() {
    let stage = with_models();
    insta::assert_snapshot!(said(&stage, &["list"]), @"
    org/work                                           0 kB
    some-org/A-model-with-a-rather-long-name-4bit      0 kB
    org/base                                           0 kB

    3 models, 0 kB, in ~/.cache/huggingface/hub

    Your own, as cclocal NAME:
    work  org/work, 0 kB
    mine  ~/model, 0 kB
    gone  ~/gone, no model is there
    ");
    let json: Value = serde_json::from_str(&said(&stage, &["list", "--json"])).expect("JSON");
    assert_eq!(json["own"][0]["name"], "work");
    assert_eq!(json["own"][0]["id"], "org/work");
    assert_eq!(
        json["own"][1]["folder"],
        stage.path("home/model").display().to_string()
    );
    assert_eq!(json["own"][2]["state"], "missing");
}

#[test]
fn an_engine_of_others_has_a_name() {
    let mut stage = fakes::stage();
    stage.set("TEAM_KEY", "the-token-of-the-team");
    for (key, value) in [
        ("remotes.team.url", "https://llm.example"),
        ("remotes.team.token-env", "TEAM_KEY"),
        ("remotes.team.model", "team/model"),
        ("remotes.team.ctx", "64k"),
        ("remotes.team.parallel", "8"),
        ("remotes.team.wait", "0"),
        // For engines of this machine.
        ("ctx", "32k"),
    ] {
        set(&stage, key, value);
    }
    let plan = dry_run(&stage, &["--connect", "team"]);
    assert_eq!(plan["engine"]["url"], "https://llm.example");
    assert_eq!(plan["engine"]["model"], "team/model");
    assert_eq!(plan["engine"]["key"], "from the variable of --token-env");
    assert_eq!(plan["context_window"], 65_536);
    assert_eq!(plan["parallel"], 8);
    let flags = ["--connect", "team", "--model", "other", "--ctx", "40000"];
    let plan = dry_run(&stage, &flags);
    assert_eq!(plan["engine"]["model"], "other");
    assert_eq!(plan["context_window"], 40_000);
    assert_eq!(
        said(&stage, &["config", "get", "remotes.team.token-env"]),
        "TEAM_KEY\n"
    );
    let shown = said(&stage, &["config"]);
    insta::assert_snapshot!(&shown[shown.find("[remotes").expect("it")..shown.find("file: ").expect("it")], @"
    [remotes.team]
    url            https://llm.example               file
    ctx            65536                             file, line 7
    model          team/model                        file, line 6
    parallel       8                                 file, line 8
    token-env      TEAM_KEY                          file, line 5
    wait           0                                 file, line 9
    ");
    let json: Value = serde_json::from_str(&said(&stage, &["config", "--json"])).expect("JSON");
    assert_eq!(json["remotes"]["team"]["ctx"], 65_536);
    insta::assert_snapshot!(refused(&stage, &["--connect", "taem"]), @"
    error: there is no remote `taem` in the settings file
      hint: perhaps: cclocal --connect team
    ");
    let token = ["config", "set", "remotes.team.token-env", "sk-12345678"];
    insta::assert_snapshot!(refused(&stage, &token), @r#"
    error: `remotes.team.token-env` cannot be that
      cause: it is the name of a variable, such as "TEAM_KEY"; the token itself stays out of this file
      hint: to see what is set: cclocal config
    "#);
    insta::assert_snapshot!(refused(&stage, &["config", "get", "remotes.other.url"]), @"
    error: there is no remote `other` in the settings file
      hint: to see what is there: cclocal config
    ");
}
