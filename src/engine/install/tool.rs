//! Runs uv and the installed Python: their output line by line, never silent for ever, and gone when we are gone.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::failure;
use super::settings::{self, Variables};
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::process;

/// The longest silence of a tool: one large package on a slow connection is one silent step.
const SILENCE: Duration = Duration::from_secs(600);

/// The longest wait for an answer. A slow disk can make a first start take seconds; a broken one should not hold us.
const DEADLINE: Duration = Duration::from_secs(20);

/// Lines kept for the error message and for finding out what went wrong.
const KEPT: usize = 200;

/// Starts the tool as `$@`, in our process group, with a watcher that ends the whole group when our end of standard input is closed:
/// by us, or by the system when we are gone, however that happened.
const LEASH: &str = r#"
exec 3<&0 2>&1
"$@" </dev/null 3<&- &
tool=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$tool"
status=$?
kill -KILL "$watcher" 2>/dev/null
exit "$status"
"#;

/// The environment of the tools, the log of the installation, and the receiver of its steps.
pub(super) struct Tools<'a> {
    pub(super) env: Variables,
    cwd: &'a Path,
    log: File,
    on_step: &'a mut dyn FnMut(&str),
}

impl<'a> Tools<'a> {
    pub(super) fn new(
        environment: &Environment,
        cwd: &'a Path,
        log: File,
        on_step: &'a mut dyn FnMut(&str),
    ) -> Self {
        let env = settings::variables(environment);
        Self {
            env,
            cwd,
            log,
            on_step,
        }
    }

    /// Reports the step that begins now.
    pub(super) fn step(&mut self, name: impl AsRef<str>) {
        self.note(&format!("== {}", name.as_ref()));
        (self.on_step)(name.as_ref());
    }

    /// Writes a line to the log. One that cannot be written must not stop an installation.
    pub(super) fn note(&mut self, line: &str) {
        let _ = writeln!(self.log, "{line}");
    }

    /// A command with the tools' environment and nothing else of ours.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(self.cwd);
        command
    }

    /// Asks a tool something. Its standard output, unless it fails or takes too long; the log has the whole answer.
    pub(super) fn ask(&mut self, command: &mut Command) -> Option<String> {
        self.note(&words(command));
        match process::run(command, DEADLINE) {
            Ok(finished) => {
                self.note(format!("{}{}", finished.stdout, finished.stderr).trim_end());
                finished.success.then(|| finished.stdout.trim().to_owned())
            }
            Err(error) => {
                self.note(&error.to_string());
                None
            }
        }
    }

    /// Runs a tool to its end and returns its last lines. Failing is an error that says what was tried, why it failed as far as that can
    /// be told, and the last lines.
    pub(super) fn run(&mut self, what: &str, command: &Command) -> Result<Vec<String>> {
        self.run_within(what, command, SILENCE)
    }

    fn run_within(
        &mut self,
        what: &str,
        command: &Command,
        silence: Duration,
    ) -> Result<Vec<String>> {
        self.note(&words(command));
        let mut child = self
            .command(Path::new("/bin/sh"))
            .args(["-c", LEASH, "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context(
                Exit::EngineMissing,
                format!("{what} failed: /bin/sh cannot be started"),
            )?;
        let (sender, lines) = mpsc::channel();
        let output = child.stdout.take();
        std::thread::spawn(move || {
            let lines = output.map(|output| BufReader::new(output).split(b'\n'));
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                if sender.send(shown(&line)).is_err() {
                    break;
                }
            }
        });
        let mut kept: Vec<String> = Vec::new();
        let silent = loop {
            match lines.recv_timeout(silence) {
                Ok(line) => {
                    self.note(&line);
                    if kept.len() == KEPT {
                        kept.remove(0);
                    }
                    kept.push(line);
                }
                Err(error) => break error == RecvTimeoutError::Timeout,
            }
        };
        // Waiting would close the leash.
        let leash = child.stdin.take();
        if silent {
            // The child is not collected yet, so the group's number is still its own.
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
            let _ = killpg(group, Signal::SIGKILL);
        }
        let status = child
            .wait()
            .context(Exit::EngineMissing, format!("{what} failed"))?;
        drop(leash);
        self.note(&format!("-- {status}"));
        if silent {
            let minutes = silence.as_secs().div_ceil(60);
            return Err(Error::new(Exit::EngineMissing, format!("{what} failed"))
                .cause(format!(
                    "it printed nothing for {minutes} minutes and was stopped"
                ))
                .hint("check your connection, then run `cclocal setup` again"));
        }
        if !status.success() {
            return Err(failure::explain(what, &status.to_string(), &kept));
        }
        Ok(kept)
    }
}

/// The command as it is in the log.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.fold("$".to_owned(), |line, word| {
        format!("{line} {}", word.display())
    })
}

/// A line as a terminal shows it: a progress bar's is redrawn by returning to its start, and only what it ended as counts.
fn shown(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    line.rsplit('\r').next().unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, silence: Duration) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a log");
        let environment = Environment::for_tests(folder.path(), &[("PATH", "/usr/bin:/bin")]);
        let mut ignore = |_: &str| {};
        let mut tools = Tools::new(&environment, folder.path(), log, &mut ignore);
        let mut command = tools.command(Path::new("/bin/sh"));
        tools.run_within("the test", command.args(["-c", script]), silence)
    }

    #[test]
    fn output_of_both_kinds_is_kept_and_the_status_counts() {
        let silence = Duration::from_secs(20);
        let lines = sh("echo a; printf '1%%\\r2%%\\n' >&2", silence).expect("done");
        assert_eq!(lines, ["a", "2%"]);
        let error = sh("echo 'some words'; exit 3", silence).expect_err("failed");
        assert_eq!(error.exit, Exit::EngineMissing);
        assert_eq!(error.detail, ["some words"]);
    }

    #[test]
    fn a_silent_tool_is_ended_with_its_children() {
        let script = "sleep 1000 & sleep 1000";
        let error = sh(script, Duration::from_millis(300)).expect_err("ended");
        insta::assert_snapshot!(error, @"
        error: the test failed
          cause: it printed nothing for 0 minutes and was stopped
          hint: check your connection, then run `cclocal setup` again
        ");
    }
}
