//! Pictures with the real engine: shown to models that see, told to others, and counted as they are computed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::real;
use crate::turns::{Gateway, python};

/// 96 × 64 pixels.
pub const PNG: &[u8] = include_bytes!("../fixtures/picture.png");

fn picture() -> Value {
    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64_STANDARD.encode(PNG)}})
}

/// A conversation in which a tool gave this.
fn with_result(content: Value) -> Value {
    json!([
        {"role": "user", "content": "Look at it."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Write", "input": {"file_path": "a"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": content}]},
    ])
}

/// A gateway, asked.
struct Asked<'a> {
    gateway: &'a Gateway,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Asked<'_> {
    fn post(&self, path: &str, messages: &Value) -> String {
        let (url, key) = self.gateway.address();
        let body = json!({"model": "m", "max_tokens": 50, "stream": true, "messages": messages,
            "tools": [{"name": "Write", "description": "w", "input_schema": {"type": "object"}}]});
        let request = self.http.post(format!("{url}{path}"));
        let request = request
            .bearer_auth(key)
            .header("content-type", "application/json");
        self.runtime.block_on(async {
            let answer = request
                .body(body.to_string())
                .send()
                .await
                .expect("an answer");
            let status = answer.status();
            let text = answer.text().await.expect("a text");
            assert_eq!(status, 200, "{text}");
            text
        })
    }

    /// The prompt's tokens, which must be the same as counted and as computed.
    fn tokens(&self, messages: &Value) -> u64 {
        let counted = self.post("/v1/messages/count_tokens", messages);
        let counted: Value = serde_json::from_str(&counted).expect("JSON");
        let stream = self.post("/v1/messages", messages);
        let end = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .find(|data| data.contains(r#""message_delta""#));
        let end: Value = serde_json::from_str(end.expect("an end")).expect("JSON");
        let tokens = |name: &str| end["usage"][name].as_u64().unwrap_or(0);
        let computed = tokens("input_tokens") + tokens("cache_read_input_tokens");
        assert_eq!(counted["input_tokens"], computed, "{messages}\n{stream}");
        computed
    }
}

fn asked(gateway: &Gateway) -> Asked<'_> {
    Asked {
        gateway,
        http: cclocal::sys::network::plain_http()
            .no_proxy()
            .build()
            .expect("a client"),
        runtime: cclocal::sys::process::runtime().expect("a runtime"),
    }
}

#[test]
fn pictures_are_seen_and_counted() {
    let stage = real::stage(&real::client());
    python(&stage, "tiny_models.py", &[stage.path("models")]);
    let text = |text: &str| json!([{"role": "user", "content": text}]);
    let shown = |count: usize| {
        let mut content = vec![picture(); count];
        content.push(json!({"type": "text", "text": "What is it?"}));
        json!([{"role": "user", "content": content}])
    };
    for name in ["gemma4", "qwen3_5"] {
        let model = format!("../models/{name}");
        let gateway = Gateway::start(&stage, &model, &["--vision"]);
        let asked_here = asked(&gateway);
        let tokens = |messages: &Value| asked_here.tokens(messages);
        let without = tokens(&text("What is it?"));
        let one = tokens(&shown(1)) - without;
        // More than its mark.
        assert!((3..100).contains(&one), "{name}: {one}");
        assert_eq!(tokens(&shown(2)), without + 2 * one, "{name}");
        // In a result, it costs the same and the words around it.
        let read = tokens(&with_result(json!([picture()])));
        let words = tokens(&with_result(json!("[picture 1 stands behind the results]")));
        assert!(read > words + one, "{name}: {read}, {words}");
        let broken = json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]);
        tokens(&with_result(broken));
        gateway.end();
    }
    let gateway = Gateway::start(&stage, "../models/gemma4", &[]);
    let asked_here = asked(&gateway);
    let words = "[a picture of 96×64 pixels (PNG) that this model can't see; `cclocal --vision` serves models that see pictures]";
    let told = asked_here.tokens(&with_result(json!(words)));
    assert_eq!(asked_here.tokens(&with_result(json!([picture()]))), told);
    gateway.end();
}

/// The engine refuses names of more than 64 characters, the API of more than 128.
#[test]
fn a_tool_with_a_long_name_does_not_fail_the_turn() {
    let stage = real::stage(&real::client());
    python(&stage, "tiny_models.py", &[stage.path("models")]);
    let gateway = Gateway::start(&stage, "../models/text", &[]);
    let (url, key) = gateway.address();
    let runtime = cclocal::sys::process::runtime().expect("a runtime");
    let http = cclocal::sys::network::plain_http()
        .no_proxy()
        .build()
        .expect("a client");
    let tools: Vec<Value> = ["x".repeat(100), "x".repeat(200), "Write".into()]
        .iter()
        .map(|name| json!({"name": name, "input_schema": {"type": "object"}}))
        .collect();
    let body = json!({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], "tools": tools});
    let request = http.post(format!("{url}/v1/messages")).bearer_auth(key);
    let request = request.header("content-type", "application/json");
    let answer = runtime
        .block_on(request.body(body.to_string()).send())
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let port = url.rsplit(':').next().expect("a port");
    let log = stage.read(&format!("cclocal/state/supervisor-{port}.log"));
    assert!(
        log.contains("a tool is left out") && log.contains(&"x".repeat(200)),
        "{log}"
    );
    gateway.end();
}
