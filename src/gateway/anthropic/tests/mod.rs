//! The whole of it, with streams that vllm-mlx 0.6.0 sent: tests/fixtures/streams/PARSER-CASE-(un)told.sse, with true figures in the last event (told) or as it is by itself.
//! `whole`: a sentence and a call of Write. The same cut in the `text`, at the call's `name`, in an `argument`, and inside a `second` call.

use serde_json::{Value, json};

use super::*;

mod plain;
mod properties;
mod requests;
mod usage;

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
    let mut repair = Streamed::new(&request(max_tokens), &served(), prompt_tokens);
    let mut out = repair.push(stream);
    out.extend(repair.finish());
    (sse_bytes(&out), repair.usage())
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
        cache_creation_input_tokens: 0,
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
    let mut repair = Streamed::new(&request(500), &served(), None);
    assert_eq!(repair.push(&stream[..first]), []);
    // The client gets pings of the gateway's own meanwhile.
    let ping = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";
    assert_eq!(repair.push(ping), []);
    assert!(!repair.push(&stream[first..]).is_empty());
    assert!(repair.is_over());
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
