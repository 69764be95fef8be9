//! The settings that are passed to Claude Code with `--settings`. They stand above the user's and the project's files, so whatever those
//! say, now or after a change in mid-session, the session stays on this machine.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::claude::env::{self, Class};
use crate::claude::setting_keys::{self, Finding};
use crate::claude::settings_files::{Content, SettingsFile, Source};
use crate::error::{Error, Result};
use crate::sys::environment::Environment;

/// Proxy variables that the shell may have and a settings file may not change.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];

/// The overlay for these files. `set` is the environment that the client gets: no file may change what it says.
///
/// The client drops the whole file if one key has the wrong type, so only keys and types go in that the oldest and the newest client
/// were seen to accept.
pub(super) fn overlay(
    environment: &Environment,
    set: &BTreeMap<String, String>,
    model: &str,
    files: &[SettingsFile],
) -> Value {
    let mut env: BTreeMap<String, String> = env::removed()
        .map(|name| (name.to_owned(), String::new()))
        .collect();
    for name in PROXIES {
        env.insert(
            (*name).to_owned(),
            environment.var(name).unwrap_or_default().to_owned(),
        );
    }
    let shared: Vec<&Map<String, Value>> = files
        .iter()
        .filter(|file| matches!(file.source, Source::Project | Source::Local))
        .filter_map(SettingsFile::settings)
        .collect();
    for settings in &shared {
        for name in hostile_env(settings) {
            env.entry(name).or_default();
        }
    }
    // The profile's place is the environment's alone: the client reads it before any settings.
    env.extend(
        set.iter()
            .filter(|(name, _)| *name != env::CONFIG_DIR)
            .map(|(name, value)| (name.clone(), value.clone())),
    );

    let mut settings = json!({
        "env": env,
        "model": model,
        "effortLevel": "high",
        "fastMode": false,
        "apiKeyHelper": "",
        "awsAuthRefresh": "",
        "awsCredentialExport": "",
        "gcpAuthRefresh": "",
        "otelHeadersHelper": "",
        "proxyAuthHelper": "",
        "allowedHttpHookUrls": [],
        "autoCompactEnabled": true,
        "autoUploadSessions": false,
        "disableAgentView": true,
        // Its check of each call runs on Anthropic's servers, or would ask the local model twice for each call.
        "disableAutoMode": "disable",
        "disableClaudeAiConnectors": true,
        // The client would write a file for `claude-cli://` links into the user's home.
        "disableDeepLinkRegistration": "disable",
        "disableRemoteControl": true,
        "feedbackSurveyRate": 0,
        "remoteControlAtStartup": false,
        "skipWebFetchPreflight": true
    });
    let plugins: BTreeMap<&String, bool> = shared
        .iter()
        .filter_map(|settings| settings.get("enabledPlugins").and_then(Value::as_object))
        .flat_map(|plugins| plugins.keys())
        .map(|plugin| (plugin, false))
        .collect();
    if !plugins.is_empty() {
        settings["enabledPlugins"] = json!(plugins);
    }
    settings
}

fn opens_http_hooks(settings: &Map<String, Value>) -> bool {
    settings
        .get("allowedHttpHookUrls")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

fn hostile_env(settings: &Map<String, Value>) -> impl Iterator<Item = String> {
    settings
        .get("env")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|env| env.keys())
        .filter(|name| env::hostile_in_settings(name).is_some())
        .cloned()
}

/// Lines for the user, one for each file with something that a local session does not take. Names only, no values.
pub(super) fn notices(files: &[SettingsFile]) -> Vec<String> {
    let mut said = Vec::new();
    for file in files.iter().filter(|file| file.source != Source::Managed) {
        match &file.content {
            Content::Settings(settings) => {
                // A model or an effort in someone's settings is ordinary; that it does not apply here is what the command says.
                let ignored: Vec<String> = setting_keys::findings(settings)
                    .into_iter()
                    .filter(|finding| !matches!(finding.class, Class::Model | Class::Window))
                    .map(|finding| finding.key)
                    .chain(opens_http_hooks(settings).then(|| "allowedHttpHookUrls".to_owned()))
                    .collect();
                if !ignored.is_empty() {
                    said.push(format!("ignored in {}: {}", file.label, ignored.join(", ")));
                }
            }
            Content::Malformed(why) => said.push(format!(
                "{} is not valid JSON, and Claude Code ignores it: {why}",
                file.label
            )),
            Content::Closed(why) | Content::Unreadable(why) => {
                said.push(format!("{} cannot be read: {why}", file.label));
            }
        }
    }
    said
}

/// Settings of one file that a local session does not take, each with why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The file, as people write it.
    pub file: String,
    /// Keys, never values.
    pub keys: Vec<(String, &'static str)>,
}

/// Review of the settings files that a session in the current folder would have.
#[derive(Debug)]
pub struct Review {
    pub ignored: Vec<Ignored>,
    /// Files that cannot be read, in words.
    pub unread: Vec<String>,
    /// The error with which a session would be refused.
    pub refused: Option<Error>,
}

/// Reviews these files. `set`: the environment that Claude Code gets.
pub(super) fn review(set: &BTreeMap<String, String>, files: &[SettingsFile]) -> Review {
    let shut_out = |settings: &Map<String, Value>| {
        let http = opens_http_hooks(settings)
            .then(|| ("allowedHttpHookUrls".to_owned(), Class::Routing.subject()));
        let found = setting_keys::findings(settings).into_iter();
        let found = found.map(|finding| (finding.key, finding.class.subject()));
        found.chain(http).collect::<Vec<_>>()
    };
    let ignored = files
        .iter()
        .filter(|file| file.source != Source::Managed)
        .filter_map(|file| {
            let keys = shut_out(file.settings()?);
            let file = file.label.clone();
            (!keys.is_empty()).then_some(Ignored { file, keys })
        });
    let unread = files.iter().filter_map(|file| match &file.content {
        Content::Settings(_) => None,
        Content::Malformed(why) => Some(format!("{} is not valid JSON: {why}", file.label)),
        Content::Closed(why) | Content::Unreadable(why) => {
            Some(format!("{} cannot be read: {why}", file.label))
        }
    });
    Review {
        ignored: ignored.collect(),
        unread: unread.collect(),
        refused: check_managed(set, files)
            .and_then(|()| check_shared(files))
            .err(),
    }
}

/// A socket in place of an address. Once it is set, clients up to 2.1.197 at least take no other value for it, from the overlay neither.
const STICKS: &str = "ANTHROPIC_UNIX_SOCKET";

/// Refuses a project's file with what cannot be overlaid, and one that Claude Code may read and we cannot: it may have just that.
pub(super) fn check_shared(files: &[SettingsFile]) -> Result<()> {
    let shared = files
        .iter()
        .filter(|file| matches!(file.source, Source::Project | Source::Local));
    for file in shared {
        let label = &file.label;
        let (cause, hint) = match &file.content {
            Content::Settings(settings)
                if hostile_env(settings).any(|name| name.eq_ignore_ascii_case(STICKS)) =>
            {
                (
                    format!(
                        "{label} sets env.{STICKS}, which cannot be overridden in every version of Claude Code"
                    ),
                    format!("remove that line from {label}, then run it again"),
                )
            }
            Content::Unreadable(why) => (
                format!("{label} cannot be read, so cclocal cannot tell what it sets: {why}"),
                format!("repair {label} or remove it, then run it again"),
            ),
            _ => continue,
        };
        return Err(
            Error::other("the project's settings could send the session elsewhere")
                .cause(cause)
                .hint(hint),
        );
    }
    Ok(())
}

/// Managed settings stand above everything, the overlay included. If they could take the session elsewhere, it must not start.
pub(super) fn check_managed(set: &BTreeMap<String, String>, files: &[SettingsFile]) -> Result<()> {
    for file in files.iter().filter(|file| file.source == Source::Managed) {
        let settings = match &file.content {
            Content::Settings(settings) => settings,
            Content::Malformed(why) | Content::Closed(why) | Content::Unreadable(why) => {
                return Err(Error::other(format!("the managed settings in {} cannot be read", file.label))
                    .cause(format!("{why}; they override all other settings, so cclocal cannot make sure that the session stays on this machine"))
                    .hint("ask your administrator to repair the file, or use plain `claude`"));
            }
        };
        let hostile: Vec<String> = setting_keys::findings(settings)
            .into_iter()
            .filter(|finding| !same_as_ours(set, settings, finding))
            // A model named there is not asked for: the environment's stands above it.
            .filter(|finding| {
                !matches!(
                    finding.class,
                    Class::Model | Class::Window | Class::Prompt | Class::Timeout | Class::Session
                )
            })
            .map(|finding| finding.key)
            .collect();
        if !hostile.is_empty() {
            return Err(Error::other("managed settings on this machine could send the session elsewhere")
                .cause(format!("{} sets {}, which nothing can override", file.label, hostile.join(", ")))
                .hint("ask your administrator to remove it on this machine; until then prompts would not stay local"));
        }
    }
    Ok(())
}

/// Whether a managed variable asks for what we ask for too, such as `DISABLE_TELEMETRY=1`.
fn same_as_ours(
    set: &BTreeMap<String, String>,
    settings: &Map<String, Value>,
    finding: &Finding,
) -> bool {
    let Some(name) = finding.key.strip_prefix("env.") else {
        return false;
    };
    let theirs = match settings.get("env").and_then(|env| env.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "1".into(),
        Some(other) => other.to_string(),
        None => return false,
    };
    set.get(name).is_some_and(|ours| {
        *ours == theirs
            || (ours == "1"
                && matches!(theirs.to_ascii_lowercase().as_str(), "true" | "yes" | "on"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(source: Source, content: Content) -> SettingsFile {
        SettingsFile {
            source,
            path: "/settings.json".into(),
            label: "/settings.json".into(),
            content,
        }
    }

    #[test]
    fn what_cannot_be_overridden_is_refused() {
        let settings = |text: &str| match serde_json::from_str(text) {
            Ok(Value::Object(settings)) => Content::Settings(settings),
            other => panic!("{other:?}"),
        };
        let bedrock = settings(r#"{"env": {"CLAUDE_CODE_USE_BEDROCK": "1"}}"#);
        let none = BTreeMap::new();
        let managed = |content| check_managed(&none, &[file(Source::Managed, content)]);
        let refused = [
            managed(bedrock),
            managed(Content::Malformed("line 1 is no JSON".into())),
            check_shared(&[file(
                Source::Project,
                settings(r#"{"env": {"ANTHROPIC_UNIX_SOCKET": "/x"}}"#),
            )]),
            check_shared(&[file(
                Source::Local,
                Content::Unreadable("it is a pipe".into()),
            )]),
        ];
        let said = refused.map(|refused| refused.expect_err("refused").to_string());
        insta::assert_snapshot!(said.join("\n"), @"
        error: managed settings on this machine could send the session elsewhere
          cause: /settings.json sets env.CLAUDE_CODE_USE_BEDROCK, which nothing can override
          hint: ask your administrator to remove it on this machine; until then prompts would not stay local
        error: the managed settings in /settings.json cannot be read
          cause: line 1 is no JSON; they override all other settings, so cclocal cannot make sure that the session stays on this machine
          hint: ask your administrator to repair the file, or use plain `claude`
        error: the project's settings could send the session elsewhere
          cause: /settings.json sets env.ANTHROPIC_UNIX_SOCKET, which cannot be overridden in every version of Claude Code
          hint: remove that line from /settings.json, then run it again
        error: the project's settings could send the session elsewhere
          cause: /settings.json cannot be read, so cclocal cannot tell what it sets: it is a pipe
          hint: repair /settings.json or remove it, then run it again
        ");
        assert!(managed(settings(r#"{"model": "opus"}"#)).is_ok());
        // To the client they are none either, or, in the user's own place, they are not handed over.
        for (source, content) in [
            (Source::Project, Content::Malformed("line 1".into())),
            (Source::Project, Content::Closed("no".into())),
            (Source::User, Content::Unreadable("it is a pipe".into())),
        ] {
            assert!(check_shared(&[file(source, content)]).is_ok());
        }
    }
}
