//! What Claude Code is started with: its arguments, its environment and its settings. Pure: nothing is read and nothing is written here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{claude_args, hooks, overlay};
use crate::claude::hooks_plugin;
use crate::claude::settings_files::SettingsFile;
use crate::env_vars;
use crate::error::Result;
use crate::host::Host;
use crate::secret::Secret;

/// The tools of a local session. More of them would fill the window of a local model.
pub const TOOLS: &str = "Bash,Read,Edit,Write,Glob,Grep,WebSearch,WebFetch";

/// The empty MCP configuration: no servers but those that the user names on the command line.
pub const MCP_CONFIG: &str = include_str!("../../mcp-local.json");

/// Said to the model in its system prompt: an answer longer than the output budget is cut, and a file in it is lost.
pub const WRITE_IN_PARTS: &str = "Your output is limited. Never write a file of more than about 150 lines in one tool call: \
create it with a first part of at most 150 lines using Write, then add the rest in further calls using Edit, at most 150 lines each.";

/// What this version of Claude Code can do, read from its `--help`.
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

/// What the plan is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub host: &'a Host,
    /// The private profile, `CLAUDE_CONFIG_DIR`.
    pub profile_dir: &'a Path,
    /// Where the settings will be written before the start. A file, as a command line shows in `ps`.
    pub settings_path: &'a Path,
    /// Such as `http://127.0.0.1:8000`.
    pub base_url: String,
    /// The token of this launch, which the server asks for.
    pub token: Secret,
    /// The name that the server serves the model under.
    pub model: String,
    /// In tokens.
    pub context_window: u64,
    /// In tokens.
    pub output_tokens: u64,
    /// What follows `--` on cclocal's command line.
    pub user_args: &'a [OsString],
    /// Whether options that are not known are passed on.
    pub unknown_options: bool,
    /// The profile's settings: the user's own, with what was changed in local sessions.
    pub own_settings: &'a Map<String, Value>,
    pub settings_files: &'a [SettingsFile],
    pub features: &'a Features,
}

/// What Claude Code is started with. It holds the token: print [`ClaudePlan::redacted`] instead.
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
    /// One line each, for the user. Names, never values.
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

    /// The same for Claude Code on a terminal that nobody sees: with this profile, at the gateway's address for rehearsals, and without the user's hooks
    /// and status line, which would run a second time.
    pub fn for_rehearsal(mut self, profile_dir: &Path) -> Self {
        const ADDRESS: &str = "ANTHROPIC_BASE_URL";
        let profile_dir = profile_dir.to_string_lossy().into_owned();
        self.set.insert("CLAUDE_CONFIG_DIR".into(), profile_dir);
        if let Some(address) = self.set.get_mut(ADDRESS) {
            address.push_str("/rehearsal");
            self.settings["env"][ADDRESS] = address.clone().into();
        }
        self.settings[hooks::ALL_OFF] = true.into();
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
    claude_args::check(inputs.user_args, inputs.features, inputs.unknown_options)?;
    let set = environment(inputs);
    let files = inputs.settings_files;
    overlay::check_managed(&set, files)?;
    overlay::check_shared(files)?;
    let off = hooks::off(files, inputs.user_args);
    let hooks = match off {
        Some(_) => Map::new(),
        None => hooks::kept(inputs.host, inputs.own_settings, files, inputs.user_args),
    };
    let mut settings = overlay::overlay(inputs.host, &set, &inputs.model, files);
    if off.is_some() {
        settings[hooks::ALL_OFF] = true.into();
    }
    let mut notices = overlay::notices(files);
    notices.extend(off);
    Ok(ClaudePlan {
        argv: arguments(inputs, &hooks),
        unset: unset(inputs.host, &set),
        settings,
        hooks,
        notices,
        set,
        token: inputs.token.clone(),
    })
}

/// Options that take several values are written with `=`, or they would swallow the user's prompt.
fn arguments(inputs: &Inputs, hooks: &Map<String, Value>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec![
        "--settings".into(),
        inputs.settings_path.into(),
        "--managed-settings".into(),
        hooks::lock().to_string().into(),
        "--strict-mcp-config".into(),
        format!("--mcp-config={}", compact(MCP_CONFIG)).into(),
        format!("--tools={TOOLS}").into(),
        format!("--allowedTools={TOOLS}").into(),
    ];
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
    let (user_args, joined) = claude_args::join_system_prompt(inputs.user_args, WRITE_IN_PARTS);
    if !joined {
        argv.push(format!("--append-system-prompt={WRITE_IN_PARTS}").into());
    }
    argv.extend(user_args);
    argv
}

fn compact(json: &str) -> String {
    json.split_whitespace().collect()
}

/// An hour: longer than any prompt that fits a local model takes to read.
const PATIENCE_MS: &str = "3600000";

/// Half an hour, the most that the client allows between two pieces of an answer.
const IDLE_MS: &str = "1800000";

fn environment(inputs: &Inputs) -> BTreeMap<String, String> {
    let mut set: BTreeMap<String, String> = [
        ("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST", "1"),
        ("CLAUDE_CODE_ATTRIBUTION_HEADER", "0"),
        ("CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS", "1"),
        ("CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL", "1"),
        ("CLAUDE_CODE_ENABLE_TELEMETRY", "0"),
        ("CLAUDE_CODE_TOTAL_TOKENS_REMINDER", "off"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("DISABLE_BUG_COMMAND", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
        ("DISABLE_FEEDBACK_COMMAND", "1"),
        ("DISABLE_NON_ESSENTIAL_MODEL_CALLS", "1"),
        ("DISABLE_TELEMETRY", "1"),
        ("DO_NOT_TRACK", "1"),
        ("API_FORCE_IDLE_TIMEOUT", "0"),
        ("API_TIMEOUT_MS", PATIENCE_MS),
        ("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", IDLE_MS),
        ("CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS", PATIENCE_MS),
        ("CLAUDE_STREAM_IDLE_TIMEOUT_MS", IDLE_MS),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let mut add = |name: &str, value: String| set.insert(name.to_owned(), value);
    add(
        "CLAUDE_CONFIG_DIR",
        inputs.profile_dir.to_string_lossy().into_owned(),
    );
    add("ANTHROPIC_BASE_URL", inputs.base_url.clone());
    add("ANTHROPIC_AUTH_TOKEN", inputs.token.expose().to_owned());
    add(
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS",
        inputs.context_window.to_string(),
    );
    add(
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
        inputs.output_tokens.to_string(),
    );
    for name in model_names() {
        add(name, inputs.model.clone());
    }
    let direct = no_proxy(inputs.host);
    add("NO_PROXY", direct.clone());
    add("no_proxy", direct);
    set
}

/// Every variable that names a model.
fn model_names() -> impl Iterator<Item = &'static str> {
    use env_vars::{Class, Handling, Reader};
    env_vars::ALL
        .iter()
        .filter(|row| {
            row.reader == Reader::Claude
                && row.class == Class::Model
                && row.handling == Handling::Set
        })
        .flat_map(|row| row.names)
        .copied()
}

/// The user's own list of hosts to reach without a proxy, with this machine in it.
fn no_proxy(host: &Host) -> String {
    let theirs = host
        .var("NO_PROXY")
        .or(host.var("no_proxy"))
        .unwrap_or_default();
    let mut hosts: Vec<&str> = theirs
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .collect();
    for ours in ["127.0.0.1", "localhost", "::1"] {
        if !hosts.contains(&ours) {
            hosts.push(ours);
        }
    }
    hosts.join(",")
}

fn unset(host: &Host, set: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: BTreeSet<&str> = env_vars::exact_removed_for_claude().collect();
    names.extend(
        host.env
            .keys()
            .filter_map(|name| name.to_str())
            .filter(|name| env_vars::removed_for_claude(name)),
    );
    names.retain(|name| !set.contains_key(*name));
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::claude::settings_files::{Content, Source};
    use crate::error::Exit;

    const TOKEN: &str = "0123456789abcdef";

    fn file(source: Source, label: &str, settings: Value) -> SettingsFile {
        SettingsFile {
            source,
            path: label.into(),
            label: label.into(),
            content: Content::Settings(settings.as_object().cloned().expect("an object")),
        }
    }

    fn plan_with(
        vars: &[(&str, &str)],
        args: &[&str],
        files: &[SettingsFile],
        features: &Features,
    ) -> Result<ClaudePlan> {
        let host = Host::for_tests(Path::new("/home/u"), vars);
        let user_args: Vec<OsString> = args.iter().map(OsString::from).collect();
        // As the profile would have them.
        let own = (files.iter().find(|file| file.source == Source::User))
            .and_then(SettingsFile::settings)
            .cloned()
            .unwrap_or_default();
        plan(&Inputs {
            host: &host,
            profile_dir: Path::new("/data/claude"),
            settings_path: Path::new("/state/settings.json"),
            base_url: "http://127.0.0.1:8000".into(),
            token: Secret::new(TOKEN),
            model: "org/model".into(),
            context_window: 32768,
            output_tokens: 8192,
            user_args: &user_args,
            unknown_options: false,
            own_settings: &own,
            settings_files: files,
            features,
        })
    }

    fn simple() -> ClaudePlan {
        plan_with(&[], &["-p", "hi"], &[], &Features::default()).expect("a plan")
    }

    #[test]
    fn the_arguments_end_with_the_users_own() {
        let argv: Vec<String> = simple()
            .argv
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        insta::assert_snapshot!(argv.join("\n"), @r#"
        --settings
        /state/settings.json
        --managed-settings
        {"strictPluginOnlyCustomization":["hooks"],"strictKnownMarketplaces":[]}
        --strict-mcp-config
        --mcp-config={"mcpServers":{}}
        --tools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,WebFetch
        --allowedTools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,WebFetch
        --append-system-prompt=Your output is limited. Never write a file of more than about 150 lines in one tool call: create it with a first part of at most 150 lines using Write, then add the rest in further calls using Edit, at most 150 lines each.
        -p
        hi
        "#);
    }

    #[test]
    fn real_keys_and_switches_are_taken_out() {
        let vars = [
            ("ANTHROPIC_API_KEY", "sk-real"),
            ("ANTHROPIC_AUTH_TOKEN", "real"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "real"),
            ("CLAUDE_CODE_USE_NEW_PROVIDER", "1"),
            ("ANTHROPIC_CUSTOM_HEADERS", "X: y"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"),
            ("CLAUDECODE", "1"),
            ("HTTP_PROXY", "http://proxy"),
            ("NO_PROXY", "example.org"),
            ("PATH", "/bin"),
        ];
        let plan = plan_with(&vars, &[], &[], &Features::default()).expect("a plan");
        for name in [
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_NEW_PROVIDER",
            "CLAUDE_CODE_USE_BEDROCK",
            "ANTHROPIC_CUSTOM_HEADERS",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "CLAUDECODE",
        ] {
            assert!(plan.unset.iter().any(|unset| unset == name), "{name}");
        }
        for name in [
            "ANTHROPIC_AUTH_TOKEN",
            "HTTP_PROXY",
            "PATH",
            "ANTHROPIC_BASE_URL",
        ] {
            assert!(!plan.unset.iter().any(|unset| unset == name), "{name}");
        }
        assert_eq!(plan.set["ANTHROPIC_AUTH_TOKEN"], TOKEN);
        assert_eq!(plan.set["NO_PROXY"], "example.org,127.0.0.1,localhost,::1");
        assert_eq!(plan.settings["env"]["HTTP_PROXY"], "http://proxy");
        assert_eq!(plan.settings["env"]["CLAUDE_CODE_USE_BEDROCK"], "");
    }

    #[test]
    fn the_token_shows_nowhere_but_where_it_is_needed() {
        let plan = simple();
        assert!(plan.settings.to_string().contains(TOKEN));
        assert!(!format!("{plan:?}").contains(TOKEN));
        let redacted = plan.redacted();
        assert!(!redacted.settings.to_string().contains(TOKEN));
        assert_eq!(redacted.set["ANTHROPIC_AUTH_TOKEN"], "<token>");
        assert!(
            !plan
                .argv
                .iter()
                .any(|word| word.to_string_lossy().contains(TOKEN))
        );
    }

    #[test]
    fn every_class_in_a_projects_file_is_overlaid_and_said_without_values() {
        let files = [
            file(
                Source::Project,
                ".claude/settings.json",
                json!({
                    "env": {"ANTHROPIC_BASE_URL": "http://evil", "ANTHROPIC_FUTURE_URL": "http://evil", "DOCKER_HTTP_PROXY": "http://evil", "MODE": "1"},
                    "apiKeyHelper": "echo evil",
                    "enabledPlugins": {"a@b": true},
                    "model": "evil"
                }),
            ),
            file(
                Source::Local,
                ".claude/settings.local.json",
                json!({"allowedHttpHookUrls": ["*"]}),
            ),
        ];
        let plan = plan_with(&[], &[], &files, &Features::default()).expect("a plan");
        let env = &plan.settings["env"];
        assert_eq!(env["ANTHROPIC_BASE_URL"], "http://127.0.0.1:8000");
        assert_eq!(env["ANTHROPIC_FUTURE_URL"], "");
        assert_eq!(env["DOCKER_HTTP_PROXY"], "");
        assert_eq!(env.get("MODE"), None);
        assert_eq!(env.get("CLAUDE_CONFIG_DIR"), None);
        assert_eq!(plan.settings["apiKeyHelper"], "");
        assert_eq!(plan.settings["model"], "org/model");
        assert_eq!(plan.settings["enabledPlugins"], json!({"a@b": false}));
        assert_eq!(plan.settings.get("disableAllHooks"), None);
        assert_eq!(
            plan.notices,
            [
                "ignored in .claude/settings.json: env.ANTHROPIC_BASE_URL, env.ANTHROPIC_FUTURE_URL, env.DOCKER_HTTP_PROXY, apiKeyHelper, enabledPlugins",
                "ignored in .claude/settings.local.json: allowedHttpHookUrls",
            ]
        );
        assert!(!plan.notices.join("").contains("evil"));
    }

    #[test]
    fn hostile_managed_settings_refuse_the_launch() {
        let managed = |settings| {
            [file(
                Source::Managed,
                "/etc/claude-code/managed-settings.json",
                settings,
            )]
        };
        let launch = |settings| plan_with(&[], &[], &managed(settings), &Features::default());
        for hostile in [
            json!({"env": {"ANTHROPIC_BASE_URL": "http://gateway"}}),
            json!({"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": "1"}}),
            json!({"env": {"HTTPS_PROXY": "http://p"}}),
            json!({"apiKeyHelper": "x"}),
            json!({"forceLoginMethod": "claudeai"}),
            json!({"hooks": {"Stop": [{"hooks": [{"type": "http", "url": "http://x"}]}]}}),
        ] {
            let error = launch(hostile.clone()).expect_err("refused");
            assert_eq!(error.exit, Exit::Other, "{hostile}");
            assert!(
                error
                    .cause
                    .as_deref()
                    .is_some_and(|cause| cause.contains("/etc/claude-code/managed-settings.json")),
                "{hostile}"
            );
        }
        for harmless in [
            json!({"permissions": {"deny": ["Read(.env)"]}, "env": {"DISABLE_TELEMETRY": "true", "DISABLE_AUTOUPDATER": "1"}}),
            json!({"model": "opus", "cleanupPeriodDays": 7}),
            json!({}),
        ] {
            assert!(launch(harmless.clone()).is_ok(), "{harmless}");
        }
        let broken = [SettingsFile {
            content: Content::Malformed("line 1".into()),
            ..managed(json!({}))[0].clone()
        }];
        assert!(plan_with(&[], &[], &broken, &Features::default()).is_err());
    }

    #[test]
    fn a_socket_in_a_projects_file_refuses_the_launch() {
        let settings = json!({"env": {"ANTHROPIC_UNIX_SOCKET": "/tmp/x"}});
        let launch = |source| {
            plan_with(
                &[],
                &[],
                &[file(source, ".claude/settings.json", settings.clone())],
                &Features::default(),
            )
        };
        assert!(
            launch(Source::User).is_ok(),
            "it is left out of the profile"
        );
        for source in [Source::Project, Source::Local] {
            let error = launch(source).expect_err("refused");
            assert!(
                error
                    .cause
                    .is_some_and(|cause| cause.contains(".claude/settings.json"))
            );
        }
    }

    #[test]
    fn options_are_passed_only_if_this_version_has_them() {
        let features = Features::from_help(
            "Options:\n  -d, --debug [filter]  x\n  --exclude-dynamic-system-prompt-sections\n      Move --not-this\n  --allowedTools, --allowed-tools <tools...>\n",
        );
        assert!(
            features.has("--debug")
                && features.has("--allowed-tools")
                && features.has("--allowedTools")
        );
        assert!(!features.has("--not-this"));
        let has = |features: &Features| {
            let plan = plan_with(&[], &[], &[], features).expect("a plan");
            plan.argv
                .iter()
                .any(|word| word == "--exclude-dynamic-system-prompt-sections")
        };
        assert!(has(&features));
        assert!(!has(&Features::default()));
    }

    #[test]
    fn a_rehearsal_differs_in_profile_address_and_hooks_alone() {
        let plan = simple();
        let rehearsal = plan.clone().for_rehearsal(Path::new("/run/profile"));
        assert_eq!(rehearsal.set["CLAUDE_CONFIG_DIR"], "/run/profile");
        let address = "http://127.0.0.1:8000/rehearsal";
        assert_eq!(rehearsal.set["ANTHROPIC_BASE_URL"], address);
        assert_eq!(rehearsal.settings["env"]["ANTHROPIC_BASE_URL"], address);
        assert_eq!(rehearsal.settings["disableAllHooks"], true);
        let mut same = rehearsal;
        for name in ["CLAUDE_CONFIG_DIR", "ANTHROPIC_BASE_URL"] {
            same.set.insert(name.into(), plan.set[name].clone());
        }
        same.settings["env"]["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:8000".into();
        let settings = same.settings.as_object_mut().expect("an object");
        settings.shift_remove("disableAllHooks");
        assert!(same.is_same(&plan));
    }

    #[test]
    fn a_system_prompt_of_the_users_is_joined_with_ours() {
        let plan = plan_with(
            &[],
            &["--append-system-prompt", "Speak French", "-p", "hi"],
            &[],
            &Features::default(),
        )
        .expect("a plan");
        let given: Vec<String> = plan
            .argv
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .filter(|word| word.contains("150 lines"))
            .collect();
        assert_eq!(given.len(), 1);
        assert!(given[0].ends_with("\n\nSpeak French"));
    }
}
