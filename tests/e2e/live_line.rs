//! The live line of a session, in the real client's status line.

use std::path::Path;

use serde_json::{Value, json};

use crate::interactive;
use crate::real::{self, free_port};
use crate::turns::Gateway;

fn shows_what_the_machine_does(client: &Path) {
    let stage = real::stage(client);
    let arguments = format!("--model ../hermes-llama --port {}", free_port());
    let screen = interactive::start_in(&stage, "work", &arguments);
    screen.wait_for("hermes-llama · window 195k · ready");
    screen.line("Create hello.txt");
    screen.wait_for("Done: the Write tool has written the file.");
    // It is drawn again after the turn, by the client's own count of the conversation and ours of the cache.
    screen.wait_until("the window used and the share of the cache", |text| {
        text.contains("k of 195k · ready · ") && text.contains(" % cached")
    });
    interactive::leave(&screen);
    drop(screen);
    stage.assert_nothing_left();
}

#[test]
fn the_newest_client_shows_what_the_machine_does() {
    shows_what_the_machine_does(&real::client());
}

#[test]
fn an_old_client_shows_what_the_machine_does() {
    shows_what_the_machine_does(&real::old_client());
}

/// Three turns that go on with the one before, then one in which the first message is another.
#[test]
fn a_break_of_the_prefix_cache_is_said_with_its_place() {
    let stage = real::stage(&real::client());
    let gateway = Gateway::start(&stage, "../hermes-llama", &[]);
    let mut turns = gateway.tool_loop("hermes-llama");
    turns
        .change(|request| request["messages"][0]["content"] = "One of many. ".repeat(1_000).into());
    for number in 0..3 {
        turns.ask_once();
        turns.change(|request| {
            let messages = request["messages"].as_array_mut().expect("messages");
            messages.push(json!({"role": "assistant", "content": "Done."}));
            messages.push(json!({"role": "user", "content": format!("And number {number}?")}));
        });
    }
    let breaks = || {
        let status = stage.run(&["status", "--json"]).stdout;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        status[0]["cache_breaks"].clone()
    };
    assert_eq!(breaks(), json!({"count": 0, "tokens": 0, "last": null}));
    turns
        .change(|request| request["messages"][0]["content"] = "Two of them. ".repeat(1_000).into());
    turns.ask_once();
    let found = breaks();
    assert_eq!(found["count"], 1, "{found}");
    let part = found["last"]["part"].as_str().expect("a place");
    assert!(part.starts_with("message 1 of "), "{part}");
    assert!(found["last"]["tokens"].as_u64() >= Some(1_024), "{found}");
    let status = stage.run(&["status"]).stdout;
    assert!(
        status.contains("  cache     1 break; last: message 1 of "),
        "{status}"
    );
    gateway.end();
}
