//! A short subprocess with a deadline, for asking other programs things.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What a subprocess left.
#[derive(Debug)]
pub struct Finished {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command without input and collects its output. A command that cannot be started, or has not ended and closed its output by the
/// deadline, is an error; in the second case its whole process group is killed.
pub fn run(command: &mut Command, deadline: Duration) -> std::io::Result<Finished> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let until = Instant::now() + deadline;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let texts = stdout
        .recv_timeout(until.saturating_duration_since(Instant::now()))
        .and_then(|out| {
            stderr
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .map(|err| (out, err))
        });
    if texts.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
    }
    // Its output is closed, so the end is near; a program that goes on silently is ended at the deadline all the same.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until {
            let _ = killpg(group, Signal::SIGKILL);
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (stdout, stderr) = texts.map_err(|_| {
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

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
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
    fn a_grandchild_that_holds_the_pipe_does_not_hold_us() {
        let error = run(
            Command::new("/bin/sh").args(["-c", "sleep 1000 & echo started"]),
            Duration::from_millis(300),
        )
        .expect_err("timed out");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
