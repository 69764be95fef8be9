//! The live line of a session, in the real client's status line.

use std::path::Path;

use crate::interactive;
use crate::real::{self, free_port};

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
