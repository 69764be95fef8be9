//! What Claude Code's own first request takes of the window, as the engine counts it.

use cclocal::memory::FIRST_REQUEST;

use crate::interactive;
use crate::real::{self, TEXT, free_port, launch};
use crate::support::Stage;

/// Bytes of such a request that make one token, at the least. The demo model's tokenizer has one for each byte; those of the catalogue's models have
/// 150,000 to 260,000 pieces. Counted with others of that kind, the same requests have 4.4 bytes for each token with 100,000 and with 200,000 pieces,
/// and 4.0 even with 50,000 (GPT-2's).
const BYTES_PER_TOKEN: u64 = 4;

/// What of [`FIRST_REQUEST`] has to be left for the question itself and the first answers, in tokens.
const ROOM_TO_WORK: u64 = 2_048;

/// The window's smallest size counts on it, so it must be true of what is really sent: not less, and not twice as much.
#[test]
fn first_request_has_the_room_that_is_planned_for_it() {
    for client in [real::client(), real::old_client()] {
        let stage = real::stage(&client);
        let port = free_port();
        let ran = stage.run(&launch(&port, &["--", "-p", "Create hello.txt"]));
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_is_planned(&stage, &port);

        let stage = real::stage(&client);
        let port = free_port();
        // Nothing of it is computed before.
        let model = "../hermes-llama --forget-prefix";
        let screen = interactive::start_with(&stage, &port, model);
        screen.line("Create hello.txt");
        screen.wait_for("Done: the Write tool has written the file.");
        interactive::leave(&screen);
        assert_eq!(stage.read("work/hello.txt"), TEXT);
        assert_is_planned(&stage, &port);
    }
}

fn assert_is_planned(stage: &Stage, port: &str) {
    let log = stage.read(&format!("cclocal/state/server-{port}.log"));
    // Before it, the old client asks for a title, which is shorter.
    let counted = log
        .split("MISS prompt_tokens=")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let bytes = counted.max().expect("a prompt");
    let tokens = bytes / BYTES_PER_TOKEN;
    println!("{bytes} bytes, {tokens} tokens");
    assert!(tokens + ROOM_TO_WORK <= FIRST_REQUEST, "{tokens}");
    assert!(tokens * 2 >= FIRST_REQUEST, "{tokens}");
}
