//! Links out of the cache: no part of its sizes, removed and never followed.

use std::os::unix::fs::symlink;

use crate::cache::{HUB, model};
use crate::fakes;

#[test]
fn what_links_lead_to_elsewhere_is_no_part_of_the_cache() {
    let stage = fakes::stage();
    for part in ["snapshots", "blobs"] {
        let kept = stage.write(
            &format!("elsewhere/{part}/deep/kept"),
            &"0".repeat(5_000_000),
        );
        stage.write(&format!("elsewhere/{part}/more"), &"0".repeat(5_000_000));
        let folder = model(&stage, &format!("org/{part}"), 3_000_000);
        let own = stage.path(format!("{folder}/{part}"));
        std::fs::remove_dir_all(&own).expect("removed");
        symlink(stage.path(format!("elsewhere/{part}")), &own).expect("linked");
        assert!(kept.exists());
    }
    symlink(
        stage.path("elsewhere"),
        stage.path(HUB).join("models--org--linked"),
    )
    .expect("linked");
    let ran = stage.run(&["list"]);
    insta::assert_snapshot!(stage.filtered(&ran.stdout), @"
    org/snapshots      3 MB  partial
    org/blobs          0 kB  partial, files outside the cache
    org/linked         0 kB  partial, link to [STAGE]/elsewhere

    3 models, 3 MB, in ~/.cache/huggingface/hub
    ");
    let ran = stage.run(&["rm", "org/blobs", "org/snapshots", "--yes"]);
    insta::assert_snapshot!(ran.stderr, @"
    ✓ removed org/blobs (0 kB)
    ✓ removed org/snapshots (3 MB)
    Freed 3 MB.
    ");
    for part in ["snapshots", "blobs"] {
        for file in ["deep/kept", "more"] {
            assert!(stage.path(format!("elsewhere/{part}/{file}")).exists());
        }
    }
}

#[test]
fn a_reference_that_leads_out_of_the_model_is_none() {
    let stage = fakes::stage();
    let folder = model(&stage, "org/name", 3_000_000);
    stage.write(&format!("{folder}/refs/main"), "../snapshots/abc");
    let ran = stage.run(&["list"]);
    insta::assert_snapshot!(ran.stdout, @"
    org/name      3 MB  partial

    1 model, 3 MB, in ~/.cache/huggingface/hub
    ");
}
