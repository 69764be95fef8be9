//! `cclocal demo`, with the newest client and an old one, in a home that never ran Claude Code.

use std::path::Path;

use crate::real;

fn demo_works(client: &Path) {
    let stage = real::fresh_stage(client);
    let ran = stage.run(&["demo"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("called the Write tool"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("It works"), "{}", ran.stderr);
    assert_eq!(
        real::claude_files(&stage),
        Vec::<String>::new(),
        "the user's own folder was written"
    );
    // The client and the engine leave folders of their own there; ours is removed.
    let left = std::fs::read_dir(stage.path("tmp"))
        .expect("read")
        .flatten();
    let ours: Vec<_> = left
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("cclocal"))
        .collect();
    assert!(ours.is_empty(), "left: {ours:?}");
    stage.assert_nothing_left();
}

#[test]
fn with_the_newest_client() {
    demo_works(&real::client());
}

#[test]
fn with_an_old_client() {
    demo_works(&real::old_client());
}

#[test]
fn a_client_that_is_not_one_is_named_as_the_failed_link() {
    let mut stage = real::stage(&real::client());
    let broken = stage.script(
        "claude",
        "#!/bin/sh\n[ \"$1\" = --help ] && echo 'Usage: claude' && exit 0\necho no >&2; exit 3\n",
    );
    stage.set("CCLOCAL_CLAUDE", broken.display().to_string());
    let ran = stage.run(&["demo"]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("the demo failed while running Claude Code"),
        "{}",
        ran.stderr
    );
    stage.assert_nothing_left();
}
