//! Plain replies.

use serde_json::{Value, json};

use crate::gateway::anthropic::tests::{PARSERS, fixture, limit, request};
use crate::gateway::anthropic::*;

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
