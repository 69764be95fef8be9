//! What this version of Claude Code can be asked for, read from its `--help`, asked once per version and remembered.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::claude::command::Features;
use crate::error::{Error, Exit, Result};
use crate::sys::capabilities;
use crate::sys::environment::Environment;

const TOPIC: &str = "client-features";

/// `--help` takes under a second; a cold disk gets ample time.
const HELP_DEADLINE: Duration = Duration::from_secs(60);

/// Asks Claude Code, or remembers what it answered. The answer is forgotten when the executable changes.
pub fn probe(host: &Environment, cache: &Path, profile: &Path, claude: &Path) -> Result<Features> {
    match remembered(cache, claude) {
        Some(features) => Ok(features),
        None => ask(&AtomicBool::new(false), host, cache, profile, claude),
    }
}

fn ask(
    stopped: &AtomicBool,
    host: &Environment,
    cache: &Path,
    profile: &Path,
    claude: &Path,
) -> Result<Features> {
    let mut command = Command::new(claude);
    command
        .arg("--help")
        .env_clear()
        .envs(crate::env_vars::engine_env(host))
        // Nothing of the user's own is read or written, and nothing is looked up.
        .env("CLAUDE_CONFIG_DIR", profile)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1");
    let help = capabilities::ask_unless(stopped, &mut command, HELP_DEADLINE).map_err(|error| {
        Error::new(Exit::ClaudeMissing, "Claude Code does not answer `--help`")
            .because(error)
            .hint(format!("run `{} --help` to see why", host.tilde(claude)))
    })?;
    let features = Features::from_help(&help);
    capabilities::remember(cache, TOPIC, claude, &features);
    Ok(features)
}

/// What Claude Code answered before, without asking it.
pub fn remembered(cache: &Path, claude: &Path) -> Option<Features> {
    capabilities::remembered(cache, TOPIC, claude)
}

/// The question, asked while other things go on. Dropping it ends a client that has not answered.
#[derive(Debug)]
pub struct Asked {
    answer: watch::Receiver<Option<Result<Features>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Asked {
    /// Asks, unless the answer is remembered.
    pub fn begin(host: &Environment, cache: &Path, profile: &Path, claude: &Path) -> Self {
        let (sender, answer) = watch::channel(remembered(cache, claude).map(Ok));
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = answer.borrow().is_none().then(|| {
            let (host, stopped) = (host.clone(), stopped.clone());
            let [cache, profile, claude] = [cache, profile, claude].map(PathBuf::from);
            std::thread::spawn(move || {
                sender.send_replace(Some(ask(&stopped, &host, &cache, &profile, &claude)));
            })
        });
        Self {
            answer,
            stopped,
            thread,
        }
    }

    /// The answer, when it is there. Can be asked for again.
    pub async fn answer(&self) -> Result<Features> {
        let mut answer = self.answer.clone();
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            // The thread is gone without a word. Nothing is known then, which older clients are started with, too.
            _ => Ok(Features::default()),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
