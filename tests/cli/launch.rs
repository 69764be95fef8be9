//! A launch with the fakes: what the engine and the client are given, and how it ends.

use std::os::unix::fs::PermissionsExt;

use crate::fakes;
use crate::support::free_port;

#[test]
fn the_client_runs_on_the_engine_and_its_status_is_ours() {
    let mut stage = fakes::stage();
    fakes::client(&mut stage, "echo answered; exit 42");
    let port = free_port();
    let ran = stage.run(&[
        "--model",
        "../model",
        "--port",
        &port,
        "--",
        "-p",
        "two words",
    ]);
    assert_eq!(ran.status, 42, "{}", ran.stderr);
    assert_eq!(
        ran.stdout, "answered\n",
        "standard output is the client's alone"
    );
    let args = stage.read("client/args");
    assert!(args.ends_with("-p\ntwo words\n"), "{args}");
    let env = stage.read("client/env");
    assert!(
        env.contains(&format!("ANTHROPIC_BASE_URL=http://127.0.0.1:{port}\n")),
        "{env}"
    );
    let engine = stage.read("engine/args");
    assert!(
        engine.contains(&format!("--port\n{port}\n")),
        "it serves on its socket; the port that it is told is taken: {engine}"
    );
    assert!(engine.contains("--host\n127.0.0.1"), "{engine}");
    stage.assert_nothing_left();
    let record = stage.path("cclocal/state/run").join(&port);
    assert!(!record.exists(), "the run folder is left behind");
}

#[test]
fn the_keys_of_engine_and_client_are_on_no_command_line() {
    let stage = fakes::stage();
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let key = stage.read("engine/key");
    assert_eq!(key.len(), 64);
    let env = stage.read("client/env");
    let token = env
        .lines()
        .find_map(|line| line.strip_prefix("ANTHROPIC_AUTH_TOKEN="))
        .expect("a token");
    assert_eq!(token.len(), 64);
    assert_ne!(token, key, "the engine's own key stays behind the gateway");
    for secret in [key.as_str(), token] {
        for public in ["engine/args", "engine/env", "client/args"] {
            assert!(!stage.read(public).contains(secret), "it is in {public}");
        }
        assert!(!ran.stderr.contains(secret));
    }
}

#[test]
fn no_secret_of_the_shell_reaches_engine_or_client() {
    let mut stage = fakes::stage();
    let secrets = [
        ("ANTHROPIC_API_KEY", "sk-ant-real"),
        ("ANTHROPIC_AUTH_TOKEN", "sk-ant-token"),
        ("ANTHROPIC_CUSTOM_HEADERS", "x-real: sk-ant-header"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oauth"),
        ("CLAUDE_CODE_USE_BEDROCK", "sk-ant-bedrock"),
        ("CLAUDE_CODE_USE_VERTEX", "sk-ant-vertex"),
        ("ANTHROPIC_BEDROCK_BASE_URL", "http://sk-ant-url"),
    ];
    for (name, value) in secrets {
        stage.set(name, value);
    }
    stage.set("GITHUB_TOKEN", "ghp-real").set("MY_OWN", "mine");
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let (engine, client) = (stage.read("engine/env"), stage.read("client/env"));
    assert!(
        !engine.contains("sk-ant") && !client.contains("sk-ant"),
        "{engine}\n{client}"
    );
    assert!(!engine.contains("ghp-real"), "{engine}");
    assert!(
        client.contains("MY_OWN=mine"),
        "the rest of the shell's environment stays: {client}"
    );
}

#[test]
fn logs_are_private_and_the_previous_one_is_kept() {
    let stage = fakes::stage();
    let port = free_port();
    for _ in 0..2 {
        let ran = stage.run(&["--model", "../model", "--port", &port]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    for name in [format!("server-{port}.log"), format!("server-{port}.log.1")] {
        let mode = std::fs::metadata(stage.path("cclocal/state").join(&name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_users_own_claude_folder_is_not_written() {
    let stage = fakes::stage();
    stage.write(
        "home/.claude/settings.json",
        r#"{"permissions": {"deny": ["WebFetch"]}}"#,
    );
    stage.write("home/.claude.json", r#"{"numStartups": 7}"#);
    let ran = stage.run(&["--model", "../model", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(stage.read("home/.claude.json"), r#"{"numStartups": 7}"#);
    let names: Vec<_> = std::fs::read_dir(stage.path("home/.claude"))
        .expect("read")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["settings.json"]);
}

#[test]
fn a_catalogue_model_on_disk_is_served_offline() {
    let mut stage = fakes::stage();
    let hub = stage.path("hub");
    let folder = "hub/models--mlx-community--Qwen2.5-Coder-7B-Instruct-4bit";
    stage.write(&format!("{folder}/refs/main"), "abc");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        stage.write(&format!("{folder}/snapshots/abc/{name}"), "{}");
    }
    stage.write(&format!("{folder}/blobs/b"), "weights");
    stage.set("HF_HUB_CACHE", hub.display().to_string());
    stage.set("HF_TOKEN", "hf-real");
    let ran = stage.run(&["--coder7b", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let (args, env) = (stage.read("engine/args"), stage.read("engine/env"));
    assert!(
        args.contains("mlx-community/Qwen2.5-Coder-7B-Instruct-4bit"),
        "{args}"
    );
    assert!(
        args.contains("--continuous-batching\n--max-num-seqs\n1"),
        "{args}"
    );
    assert!(args.contains("--tool-call-parser\nhermes"), "{args}");
    assert!(env.contains("HF_HUB_OFFLINE=1"), "{env}");
    assert!(!env.contains("hf-real"), "{env}");
    // While something is missing, the engine needs both the network and the token.
    std::fs::remove_file(stage.path(format!("{folder}/snapshots/abc/model.safetensors")))
        .expect("removed");
    let ran = stage.run(&["--coder7b", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let env = stage.read("engine/env");
    assert!(
        !env.contains("HF_HUB_OFFLINE") && env.contains("HF_TOKEN=hf-real"),
        "{env}"
    );
}
