//! The version of an installed Claude Code, against those that cclocal was tested with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::sys::capabilities;
use crate::sys::environment::Environment;
use crate::sys::variables;

/// The oldest and the newest version that the end-to-end suite was run with.
pub const TESTED: [Version; 2] = [Version([2, 1, 197]), Version([2, 1, 332])];

/// `--version` takes under a second; a cold disk gets ample time.
const DEADLINE: Duration = Duration::from_secs(30);

/// A version of Claude Code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Version {
    /// Reads what `claude --version` prints: `2.1.332 (Claude Code)`.
    pub fn of(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().next()?.splitn(3, '.');
        let mut next = || numbers.next()?.parse().ok();
        Some(Self([next()?, next()?, next()?]))
    }
}

/// Asks this Claude Code for its version. It reads no settings for that, and writes nothing. Errors: it does not answer.
pub fn ask(environment: &Environment, profile: &Path, claude: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(claude);
    command
        .arg("--version")
        .current_dir("/")
        .env_clear()
        .envs(variables::passed(environment, &[variables::SYSTEM]))
        .env("CLAUDE_CONFIG_DIR", profile)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1");
    let answer = capabilities::ask(&mut command, DEADLINE)?;
    Ok(answer.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let newest = Version::of("2.1.332 (Claude Code)\n").expect("read");
        assert_eq!(newest, TESTED[1]);
        assert!(Version::of("2.1.99").expect("read") < TESTED[0]);
        assert!(Version::of("3.0.0").expect("read") > newest);
        assert_eq!(newest.to_string(), "2.1.332");
        for text in ["", "claude", "2.1", "v2.1.3", "2.1.x"] {
            assert_eq!(Version::of(text), None, "{text}");
        }
    }
}
