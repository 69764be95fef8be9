//! What a model's files decide: whether it is served at all, how its tool calls are read, whether it thinks.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::Value;

use crate::fakes;
use crate::support::{Stage, finish, free_port};

/// A model folder of that name with these files beside its configuration.
fn folder(stage: &Stage, name: &str, files: &[(&str, &str)]) {
    stage.write(&format!("{name}/config.json"), r#"{"model_type": "llama"}"#);
    stage.write(&format!("{name}/tokenizer.json"), "{}");
    for (file, text) in files {
        stage.write(&format!("{name}/{file}"), text);
    }
}

/// What is said when a model is refused, before anything is started.
fn refused(stage: &Stage, args: &[&str]) -> String {
    let ran = stage.run(args);
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert_eq!(stage.read("engine/starts"), "", "an engine was started");
    let words: String = ran
        .stderr
        .lines()
        .map(|line| line.to_owned() + "\n")
        .collect();
    stage.filtered(&words)
}

#[test]
fn a_model_that_cannot_be_served_is_refused_at_once_and_in_its_own_words() {
    let stage = fakes::stage();
    let weights = ("model.safetensors", "weights");
    folder(
        &stage,
        "gguf",
        &[("model-q4.gguf", ""), ("model-q8.gguf", "")],
    );
    insta::assert_snapshot!(refused(&stage, &["--model", "../gguf"]), @"
    error: ../gguf has no weights that cclocal can serve
      cause: it has GGUF files (model-q4.gguf, model-q8.gguf), and no *.safetensors
      hint: cclocal needs an MLX model, such as mlx-community/gemma-4-e4b-it-4bit
    ");
    folder(&stage, "base", &[weights]);
    insta::assert_snapshot!(refused(&stage, &["--model", "../base", "--dry-run"]), @"
    error: [STAGE]/base has no chat template
      cause: it is a base model: it continues text instead of answering
      hint: use an instruct model, such as mlx-community/gemma-4-e4b-it-4bit
    ");
    // There, and yet of no use.
    let none = ("tokenizer_config.json", r#"{"chat_template": null}"#);
    folder(
        &stage,
        "empty",
        &[weights, none, ("chat_template.jinja", "\n")],
    );
    let said = refused(&stage, &["--model", "../empty"]);
    assert!(said.contains("/empty has no chat template"), "{said}");
    folder(&stage, "torch", &[("pytorch_model.bin", "")]);
    let said = refused(&stage, &["--model", "../torch", "--dry-run"]);
    assert!(said.contains("PyTorch files (pytorch_model.bin)"), "{said}");
}

#[test]
fn a_model_of_the_hub_that_cannot_be_served_is_not_downloaded() {
    let mut stage = fakes::stage();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let hub = std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let Ok(read @ 1..) = stream.read(&mut request) else {
                return;
            };
            let listing = String::from_utf8_lossy(&request[..read]).contains("/api/models/");
            let (status, body) = match listing {
                true => ("200 OK", r#"{"siblings":[{"rfilename":"q4.gguf"}]}"#),
                false => ("404 Not Found", ""),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    stage.set("HF_ENDPOINT", format!("http://{address}"));
    let said = refused(&stage, &["--model", "org/name-GGUF"]);
    assert!(
        said.contains("org/name-GGUF has no weights that cclocal can serve"),
        "{said}"
    );
    drop(std::net::TcpStream::connect(address));
    hub.join().expect("ended");
}

#[test]
fn a_model_whose_download_shows_that_it_is_a_base_model_is_refused_then() {
    let mut stage = fakes::stage();
    let hub = stage.path("hub");
    stage.set("HF_HUB_CACHE", hub.display().to_string());
    // Nothing is to be learnt beforehand.
    stage.set("HF_ENDPOINT", "http://127.0.0.1:1");
    for (id, status) in [("base", 2), ("instruct", 0)] {
        stage.write("engine/slow", "yes");
        let _ = std::fs::remove_file(stage.path("engine/pid"));
        let name = format!("org/{id}");
        let session = stage.start(&["--model", &name, "--port", &free_port(), "--no-mem-check"]);
        stage.wait_for("engine/pid");
        let folder = format!("hub/models--org--{id}");
        stage.write(&format!("{folder}/refs/main"), "abc");
        stage.write(&format!("{folder}/blobs/b"), "weights");
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            stage.write(&format!("{folder}/snapshots/abc/{file}"), "{}");
        }
        if status == 0 {
            let file = format!("{folder}/snapshots/abc/chat_template.jinja");
            stage.write(&file, fakes::TEMPLATE);
        }
        std::fs::remove_file(stage.path("engine/slow")).expect("removed");
        let ran = finish(session);
        assert_eq!(ran.status, status, "{}", ran.stderr);
        let base = ran.stderr.contains("org/base has no chat template");
        assert_eq!(base, status == 2, "{}", ran.stderr);
        assert!(
            ran.stderr
                .contains("its tool-call format is known only after the download"),
            "{}",
            ran.stderr
        );
    }
}

/// What a dry run says of the model in this folder, and its notices.
fn dry(stage: &Stage, args: &[&str]) -> (Value, String) {
    let ran = stage.run(&[args, &["--dry-run", "--json"]].concat());
    let report: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let notices = report["notices"].as_array().into_iter().flatten();
    let said: Vec<&str> = notices.filter_map(Value::as_str).collect();
    (report.clone(), said.join("\n"))
}

#[test]
fn the_form_of_tool_calls_is_the_templates_whatever_the_folders_name() {
    let stage = fakes::stage();
    let weights = ("model.safetensors", "weights");
    // Its name and its architecture promise another form.
    let config = r#"{"chat_template": "{% if tools %}<tool_call>{\"name\": f, \"arguments\": a}</tool_call>"}"#;
    folder(
        &stage,
        "Llama-3-own",
        &[weights, ("tokenizer_config.json", config)],
    );
    let (report, said) = dry(&stage, &["--model", "../Llama-3-own"]);
    assert_eq!(report["model"]["tool_call_form"], "hermes");
    let argv = report["engine"]["argv"].to_string();
    assert!(argv.contains(r#""--tool-call-parser","hermes""#), "{argv}");
    assert!(!said.contains("tool"), "{said}");

    let other = (
        "chat_template.jinja",
        "{% if tools %}<tool_calls>[]</tool_calls>",
    );
    folder(&stage, "other", &[weights, other]);
    let (report, said) = dry(&stage, &["--model", "../other"]);
    assert_eq!(report["model"]["tool_call_form"], Value::Null);
    let argv = report["engine"]["argv"].to_string();
    assert!(argv.contains(r#""--tool-call-parser","auto""#), "{argv}");
    let unknown = "other: unknown tool-call format: only calls in <tool_call> tags are run. If calls show up as text, take another model";
    assert!(said.contains(unknown), "{said}");
    let ran = stage.run(&["--model", "../other", "--port", &free_port()]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let before = ran.stderr.split("loading").next().unwrap_or_default();
    assert!(
        before.contains(unknown),
        "it comes too late: {}",
        ran.stderr
    );

    folder(
        &stage,
        "chat",
        &[weights, ("chat_template.jinja", "{{ messages }}")],
    );
    let (_, said) = dry(&stage, &["--model", "../chat"]);
    assert!(
        said.contains(
            "chat: its chat template has no tool calls: it can chat, but not read or write files"
        ),
        "{said}"
    );
}

#[test]
fn thoughts_are_off_unless_they_are_asked_for_and_the_model_has_some() {
    let stage = fakes::stage();
    let thinking = |args: &[&str]| {
        let (report, said) = dry(&stage, args);
        let argv = report["engine"]["argv"].to_string();
        let on = report["model"]["thinking"].as_bool().expect("known");
        assert_eq!(argv.contains(r#"{\"enable_thinking\":true}"#), on, "{argv}");
        assert_eq!(
            report["engine"]["env"]["VLLM_MLX_ENABLE_THINKING"],
            on.to_string()
        );
        (on, said.contains("cannot think: --think has no effect"))
    };
    assert_eq!(thinking(&["--review"]), (false, false));
    assert_eq!(thinking(&["--review", "--think"]), (true, false));
    assert_eq!(thinking(&["--coder", "--think"]), (false, true));
    assert_eq!(thinking(&["--model", "../model", "--think"]), (false, true));
    let template = format!("{}{{{{ '<think>' }}}}", fakes::TEMPLATE);
    stage.write("model/chat_template.jinja", &template);
    assert_eq!(thinking(&["--model", "../model", "--think"]), (true, false));
    let said = stage.run(&["--review", "--think", "--dry-run"]).stdout;
    assert!(
        said.contains("tool calls in the GLM format; it thinks before it answers\n"),
        "{said}"
    );
}

#[test]
fn a_session_with_thoughts_and_one_without_share_no_engine() {
    let mut stage = fakes::stage();
    let template = format!("{}{{{{ '<think>' }}}}", fakes::TEMPLATE);
    stage.write("model/chat_template.jinja", &template);
    fakes::staying_client(&mut stage);
    let first = stage.start(&["--model", "../model", "--no-mem-check"]);
    stage.wait_for("client/pid");
    let port = |stage: &Stage, args: &[&str]| {
        let wanted = [&["--model", "../model", "--dry-run"], args].concat();
        stage.run(&wanted).stdout.contains("is loaded already")
    };
    assert!(port(&stage, &[]));
    assert!(!port(&stage, &["--think"]));
    std::fs::remove_file(stage.path("client/pid")).expect("removed");
    let second = stage.start(&["--model", "../model", "--think", "--no-mem-check"]);
    stage.wait_for("client/pid");
    assert_eq!(stage.read("engine/starts").lines().count(), 2);
    assert!(
        stage
            .read("engine/env")
            .contains("VLLM_MLX_ENABLE_THINKING=true")
    );
    assert!(port(&stage, &["--think"]));
    stage.write("home/go-on", "yes");
    for session in [first, second] {
        let ran = finish(session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
}
