//! How the last supervisor and its engine ended, as the supervisor's log tells it. Pure but for finding that log.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::sys::log;
use crate::sys::paths::Paths;

/// End of the last engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastEnd {
    /// It was ended in order. `restarts`: how often an engine had died before, and was started again.
    Orderly { restarts: usize },
    /// It died, and was not started again. The cause, if the log has one.
    Died { cause: Option<String> },
    /// The log ends in the middle: the supervisor was killed, or still runs.
    CutOff,
}

/// The newest log of a supervisor, with when it was last written.
pub fn newest_log(paths: &Paths) -> Option<(PathBuf, SystemTime)> {
    let entries = std::fs::read_dir(&paths.state).ok()?.flatten();
    let logs = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("supervisor") && name.ends_with(".log")
    });
    logs.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?)))
        .max_by_key(|(_, written)| *written)
}

/// The end that this log tells of. None: it has no lines of the usual level.
pub fn read(path: &std::path::Path) -> Option<LastEnd> {
    told(&log::tail(path))
}

fn told(lines: &[String]) -> Option<LastEnd> {
    let is_of_ours = |line: &&String| {
        line.contains(" cclocal::") && (line.contains(" INFO ") || line.contains(" WARN "))
    };
    let lines: Vec<&String> = lines.iter().filter(is_of_ours).collect();
    let deaths: Vec<usize> = (lines.iter().enumerate())
        .filter(|(_, line)| line.contains(": the engine has gone "))
        .map(|(at, _)| at)
        .collect();
    let ended = lines.last()?.ends_with(": ended");
    let came_back = |death: usize| {
        let mut after = lines[death..].iter();
        after.any(|line| line.contains(": ready "))
    };
    Some(match deaths.last() {
        Some(&death) if ended && !came_back(death) => LastEnd::Died {
            cause: cause(lines[death]),
        },
        _ if ended => LastEnd::Orderly {
            restarts: deaths.len(),
        },
        _ => LastEnd::CutOff,
    })
}

/// The field `cause` of a line, which is quoted.
fn cause(line: &str) -> Option<String> {
    let quoted = line.split_once(" cause=")?.1;
    serde_json::from_str(quoted.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str =
        "2026-11-28T00:00:01Z  INFO cclocal::supervisor::actor::engine: ready took=\"2 s\"";
    const GONE: &str = "2026-11-28T00:00:02Z  WARN cclocal::supervisor::actor::engine: the engine has gone end=Died(Signal(6)) cause=\"the GPU ran \\\"out\\\" of memory\"";
    const ENDED: &str = "2026-11-28T00:00:03Z  INFO cclocal::supervisor::actor: ended";

    fn of(lines: &[&str]) -> Option<LastEnd> {
        told(
            &lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn each_way_to_end_is_told_apart() {
        let orderly = |restarts| Some(LastEnd::Orderly { restarts });
        assert_eq!(of(&[READY, ENDED]), orderly(0));
        assert_eq!(of(&[READY, GONE, READY, ENDED]), orderly(1));
        let cause = Some("the GPU ran \"out\" of memory".to_owned());
        assert_eq!(of(&[READY, GONE, ENDED]), Some(LastEnd::Died { cause }));
        assert!(of(&[GONE, ENDED, "a word of Python"]).is_some());
        assert_eq!(of(&[READY]), Some(LastEnd::CutOff));
        assert_eq!(of(&[READY, GONE]), Some(LastEnd::CutOff));
        assert_eq!(of(&["error: it does not start"]), None);
        assert_eq!(of(&[]), None);
    }
}
