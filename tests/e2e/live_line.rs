//! The live line of a session, in the real client's status line.

use crate::interactive;
use crate::real::{self, free_port};

#[test]
fn both_clients_show_what_the_machine_does() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
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
}
