//! Properties: streams split anywhere, bytes and events of any kind, conversations that grow.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::gateway::anthropic::tests::{
    PARSERS, fixture, limit, repaired, request, served, stream_of,
};
use crate::gateway::anthropic::*;

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
        let mut repair = Streamed::new(&request(limit), &served(), Some(7));
        let mut out = Vec::new();
        for pair in cuts.windows(2) {
            out.extend(repair.push(&stream[pair[0]..pair[1]]));
        }
        out.extend(repair.finish());
        prop_assert_eq!((sse_bytes(&out), repair.usage()), whole);
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
