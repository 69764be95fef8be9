//! Asking another program what it can do, once per version of it, and remembering the answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::sys::process;

/// Runs the command and returns what it printed to stdout. Failing, or staying silent beyond the deadline, is an error with its last words.
pub fn ask(command: &mut Command, deadline: Duration) -> anyhow::Result<String> {
    ask_unless(&AtomicBool::new(false), command, deadline)
}

/// The same, until it is stopped.
pub fn ask_unless(
    stopped: &AtomicBool,
    command: &mut Command,
    deadline: Duration,
) -> anyhow::Result<String> {
    let finished = process::run_unless(stopped, command, deadline)?;
    if finished.success {
        return Ok(finished.stdout);
    }
    let last = finished
        .stderr
        .lines()
        .chain(finished.stdout.lines())
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it failed without a message");
    anyhow::bail!("{}", last.trim())
}

/// The remembered answer of this executable on this topic. None if it has changed since.
pub fn remembered<T: DeserializeOwned>(cache: &Path, topic: &str, executable: &Path) -> Option<T> {
    let text = crate::sys::files::read(
        &file(cache, topic, executable),
        crate::sys::files::OWN_RECORD,
    )
    .ok()?;
    let mut kept: Value = serde_json::from_slice(&text).ok()?;
    if kept.get("of") != Some(&identity(executable)?) {
        return None;
    }
    serde_json::from_value(kept.get_mut("answer")?.take()).ok()
}

/// Remembers an answer. Failing to is no reason to stop: it will be asked again.
pub fn remember<T: Serialize>(cache: &Path, topic: &str, executable: &Path, answer: &T) {
    let Some(of) = identity(executable) else {
        return;
    };
    let kept = json!({ "of": of, "answer": answer });
    if let Err(error) = crate::sys::files::write_private(
        &file(cache, topic, executable),
        kept.to_string().as_bytes(),
    ) {
        tracing::debug!(%error, "the answer is not remembered");
    }
}

fn file(cache: &Path, topic: &str, executable: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    executable.hash(&mut hasher);
    cache.join(format!("{topic}-{:016x}.json", hasher.finish()))
}

/// Identity of an executable, which changes when it is replaced: real path, size, time of change.
fn identity(executable: &Path) -> Option<Value> {
    let path = fs_err::canonicalize(executable).ok()?;
    let data = fs_err::metadata(&path).ok()?;
    Some(json!([
        path.display().to_string(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
        env!("CARGO_PKG_VERSION")
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_until_the_executable_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let executable = folder.path().join("engine");
        fs_err::write(&executable, "one").expect("written");
        let recall = || remembered::<u32>(folder.path(), "topic", &executable);
        assert_eq!(recall(), None);
        remember(folder.path(), "topic", &executable, &7u32);
        assert_eq!(recall(), Some(7));
        fs_err::write(&executable, "other size").expect("written");
        assert_eq!(recall(), None);
    }
}
