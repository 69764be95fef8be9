//! A short subprocess with a deadline, for asking other programs things.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of a program's output is kept, in bytes. The longest that is asked for, a client's `--help`, takes some ten kilobytes.
const LONGEST_OUTPUT: u64 = 4 << 20;

/// How soon a stop is noticed.
const SLICE: Duration = Duration::from_millis(10);

/// Result of a subprocess.
#[derive(Debug)]
pub struct Finished {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command without input and collects its output. A command that cannot be started, or has not ended and closed its output by the
/// deadline, is an error; in the second case its whole process group is killed.
pub fn run(command: &mut Command, deadline: Duration) -> std::io::Result<Finished> {
    run_unless(&AtomicBool::new(false), command, deadline)
}

/// The same with input, which stays open behind it until the program has ended.
pub fn run_with_input(
    command: &mut Command,
    input: &[u8],
    deadline: Duration,
) -> std::io::Result<Finished> {
    let never = AtomicBool::new(false);
    run_fed(&never, command.stdin(Stdio::piped()), Some(input), deadline)
}

/// The same, and the deadline comes at once when it is stopped.
pub fn run_unless(
    stopped: &AtomicBool,
    command: &mut Command,
    deadline: Duration,
) -> std::io::Result<Finished> {
    run_fed(stopped, command.stdin(Stdio::null()), None, deadline)
}

fn run_fed(
    stopped: &AtomicBool,
    command: &mut Command,
    input: Option<&[u8]>,
    deadline: Duration,
) -> std::io::Result<Finished> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let until = Instant::now() + deadline;
    let mut stdin = child.stdin.take();
    if let (Some(pipe), Some(input)) = (&mut stdin, input) {
        // A line or two, which a pipe holds. If the program is gone already, its end says why.
        let _ = pipe.write_all(input);
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let texts = text(&stdout, until, stopped)
        .and_then(|out| text(&stderr, until, stopped).map(|err| (out, err)));
    if texts.is_none() {
        let _ = killpg(group, Signal::SIGKILL);
    }
    // Its output is closed, so the end is near; a program that goes on silently is ended at the deadline all the same.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until || stopped.load(Ordering::Relaxed) {
            let _ = killpg(group, Signal::SIGKILL);
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    drop(stdin);
    let (stdout, stderr) = texts.ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {} s", deadline.as_secs_f32()),
        )
    })?;
    Ok(Finished {
        success: status.success(),
        stdout,
        stderr,
    })
}

/// The output, if it is complete before the deadline.
fn text(collected: &Receiver<String>, until: Instant, stopped: &AtomicBool) -> Option<String> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match collected.recv_timeout(left.min(SLICE)) {
            Ok(text) => return Some(text),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return None,
            Err(RecvTimeoutError::Timeout) if stopped.load(Ordering::Relaxed) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = (&mut pipe).take(LONGEST_OUTPUT).read_to_end(&mut bytes);
            // The rest is read as well, so that the program can end.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_collected() {
        let finished = run(
            Command::new("/bin/sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            Duration::from_secs(20),
        )
        .expect("finished");
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(!finished.success);
    }

    #[test]
    fn input_is_given() {
        let finished = run_with_input(
            Command::new("/bin/sh").args(["-c", "read line; echo \"$line\""]),
            b"hello\n",
            Duration::from_secs(20),
        )
        .expect("finished");
        assert_eq!(finished.stdout, "hello\n");
    }

    #[test]
    fn what_is_stopped_does_not_go_on() {
        let stopped = AtomicBool::new(true);
        let error = run_unless(
            &stopped,
            Command::new("/bin/sh").args(["-c", "sleep 1000"]),
            Duration::from_secs(1_000),
        )
        .expect_err("stopped");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_grandchild_that_holds_the_pipe_does_not_hold_us() {
        let error = run(
            Command::new("/bin/sh").args(["-c", "sleep 1000 & echo started"]),
            Duration::from_millis(300),
        )
        .expect_err("timed out");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
