//! `cclocal pull`, as far as it gets without an engine that downloads (`tests/e2e/download.rs`).

use crate::fakes;

#[test]
fn what_is_here_needs_no_download() {
    let stage = fakes::stage();
    let ran = stage.run(&["pull", "../model"]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(ran.stderr, @"
    error: model is a folder on this disk: there is nothing to download
      hint: cclocal pull takes a model of the catalogue, such as gemma, or a hub id, org/name
    ");
    let ran = stage.run(&["pull", "gema"]);
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(ran.stderr, @"
    error: `gema` is not a model
      cause: it has no organisation
      hint: perhaps: cclocal --model gemma
    ");
}

#[test]
fn a_download_that_leaves_something_out_is_said() {
    let mut stage = fakes::stage();
    stage.set("HF_ENDPOINT", "http://127.0.0.1:1");
    // It ends well and has downloaded nothing.
    stage.script("python3", "#!/bin/sh\nexit 0\n");
    let ran = stage.run(&["pull", "org/name"]);
    assert_eq!(ran.status, 15);
    insta::assert_snapshot!(ran.stderr, @"
    asking the hub about org/name
    downloading org/name
    error: org/name is not complete on this disk
      cause: the download ended, and files that serving needs are missing
      hint: run it again; `cclocal doctor` looks at the cache
    ");
    stage.assert_nothing_left();
}

#[test]
fn offline_it_is_refused_at_once() {
    let mut stage = fakes::stage();
    stage.set("HF_HUB_OFFLINE", "1");
    let ran = stage.run(&["pull", "gemma"]);
    assert_eq!(ran.status, 15);
    assert!(ran.stderr.contains("offline mode is on"), "{}", ran.stderr);
    assert_eq!(stage.read("engine/pid"), "");
}
