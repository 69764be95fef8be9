//! What engines stream: ours, which hands over what the model wrote, and others.

use cclocal::catalog::Form;
use cclocal::gateway::anthropic::{
    self, ApiError, Event, Pictures, Request, Served, Streamed, sse_bytes,
};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::made_up::{config, nearly};
use crate::requests::served;

const FORMS: &[Option<Form>] = &[
    None,
    Some(Form::Hermes),
    Some(Form::Qwen3Coder),
    Some(Form::Glm47),
    Some(Form::Gemma4),
    Some(Form::Harmony),
    Some(Form::Mistral),
    Some(Form::Llama3),
];

fn request() -> Request {
    let body = json!({
        "model": "m", "max_tokens": 500, "stream": true, "stop_sequences": ["STOP"],
        "tools": [{"name": "Write", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}}, "required": ["file_path"]}}],
        "messages": [{"role": "user", "content": "hello"}],
    });
    anthropic::messages(body.to_string().as_bytes(), &served(Pictures::Words)).expect("a request")
}

/// A stream of what a model wrote, in pieces.
fn generated(text: &str, ending: &str) -> Vec<u8> {
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": {"input_tokens": 0, "output_tokens": 0}},
            "as_generated": {"vocabulary": ["<tool_call>", "</tool_call>"]}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}, "prompt_tail": "<|im_start|>assistant\n"}),
    ];
    let letters: Vec<char> = text.chars().collect();
    for part in letters.chunks(7) {
        let part: String = part.iter().collect();
        let mark = part
            .find("<tool_call>")
            .map(|at| json!([[at, "<tool_call>"]]));
        events.push(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}, "marks": mark}));
    }
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": ending}, "usage": {"input_tokens": 5, "output_tokens": 9}, "stopped_by": "<|im_end|>"}));
    events.push(json!({"type": "message_stop"}));
    let written = events.iter().map(|event| {
        let name = event["type"].as_str().expect("a name");
        format!("event: {name}\ndata: {event}\n\n")
    });
    written.collect::<String>().into_bytes()
}

fn streams() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/streams");
    let fixtures = std::fs::read_dir(folder).expect("fixtures").flatten();
    let mut streams: Vec<Vec<u8>> = fixtures
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|ending| ending == "sse")
        })
        .map(|entry| std::fs::read(entry.path()).expect("read"))
        .collect();
    streams.sort();
    for text in [
        "<think>\nhm\n</think>\n\nI write.\n<tool_call>\n{\"name\": \"Write\", \"arguments\": {\"file_path\": \"a\", \"content\": \"b\\n\"}}\n</tool_call>",
        "I write.\n<tool_call>\n<function=Write>\n<parameter=file_path>\na\n</parameter>\n<parameter=content>\nb\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>Write\n<arg_key>file_path</arg_key>\n<arg_value>a</arg_value>\n</tool_call>",
        "<|tool_call>call:Write{file_path:<|\"|>a<|\"|>}<tool_call|>",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.Write<|message|>{\"file_path\":\"a\"}<|call|>",
        "[TOOL_CALLS]Write[ARGS]{\"file_path\": \"a\"}",
        "{\"name\": \"Write\", \"parameters\": {\"file_path\": \"a\"}}",
        "one STOP two",
    ] {
        for ending in ["end_turn", "max_tokens"] {
            streams.push(generated(text, ending));
        }
    }
    streams
}

/// The kinds of the events that the client gets.
fn kinds(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stream);
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events
        .filter_map(|event| event["type"].as_str().map(str::to_owned))
        .collect()
}

fn passed(stream: &[u8], cuts: &[Index], served: &Served) -> Vec<Event> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let mut streamed = Streamed::new(&request(), served, Some(11));
    let mut out = Vec::new();
    for pair in cuts.windows(2) {
        out.extend(streamed.push(&stream[pair[0]..pair[1]]));
    }
    out.extend(streamed.finish());
    let _ = (
        streamed.usage(),
        streamed.is_over(),
        streamed.is_abandoned(),
    );
    out
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_stream_that_is_nearly_right(
        stream in nearly(streams()),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        form in proptest::sample::select(FORMS),
    ) {
        let served = Served { form, ..served(Pictures::Words) };
        let events = passed(&stream, &cuts, &served);
        let out = sse_bytes(&events);
        prop_assert!(out.len() <= 64 * stream.len() + (64 << 10), "{} of {}", out.len(), stream.len());
        // It has an end, which comes once.
        let kinds = kinds(&out);
        let ends = kinds.iter().filter(|kind| matches!(kind.as_str(), "message_stop" | "error")).count();
        prop_assert_eq!(ends, 1, "{:?} of {}", kinds, String::from_utf8_lossy(&stream));
        prop_assert!(matches!(kinds.last().map(String::as_str), Some("message_stop" | "error")), "{:?}", kinds);
        let _ = anthropic::message(events);
    }

    #[test]
    fn a_plain_reply_that_is_nearly_right(body in nearly(vec![
        json!({"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 4},
            "content": [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "a", "name": "Write", "input": {"file_path": "a"}}]}).to_string().into_bytes(),
        br#"{"type":"error","error":{"type":"api_error","message":"x"}}"#.to_vec(),
        br#"{"detail":[{"msg":"x","loc":["body"]}]}"#.to_vec(),
    ]), status in 100..600_u16) {
        match anthropic::reply(&body, &request()) {
            Ok((reply, _)) => prop_assert!(serde_json::from_slice::<Value>(&reply).is_ok() && reply.len() <= 64 * body.len() + (64 << 10)),
            Err(error) => prop_assert!(!error.message.is_empty()),
        }
        let error = ApiError::from_engine(status, &body);
        prop_assert!(error.status >= 400);
    }
}
