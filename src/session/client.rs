//! Claude Code's command, from its plan.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::claude::{hooks_plugin, profile};
use crate::env_vars;
use crate::error::{Context, Exit, Result};
use crate::files;
use crate::host::Host;
use crate::plan::claude::ClaudePlan;

/// Where Claude Code's output goes.
pub enum Output {
    /// To the terminal, or wherever ours goes.
    Inherited,
    /// To these files: standard output and standard error.
    Files(std::fs::File, std::fs::File),
}

/// The user's options of Node.js for Claude Code, if they have a debugger in them, with which it would end without a word.
pub(super) fn options_without_debugger(host: &Host) -> Option<String> {
    host.var(env_vars::NODE_OPTIONS)
        .and_then(env_vars::without_debugger)
}

/// Writes what Claude Code reads (its profile, its settings, its hooks) and makes the command.
pub fn command(
    host: &Host,
    program: &Path,
    plan: &ClaudePlan,
    profile_dir: &Path,
    settings_path: &Path,
    folder: &Path,
    output: Output,
) -> Result<Command> {
    profile::prepare(host, profile_dir)?;
    files::write_private(settings_path, plan.settings.to_string().as_bytes()).context(
        Exit::Other,
        format!(
            "Claude Code's settings cannot be written to {}",
            host.tilde(settings_path)
        ),
    )?;
    let hooks = hooks_plugin::folder(settings_path);
    hooks_plugin::write(&hooks, &plan.hooks).context(
        Exit::Other,
        format!("your hooks cannot be written to {}", host.tilde(&hooks)),
    )?;
    let mut command = Command::new(program);
    command
        .args(&plan.argv)
        .current_dir(folder)
        .env_clear()
        .envs(&host.env);
    for name in &plan.unset {
        command.env_remove(name);
    }
    command.envs(&plan.set);
    if let Some(options) = options_without_debugger(host) {
        command.env(env_vars::NODE_OPTIONS, options);
    }
    if let Output::Files(stdout, stderr) = output {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    }
    Ok(command)
}
