//! Somebody who would like to be the real engine, or to reach it.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::real::{self, free_port, launch};
use crate::support::impostor::{Impostor, can_be_taken};
use crate::support::{finish, signal};

#[test]
fn who_takes_the_real_engines_place_is_sent_no_prompt_and_no_key() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let session = stage.start(&launch(&port, &["--", "-p", "between us"]));
    let log = format!("cclocal/state/server-{port}.log");
    while !stage.wait_for(&log).contains("patch listen: applied") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!can_be_taken(port.parse().expect("a port")));
    let folder = stage.path("cclocal/state/run").join(&port);
    let healthy = r#"{"status":"healthy","model_loaded":true}"#;
    let impostor = Impostor::on(&folder.join("engine"), healthy);
    let key = std::fs::read_to_string(folder.join("key")).expect("the gateway's key");
    let ran = finish(session);
    let got = impostor.got();
    assert_eq!(ran.status, 14, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("error: the engine cannot be trusted")
            && ran.stderr.contains("does not have the engine's key"),
        "{}",
        ran.stderr
    );
    assert!(got.contains("GET /cclocal/proof?nonce="), "{got}");
    for secret in ["between us", "uthorization", "Bearer", "/health", &key] {
        assert!(!got.contains(secret), "{got}");
    }
}

#[test]
fn the_real_engine_listens_on_no_port() {
    let stage = real::stage(&real::client());
    let port = free_port();
    let out = std::fs::File::create(stage.path("out")).expect("made");
    let server = stage
        .command(&["--server", "--model", "../hermes-llama", "--port", &port])
        .stdout(out)
        .spawn()
        .expect("started");
    stage.wait_for("out");
    let ran = stage.run(&["status", "--json"]);
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let listens = |pid: &Value| {
        let sockets = sockets(Path::new("/proc").join(pid.to_string()).as_path());
        listening().iter().any(|inode| sockets.contains(inode))
    };
    assert!(listens(&all[0]["pid"]), "the supervisor does");
    assert!(!listens(&all[0]["engine_pid"]));
    signal(&server, Signal::SIGINT);
    assert_eq!(finish(server).status, 0);
}

/// The inodes of a process's sockets.
fn sockets(process: &Path) -> Vec<String> {
    let descriptors = std::fs::read_dir(process.join("fd")).expect("ours");
    descriptors
        .flatten()
        .filter_map(|descriptor| {
            let target = std::fs::read_link(descriptor.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            Some(inode.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// The inodes of all sockets that listen on a port, as proc(5) has them.
fn listening() -> Vec<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            let columns = table.lines().map(str::to_owned).collect::<Vec<_>>();
            columns.into_iter().filter_map(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                (columns.get(3) == Some(&"0A")).then(|| columns[9].to_owned())
            })
        })
        .collect()
}
