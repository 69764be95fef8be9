//! Patches of the engine that did not apply: said when a session starts, and by `cclocal status`.

use crate::fakes;
use crate::support::finish;

#[test]
fn what_an_engine_lacks_is_said() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    stage.write(
        "engine/says",
        "[cclocal] patch resume: not applied (it resumes by itself)\n\
         [cclocal] patch raw-stream: not applied (_stream_anthropic_messages is another function)\n\
         [cclocal] patch memory: applied\n\
         [cclocal] patch text-route: not wanted",
    );
    let session = stage.start(&["--model", "../model"]);
    stage.wait_for("client/pid");
    let words = "this engine parses tool calls itself and misses some";
    let status = stage.run(&["status"]).stdout;
    let lacks: Vec<&str> = status
        .lines()
        .filter(|line| line.contains("  note  "))
        .collect();
    assert_eq!(lacks, [format!("  note      {words}")], "{status}");
    stage.write("home/go-on", "yes");
    let ran = finish(session);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches(words).count(), 1, "{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("note: this ").count(),
        1,
        "{}",
        ran.stderr
    );
}

#[test]
fn an_engine_that_says_nothing_of_its_patches_lacks_nothing() {
    let mut stage = fakes::stage();
    fakes::staying_client(&mut stage);
    let session = stage.start(&["--model", "../model"]);
    stage.wait_for("client/pid");
    let status = stage.run(&["status"]).stdout;
    assert!(!status.contains("lacks"), "{status}");
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
}
