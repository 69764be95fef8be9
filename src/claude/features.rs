//! What this version of Claude Code can be asked for, read from its `--help`, asked once per version and remembered.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Exit, Result};
use crate::host::Host;
use crate::plan::claude::Features;
use crate::probe;

const TOPIC: &str = "client-features";

/// `--help` takes under a second; a cold disk gets ample time.
const HELP_DEADLINE: Duration = Duration::from_secs(60);

/// Asks Claude Code, or remembers what it answered. The answer is forgotten when the executable changes.
pub fn probe(host: &Host, cache: &Path, profile: &Path, claude: &Path) -> Result<Features> {
    if let Some(features) = remembered(cache, claude) {
        return Ok(features);
    }
    let mut command = Command::new(claude);
    command
        .arg("--help")
        .env_clear()
        .envs(crate::env_vars::engine_env(host))
        // Nothing of the user's own is read or written, and nothing is looked up.
        .env("CLAUDE_CONFIG_DIR", profile)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1");
    let help = probe::ask(&mut command, HELP_DEADLINE).map_err(|error| {
        Error::new(Exit::ClaudeMissing, "Claude Code does not answer `--help`")
            .cause(error)
            .hint(format!("run `{} --help` to see why", host.tilde(claude)))
    })?;
    let features = Features::from_help(&help);
    probe::remember(cache, TOPIC, claude, &features);
    Ok(features)
}

/// What Claude Code answered before, without asking it.
pub fn remembered(cache: &Path, claude: &Path) -> Option<Features> {
    probe::remembered(cache, TOPIC, claude)
}
