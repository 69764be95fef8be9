//! Claude Code's command, from its plan.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::claude::command::ClaudePlan;
use crate::claude::{hooks_plugin, node_options, profile};
use crate::error::{Context, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;

/// Where Claude Code's output goes.
pub enum Output {
    /// To the terminal, or wherever ours goes.
    Inherited,
    /// To these files: standard output and standard error.
    Files(std::fs::File, std::fs::File),
}

/// The user's options of Node.js for Claude Code, if they have a debugger in them, with which it would end without a word.
pub(super) fn options_without_debugger(host: &Environment) -> Option<String> {
    host.var(node_options::NAME)
        .and_then(node_options::without_debugger)
}

/// Writes what Claude Code reads (its profile, its settings, its hooks) and makes the command.
pub fn command(
    host: &Environment,
    program: &Path,
    plan: &ClaudePlan,
    profile_dir: &Path,
    settings_path: &Path,
    folder: &Path,
    output: Output,
) -> Result<Command> {
    profile::prepare(host, profile_dir)?;
    files::write_private(settings_path, plan.settings.to_string().as_bytes())
        .and_then(|()| hooks_plugin::write(&hooks_plugin::folder(settings_path), &plan.hooks))
        .context(
            Exit::Other,
            format!(
                "Claude Code's settings cannot be written to {}",
                host.tilde(settings_path)
            ),
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
        command.env(node_options::NAME, options);
    }
    if let Output::Files(stdout, stderr) = output {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    }
    Ok(command)
}
