//! Ends Claude Code should this process be killed in a way that it cannot answer (SIGKILL): nobody would answer Claude Code then. Sessions on an
//! engine of ours have their supervisor for that.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::host::Host;

/// Waits on its standard input for a word, which means that all is well; its end without one means that we are gone. A process of another group
/// than Claude Code's is another process: the number has been given away. One that is stopped cannot hear until it is continued.
const SCRIPT: &str = r#"read -r word && exit 0
there() { [ "$(ps -o pgid= -p "$1" | tr -d ' ')" = "$2" ]; }
there "$1" "$2" || exit 0
kill -TERM "$1"
kill -CONT "$1"
for second in 1 2 3 4 5; do
    sleep 1
    there "$1" "$2" || exit 0
done
kill -KILL "$1"
"#;

/// The one who watches. Dropped, it is told that all is well.
#[derive(Debug)]
pub struct Watcher(Child);

impl Watcher {
    /// Watches over this process of our group. None: the system starts no shell, which is no reason not to work.
    pub fn start(host: &Host, client: i32) -> Option<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "cclocal-watcher", &client.to_string()])
            .arg(nix::unistd::getpgrp().as_raw().to_string())
            .env_clear()
            // The keys of the terminal are not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(path) = host.var("PATH") {
            command.env("PATH", path);
        }
        command
            .spawn()
            .inspect_err(|error| tracing::debug!(%error, "nobody watches over Claude Code"))
            .ok()
            .map(Self)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.write_all(b"over\n");
        }
        let _ = self.0.wait();
    }
}
