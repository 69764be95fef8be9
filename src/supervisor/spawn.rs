//! Starting a supervisor in the background.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::protocol::Failure;
use super::spec::Spec;
use crate::engine::env;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;

/// How long a supervisor may take until it listens. It does nothing slow before.
const DEADLINE: Duration = Duration::from_secs(20);

/// First line of a new supervisor on its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// It listens for sessions, and its gateway listens on this port.
    Running {
        port: u16,
    },
    Failed(Failure),
}

/// Starts a supervisor and returns its gateway's port. It has started nothing yet, and ends by itself if nobody takes a lease.
pub fn start(host: &Environment, spec: &Spec) -> Result<u16> {
    let failed = "the supervisor cannot be started";
    let program = std::env::current_exe().context(Exit::Other, failed)?;
    let mut child = Command::new(program)
        .arg("supervisor")
        .current_dir("/")
        .env_clear()
        // None of the user's keys: it needs no more than the engine and our own settings. The hub's token comes through the pipe.
        .envs(env::of_supervisor(host))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(Exit::Other, failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        let mut spec = spec.clone();
        if !spec.serve.complete {
            spec.hub_tokens = env::hub_tokens(host);
        }
        let text = serde_json::to_string(&spec).unwrap_or_default();
        // If it is gone already, its silence is noticed below.
        let _ = pipe.write_all(text.as_bytes());
    }
    let (sender, line) = mpsc::channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(stdout) = stdout {
            let _ = BufReader::new(stdout).read_line(&mut text);
        }
        let _ = sender.send(text);
    });
    let line = line.recv_timeout(DEADLINE).unwrap_or_default();
    if line.is_empty() {
        // It has started nothing, and must not begin to when nobody waits for it any more.
        let _ = child.kill();
    }
    std::thread::spawn(move || {
        // Collected when it ends, so that no zombie of it is left while this session goes on.
        let _ = child.wait();
    });
    match serde_json::from_str(&line) {
        Ok(Started::Running { port }) => Ok(port),
        Ok(Started::Failed(failure)) => Err(failure.into()),
        Err(_) => Err(Error::other(failed)
            .cause("it did not say that it is ready")
            .hint("run it again; `cclocal doctor` looks for the reason")),
    }
}
