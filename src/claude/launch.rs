//! Claude Code's start: gathers what its plan is made from, writes what it reads, and makes its command.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::app::App;
use crate::claude::command::{self, ClaudePlan, Features};
use crate::claude::permissions::Asking;
pub use crate::claude::settings_overlay::{Ignored, Review};
use crate::claude::{
    env, features, hooks_plugin, node_options, profile, settings_files, settings_overlay,
};
use crate::error::{Context, Exit, Result};
use crate::memory::ContextWindow;
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::paths::Paths;
use crate::sys::platform::Os;
use crate::sys::secret::Secret;

/// The gateway that Claude Code is pointed at, and what it serves.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// On 127.0.0.1.
    pub port: u16,
    /// This session's own token.
    pub token: Secret,
    /// The served model's name.
    pub model: String,
    pub window: ContextWindow,
}

impl Endpoint {
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The user's own arguments for Claude Code.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserArgs<'a> {
    /// Arguments after `--` on the command line.
    pub args: &'a [OsString],
    /// Whether options that are not known are passed on.
    pub pass_unknown: bool,
    /// Whether tools ask before they run.
    pub asking: Asking,
}

/// Destination of Claude Code's output.
pub enum Output {
    /// That of our own output.
    Inherited,
    /// Files: standard output and standard error.
    Files(std::fs::File, std::fs::File),
}

/// Options of Claude Code, as far as they are remembered. `program`: None where it is not installed.
pub fn assumed_features(paths: &Paths, program: Option<&Path>) -> Features {
    program
        .and_then(|claude| features::remembered(&paths.cache, claude))
        .unwrap_or_default()
}

/// Plans Claude Code's run, with the settings files as they are now. `settings`: the file that its own will be written to.
///
/// Errors: arguments and settings that would take the session elsewhere.
pub fn plan(
    app: &App,
    endpoint: &Endpoint,
    user: UserArgs,
    settings: &Path,
    features: &Features,
) -> Result<ClaudePlan> {
    let environment = &app.environment;
    let settings_files = settings_files::read(environment, app.os()? == Os::Macos)?;
    let profile_dir = app.paths.claude_profile();
    let mut plan = command::plan(&command::Inputs {
        environment,
        profile_dir: &profile_dir,
        settings_path: settings,
        endpoint,
        user_args: user.args,
        unknown_options: user.pass_unknown,
        asking: user.asking,
        program: std::env::current_exe().ok().as_deref(),
        own_settings: &profile::own_settings(environment, &profile_dir),
        settings_files: &settings_files,
        features,
    })?;
    if options_without_debugger(environment).is_some() {
        plan.notices.push("Claude Code ends at once where NODE_OPTIONS attaches a debugger: in this session those options are left out of it".into());
    }
    Ok(plan)
}

/// Reviews the settings files of a session in the current folder. Errors: managed MCP servers, or an unknown platform.
pub fn review_settings(app: &App) -> Result<Review> {
    let environment = &app.environment;
    let files = settings_files::read(environment, app.os()? == Os::Macos)?;
    // Values of one session alone are not compared with settings.
    let endpoint = Endpoint {
        port: 0,
        token: Secret::new(""),
        model: String::new(),
        window: ContextWindow {
            tokens: 0,
            output: 0,
        },
    };
    let set = env::set(environment, &app.paths.claude_profile(), &endpoint);
    Ok(settings_overlay::review(&set, &files))
}

/// Whether a person will talk with Claude Code, rather than a script.
pub fn is_interactive(plan: &ClaudePlan) -> bool {
    !plan.argv.iter().any(|word| {
        ["-p", "--print", "--help", "-h", "--version", "-v"]
            .iter()
            .any(|flag| word == flag)
    })
}

/// The user's options of Node.js for Claude Code, if they have a debugger in them, with which it would end without a word.
fn options_without_debugger(environment: &Environment) -> Option<String> {
    environment
        .var(node_options::NAME)
        .and_then(node_options::without_debugger)
}

/// Folders and files of one run.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    pub profile_dir: &'a Path,
    pub settings: &'a Path,
    /// The working directory.
    pub folder: &'a Path,
}

/// Writes what Claude Code reads (its profile, its settings, its hooks) and makes the command.
pub fn command(
    environment: &Environment,
    program: &Path,
    plan: &ClaudePlan,
    places: Places,
    output: Output,
) -> Result<Command> {
    let Places {
        profile_dir,
        settings,
        folder,
    } = places;
    profile::prepare(environment, profile_dir)?;
    files::write_private(settings, plan.settings.to_string().as_bytes())
        .and_then(|()| hooks_plugin::write(&hooks_plugin::folder(settings), &plan.hooks))
        .context(
            Exit::Other,
            format!(
                "Claude Code's settings cannot be written to {}",
                environment.tilde(settings)
            ),
        )?;
    let mut command = Command::new(program);
    command
        .args(&plan.argv)
        .current_dir(folder)
        .env_clear()
        .envs(&environment.env);
    for name in &plan.unset {
        command.env_remove(name);
    }
    command.envs(&plan.set);
    if let Some(options) = options_without_debugger(environment) {
        command.env(node_options::NAME, options);
    }
    if let Output::Files(stdout, stderr) = output {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    }
    Ok(command)
}
