//! Tokens as engines state them, and as the client and the figures get them.

use serde_json::{Value, json};

use crate::gateway::anthropic::tests::{events, repaired};
use crate::gateway::anthropic::*;

/// The usage that the client gets in `message_start` and `message_delta`, and that the figures get, of an engine that states these. The prompt has 1,273
/// tokens, which were counted before.
fn told(start: &Value, delta: &Value) -> (Value, Value, Usage) {
    let stream: String = [
        json!({"type": "message_start", "message": {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": start}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": delta}),
        json!({"type": "message_stop"}),
    ]
    .iter()
    .map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a type")))
    .collect();
    let (out, usage) = repaired(stream.as_bytes(), 500, Some(1273));
    let sent = events(&out);
    let (start, delta) = (&sent[0]["message"]["usage"], &sent[sent.len() - 2]["usage"]);
    (start.clone(), delta.clone(), usage)
}

fn usage(input: u64, created: u64, read: u64) -> Usage {
    Usage {
        input_tokens: input,
        cache_creation_input_tokens: created,
        cache_read_input_tokens: read,
        output_tokens: 2,
    }
}

/// llama.cpp's server.
#[test]
fn figures_in_message_start_alone_stand_and_none_is_added() {
    let start = json!({"cache_read_input_tokens": 1262, "input_tokens": 11, "output_tokens": 0});
    let delta = json!({"output_tokens": 2});
    let got = told(&start, &delta);
    assert_eq!(got, (start, delta, usage(11, 0, 1262)));
    // The whole prompt was there already.
    let start = json!({"cache_read_input_tokens": 1273, "input_tokens": 0, "output_tokens": 0});
    let delta = json!({"output_tokens": 2});
    let got = told(&start, &delta);
    assert_eq!(got, (start, delta, usage(0, 0, 1273)));
}

/// vLLM, with `--enable-prompt-tokens-details`.
#[test]
fn tokens_that_were_put_into_the_cache_count_as_computed() {
    let start = json!({"input_tokens": 250, "output_tokens": 0, "cache_creation_input_tokens": 1023, "cache_read_input_tokens": 0});
    let mut delta = start.clone();
    delta["output_tokens"] = json!(2);
    let (sent_start, sent_delta, got) = told(&start, &delta);
    assert_eq!((sent_start, sent_delta), (start, delta.clone()));
    assert_eq!(got, usage(250, 1023, 0));
    assert_eq!(got.computed(), 1273);
    // In the last event alone, and nothing of them in the first.
    let start = json!({"input_tokens": 0, "output_tokens": 0});
    let (sent_start, sent_delta, got) = told(&start, &delta);
    assert_eq!(sent_start["input_tokens"], 1273);
    assert_eq!((sent_delta, got), (delta.clone(), usage(250, 1023, 0)));
    // A plain reply says the same.
    let body = json!({"type": "message", "content": [], "usage": delta}).to_string();
    let (_, got) = reply(
        body.as_bytes(),
        &Request {
            max_tokens: 9,
            ..Request::default()
        },
    )
    .expect("a reply");
    assert_eq!(got, usage(250, 1023, 0));
}

/// vLLM without details: it has no fields for the cache, or empty ones.
#[test]
fn figures_in_both_events_are_the_engines() {
    for absent in [
        json!({}),
        json!({"cache_creation_input_tokens": null, "cache_read_input_tokens": null}),
    ] {
        let mut start = absent.clone();
        start["input_tokens"] = json!(1273);
        start["output_tokens"] = json!(0);
        let mut delta = start.clone();
        delta["output_tokens"] = json!(2);
        let got = told(&start, &delta);
        assert_eq!(got, (start, delta, usage(1273, 0, 0)));
    }
}

#[test]
fn the_count_stands_where_the_engine_states_nothing() {
    for (start, delta) in [
        (
            json!({"input_tokens": 0, "output_tokens": 0}),
            json!({"output_tokens": 2}),
        ),
        (json!({}), json!({"input_tokens": 0, "output_tokens": 2})),
        (Value::Null, json!({"output_tokens": 2})),
    ] {
        let (sent_start, sent_delta, got) = told(&start, &delta);
        if !start.is_null() {
            assert_eq!(sent_start["input_tokens"], 1273);
        }
        assert_eq!(sent_delta["input_tokens"], 1273);
        assert_eq!(got, usage(1273, 0, 0));
    }
}
