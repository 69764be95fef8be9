//! The keys of Claude Code's settings that a local session must not take from the user's or a project's files.

use serde_json::{Map, Value};

use crate::env_vars::{self, Class};

/// Keys that could send the session elsewhere, run something that hands out credentials, or choose another model, with their class.
pub const HOSTILE_KEYS: &[(&str, Class)] = &[
    // Programs whose output becomes a credential, a header or the settings themselves.
    ("apiKeyHelper", Class::Credential),
    ("awsAuthRefresh", Class::Credential),
    ("awsCredentialExport", Class::Credential),
    ("gcpAuthRefresh", Class::Credential),
    ("proxyAuthHelper", Class::Proxy),
    ("otelHeadersHelper", Class::Telemetry),
    ("policyHelper", Class::Routing),
    ("policyHelpers", Class::Routing),
    ("processWrapper", Class::Runtime),
    // Logins and policies that would be fetched.
    ("forceLoginMethod", Class::Credential),
    ("forceLoginOrgUUID", Class::Credential),
    ("forceLoginGatewayUrl", Class::Routing),
    ("forceRemoteSettingsRefresh", Class::Routing),
    ("gatewayInternalNetworks", Class::Routing),
    ("allowedProviders", Class::Provider),
    ("xaaIdp", Class::Credential),
    // Sessions that are mirrored or driven from elsewhere.
    ("autoUploadSessions", Class::Traffic),
    ("remote", Class::Traffic),
    ("remoteControl", Class::Traffic),
    ("remoteControlAtStartup", Class::Traffic),
    ("syncClaudeAiPlugins", Class::Traffic),
    ("syncClaudeAiSkills", Class::Traffic),
    // Plugins and MCP servers: they bring tools that a local model cannot carry, and fetch them.
    ("additionalMarketplaces", Class::Traffic),
    ("enabledPlugins", Class::Traffic),
    ("extraKnownMarketplaces", Class::Traffic),
    ("managedMcpServers", Class::Traffic),
    ("pluginConfigs", Class::Traffic),
    // Other models, and efforts that a local server refuses.
    ("advisorModel", Class::Model),
    ("availableModels", Class::Model),
    ("deniedModels", Class::Model),
    ("effortLevel", Class::Model),
    ("enforceAvailableModels", Class::Model),
    ("fallbackModel", Class::Model),
    ("fastMode", Class::Model),
    ("maxEffortLevel", Class::Model),
    ("model", Class::Model),
    ("modelOverrides", Class::Model),
    ("modelPicker", Class::Model),
    ("modelSettings", Class::Model),
    ("ultracode", Class::Model),
    // The window is the local model's.
    ("autoCompactEnabled", Class::Window),
    ("autoCompactWindow", Class::Window),
];

/// The class of a settings key, None if it is harmless.
pub fn class_of(key: &str) -> Option<Class> {
    HOSTILE_KEYS
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, class)| *class)
}

/// One thing in a settings file that a local session does not take: where it stands, such as `env.ANTHROPIC_BASE_URL`, and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub key: String,
    pub class: Class,
}

/// Everything hostile in a settings file, in its order. What is empty or switched off is not.
pub fn findings(settings: &Map<String, Value>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (key, value) in settings {
        match key.as_str() {
            "env" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    if let Some(class) = env_vars::hostile_in_settings(name)
                        && !is_off(value)
                    {
                        found.push(Finding {
                            key: format!("env.{name}"),
                            class,
                        });
                    }
                }
            }
            "hooks" if !http_hooks(value).is_empty() => {
                found.push(Finding {
                    key: "hooks (type http)".into(),
                    class: Class::Routing,
                });
            }
            _ => {
                if let Some(class) = class_of(key)
                    && !is_off(value)
                {
                    found.push(Finding {
                        key: key.clone(),
                        class,
                    });
                }
            }
        }
    }
    found
}

/// Whether the value asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The addresses that HTTP hooks in this `hooks` value would post to. Such a hook gets every prompt and every tool's result.
pub fn http_hooks(hooks: &Value) -> Vec<String> {
    hooks
        .as_object()
        .into_iter()
        .flat_map(|events| events.values())
        .flat_map(|groups| groups.as_array().into_iter().flatten())
        .flat_map(|group| {
            group
                .get("hooks")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        })
        .filter(|hook| is_http_hook(hook))
        .map(|hook| {
            hook.get("url")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

fn is_http_hook(hook: &Value) -> bool {
    hook.get("type").and_then(Value::as_str) == Some("http") || hook.get("url").is_some()
}

/// The settings without anything hostile: what a local session may take from the user's own file.
pub fn sanitized(settings: &Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    for (key, value) in settings {
        match key.as_str() {
            "env" => {
                let harmless: Map<String, Value> = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| env_vars::hostile_in_settings(name).is_none())
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                if !harmless.is_empty() {
                    kept.insert(key.clone(), Value::Object(harmless));
                }
            }
            "hooks" => {
                kept.insert(key.clone(), without_http_hooks(value));
            }
            // With HTTP hooks gone, a list of allowed addresses has nothing to allow, and would open the door for a project's.
            "allowedHttpHookUrls" => {}
            _ if class_of(key).is_some() => {}
            _ => {
                kept.insert(key.clone(), value.clone());
            }
        }
    }
    kept
}

fn without_http_hooks(hooks: &Value) -> Value {
    let mut hooks = hooks.clone();
    let groups = hooks
        .as_object_mut()
        .into_iter()
        .flat_map(|events| events.values_mut())
        .flat_map(|groups| groups.as_array_mut().into_iter().flatten());
    for group in groups {
        if let Some(list) = group.get_mut("hooks").and_then(Value::as_array_mut) {
            list.retain(|hook| !is_http_hook(hook));
        }
    }
    hooks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn hostile_keys_are_found_and_taken_out() {
        let settings = object(json!({
            "env": {"ANTHROPIC_BASE_URL": "http://x", "http_proxy": "http://x", "MY_MODE": "1", "DISABLE_COMPACT": ""},
            "apiKeyHelper": "cat ~/.key",
            "model": "opus",
            "enabledPlugins": {},
            "permissions": {"allow": ["Bash(ls)"]},
            "hooks": {"Stop": [{"hooks": [{"type": "http", "url": "http://x"}, {"type": "command", "command": "true"}]}]},
            "allowedHttpHookUrls": ["*"],
            "statusLine": {"type": "command", "command": "date"}
        }));
        let keys: Vec<_> = findings(&settings)
            .into_iter()
            .map(|finding| finding.key)
            .collect();
        assert_eq!(
            keys,
            [
                "env.ANTHROPIC_BASE_URL",
                "env.http_proxy",
                "apiKeyHelper",
                "model",
                "hooks (type http)"
            ]
        );
        assert_eq!(
            Value::Object(sanitized(&settings)),
            json!({
                "env": {"MY_MODE": "1"},
                "permissions": {"allow": ["Bash(ls)"]},
                "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]},
                "statusLine": {"type": "command", "command": "date"}
            })
        );
    }

    #[test]
    fn settings_of_the_wrong_shape_are_no_reason_to_panic() {
        for value in [
            json!({"env": 3}),
            json!({"hooks": ["x"]}),
            json!({"hooks": {"Stop": {"hooks": 1}}}),
            json!({"model": null}),
        ] {
            let settings = object(value);
            assert!(findings(&settings).is_empty());
            sanitized(&settings);
        }
    }
}
