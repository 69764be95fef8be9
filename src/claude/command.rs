//! Claude Code's arguments, environment and settings for one session. Pure: nothing is read and nothing is written here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::claude::env;
use crate::claude::hooks;
use crate::claude::hooks_plugin;
use crate::claude::launch::Endpoint;
use crate::claude::permissions::{self, Asking, Permissions};
use crate::claude::settings_files::SettingsFile;
use crate::claude::settings_overlay;
use crate::claude::user_args;
use crate::error::Result;
use crate::sys::environment::Environment;
use crate::sys::secret::Secret;

/// The empty MCP configuration: no servers but those that the user names on the command line.
pub const MCP_CONFIG: &str = include_str!("../../mcp-local.json");

/// Said to the model in its system prompt: an answer longer than the output budget is cut, and a file in it is lost.
pub const WRITE_IN_PARTS: &str = "Your output is limited. Never write a file of more than about 150 lines in one tool call: \
create it with a first part of at most 150 lines using Write, then add the rest in further calls using Edit, at most 150 lines each.";

/// The setting for a status line. `refreshInterval`, in seconds, is known to the oldest version that was tested.
const STATUS_LINE: &str = "statusLine";

/// Options and commands of the installed Claude Code, read from its `--help`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// The long options it names, such as `--tools`.
    pub options: BTreeSet<String>,
    /// The commands it names, such as `mcp`.
    #[serde(default)]
    pub commands: BTreeSet<String>,
}

impl Features {
    /// Reads the text of `claude --help`.
    pub fn from_help(text: &str) -> Self {
        let options = text
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with('-'))
            .flat_map(|line| line.split([' ', ',', '=']))
            .filter(|word| word.len() > 2 && word.starts_with("--"))
            .map(str::to_owned)
            .collect();
        // A command stands two spaces in, its description and what is left of it further.
        let commands = text
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .filter_map(|line| line.strip_prefix("  "))
            .filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()))
            .filter_map(|line| line.split(' ').next())
            .flat_map(|names| names.split('|'))
            .map(str::to_owned)
            .collect();
        Self { options, commands }
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.contains(option)
    }
}

/// Facts that a plan is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub environment: &'a Environment,
    /// The private profile, `CLAUDE_CONFIG_DIR`.
    pub profile_dir: &'a Path,
    /// File that the settings will be written to before the start: a command line would show them in `ps`.
    pub settings_path: &'a Path,
    /// The gateway, and what it serves.
    pub endpoint: &'a Endpoint,
    /// Arguments after `--` on cclocal's command line.
    pub user_args: &'a [OsString],
    /// Whether options that are not known are passed on.
    pub unknown_options: bool,
    /// Whether tools ask before they run.
    pub asking: Asking,
    /// Our own program, for the hook that allows tools, if it is known.
    pub program: Option<&'a Path>,
    /// The profile's settings: the user's own, with what was changed in local sessions.
    pub own_settings: &'a Map<String, Value>,
    pub settings_files: &'a [SettingsFile],
    pub features: &'a Features,
}

/// Plan of one start of Claude Code. Holds the token: print [`ClaudePlan::redacted`] instead.
#[derive(Clone)]
pub struct ClaudePlan {
    /// Without the program.
    pub argv: Vec<OsString>,
    /// Added to the environment, over what is there.
    pub set: BTreeMap<String, String>,
    /// Taken out of the environment: what is there and must not be, and the names that must never be.
    pub unset: Vec<String>,
    /// The content of the settings file.
    pub settings: Value,
    /// The hooks that run, lists of groups by event: the content of the session's own plugin.
    pub hooks: Map<String, Value>,
    /// Whether the user, the project or an administrator has a status line, or has switched it off.
    pub has_status_line: bool,
    /// Whether tools run without a question, Bash included.
    pub unasked: bool,
    /// Lines for the user: names, never values.
    pub notices: Vec<String>,
    token: Secret,
}

impl ClaudePlan {
    /// Whether Claude Code would be started with the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (
            &self.argv,
            &self.set,
            &self.unset,
            &self.settings,
            &self.hooks,
        ) == (
            &other.argv,
            &other.set,
            &other.unset,
            &other.settings,
            &other.hooks,
        )
    }

    /// The plan of a rehearsal (see `session::rehearsal`): with this profile, at the gateway's address for rehearsals, and without the
    /// user's hooks and status line, which would run a second time.
    pub fn for_rehearsal(mut self, profile_dir: &Path) -> Self {
        let profile_dir = profile_dir.to_string_lossy().into_owned();
        self.set.insert(env::CONFIG_DIR.into(), profile_dir);
        if let Some(address) = self.set.get_mut(env::BASE_URL) {
            address.push_str("/rehearsal");
            self.settings["env"][env::BASE_URL] = address.clone().into();
        }
        self.settings[hooks::ALL_OFF] = true.into();
        self
    }

    /// The plan with this command as the status line, run each second, unless there is one already.
    #[must_use]
    pub fn with_status_line(mut self, command: &str) -> Self {
        if !self.has_status_line {
            self.settings[STATUS_LINE] =
                serde_json::json!({"type": "command", "command": command, "refreshInterval": 1});
        }
        self
    }

    /// The plan with `<token>` in the token's place, for people and logs.
    pub fn redacted(&self) -> Self {
        let hide = |text: &str| text.replace(self.token.expose(), "<token>");
        let mut plan = self.clone();
        for value in plan.set.values_mut() {
            *value = hide(value);
        }
        redact(&mut plan.settings, &hide);
        plan.token = Secret::new("<token>");
        plan
    }
}

fn redact(value: &mut Value, hide: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = hide(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, hide)),
        Value::Object(fields) => fields.values_mut().for_each(|field| redact(field, hide)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl std::fmt::Debug for ClaudePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plan = self.redacted();
        f.debug_struct("ClaudePlan")
            .field("argv", &plan.argv)
            .field("set", &plan.set)
            .field("unset", &plan.unset)
            .field("settings", &plan.settings)
            .field("hooks", &plan.hooks)
            .field("notices", &plan.notices)
            .finish_non_exhaustive()
    }
}

/// Plans the start of Claude Code. Errors: arguments that would take the session elsewhere, and settings that could and cannot be overlaid.
pub fn plan(inputs: &Inputs) -> Result<ClaudePlan> {
    user_args::check(inputs.user_args, inputs.features, inputs.unknown_options)?;
    let set = env::set(inputs.environment, inputs.profile_dir, inputs.endpoint);
    let files = inputs.settings_files;
    settings_overlay::check_managed(&set, files)?;
    settings_overlay::check_shared(files)?;
    let off = hooks::off(files, inputs.user_args);
    let mut hooks = match off {
        Some(_) => Map::new(),
        None => hooks::kept(
            inputs.environment,
            inputs.own_settings,
            files,
            inputs.user_args,
        ),
    };
    let note = inputs.settings_path.with_file_name("asked");
    let permissions = Permissions::of(&permissions::Inputs {
        asking: inputs.asking,
        user_args: inputs.user_args,
        terminal: inputs.environment.stdout_tty,
        own_settings: inputs.own_settings,
        files,
        hooks: off.is_none() && !permissions::has_no_hooks(inputs.own_settings, files),
        hook: inputs.program.map(|program| (program, note.as_path())),
    });
    if let Some(group) = &permissions.hook {
        hooks::push(&mut hooks, "PreToolUse", group);
    }
    let mut settings =
        settings_overlay::overlay(inputs.environment, &set, &inputs.endpoint.model, files);
    if off.is_some() {
        settings[hooks::ALL_OFF] = true.into();
    }
    let of_files = files.iter().filter_map(SettingsFile::settings);
    let mut all_settings = of_files.chain([inputs.own_settings]);
    let has_status_line = off.is_some()
        || all_settings.any(|settings| {
            let is_off = settings.get(hooks::ALL_OFF) == Some(&Value::Bool(true));
            is_off || settings.contains_key(STATUS_LINE)
        });
    let mut notices = settings_overlay::notices(files);
    notices.extend(off);
    notices.extend(permissions.notice.map(str::to_owned));
    Ok(ClaudePlan {
        argv: arguments(inputs, &hooks, permissions.argv),
        unasked: permissions.unasked,
        unset: unset(inputs.environment, &set),
        settings,
        hooks,
        has_status_line,
        notices,
        set,
        token: inputs.endpoint.token.clone(),
    })
}

/// Options that take several values are written with `=`, or they would swallow the user's prompt.
fn arguments(
    inputs: &Inputs,
    hooks: &Map<String, Value>,
    permissions: Vec<OsString>,
) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec![
        "--settings".into(),
        inputs.settings_path.into(),
        "--managed-settings".into(),
        hooks::lock().to_string().into(),
        "--strict-mcp-config".into(),
        format!("--mcp-config={}", compact(MCP_CONFIG)).into(),
    ];
    argv.extend(permissions);
    if inputs
        .features
        .has("--exclude-dynamic-system-prompt-sections")
    {
        argv.push("--exclude-dynamic-system-prompt-sections".into());
    }
    if !hooks.is_empty() {
        argv.push("--plugin-dir".into());
        argv.push(hooks_plugin::folder(inputs.settings_path).into());
    }
    let (user_args, joined) = user_args::join_system_prompt(inputs.user_args, WRITE_IN_PARTS);
    if !joined {
        argv.push(format!("--append-system-prompt={WRITE_IN_PARTS}").into());
    }
    argv.extend(user_args);
    argv
}

fn compact(json: &str) -> String {
    json.split_whitespace().collect()
}

fn unset(environment: &Environment, set: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: BTreeSet<&str> = env::removed().collect();
    names.extend(
        environment
            .env
            .keys()
            .filter_map(|name| name.to_str())
            .filter(|name| env::is_removed(name)),
    );
    names.retain(|name| !set.contains_key(*name));
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
