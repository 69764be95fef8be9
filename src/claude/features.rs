//! Options and commands of the installed Claude Code, read from its `--help`.
//!
//! Asked once per version and remembered, as `--help` takes up to a second. It buys two things: an option is passed only to a version
//! that has it (an unknown one ends Claude Code), and a command of a later version is known for one, and refused as no session.

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
use crate::sys::variables;

const TOPIC: &str = "client-features";

/// `--help` takes under a second; a cold disk gets ample time.
const HELP_DEADLINE: Duration = Duration::from_secs(60);

/// Asks Claude Code, or remembers what it answered. The answer is forgotten when the executable changes.
pub fn probe(
    environment: &Environment,
    cache: &Path,
    profile: &Path,
    claude: &Path,
) -> Result<Features> {
    match remembered(cache, claude) {
        Some(features) => Ok(features),
        None => ask(&AtomicBool::new(false), environment, cache, profile, claude),
    }
}

fn ask(
    stopped: &AtomicBool,
    environment: &Environment,
    cache: &Path,
    profile: &Path,
    claude: &Path,
) -> Result<Features> {
    let mut command = Command::new(claude);
    command
        .arg("--help")
        .env_clear()
        .envs(variables::passed(environment, &[variables::SYSTEM]))
        // Nothing of the user's own is read or written, and nothing is looked up.
        .env("CLAUDE_CONFIG_DIR", profile)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1");
    let help = capabilities::ask_unless(stopped, &mut command, HELP_DEADLINE).map_err(|error| {
        Error::new(Exit::ClaudeMissing, "Claude Code does not answer `--help`")
            .because(error)
            .hint(format!(
                "run `{} --help` to see why",
                environment.tilde(claude)
            ))
    })?;
    let features = Features::from_help(&help);
    capabilities::remember(cache, TOPIC, claude, &features);
    Ok(features)
}

/// The remembered answer, if there is one for this executable.
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
    pub fn begin(environment: &Environment, cache: &Path, profile: &Path, claude: &Path) -> Self {
        let (sender, answer) = watch::channel(remembered(cache, claude).map(Ok));
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = answer.borrow().is_none().then(|| {
            let (environment, stopped) = (environment.clone(), stopped.clone());
            let [cache, profile, claude] = [cache, profile, claude].map(PathBuf::from);
            std::thread::spawn(move || {
                sender.send_replace(Some(ask(&stopped, &environment, &cache, &profile, &claude)));
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
