//! `cclocal status-line SOCKET PID`: the status line of a session, run by Claude Code each second. It starts fast, loads nothing that it does not need, and
//! says nothing where there is nothing to say.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::escape::visible;
use crate::supervisor::live_line::{self, Told};
use crate::supervisor::protocol::{SupervisorMessage, SupervisorRequest};
use crate::supervisor::socket;

/// How long the supervisor may take: the next line is drawn after a second.
const DEADLINE: Duration = Duration::from_millis(900);

/// How much is read of what Claude Code tells, in bytes. It takes two kilobytes.
const LONGEST: u64 = 256 << 10;

/// Prints the line. `arguments`: those behind the command's name.
pub(super) fn run(arguments: &[OsString]) -> u8 {
    if let Some(line) = line(arguments) {
        let _ = writeln!(std::io::stdout(), "{}", visible(&line));
    }
    0
}

fn line(arguments: &[OsString]) -> Option<String> {
    let [socket, pid] = arguments else {
        return None;
    };
    let pid = pid.to_str()?.parse().ok()?;
    let question = SupervisorRequest::Live { pid };
    let answer = socket::ask_within(Path::new(socket), &question, DEADLINE).ok()?;
    match serde_json::from_str(&answer).ok()? {
        SupervisorMessage::Live(live) => Some(live_line::line(&live, &told())),
        _ => None,
    }
}

/// Claude Code's state, which it writes to standard input.
fn told() -> Told {
    let mut bytes = Vec::new();
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let _ = stdin.lock().take(LONGEST).read_to_end(&mut bytes);
    }
    serde_json::from_slice(&bytes).unwrap_or_default()
}
