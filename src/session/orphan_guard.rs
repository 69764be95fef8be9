//! Ends Claude Code should its session be killed in a way that it cannot answer (SIGKILL): nobody would answer Claude Code then. A supervisor does
//! that as well, unless it is killed with the session; this is a process of its own, in a group of its own, which goes by neither.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::sys::environment::Environment;

/// Waits on its standard input for a word, which means that all is well; its end without one means that the session is gone. A process of another group
/// or with another beginning than Claude Code's is another process: the number has been given away. One that is stopped cannot hear until it is
/// continued. At the end it removes what the session could not: Claude Code's settings.
const SCRIPT: &str = r#"# cclocal watches over Claude Code
trap '' HUP INT QUIT TERM
set -f
identity() {
    if [ -r "/proc/$1/stat" ]; then
        read -r line < "/proc/$1/stat" || return
        set -- ${line##*) }
        echo "$3 ${20}"
    else
        ps -o pgid= -o lstart= -p "$1"
    fi
}
client=$(identity "$1")
there() { [ -n "$client" ] && [ "$(identity "$1" 2>/dev/null)" = "$client" ]; }
case $(echo $client) in "$2 "*) ;; *) client= ;; esac
read -r word && exit 0
end() {
    there "$1" || return
    kill -TERM "$1"
    kill -CONT "$1"
    for second in 1 2 3 4 5; do
        sleep 1
        there "$1" || return
    done
    kill -KILL "$1"
}
end "$1"
rm -rf -- "$3"
"#;

/// The one who watches. Dropped, it is told that all is well.
#[derive(Debug)]
pub(super) struct Watcher(Child);

impl Watcher {
    /// Watches over this process of our group. `folder`: the session's own, which nobody needs after it. None: the system starts no shell, which is no
    /// reason not to work.
    pub(super) fn start(host: &Environment, client: i32, folder: &Path) -> Option<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "cclocal-watcher", &client.to_string()])
            .arg(nix::unistd::getpgrp().as_raw().to_string())
            .arg(folder)
            .current_dir("/")
            .env_clear()
            // What `ps` tells of a beginning is in words.
            .env("LC_ALL", "C")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Watches over a process that hears no request to end, and ends without a word.
    fn watched(group: Option<i32>) -> (Child, tempfile::TempDir) {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("session-1");
        std::fs::create_dir(&folder).expect("made");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' TERM; while :; do sleep 0.05; done"]);
        if let Some(group) = group {
            command.process_group(group);
        }
        let client = command.spawn().expect("started");
        let pid = i32::try_from(client.id()).expect("small");
        let host = Environment::for_tests(home.path(), &[("PATH", "/usr/bin:/bin")]);
        let mut watcher = Watcher::start(&host, pid, &folder).expect("a shell");
        drop(watcher.0.stdin.take());
        watcher.0.wait().expect("ended");
        assert!(!folder.exists(), "the session's folder is left");
        (client, home)
    }

    #[test]
    fn a_client_whose_session_is_gone_is_ended() {
        let (mut client, _home) = watched(None);
        let ended = client.wait().expect("collected");
        assert!(!ended.success());
    }

    #[test]
    fn a_process_of_another_group_is_another_process() {
        let (mut client, _home) = watched(Some(0));
        assert_eq!(client.try_wait().expect("asked"), None, "it was ended");
        client.kill().expect("killed");
        client.wait().expect("collected");
    }

    #[test]
    fn one_that_is_told_that_all_is_well_does_nothing() {
        let home = tempfile::tempdir().expect("a folder");
        let host = Environment::for_tests(home.path(), &[("PATH", "/usr/bin:/bin")]);
        let mut client = Command::new("sleep").arg("1000").spawn().expect("started");
        let pid = i32::try_from(client.id()).expect("small");
        drop(Watcher::start(&host, pid, home.path()));
        assert_eq!(client.try_wait().expect("asked"), None, "it was ended");
        assert!(home.path().exists());
        client.kill().expect("killed");
        client.wait().expect("collected");
    }
}
