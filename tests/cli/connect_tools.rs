//! `--connect URL`: tools that cannot work, and keys that are wrong, are said before Claude Code starts.

use crate::connect_url::{Other, said, stage, usual};

const VLLM: &str = r#"{"data":[{"id":"m","owned_by":"vllm","max_model_len":65536}]}"#;

#[test]
fn a_vllm_without_its_flags_for_tools_is_refused() {
    let stage = stage();
    let other = Other::new(|request| {
        let refused = r#"{"type":"error","error":{"type":"BadRequestError","message":"\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"}}"#;
        let is_message = request.starts_with("POST /v1/messages HTTP");
        Some(match is_message && request.contains("tools") {
            true => (400, refused.to_owned()),
            false => usual(request, VLLM),
        })
    });
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert_eq!(stage.read("client/pid"), "", "the client was started");
    let said = said(&stage, &other, &ran);
    let (_, error) = said.split_once("error:").expect("an error");
    insta::assert_snapshot!(format!("error:{error}"), @r#"
    error: 127.0.0.1:PORT was started without tool calls
      cause: it refuses each request with tools: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set
      hint: its owner starts it with: vllm serve MODEL --enable-auto-tool-choice --tool-call-parser PARSER
    "#);
}

#[test]
fn a_template_that_ignores_tools_is_said() {
    let stage = stage();
    for (with_tool, is_told) in [("10", true), ("40", false), ("0", false), ("null", false)] {
        let other = Other::new(move |request| {
            let counts = request.starts_with("POST /v1/messages/count_tokens");
            Some(match counts && request.contains("tools") {
                true => (200, format!(r#"{{"input_tokens":{with_tool}}}"#)),
                false => usual(request, VLLM),
            })
        });
        let ran = stage.run(&["--connect", &other.url()]);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let told = "note: m: its chat template ignores tools: it can chat, but not read or write";
        assert_eq!(ran.stderr.contains(told), is_told, "{}", ran.stderr);
    }
}

#[test]
fn a_key_that_litellm_does_not_know_is_called_that() {
    let mut stage = stage();
    stage.set("ENGINE_KEY", "sk-wrong");
    for (status, body) in [
        (
            400,
            r#"{"error":{"message":"No connected db.","type":"no_db_connection","param":null,"code":"400"}}"#,
        ),
        (
            500,
            r#"{"error":{"message":"No connected db.","type":"no_db_connection"}}"#,
        ),
    ] {
        let other = Other::new(move |_| Some((status, body.to_owned())));
        let url = other.url();
        let ran = stage.run(&["--connect", &url, "--token-env", "ENGINE_KEY"]);
        assert_eq!(ran.status, 14, "{}", ran.stderr);
        assert!(ran.stderr.contains("refused the token"), "{}", ran.stderr);
        let ran = stage.run(&["--connect", &url]);
        assert!(ran.stderr.contains("needs a token"), "{}", ran.stderr);
    }
}

#[test]
fn a_ray_serve_without_its_variables_is_told_which_it_needs() {
    let stage = stage();
    let other = Other::new(|request| {
        let list = r#"{"data":[{"id":"m","owned_by":"organization-owner","metadata":{"max_request_context_length":65536}}]}"#;
        Some(match request.starts_with("GET /v1/models") {
            true => (200, list.to_owned()),
            false => (404, r#"{"detail":"Not Found"}"#.to_owned()),
        })
    });
    let ran = stage.run(&["--connect", &other.url()]);
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    let said = said(&stage, &other, &ran);
    let (_, error) = said.split_once("error:").expect("an error");
    insta::assert_snapshot!(format!("error:{error}"), @"
    error: 127.0.0.1:PORT has no Anthropic Messages API
      cause: 404 for http://127.0.0.1:PORT/v1/messages
      hint: Ray Serve has it only with RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1 in its environment: ask whoever runs it
    ");
}
