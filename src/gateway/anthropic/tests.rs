//! The whole of it, with streams that vllm-mlx 0.6.0 sent: tests/fixtures/streams/PARSER-CASE-(un)told.sse, with true figures in the last event (told) or as it is by itself.
//! `whole`: a sentence and a call of Write. The same cut in the `text`, at the call's `name`, in an `argument`, and inside a `second` call.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod requests;

const PARSERS: [&str; 4] = ["hermes", "qwen3_coder", "glm47", "gemma4"];

/// The `max_tokens` that the fixtures were recorded with.
const LIMITS: [(&str, u64); 5] = [
    ("whole", 500),
    ("text", 3),
    ("name", 8),
    ("argument", 25),
    ("second", 45),
];

fn fixture(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/streams/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    fs_err::read(path).expect("a fixture")
}

fn request(max_tokens: u64) -> Request {
    Request {
        asked_model: "claude-asked".into(),
        stream: true,
        max_tokens,
        ..Request::default()
    }
}

fn limit(case: &str) -> u64 {
    LIMITS
        .into_iter()
        .find(|(name, _)| *name == case)
        .expect("a case")
        .1
}

/// The names and data of a stream's events.
fn events(bytes: &[u8]) -> Vec<Value> {
    let mut reader = sse::Reader::default();
    reader.push(bytes);
    let mut events = Vec::new();
    while let Ok(Some(event)) = reader.next() {
        events.push(serde_json::from_slice(&event.data).expect("JSON"));
    }
    events
}

fn repaired(stream: &[u8], max_tokens: u64, prompt_tokens: Option<u64>) -> (Vec<u8>, Usage) {
    let mut repair = Repair::new(&request(max_tokens), prompt_tokens);
    let mut out = repair.push(stream);
    out.extend(repair.finish());
    (out, repair.usage())
}

/// What a client makes of a stream: its text, its calls with their inputs, and why it stopped. Panics where a client would complain.
#[derive(Debug, PartialEq)]
struct Seen {
    text: String,
    calls: Vec<(String, Value)>,
    stop_reason: Option<String>,
    error: Option<String>,
}

fn seen(stream: &[u8]) -> Seen {
    let mut seen = Seen {
        text: String::new(),
        calls: Vec::new(),
        stop_reason: None,
        error: None,
    };
    let mut open: Option<(u64, String)> = None;
    let mut next = 0;
    for event in events(stream) {
        match event["type"].as_str().expect("a type") {
            "message_start" => assert_eq!(event["message"]["model"], "claude-asked"),
            "content_block_start" => {
                assert_eq!(open, None, "blocks do not overlap");
                assert_eq!(event["index"], next, "indices have no gap");
                open = Some((next, String::new()));
                next += 1;
                if event["content_block"]["type"] == "tool_use" {
                    let name = event["content_block"]["name"].as_str().expect("a name");
                    seen.calls.push((name.into(), Value::Null));
                }
            }
            "content_block_delta" => {
                let (index, input) = open.as_mut().expect("a block");
                assert_eq!(event["index"], *index);
                if let Some(text) = event["delta"]["text"].as_str() {
                    seen.text.push_str(text);
                }
                input.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
            }
            "content_block_stop" => {
                let (index, input) = open.take().expect("a block");
                assert_eq!(event["index"], index);
                if !input.is_empty() {
                    seen.calls.last_mut().expect("a call").1 =
                        serde_json::from_str(&input).expect("whole JSON");
                }
            }
            "message_delta" => {
                seen.stop_reason = event["delta"]["stop_reason"].as_str().map(str::to_owned);
            }
            "error" => seen.error = event["error"]["message"].as_str().map(str::to_owned),
            _ => {}
        }
    }
    seen
}

#[test]
fn a_whole_reply_passes_event_by_event() {
    for parser in PARSERS {
        for told in ["told", "untold"] {
            let stream = fixture(&format!("{parser}-whole-{told}.sse"));
            let (out, usage) = repaired(&stream, 500, None);
            let text = String::from_utf8(out).expect("UTF-8");
            let rest = text.split_once("\n\n").expect("events").1;
            assert!(
                String::from_utf8_lossy(&stream).ends_with(rest),
                "{parser}: all but message_start is byte for byte the same"
            );
            assert_eq!(events(&stream)[0]["message"]["model"], "m");
            assert_eq!(
                events(text.as_bytes())[0]["message"]["model"],
                "claude-asked"
            );
            assert_eq!(usage.input_tokens > 0, told == "told");
            assert!(usage.output_tokens > 50);
        }
    }
}

#[test]
fn a_reply_cut_in_its_text_says_so() {
    for parser in PARSERS {
        for told in ["told", "untold"] {
            let (out, _) = repaired(&fixture(&format!("{parser}-text-{told}.sse")), 3, None);
            assert_eq!(
                seen(&out),
                Seen {
                    text: "I will write it".into(),
                    calls: Vec::new(),
                    stop_reason: Some("max_tokens".into()),
                    error: None
                },
                "{parser} {told}"
            );
        }
    }
}

#[test]
fn a_cut_call_never_arrives_and_is_never_silent() {
    for parser in PARSERS {
        let stream = fixture(&format!("{parser}-argument-untold.sse"));
        let seen = seen(&repaired(&stream, limit("argument"), None).0);
        assert_eq!(seen.calls, [], "{parser}");
        assert_eq!(seen.stop_reason.as_deref(), Some("max_tokens"));
        assert!(
            seen.text
                .starts_with("I will write it now.\n[The reply reached its limit of "),
            "{parser}: {}",
            seen.text
        );
    }
}

#[test]
fn tokens_are_the_engines_or_those_counted_before() {
    let (out, usage) = repaired(&fixture("hermes-text-told.sse"), 3, Some(999));
    let told = Usage {
        input_tokens: 27,
        cache_read_input_tokens: 229,
        output_tokens: 3,
    };
    assert_eq!(usage, told);
    let sent = events(&out);
    assert_eq!(sent[0]["message"]["usage"]["input_tokens"], 999);
    let delta = &sent[sent.len() - 2];
    assert_eq!(delta["usage"]["input_tokens"], 27);
    assert_eq!(delta["usage"]["cache_read_input_tokens"], 229);

    let (out, usage) = repaired(&fixture("hermes-whole-untold.sse"), 500, Some(250));
    assert_eq!(usage.input_tokens, 250);
    let sent = events(&out);
    assert_eq!(sent[0]["message"]["usage"]["input_tokens"], 250);
    assert_eq!(sent[sent.len() - 2]["usage"]["input_tokens"], 250);
}

#[test]
fn nothing_is_sent_before_the_first_token() {
    let stream = fixture("hermes-whole-told.sse");
    let first = String::from_utf8_lossy(&stream)
        .find("event: content_block_delta")
        .expect("a delta");
    let mut repair = Repair::new(&request(500), None);
    assert_eq!(repair.push(&stream[..first]), b"");
    // The client gets pings of the gateway's own meanwhile.
    let ping = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";
    assert_eq!(repair.push(ping), b"");
    assert!(!repair.has_sent());
    assert!(!repair.push(&stream[first..]).is_empty());
    assert!(repair.has_sent() && repair.is_over());
}

#[test]
fn a_reply_that_breaks_off_ends_with_an_error_and_an_open_block() {
    let stream = fixture("hermes-whole-told.sse");
    let text = String::from_utf8_lossy(&stream);
    for end in ["event: content_block_stop", "event: message_delta"] {
        let end = text.find(end).expect("the event");
        let out = String::from_utf8(repaired(&stream[..end], 500, None).0).expect("UTF-8");
        assert!(!out.contains("content_block_stop"), "{out}");
        assert!(!out.contains("tool_use"), "{out}");
        assert!(
            out.ends_with("the engine broke off its reply\"}}\n\n"),
            "{out}"
        );
    }
    let end = text.find("event: message_stop").expect("the event");
    assert_eq!(
        repaired(&stream[..end], 500, None),
        repaired(&stream, 500, None).clone().pipe(|(out, usage)| (
            String::from_utf8_lossy(&out)
                .replace(
                    "{\"type\": \"message_stop\"}",
                    "{\"type\":\"message_stop\"}"
                )
                .into_bytes(),
            usage
        ))
    );
}

trait Pipe: Sized {
    fn pipe<T>(self, then: impl FnOnce(Self) -> T) -> T {
        then(self)
    }
}
impl<T> Pipe for T {}

#[test]
fn a_broken_text_delta_ends_the_reply_and_is_not_passed_on() {
    let broken = "event: content_block_delta\ndata: {\"type\": \"content_block_delta\", \"index\": 0, \"delta\": {\"type\": \"text_delta\"\n\n";
    let mut stream = stream_of(&["Some text."], &[], "end_turn", 3);
    let end = b"event: content_block_stop";
    let at = stream
        .windows(end.len())
        .position(|bytes| bytes == end)
        .expect("its end");
    stream.splice(at..at, broken.bytes());
    let (out, _) = repaired(&stream, 100, Some(3));
    // Each event that arrives is JSON.
    let events = events(&out);
    assert_eq!(
        events.last().expect("an event")["type"],
        "error",
        "{events:?}"
    );
    assert_eq!(seen(&out).text, "Some text.");
}

#[test]
fn the_engines_error_is_passed_and_its_message_stop_is_not() {
    let mut stream = fixture("hermes-text-told.sse");
    let end = String::from_utf8_lossy(&stream)
        .find("event: content_block_stop")
        .expect("the event");
    stream.truncate(end);
    stream.extend_from_slice(b"event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"api_error\", \"message\": \"out of memory\"}}\n\nevent: message_stop\ndata: {\"type\": \"message_stop\"}\n\n");
    let (out, _) = repaired(&stream, 3, None);
    assert_eq!(seen(&out).error.as_deref(), Some("out of memory"));
    assert!(!String::from_utf8_lossy(&out).contains("message_stop"));
}

fn stream_of(texts: &[&str], calls: &[&str], stop_reason: &str, output_tokens: u64) -> Vec<u8> {
    let mut stream = String::new();
    let mut add = |data: Value| {
        stream += &format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().expect("a type")
        );
    };
    add(
        json!({"type": "message_start", "message": {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 0, "output_tokens": 0}}}),
    );
    add(
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    );
    for text in texts {
        add(
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        );
    }
    add(json!({"type": "content_block_stop", "index": 0}));
    for (number, input) in calls.iter().enumerate() {
        let index = number + 1;
        add(
            json!({"type": "content_block_start", "index": index, "content_block": {"type": "tool_use", "id": "a", "name": "Write", "input": {}}}),
        );
        for piece in input.split_inclusive(',') {
            add(
                json!({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": piece}}),
            );
        }
        add(json!({"type": "content_block_stop", "index": index}));
    }
    add(
        json!({"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": null}, "usage": {"output_tokens": output_tokens}}),
    );
    add(json!({"type": "message_stop"}));
    stream.into_bytes()
}

#[test]
fn leaked_markup_of_a_cut_call_is_taken_out() {
    let stream = stream_of(
        &[
            "Now: <",
            "tool_",
            "call>{\"name\": \"Wri",
            "te\", \"arguments\": {\"a\": \"</b>",
        ],
        &[],
        "end_turn",
        40,
    );
    let seen = seen(&repaired(&stream, 40, None).0);
    assert!(
        seen.text.starts_with(
            "Now: [The reply reached its limit of 40 tokens inside a call of the tool Write."
        ),
        "{}",
        seen.text
    );
    assert_eq!(seen.stop_reason.as_deref(), Some("max_tokens"));
}

#[test]
fn the_beginning_of_a_calls_marker_is_no_text() {
    for (text, left) in [
        ("Now.\n<tool_", "Now.\n"),
        ("<|to", ""),
        ("Now.\n<tool_call>\n", "Now.\n"),
        ("a < b", "a < b"),
    ] {
        let stream = stream_of(&[text], &["{\"a\":1}"], "tool_use", 40);
        let seen = seen(&repaired(&stream, 500, None).0);
        assert_eq!(seen.text, left);
        assert_eq!(seen.calls, [("Write".into(), json!({"a": 1}))]);
        assert_eq!(seen.stop_reason.as_deref(), Some("tool_use"));
    }
}

#[test]
fn talk_of_markup_is_only_talk() {
    for texts in [
        &["a <", "b and <tool_call>x</tool", "_call> c", " < d"][..],
        &["it opens with <tool_call> and so", " on"],
        &["a <"],
    ] {
        let stream = stream_of(texts, &[], "end_turn", 40);
        let seen = seen(&repaired(&stream, 400, None).0);
        assert_eq!(seen.text, texts.concat());
        assert_eq!(seen.stop_reason.as_deref(), Some("end_turn"));
    }
}

#[test]
fn a_call_with_broken_input_is_not_made() {
    let stream = stream_of(&["x"], &["{\"a\":1,\"b\":2}", "{\"a\":1,"], "tool_use", 40);
    let seen = seen(&repaired(&stream, 400, None).0);
    assert_eq!(seen.calls, [("Write".to_owned(), json!({"a": 1, "b": 2}))]);
    assert!(seen.text.contains("arrived incomplete"));
}

#[test]
fn a_cut_that_only_shows_in_the_count_is_noticed() {
    // Forty tokens and one letter: the rest was a call that the parser swallowed.
    let seen = seen(&repaired(&stream_of(&["x"], &[], "end_turn", 40), 40, None).0);
    assert!(
        seen.text.starts_with("x[The reply reached"),
        "{}",
        seen.text
    );
    assert_eq!(seen.stop_reason.as_deref(), Some("max_tokens"));
}

#[test]
fn plain_replies_are_repaired_alike() {
    for parser in PARSERS {
        let plain = |case: &str| {
            let (body, usage) = reply(
                &fixture(&format!("{parser}-{case}.json")),
                &request(limit(case)),
            )
            .expect("a reply");
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(message["model"], "claude-asked");
            assert!(usage.input_tokens > 200);
            message
        };
        let whole = plain("whole");
        assert_eq!(whole["stop_reason"], "tool_use");
        let mut before: Value =
            serde_json::from_slice(&fixture(&format!("{parser}-whole.json"))).expect("JSON");
        before["model"] = json!("claude-asked");
        assert_eq!(whole, before);

        assert_eq!(plain("text")["stop_reason"], "max_tokens");
        for case in ["argument", "second"] {
            let cut = plain(case);
            assert_eq!(cut["stop_reason"], "max_tokens", "{parser} {case}");
            let blocks = cut["content"].as_array().expect("blocks");
            let last = blocks.last().expect("a block")["text"]
                .as_str()
                .unwrap_or_default();
            assert!(
                last.starts_with("[The reply reached its limit"),
                "{parser} {case}: {cut}"
            );
            assert!(
                !cut.to_string().contains("tool_call>"),
                "{parser} {case}: {cut}"
            );
        }
    }
}

#[test]
fn what_is_no_reply_is_an_error() {
    for body in ["", "[]", "{}", "{\"content\": 1}"] {
        assert_eq!(
            reply(body.as_bytes(), &request(9)).expect_err(body).status,
            502
        );
    }
}

fn served() -> Served {
    Served {
        name: "org/model".into(),
        window: ContextWindow {
            tokens: 65_536,
            output: 8192,
        },
        form: Some(Form::Hermes),
        shows_thoughts: false,
        may_think: true,
        prose_calls: false,
        pictures: Pictures::Words,
    }
}

#[test]
fn a_request_of_the_client_becomes_one_of_the_engine() {
    let body = json!({
        "model": "claude-haiku", "max_tokens": 32000, "stream": true,
        "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "system", "content": [{"type": "text", "text": "# Environment", "cache_control": {"type": "ephemeral"}}]},
        ],
        "tools": [{"name": "Write", "description": "w", "input_schema": {"type": "object"}}],
        "thinking": {"type": "adaptive"}, "context_management": {"edits": []}, "metadata": {"user_id": "device"},
        "output_config": {"effort": "high"}, "temperature": null
    });
    let request = messages(body.to_string().as_bytes(), &served()).expect("a request");
    assert_eq!(
        (
            request.asked_model.as_str(),
            request.stream,
            request.max_tokens
        ),
        ("claude-haiku", true, 8192)
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&request.body).expect("JSON"),
        json!({
            "model": "org/model", "max_tokens": 8192, "stream": true,
            "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "text", "text": "<system-reminder>\n# Environment\n</system-reminder>"},
                ]},
            ],
            "tools": [{"name": "Write", "description": "w", "input_schema": {"type": "object"}}],
        })
    );
    let counted = Draft::read(
        br#"{"model": "claude-haiku", "messages": [{"role": "user", "content": "hi"}]}"#,
    )
    .expect("a request")
    .count_tokens(&served(), &PdfTexts::default());
    assert!(
        String::from_utf8(counted)
            .expect("UTF-8")
            .contains("org/model")
    );
}

#[test]
fn what_is_no_request_is_refused_in_words() {
    let valid =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    assert!(messages(valid.to_string().as_bytes(), &served()).is_ok());
    for (change, words) in [
        (
            json!({"model": null}),
            "model: Input should be a valid string",
        ),
        (json!({"max_tokens": 0}), "max_tokens: Input should be"),
        (json!({"max_tokens": "9"}), "max_tokens: Input should be"),
        (json!({"messages": []}), "messages: at least one"),
        (
            json!({"messages": "hi"}),
            "messages: Input should be a valid list",
        ),
        (
            json!({"messages": [1]}),
            "messages.0: Input should be a valid object",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages.0.role: Input",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages.0.content: Field required",
        ),
        (
            json!({"messages": [{"role": "user", "content": ["x"]}]}),
            "messages.0.content.0.type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages.0.content.0.text",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 1}]}]}),
            "messages.0.content.0.input",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": 1}]}]}),
            "messages.0.content.0.content",
        ),
        (
            json!({"messages": [{"role": "user", "content": []}]}),
            "messages.0.content: user messages must have non-empty content",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": null}]}]}]}),
            "messages.0.content.0.content.0.text: Input should be a valid string",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}]}]}),
            "messages.0.content.0.content.0.source: Input should be a valid object",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [1]}]}]}),
            "messages.0.content.0.content.0.type: Field required",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "document"}]}]}),
            "messages.0.content.0.source: Input should be a valid object",
        ),
        (json!({"system": 1}), "system: Input"),
        (json!({"tools": [{}]}), "tools.0.name: Field required"),
        (
            json!({"tools": [{"name": "a", "input_schema": "x"}]}),
            "tools.0.input_schema",
        ),
        (json!({"stop_sequences": [1]}), "stop_sequences: Input"),
        (
            json!({"stream": "yes"}),
            "stream: Input should be a valid boolean",
        ),
    ] {
        let mut body = valid.clone();
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let error = messages(body.to_string().as_bytes(), &served()).expect_err(words);
        assert_eq!((error.status, error.kind), (400, "invalid_request_error"));
        assert!(error.message.starts_with(words), "{}", error.message);
    }
    for body in ["", "{", "[]", "{}", "\"\""] {
        assert_eq!(
            messages(body.as_bytes(), &served()).expect_err(body).status,
            400
        );
    }
}

/// Every fixture, and streams made for one purpose.
fn streams() -> Vec<(Vec<u8>, u64)> {
    let mut streams = vec![
        (
            stream_of(&["a <", "tool", "_call>{"], &["{}"], "end_turn", 9),
            9,
        ),
        (
            stream_of(&["a <", "b"], &["{\"a\":1,", "{}"], "tool_use", 9),
            99,
        ),
        (
            b": hi\n\nevent: error\r\ndata: {\"type\":\r\ndata: \"error\"}\r\n\r\n".to_vec(),
            9,
        ),
    ];
    for parser in PARSERS {
        for case in ["whole", "text", "argument"] {
            let stream = fixture(&format!("{parser}-{case}-untold.sse"));
            streams.push((stream, limit(case)));
        }
    }
    streams
}

proptest! {
    #[test]
    fn any_split_gives_the_same_stream(
        number in 0..15_usize,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        end in any::<prop::sample::Index>(),
    ) {
        let (mut stream, limit) = streams().swap_remove(number);
        stream.truncate(end.index(stream.len() * 2).min(stream.len()));
        let whole = repaired(&stream, limit, Some(7));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut repair = Repair::new(&request(limit), Some(7));
        let mut out = Vec::new();
        for pair in cuts.windows(2) {
            out.extend(repair.push(&stream[pair[0]..pair[1]]));
        }
        out.extend(repair.finish());
        prop_assert_eq!((out, repair.usage()), whole);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let _ = messages(&bytes, &served());
        let _ = reply(&bytes, &request(9));
        let _ = ApiError::from_engine(500, &bytes);
        let mut stream = fixture("qwen3_coder-argument-untold.sse");
        let at = at.index(stream.len());
        stream.splice(at..at, bytes);
        let _ = repaired(&stream, 45, None);
    }

    #[test]
    fn events_of_any_shape_do_no_harm(order in prop::collection::vec((0..12_usize, 0..4_u64), 0..40), limit in 1..60_u64) {
        let mut stream = Vec::new();
        for (number, index) in order {
            let data = [
                json!({"type": "message_start", "message": {"model": "m", "usage": {}}}),
                json!({"type": "message_start"}),
                json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "content_block_start", "index": u64::MAX, "content_block": {"type": "tool_use", "name": "A", "input": {"a": 1}}}),
                json!({"type": "content_block_start", "index": index, "content_block": {"type": "tool_use", "id": "a", "name": "A", "input": {}}}),
                json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": "<tool_call>é"}}),
                json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": "é<"}}),
                json!({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
                json!({"type": "content_block_stop", "index": index}),
                json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 40}}),
                json!({"type": "message_delta"}),
                json!({"type": 1}),
            ][number].clone();
            stream.extend(format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default()).into_bytes());
        }
        let (out, _) = repaired(&stream, limit, None);
        prop_assert!(out.ends_with(b"\n\n"));
    }

    #[test]
    fn a_conversation_only_grows_at_its_end(roles in prop::collection::vec(0..6_usize, 1..30)) {
        let media = media::Media { pictures: Pictures::Words, texts: &PdfTexts::default() };
        let mut conversation = Vec::new();
        let mut before: Option<Vec<Value>> = None;
        for (number, role) in roles.into_iter().enumerate() {
            conversation.push(match role {
                0 => json!({"role": "user", "content": format!("{number}")}),
                1 => json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": format!("{number}")}, {"type": "text", "text": "and"}]}),
                2 => json!({"role": "system", "content": format!("{number}")}),
                3 => json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": format!("{number}")}]}),
                4 => json!({"role": "user", "content": [{"type": "text", "text": format!("<system-reminder>{number}</system-reminder>")}]}),
                _ => json!({"role": "assistant", "content": format!("{number}")}),
            });
            let folded = fold::fold(conversation.clone(), &media);
            if let Some(mut before) = before {
                // What stood there before still does; the turn that was the last may have become longer.
                if let Some(last) = before.pop() {
                    let now = &folded[before.len()];
                    prop_assert_eq!(&folded[..before.len()], &before[..]);
                    prop_assert_eq!(&now["role"], &last["role"]);
                    if let (Some(now), Some(last)) = (now["content"].as_array(), last["content"].as_array()) {
                        let (tail, rest) = last.split_last().expect("a block");
                        prop_assert!(now.starts_with(rest));
                        let said = |block: &Value| block["content"].as_str().or(block["text"].as_str()).unwrap_or_default().to_owned();
                        prop_assert!(said(&now[rest.len()]).starts_with(&said(tail)));
                    } else {
                        prop_assert_eq!(now, &last);
                    }
                }
            }
            prop_assert!(folded.iter().all(|message| message["role"] != "system"));
            before = Some(folded);
        }
    }
}
