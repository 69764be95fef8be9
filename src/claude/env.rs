//! Environment of Claude Code: what is set, what is passed on, what is removed, and why. The scrubbing of the shell's environment and
//! of settings files, and the overlay, all follow this table.
//!
//! Source of the names: the strings of Claude Code's executable, those of both 2.1.197 and 2.1.332 unless a row says that they are
//! newer.

use std::collections::BTreeMap;
use std::path::Path;

use crate::claude::launch::Endpoint;
use crate::sys::environment::Environment;
use crate::sys::variables::{Row, Treatment};

use Treatment::{Computed, Fixed, Passed, Removed};

/// Subject of a variable or a settings key. What is said to the user, and what managed settings may have, depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Address of the server.
    Routing,
    /// Choice of a provider: its protocol and its servers.
    Provider,
    /// A key, a token, or what produces one.
    Credential,
    /// Headers or fields added to requests.
    Header,
    Proxy,
    /// Choice of a model, and its effort.
    Model,
    /// The context window, the output budget and compaction.
    Window,
    /// Telemetry and its exporters.
    Telemetry,
    /// Traffic that has nothing to do with the conversation.
    Traffic,
    /// How long the client waits.
    Timeout,
    /// Content of the prompt, and what keeps it the same from turn to turn.
    Prompt,
    /// Left behind by an outer session, or a matter of taste.
    Session,
    /// Makes the client's own runtime load or do something else.
    Runtime,
}

impl Class {
    /// The subject in words.
    pub fn subject(self) -> &'static str {
        match self {
            Routing => "another server",
            Provider => "another provider",
            Credential => "a credential",
            Header => "headers of requests",
            Proxy => "a proxy",
            Model => "another model",
            Window => "the context window",
            Telemetry => "telemetry",
            Traffic => "other traffic",
            Timeout => "a time limit",
            Prompt => "the prompt",
            Session => "another session",
            Runtime => "the client's runtime",
        }
    }
}

use Class::{
    Credential, Header, Model, Prompt, Provider, Proxy, Routing, Runtime, Session, Telemetry,
    Timeout, Traffic, Window,
};

/// The profile's folder.
pub const CONFIG_DIR: &str = "CLAUDE_CONFIG_DIR";
/// The gateway's address.
pub const BASE_URL: &str = "ANTHROPIC_BASE_URL";

/// An hour: longer than any prompt that fits a local model takes to read.
const HOUR_MS: &str = "3600000";
/// Half an hour, the most that the client allows between two pieces of an answer.
const IDLE_MS: &str = "1800000";

const fn row(
    class: Class,
    treatment: Treatment,
    names: &'static str,
    reason: &'static str,
) -> (Class, Row) {
    (
        class,
        Row {
            names,
            treatment,
            reason,
        },
    )
}

/// For one name the first row that covers it decides, so exact names stand before the patterns that remove the rest. The exact names of
/// removed variables are also set to nothing in the overlay, as a settings file may bring them back.
#[rustfmt::skip]
const TABLE: &[(Class, Row)] = &[
    // Set.
    row(Session, Computed, CONFIG_DIR, "a private profile: your own settings, history and login are neither used nor written"),
    row(Routing, Fixed("1"), "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST", "routing, provider, credential, model and proxy variables of settings files are ignored"),
    row(Routing, Computed, BASE_URL, "the gateway"),
    row(Credential, Computed, "ANTHROPIC_AUTH_TOKEN", "a random token of this launch, sent as Bearer"),
    row(Model, Computed, "ANTHROPIC_MODEL ANTHROPIC_DEFAULT_OPUS_MODEL ANTHROPIC_DEFAULT_SONNET_MODEL ANTHROPIC_DEFAULT_HAIKU_MODEL \
        ANTHROPIC_DEFAULT_FABLE_MODEL ANTHROPIC_SMALL_FAST_MODEL CLAUDE_CODE_SUBAGENT_MODEL CLAUDE_CODE_AUTO_MODE_MODEL \
        CLAUDE_CODE_BG_CLASSIFIER_MODEL", "the local model, for every tier, subagent and background call"),
    row(Model, Computed, "ANTHROPIC_DEFAULT_MODEL CLAUDE_CODE_WORKFLOW_SUBAGENT_MODEL", "the same, newer"),
    row(Window, Computed, "CLAUDE_CODE_MAX_CONTEXT_TOKENS", "the window from which the client compacts as late as the real one allows: for an unknown model it assumes a million"),
    row(Window, Computed, "CLAUDE_CODE_MAX_OUTPUT_TOKENS", "the output budget, `--out-tokens`"),
    row(Prompt, Fixed("0"), "CLAUDE_CODE_ATTRIBUTION_HEADER", "no text that changes with every request at the front of the prompt"),
    row(Prompt, Fixed("1"), "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS", "only what a local server understands; the tool list stays the same"),
    row(Prompt, Fixed("off"), "CLAUDE_CODE_TOTAL_TOKENS_REMINDER", "no reminder that changes every turn"),
    row(Timeout, Fixed(HOUR_MS), "API_TIMEOUT_MS", "a local model may read a long prompt for minutes before the first word"),
    row(Timeout, Fixed(HOUR_MS), "CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS", "the same, newer"),
    row(Timeout, Fixed(IDLE_MS), "CLAUDE_STREAM_IDLE_TIMEOUT_MS CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", "the same between two pieces"),
    row(Timeout, Fixed("0"), "API_FORCE_IDLE_TIMEOUT", "a silent answer is not asked for again"),
    row(Traffic, Fixed("1"), "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY \
        CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL DISABLE_AUTOUPDATER DISABLE_BUG_COMMAND DISABLE_FEEDBACK_COMMAND",
        "no update check, no look-ups, no feedback"),
    row(Telemetry, Fixed("1"), "DISABLE_TELEMETRY DISABLE_ERROR_REPORTING DO_NOT_TRACK", "no telemetry"),
    row(Telemetry, Fixed("0"), "CLAUDE_CODE_ENABLE_TELEMETRY", "no OpenTelemetry export"),
    row(Proxy, Computed, "NO_PROXY", "your own list, in both spellings, with this machine added: a proxy would see the prompts"),
    // Passed on.
    row(Proxy, Passed, "HTTP_PROXY HTTPS_PROXY ALL_PROXY", "your proxies, for the commands that the session runs; not from settings files"),
    row(Runtime, Passed, "NODE_OPTIONS", "for the commands that the session runs, without a debugger (`node_options`)"),
    row(Session, Passed, "CLAUDE_TMPDIR CLAUDE_CODE_TMPDIR CLAUDE_CODE_SHELL CLAUDE_CODE_GIT_BASH_PATH \
        CLAUDE_BASH_MAINTAIN_PROJECT_WORKING_DIR CLAUDE_CODE_GLOB_HIDDEN CLAUDE_CODE_GLOB_NO_IGNORE \
        CLAUDE_CODE_GLOB_TIMEOUT_SECONDS CLAUDE_CODE_DISABLE_AUTO_MEMORY CLAUDE_CODE_DISABLE_BACKGROUND_TASKS CLAUDE_CODE_DISABLE_CLAUDE_MDS \
        CLAUDE_CODE_DISABLE_FILE_CHECKPOINTING CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS", "how tools and memory behave"),
    row(Session, Passed, "CLAUDE_AX_SCREEN_READER CLAUDE_CODE_ACCESSIBILITY CLAUDE_CODE_DISABLE_TERMINAL_TITLE \
        CLAUDE_CODE_DISABLE_ALTERNATE_SCREEN CLAUDE_CODE_DISABLE_MOUSE CLAUDE_CODE_DISABLE_VIRTUAL_SCROLL CLAUDE_CODE_FORCE_SYNC_OUTPUT \
        CLAUDE_CODE_HIDE_CWD CLAUDE_CODE_NATIVE_CURSOR CLAUDE_CODE_NO_FLICKER CLAUDE_CODE_SCROLL_SPEED CLAUDE_CODE_SYNTAX_HIGHLIGHT",
        "how the screen looks"),
    row(Session, Passed, "CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS BASH_MAX_OUTPUT_LENGTH MAX_MCP_OUTPUT_TOKENS",
        "how long the result of a tool may be; unless you say it, half of what a small window has room for"),
    // Removed, by name.
    row(Credential, Removed, "ANTHROPIC_API_KEY CLAUDE_API_KEY CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CODE_OAUTH_REFRESH_TOKEN \
        CLAUDE_CODE_SESSION_ACCESS_TOKEN ANTHROPIC_IDENTITY_TOKEN ANTHROPIC_IDENTITY_TOKEN_FILE ANTHROPIC_PROFILE ANTHROPIC_FEDERATION_RULE_ID \
        AWS_BEARER_TOKEN_BEDROCK ANTHROPIC_AWS_API_KEY ANTHROPIC_FOUNDRY_API_KEY CLAUDE_CODE_HOST_AUTH_ENV_VAR \
        CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR MCP_CLIENT_SECRET MCP_XAA_IDP_CLIENT_SECRET",
        "real keys and tokens"),
    row(Credential, Removed, "ANTHROPIC_FOUNDRY_AUTH_TOKEN CLAUDE_CODE_GATEWAY_TOKEN CLAUDE_CODE_HOST_CREDS_FILE", "the same, newer"),
    row(Routing, Removed, "ANTHROPIC_UNIX_SOCKET CLAUDE_CODE_API_BASE_URL CLAUDE_CODE_GB_BASE_URL CLAUDE_CODE_CUSTOM_OAUTH_URL \
        ANTHROPIC_BEDROCK_BASE_URL ANTHROPIC_BEDROCK_MANTLE_BASE_URL ANTHROPIC_VERTEX_BASE_URL ANTHROPIC_FOUNDRY_BASE_URL \
        ANTHROPIC_FOUNDRY_RESOURCE ANTHROPIC_AWS_BASE_URL CLAUDE_BRIDGE_BASE_URL CLAUDE_BRIDGE_SESSION_INGRESS_URL \
        CLAUDE_CODE_ARTIFACTS_API_BASE_URL VOICE_STREAM_BASE_URL _CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL CLAUDE_CODE_REMOTE_SETTINGS_PATH \
        CLAUDE_CODE_MANAGED_SETTINGS_PATH USE_LOCAL_OAUTH USE_STAGING_OAUTH", "other servers"),
    row(Routing, Removed, "CLAUDE_CODE_RUNNER_MODEL_SOCKET CLAUDE_CODE_CLIENT_DATA_URL CLAUDE_CODE_MODEL_CATALOG_URL ANTHROPIC_API_HOST \
        ANTHROPIC_GOOGLE_CLOUD_BASE_URL AWS_ENDPOINT_URL_BEDROCK AWS_ENDPOINT_URL_BEDROCK_RUNTIME CLAUDE_REMOTE_TOOLS_BRIDGE_URL \
        CLAUDE_CODE_MEMORY_API_BASE_URL", "the same, newer"),
    row(Provider, Removed, "CLAUDE_CODE_USE_BEDROCK CLAUDE_CODE_USE_VERTEX CLAUDE_CODE_USE_FOUNDRY CLAUDE_CODE_USE_MANTLE \
        CLAUDE_CODE_USE_GATEWAY CLAUDE_CODE_USE_ANTHROPIC_AWS ANTHROPIC_VERTEX_PROJECT_ID ANTHROPIC_AWS_WORKSPACE_ID CLOUD_ML_REGION \
        CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "other providers"),
    row(Provider, Removed, "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD ANTHROPIC_GOOGLE_CLOUD_PROJECT ANTHROPIC_GOOGLE_CLOUD_LOCATION", "the same, newer"),
    row(Header, Removed, "ANTHROPIC_CUSTOM_HEADERS ANTHROPIC_BETAS CLAUDE_CODE_EXTRA_BODY CLAUDE_CODE_EXTRA_METADATA", "headers and fields added to requests"),
    row(Proxy, Removed, "CLAUDE_CODE_HTTP_PROXY CLAUDE_CODE_HTTPS_PROXY CLAUDE_CODE_PROXY_URL CLAUDE_CODE_PROXY_HOST \
        CLAUDE_CODE_PROXY_RESOLVES_HOSTS CLAUDE_CODE_ENABLE_PROXY_AUTH_HELPER CLAUDE_CODE_SIMULATE_PROXY_USAGE", "proxies of the client alone"),
    row(Model, Removed, "ANTHROPIC_CUSTOM_MODEL_OPTION CLAUDE_CODE_EFFORT_LEVEL CLAUDE_CODE_ALWAYS_ENABLE_EFFORT MAX_THINKING_TOKENS \
        FALLBACK_FOR_ALL_PRIMARY_MODELS", "other models, and efforts that a local server refuses"),
    row(Model, Removed, "CLAUDE_CODE_SUBAGENT_MODEL_FORCE CLAUDE_CODE_SUBAGENT_EFFORT", "the same, newer"),
    row(Window, Removed, "CLAUDE_CODE_AUTO_COMPACT_WINDOW CLAUDE_AUTOCOMPACT_PCT_OVERRIDE CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE \
        DISABLE_COMPACT DISABLE_AUTO_COMPACT", "another window, or no compaction in time"),
    row(Window, Removed, "CLAUDE_CODE_DISABLE_UNKNOWN_MODEL_WINDOW_ENFORCEMENT", "the same, newer"),
    row(Prompt, Removed, "DISABLE_INTERLEAVED_THINKING ENABLE_PROMPT_CACHING_1H FORCE_PROMPT_CACHING_5M ENABLE_TOOL_SEARCH \
        CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT", "prompts for other servers"),
    row(Timeout, Removed, "CLAUDE_CODE_MAX_RETRIES CLAUDE_CODE_RETRY_WATCHDOG CLAUDE_SLOW_FIRST_BYTE_MS", "patience that fits another server"),
    row(Timeout, Removed, "CLAUDE_CODE_CONNECT_TIMEOUT_MS", "the same, newer"),
    row(Telemetry, Removed, "OTEL_LOGS_EXPORTER OTEL_METRICS_EXPORTER OTEL_TRACES_EXPORTER OTEL_EXPORTER_OTLP_ENDPOINT \
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT OTEL_EXPORTER_OTLP_METRICS_ENDPOINT OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_HEADERS \
        OTEL_LOG_USER_PROMPTS OTEL_LOG_RAW_API_BODIES OTEL_LOG_ASSISTANT_RESPONSES OTEL_LOG_TOOL_CONTENT OTEL_LOG_TOOL_DETAILS \
        ENABLE_BETA_TRACING_DETAILED BETA_TRACING_ENDPOINT ENABLE_ENHANCED_TELEMETRY_BETA CLAUDE_CODE_ENHANCED_TELEMETRY_BETA \
        CLAUDE_CODE_PROPAGATE_TRACEPARENT CLAUDE_CODE_PERFETTO_TRACE", "exporters, which would carry prompts"),
    row(Traffic, Removed, "ENABLE_CLAUDEAI_MCP_SERVERS FORCE_AUTOUPDATE_PLUGINS CLAUDE_CODE_SYNC_PLUGINS CLAUDE_CODE_SYNC_SKILLS \
        CLAUDE_CODE_PLUGIN_CACHE_DIR CLAUDE_CODE_PLUGIN_SEED_DIR CLAUDE_CODE_FORCE_BRIDGE CLAUDE_CODE_REMOTE", "plugins, connectors and remote sessions"),
    row(Traffic, Removed, "CLAUDE_CODE_PLUGIN_DIRS", "the same, newer"),
    row(Session, Removed, "CLAUDECODE CLAUDE_CODE_ENTRYPOINT CLAUDE_CODE_SSE_PORT CLAUDE_CODE_SESSION_ID CLAUDE_CODE_CHILD_SESSION", "left by an outer session"),
    row(Runtime, Removed, "BUN_OPTIONS", "would make the client's runtime load or do something else"),
    row(Runtime, Removed, "BUN_BE_BUN CLAUDE_CODE_PROCESS_WRAPPER", "the same, newer"),
    // Removed, by pattern: what a newer client adds is caught here until the table knows it.
    row(Header, Removed, "ANTHROPIC_CUSTOM_*", "headers and options"),
    row(Provider, Removed, "CLAUDE_CODE_USE_* CLAUDE_CODE_SKIP_* VERTEX_* ANTHROPIC_BEDROCK_* ANTHROPIC_VERTEX_* ANTHROPIC_FOUNDRY_* \
        ANTHROPIC_AWS_* ANTHROPIC_GOOGLE_CLOUD_*", "other providers"),
    row(Model, Removed, "ANTHROPIC_DEFAULT_* ANTHROPIC_SMALL_FAST_MODEL*", "other models"),
    row(Routing, Removed, "ANTHROPIC_* AWS_ENDPOINT_URL_BEDROCK* CCR_* AGENT_PROXY_* SELF_HOSTED_RUNNER_*", "anything else of the cloud client"),
    row(Telemetry, Removed, "OTEL_* ANT_OTEL_*", "exporters"),
    row(Runtime, Removed, "BUN_INSPECT* BUN_CONFIG_*", "debugging and configuration of the client's runtime"),
    row(Session, Removed, "CLAUDE_* _CLAUDE_*", "anything else of an outer session or of the cloud client"),
];

/// How long the result of a tool may be: the variable, Claude Code's own value, and how many of its units are a token. Source: Claude Code 2.1.332.
const RESULT_LIMITS: [(&str, u64, u64); 3] = [
    ("CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS", 25_000, 1),
    ("MAX_MCP_OUTPUT_TOKENS", 25_000, 1),
    ("BASH_MAX_OUTPUT_LENGTH", 30_000, 4),
];

/// The row that decides about this name.
fn rule(name: &str) -> Option<&'static (Class, Row)> {
    TABLE.iter().find(|(_, row)| row.covers(name))
}

/// Whether the variable is taken out of the environment that Claude Code inherits.
pub fn is_removed(name: &str) -> bool {
    rule(name).is_some_and(|(_, row)| row.treatment == Removed)
}

/// The exact names of removed variables: no patterns.
pub fn removed() -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .filter(|(_, row)| row.treatment == Removed)
        .flat_map(|(_, row)| row.names())
        .filter(|name| !name.ends_with('*'))
}

/// The class of a name that no settings file may set in a local session; None if it may. Stricter than the environment: a proxy from
/// your shell is yours, one from a project's file is not.
pub fn hostile_in_settings(name: &str) -> Option<Class> {
    if let Some((class, row)) = rule(name) {
        return (row.treatment != Passed || *class == Proxy).then_some(*class);
    }
    let upper = name.to_ascii_uppercase();
    if upper.ends_with("_PROXY") {
        return Some(Proxy);
    }
    upper.ends_with("_BASE_URL").then_some(Routing)
}

/// The variables that are set for Claude Code.
pub fn set(
    environment: &Environment,
    profile_dir: &Path,
    endpoint: &Endpoint,
) -> BTreeMap<String, String> {
    let no_proxy = no_proxy(environment);
    let computed = |class: Class, name: &str| match (class, name) {
        (Session, CONFIG_DIR) => profile_dir.to_string_lossy().into_owned(),
        (Routing, BASE_URL) => endpoint.base_url(),
        (Credential, _) => endpoint.token.expose().to_owned(),
        (Window, "CLAUDE_CODE_MAX_CONTEXT_TOKENS") => endpoint.window.told().to_string(),
        (Window, _) => endpoint.window.output.to_string(),
        (Proxy, _) => no_proxy.clone(),
        _ => endpoint.model.clone(),
    };
    let mut set: BTreeMap<String, String> = TABLE
        .iter()
        .flat_map(|(class, row)| row.names().map(|name| (*class, name, row.treatment)))
        .filter_map(|(class, name, treatment)| match treatment {
            Fixed(value) => Some((name.to_owned(), value.to_owned())),
            Computed => Some((name.to_owned(), computed(class, name))),
            Passed | Removed => None,
        })
        .collect();
    set.insert("no_proxy".into(), no_proxy);
    for (name, usual, of_a_token) in RESULT_LIMITS {
        let room = endpoint.window.tool_result() * of_a_token;
        if room < usual && environment.var(name).is_none() {
            set.insert(name.to_owned(), room.to_string());
        }
    }
    set
}

/// The user's own list of hosts to reach without a proxy, with this machine in it.
fn no_proxy(environment: &Environment) -> String {
    let theirs = environment
        .var("NO_PROXY")
        .or(environment.var("no_proxy"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_covers_a_name_decides() {
        for removed in [
            "ANTHROPIC_API_KEY",
            "anthropic_api_key",
            "ANTHROPIC_NEW_THING",
            "CLAUDE_CODE_USE_TOMORROWS_PROVIDER",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
            "CLAUDECODE",
        ] {
            assert!(is_removed(removed), "{removed}");
        }
        for own in [
            BASE_URL,
            "CLAUDE_CODE_NO_FLICKER",
            "PATH",
            "AWS_PROFILE",
            "AWS_REGION",
            "GITHUB_TOKEN",
            "HTTPS_PROXY",
            "NODE_OPTIONS",
            "BUN_INSTALL",
        ] {
            assert!(!is_removed(own), "{own}");
        }
    }

    #[test]
    fn settings_files_may_set_less_than_the_shell() {
        for (name, class) in [
            ("http_proxy", Some(Proxy)),
            ("YARN_HTTPS_PROXY", Some(Proxy)),
            ("SOMETHING_BASE_URL", Some(Routing)),
            ("ANTHROPIC_BASE_URL", Some(Routing)),
            ("CLAUDE_CODE_MAX_CONTEXT_TOKENS", Some(Window)),
            ("MY_APP_MODE", None),
            ("CLAUDE_CODE_NO_FLICKER", None),
        ] {
            assert_eq!(hostile_in_settings(name), class, "{name}");
        }
    }

    #[test]
    fn no_name_is_listed_twice_and_each_has_a_reason() {
        let mut seen = std::collections::BTreeSet::new();
        for (_, row) in TABLE {
            for name in row.names() {
                assert!(seen.insert(name), "{name} is listed twice");
            }
            assert!(!row.reason.is_empty(), "{}", row.names);
        }
    }
}
