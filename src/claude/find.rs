//! Search for the installed Claude Code.

use std::path::PathBuf;

use crate::error::{Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;

/// Finds Claude Code: `CCLOCAL_CLAUDE`, then PATH, then where its installers put it, then our own folder. None if it is not installed.
/// `CCLOCAL_CLAUDE` that names nothing is an error, never passed over.
pub(crate) fn find(environment: &Environment, paths: &Paths) -> Result<Option<PathBuf>> {
    if let Some(named) = environment.var("CCLOCAL_CLAUDE") {
        let named_path = if named.contains('/') {
            environment.resolve(named).display().to_string()
        } else {
            named.to_owned()
        };
        return match environment.which(&named_path) {
            Some(path) => Ok(Some(path)),
            None => Err(Error::new(
                Exit::ClaudeMissing,
                format!("CCLOCAL_CLAUDE={named} cannot be used"),
            )
            .cause("there is no such executable")
            .hint("point it at a claude executable, or unset it to use the one on PATH")),
        };
    }
    let usual = [
        // The native installer's link, and the place of the older local installation.
        environment.home.join(".local/bin/claude"),
        environment.home.join(".claude/local/claude"),
        super::install::executable(paths),
    ];
    Ok(environment
        .which("claude")
        .or_else(|| usual.into_iter().find_map(|path| environment.which(path))))
}

/// Claude Code is missing: the official ways to install it.
pub(crate) fn missing() -> Error {
    Error::new(Exit::ClaudeMissing, "Claude Code is not installed")
        .cause("there is no `claude` on PATH, in ~/.local/bin or in ~/.claude/local")
        .detail(vec![
            "curl -fsSL https://claude.ai/install.sh | bash".into(),
            "brew install --cask claude-code".into(),
            "npm install -g @anthropic-ai/claude-code".into(),
        ])
        .hint("install it in one of these ways and run this again, or let `cclocal setup --client` do it with npm")
}
