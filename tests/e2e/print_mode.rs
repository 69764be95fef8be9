//! Print mode: `cclocal … -- -p "…"` as a script would use it.

use serde_json::Value;

use crate::real::{self, TEXT, free_port, launch};

#[test]
fn a_real_tool_call_writes_a_real_file() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let port = free_port();
        let ran = stage.run(&launch(
            &port,
            &["--", "-p", "Create hello.txt", "--output-format", "json"],
        ));
        assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
        assert_eq!(stage.read("work/hello.txt"), TEXT);
        let answer: Value =
            serde_json::from_str(&ran.stdout).expect("standard output is the client's JSON alone");
        assert_eq!(answer["is_error"], false, "{answer}");
        assert_eq!(answer["num_turns"], 2, "{answer}");
        assert_eq!(real::claude_files(&stage), Vec::<String>::new());
        stage.assert_nothing_left();
    }
}

#[test]
fn the_clients_own_status_is_ours() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let ran = stage.run(&launch(
        &port,
        &["--", "-p", "x", "--output-format", "no-such-format"],
    ));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("output-format"), "{}", ran.stderr);
}

#[test]
fn a_conversation_can_be_continued() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let first = stage.run(&launch(
        &port,
        &["--", "-p", "Create hello.txt", "--output-format", "json"],
    ));
    assert_eq!(first.status, 0, "{}", first.stderr);
    let again = stage.run(&launch(
        &port,
        &[
            "--",
            "--continue",
            "-p",
            "And again",
            "--output-format",
            "json",
        ],
    ));
    assert_eq!(again.status, 0, "{}", again.stderr);
    let session = |text: &str| {
        serde_json::from_str::<Value>(text).expect("JSON")["session_id"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(session(&first.stdout), session(&again.stdout));
}

#[test]
fn a_damaged_model_is_said_to_be_one() {
    let stage = real::stage(&real::client());
    stage.write("hermes-llama/model.safetensors", "this is no weight file");
    let ran = stage.run(&launch(&free_port(), &["--", "-p", "x"]));
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("a file of the model is damaged or missing"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_unknown_architecture_is_said_to_be_one() {
    let stage = real::stage(&real::client());
    let config = stage
        .read("hermes-llama/config.json")
        .replace("\"llama\"", "\"no_such_type\"");
    stage.write("hermes-llama/config.json", &config);
    let ran = stage.run(&launch(&free_port(), &["--", "-p", "x"]));
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("does not know this model's architecture"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_model_that_is_not_on_disk_cannot_be_fetched_offline() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let ran = stage.run(&["--coder7b", "--port", &port, "--", "-p", "x"]);
    assert_eq!(ran.status, 15, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the hub could not be reached"),
        "{}",
        ran.stderr
    );
}
