//! Choice of the hooks that a session runs. A hook that posts to a URL would send prompts and results elsewhere, and may appear at any time: in a settings file that
//! is written in mid-session, in the head of a skill, a command or an agent, in a plugin. Claude Code has no switch for HTTP hooks alone, so the session
//! is locked from its start to the hooks of plugins, no plugin of a project is loaded, and a plugin of ours brings the hooks that stay on this machine.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use crate::claude::settings_files::{SettingsFile, Source};
use crate::claude::user_args;
use crate::sys::environment::Environment;

/// The setting that turns all hooks off.
pub(super) const ALL_OFF: &str = "disableAllHooks";

/// The kinds of hooks that are kept: what runs a program, or asks the session's model. One that calls a tool of an MCP server could post as well.
const KEPT: &[&str] = &["command", "prompt", "agent"];

/// Settings for `--managed-settings`. They have the rank of an organisation's policy, can only restrict, and no settings file undoes them.
pub(super) fn lock() -> Value {
    json!({
        "strictPluginOnlyCustomization": ["hooks"],
        // Also shuts out the folders of `.claude/skills` that are plugins. 2.1.197 passes over it (see `profile`).
        "strictKnownMarketplaces": []
    })
}

/// The reason why all hooks are off, and the status line with them. None where the lock holds by itself.
pub(super) fn off(files: &[SettingsFile], user_args: &[OsString]) -> Option<String> {
    let managed = files.iter().find(|file| file.source == Source::Managed);
    if let Some(file) = managed {
        return Some(format!(
            "all hooks and the status line are off: beside the managed settings in {} a project's HTTP hooks could not be shut out alone",
            file.label
        ));
    }
    let plugin = ["--plugin-dir", "--plugin-dir-no-mcp"]
        .into_iter()
        .find(|name| user_args::has(user_args, name))?;
    Some(format!(
        "all hooks and the status line are off: a plugin of `{plugin}` could post prompts elsewhere"
    ))
}

/// The hooks of a session, lists of groups by event: those of the user (`own`), and those of the project's files as they are now.
pub(super) fn kept(
    environment: &Environment,
    own: &Map<String, Value>,
    files: &[SettingsFile],
    user_args: &[OsString],
) -> Map<String, Value> {
    let mut hooks = Map::new();
    // `--restricted` takes no settings file.
    if user_args::has(user_args, "--restricted") {
        return hooks;
    }
    let sources = user_args::last_value(user_args, "--setting-sources");
    let takes = |source: &str| match &sources {
        None => true,
        Some(sources) => sources.split(',').any(|taken| taken.trim() == source),
    };
    if takes("user") {
        add(&mut hooks, own);
    }
    for file in files {
        let taken = match file.source {
            // The client takes those of the working directory alone.
            Source::Project => {
                file.path.starts_with(environment.cwd.join(".claude")) && takes("project")
            }
            Source::Local => takes("local"),
            Source::User | Source::Managed => false,
        };
        if let Some(settings) = file.settings().filter(|_| taken) {
            add(&mut hooks, settings);
        }
    }
    hooks
}

/// Adds a group of hooks to those of an event, before the others.
pub(super) fn push(all: &mut Map<String, Value>, event: &str, group: &Value) {
    let there = all.entry(event).or_insert_with(|| json!([]));
    if let Some(list) = there.as_array_mut() {
        list.insert(0, group.clone());
    }
}

fn add(all: &mut Map<String, Value>, settings: &Map<String, Value>) {
    let events = settings.get("hooks").and_then(Value::as_object);
    for (event, groups) in events.into_iter().flatten() {
        let there = all.entry(event.clone()).or_insert_with(|| json!([]));
        let Some(list) = there.as_array_mut() else {
            continue;
        };
        for group in groups
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(local_group)
        {
            if !list.contains(&group) {
                list.push(group);
            }
        }
        if list.is_empty() {
            all.shift_remove(event);
        }
    }
}

/// The group with those of its hooks that are kept. None without any.
fn local_group(group: &Value) -> Option<Value> {
    let mut group = group.as_object()?.clone();
    let hooks = group.get_mut("hooks")?.as_array_mut()?;
    hooks.retain(|hook| {
        let kind = hook.get("type").and_then(Value::as_str);
        kind.is_some_and(|kind| KEPT.contains(&kind)) && hook.get("url").is_none()
    });
    (!hooks.is_empty()).then_some(Value::Object(group))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::claude::settings_files::Content;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    fn file(source: Source, path: &str, settings: Value) -> SettingsFile {
        SettingsFile {
            source,
            path: path.into(),
            label: path.into(),
            content: Content::Settings(object(settings)),
        }
    }

    fn command(command: &str) -> Value {
        json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": command}]}]}})
    }

    fn commands(args: &str) -> String {
        let mut environment = Environment::for_tests(Path::new("/home/u"), &[]);
        environment.cwd = "/repo/sub".into();
        let files = [
            file(
                Source::User,
                "/home/u/.claude/settings.json",
                command("as it is"),
            ),
            file(
                Source::Project,
                "/repo/sub/.claude/settings.json",
                command("project"),
            ),
            file(
                Source::Project,
                "/repo/.claude/settings.json",
                command("above"),
            ),
            file(
                Source::Local,
                "/repo/.claude/settings.local.json",
                command("local"),
            ),
            file(
                Source::Managed,
                "/etc/claude-code/managed-settings.json",
                command("managed"),
            ),
        ];
        let args: Vec<OsString> = args.split_whitespace().map(OsString::from).collect();
        let own = object(command("own"));
        let kept = kept(&environment, &own, &files, &args);
        let groups = kept.get("Stop").and_then(Value::as_array);
        let commands: Vec<&str> = groups
            .into_iter()
            .flatten()
            .filter_map(|group| group["hooks"][0]["command"].as_str())
            .collect();
        commands.join(" ")
    }

    #[test]
    fn hooks_come_from_the_files_that_the_client_would_read() {
        assert_eq!(commands("-p hi"), "own project local");
        assert_eq!(commands("--setting-sources user"), "own");
        assert_eq!(
            commands("--setting-sources=local,project x"),
            "project local"
        );
        assert_eq!(
            commands("--setting-sources user --setting-sources local"),
            "local"
        );
        assert_eq!(commands("--setting-sources="), "");
        assert_eq!(commands("--restricted"), "");
    }

    #[test]
    fn only_hooks_that_stay_here_are_kept() {
        let http = json!({"type": "http", "url": "http://x"});
        let own = object(json!({"hooks": {
            "Stop": [
                {"matcher": "a", "hooks": [http, {"type": "command", "command": "true"}]},
                {"matcher": "a", "hooks": [{"type": "command", "command": "true"}]},
                {"hooks": [http]},
                {"hooks": [{"type": "command", "command": "true", "url": "http://x"}, {"type": "mcp_tool", "server": "x", "tool": "y"}, {"type": "future"}, {"command": "x"}, 1]},
                {"hooks": {}}, [], 5
            ],
            "PreToolUse": [{"hooks": [http]}],
            "PostToolUse": "x",
            "SessionStart": [{"hooks": [{"type": "prompt", "prompt": "ok?"}]}]
        }}));
        let environment = Environment::for_tests(Path::new("/home/u"), &[]);
        assert_eq!(
            Value::Object(kept(&environment, &own, &[], &[])),
            json!({
                "Stop": [{"matcher": "a", "hooks": [{"type": "command", "command": "true"}]}],
                "SessionStart": [{"hooks": [{"type": "prompt", "prompt": "ok?"}]}]
            })
        );
        for odd in [
            json!({"hooks": []}),
            json!({"hooks": {"Stop": {}}}),
            json!({}),
        ] {
            assert!(kept(&environment, &object(odd), &[], &[]).is_empty());
        }
    }

    #[test]
    fn where_the_lock_is_not_enough_all_hooks_are_off() {
        let args =
            |line: &str| -> Vec<OsString> { line.split_whitespace().map(OsString::from).collect() };
        let project = file(Source::Project, ".claude/settings.json", command("x"));
        assert_eq!(off(&[project], &args("--agent --plugin-dir -p hi")), None);
        let managed = file(Source::Managed, "/etc/managed.json", json!({}));
        let why = [
            off(&[managed], &[]),
            off(&[], &args("--plugin-dir ./x -p hi")),
            off(&[], &args("-p --plugin-dir-no-mcp=x")),
        ];
        insta::assert_snapshot!(why.map(|why| why.expect("a reason")).join("\n"), @"
        all hooks and the status line are off: beside the managed settings in /etc/managed.json a project's HTTP hooks could not be shut out alone
        all hooks and the status line are off: a plugin of `--plugin-dir` could post prompts elsewhere
        all hooks and the status line are off: a plugin of `--plugin-dir-no-mcp` could post prompts elsewhere
        ");
    }
}
