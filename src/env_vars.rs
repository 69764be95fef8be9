//! Every environment variable that cclocal reads, sets or removes, as data. The documentation, the scrubbing of the child's
//! environment and the settings overlay all derive from this table.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::sys::environment::Environment;
use crate::sys::paths::{self, Paths};
use crate::sys::secret::Secret;

/// What a variable is about. Names in one class are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A switch of cclocal itself.
    Cclocal,
    /// Concerns the engine or its Python.
    Engine,
    /// Concerns downloads from the hub.
    Hub,
    /// Where requests go.
    Routing,
    /// Which provider's protocol and servers are used.
    Provider,
    /// A key, a token, or what produces one.
    Credential,
    /// Headers or fields added to requests.
    Header,
    /// A proxy.
    Proxy,
    /// Which model is asked for.
    Model,
    /// The context window, the output budget and compaction.
    Window,
    /// Telemetry and its exporters.
    Telemetry,
    /// Traffic that has nothing to do with the conversation.
    Traffic,
    /// How long the client waits.
    Timeout,
    /// What is in the prompt, and keeps it the same from turn to turn.
    Prompt,
    /// What an outer Claude Code session, or a host that embeds it, left behind.
    Session,
    /// Makes the client's own runtime load or do something else.
    Runtime,
}

/// Which program reads the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Cclocal,
    Engine,
    Claude,
}

/// What cclocal does with the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// cclocal reads it.
    Read,
    /// cclocal sets it for the reader.
    Set,
    /// It never reaches the reader.
    Removed,
    /// It reaches the reader as it is.
    Kept,
}

/// Some variables that are treated alike. A name that ends in `*` stands for all that begin so.
#[derive(Debug, Clone, Copy)]
pub struct Variables {
    pub names: &'static [&'static str],
    pub reader: Reader,
    pub class: Class,
    pub handling: Handling,
    pub meaning: &'static str,
}

impl Variables {
    fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, name))
    }
}

/// Case does not matter: the client itself reads some names in either case.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

const fn row(
    reader: Reader,
    class: Class,
    handling: Handling,
    names: &'static [&'static str],
    meaning: &'static str,
) -> Variables {
    Variables {
        names,
        reader,
        class,
        handling,
        meaning,
    }
}

/// What the engine may hold in memory, in bytes (see `engine/memory.py`).
pub const MEMORY_LIMIT: &str = "CCLOCAL_MEMORY_LIMIT";

/// Where the engine keeps what stands before a conversation (`engine/kept.py`).
pub const KEPT_PREFIX: &str = "CCLOCAL_KEPT_PREFIX";

use Class as C;
use Handling::{Kept, Read, Removed, Set};
use Reader::{Cclocal, Claude, Engine};

/// The table. For one name the first row that covers it decides, so `Kept` and `Set` come before the patterns that remove the rest.
pub const ALL: &[Variables] = &[
    // cclocal.
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_HOME"],
        "one folder for everything that cclocal keeps, in place of the XDG folders",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_ENGINE"],
        "another `vllm-mlx` executable",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_CLAUDE"],
        "another `claude` executable",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_PLATFORM"],
        "`macos` takes the paths of a Mac on any system, for tests",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_NO_MEMCHECK"],
        "the same as `--no-mem-check`",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_FORCE_MEMCHECK"],
        "the same as `--safe`",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_FORGET_PREFIX"],
        "the same as `--forget-prefix`",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_STALL_LIMIT"],
        "seconds without progress after which a download counts as stalled",
    ),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &["CCLOCAL_LINGER"],
        "seconds for which the engine is kept after its last session",
    ),
    row(
        Cclocal,
        C::Credential,
        Read,
        &["BRAVE_API_KEY", "TAVILY_API_KEY"],
        "the key of the service that `--web-search` names; not passed on then",
    ),
    row(Cclocal, C::Cclocal, Read, &["NO_COLOR"], "no colours"),
    row(
        Cclocal,
        C::Cclocal,
        Read,
        &[
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "XDG_CACHE_HOME",
        ],
        "where cclocal and the hub keep their files",
    ),
    // The engine.
    row(
        Engine,
        C::Engine,
        Set,
        &["VLLM_MLX_ENABLE_THINKING"],
        "`false`: no thinking text from hybrid models",
    ),
    row(
        Engine,
        C::Engine,
        Set,
        &["VLLM_MLX_SIMPLE_ENGINE_LOCK_ADMISSION"],
        "`wait`: a second request waits instead of failing",
    ),
    row(
        Engine,
        C::Engine,
        Set,
        &["CCLOCAL_TEXT_ROUTE"],
        "where the folder with the text part of the model is made",
    ),
    row(
        Engine,
        C::Engine,
        Set,
        &[MEMORY_LIMIT],
        "bytes that the engine may hold: before it would hold more, it drops what it keeps of earlier turns",
    ),
    row(
        Engine,
        C::Engine,
        Set,
        &[KEPT_PREFIX],
        "where what was computed of a system prompt and tools is kept for the next engine",
    ),
    row(
        Engine,
        C::Engine,
        Set,
        &["PYTHONUNBUFFERED"],
        "the log is written line by line",
    ),
    row(
        Engine,
        C::Engine,
        Removed,
        &[
            "PYTHONPATH",
            "PYTHONHOME",
            "PYTHONSTARTUP",
            "PYTHONUSERBASE",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
        ],
        "another Python's packages would replace the engine's",
    ),
    row(
        Engine,
        C::Hub,
        Set,
        &["HF_HUB_OFFLINE"],
        "`1` once the model is complete on disk: the engine asks nobody",
    ),
    row(
        Engine,
        C::Hub,
        Kept,
        &["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"],
        "where models are kept",
    ),
    row(
        Engine,
        C::Hub,
        Kept,
        &["HF_ENDPOINT"],
        "a mirror of the hub",
    ),
    row(
        Engine,
        C::Hub,
        Kept,
        &["HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"],
        "your own token, for gated models; removed once the engine is offline",
    ),
    // Claude Code: what is set.
    row(
        Claude,
        C::Session,
        Set,
        &["CLAUDE_CONFIG_DIR"],
        "a private profile, so that your own settings, history and login are neither used nor written",
    ),
    row(
        Claude,
        C::Routing,
        Set,
        &["CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST"],
        "`1`: the client ignores routing, provider, credential, model and proxy variables in every settings file",
    ),
    row(
        Claude,
        C::Routing,
        Set,
        &["ANTHROPIC_BASE_URL"],
        "the server on this machine",
    ),
    row(
        Claude,
        C::Credential,
        Set,
        &["ANTHROPIC_AUTH_TOKEN"],
        "a random token of this launch, sent as Bearer",
    ),
    row(
        Claude,
        C::Model,
        Set,
        &[
            "ANTHROPIC_MODEL",
            "ANTHROPIC_DEFAULT_MODEL",
            "ANTHROPIC_DEFAULT_OPUS_MODEL",
            "ANTHROPIC_DEFAULT_SONNET_MODEL",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL",
            "ANTHROPIC_DEFAULT_FABLE_MODEL",
            "ANTHROPIC_SMALL_FAST_MODEL",
            "CLAUDE_CODE_SUBAGENT_MODEL",
            "CLAUDE_CODE_WORKFLOW_SUBAGENT_MODEL",
            "CLAUDE_CODE_AUTO_MODE_MODEL",
            "CLAUDE_CODE_BG_CLASSIFIER_MODEL",
        ],
        "the local model, for every tier, subagent and background call",
    ),
    row(
        Claude,
        C::Window,
        Set,
        &["CLAUDE_CODE_MAX_CONTEXT_TOKENS"],
        "the model's real context window: for a model it does not know the client assumes one million",
    ),
    row(
        Claude,
        C::Window,
        Set,
        &["CLAUDE_CODE_MAX_OUTPUT_TOKENS"],
        "the output budget, `--out-tokens`",
    ),
    row(
        Claude,
        C::Prompt,
        Set,
        &["CLAUDE_CODE_ATTRIBUTION_HEADER"],
        "`0`: no text that changes with every request at the front of the prompt",
    ),
    row(
        Claude,
        C::Prompt,
        Set,
        &["CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS"],
        "`1`: only what a local server understands; the tool list stays as it is for the whole session",
    ),
    row(
        Claude,
        C::Prompt,
        Set,
        &["CLAUDE_CODE_TOTAL_TOKENS_REMINDER"],
        "`off`: no reminder that changes every turn",
    ),
    row(
        Claude,
        C::Timeout,
        Set,
        &[
            "API_TIMEOUT_MS",
            "CLAUDE_STREAM_IDLE_TIMEOUT_MS",
            "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS",
            "CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS",
        ],
        "long: a local model may read a long prompt for minutes before the first word",
    ),
    row(
        Claude,
        C::Timeout,
        Set,
        &["API_FORCE_IDLE_TIMEOUT"],
        "`0`: a silent answer is not sent again",
    ),
    row(
        Claude,
        C::Traffic,
        Set,
        &[
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "DISABLE_AUTOUPDATER",
            "DISABLE_NON_ESSENTIAL_MODEL_CALLS",
            "DISABLE_FEEDBACK_COMMAND",
            "DISABLE_BUG_COMMAND",
            "CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY",
            "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
        ],
        "`1`: no update check, no look-ups, no feedback",
    ),
    row(
        Claude,
        C::Telemetry,
        Set,
        &[
            "DISABLE_TELEMETRY",
            "DISABLE_ERROR_REPORTING",
            "DO_NOT_TRACK",
        ],
        "`1`: no telemetry",
    ),
    row(
        Claude,
        C::Telemetry,
        Set,
        &["CLAUDE_CODE_ENABLE_TELEMETRY"],
        "`0`: no OpenTelemetry export",
    ),
    row(
        Claude,
        C::Proxy,
        Set,
        &["NO_PROXY", "no_proxy"],
        "your own list, with this machine added: a proxy would see the prompts",
    ),
    // Claude Code: your own, kept.
    row(
        Claude,
        C::Proxy,
        Kept,
        &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"],
        "your proxies, for the commands that the session runs; not from settings files",
    ),
    row(
        Claude,
        C::Session,
        Kept,
        &[
            "CLAUDE_TMPDIR",
            "CLAUDE_CODE_TMPDIR",
            "CLAUDE_CODE_SHELL",
            "CLAUDE_CODE_GIT_BASH_PATH",
            "CLAUDE_BASH_MAINTAIN_PROJECT_WORKING_DIR",
            "CLAUDE_CODE_FILE_READ_MAX_OUTPUT_TOKENS",
            "CLAUDE_CODE_GLOB_HIDDEN",
            "CLAUDE_CODE_GLOB_NO_IGNORE",
            "CLAUDE_CODE_GLOB_TIMEOUT_SECONDS",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY",
            "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS",
            "CLAUDE_CODE_DISABLE_CLAUDE_MDS",
            "CLAUDE_CODE_DISABLE_FILE_CHECKPOINTING",
            "CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS",
        ],
        "how tools and memory behave",
    ),
    row(
        Claude,
        C::Session,
        Kept,
        &[
            "CLAUDE_AX_SCREEN_READER",
            "CLAUDE_CODE_ACCESSIBILITY",
            "CLAUDE_CODE_DISABLE_TERMINAL_TITLE",
            "CLAUDE_CODE_DISABLE_ALTERNATE_SCREEN",
            "CLAUDE_CODE_DISABLE_MOUSE",
            "CLAUDE_CODE_DISABLE_VIRTUAL_SCROLL",
            "CLAUDE_CODE_FORCE_SYNC_OUTPUT",
            "CLAUDE_CODE_HIDE_CWD",
            "CLAUDE_CODE_NATIVE_CURSOR",
            "CLAUDE_CODE_NO_FLICKER",
            "CLAUDE_CODE_SCROLL_SPEED",
            "CLAUDE_CODE_SYNTAX_HIGHLIGHT",
        ],
        "how the screen looks",
    ),
    // Claude Code: removed. The exact names are also overlaid as empty in the settings.
    row(
        Claude,
        C::Credential,
        Removed,
        &[
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
            "CLAUDE_CODE_SESSION_ACCESS_TOKEN",
            "CLAUDE_API_KEY",
            "ANTHROPIC_IDENTITY_TOKEN",
            "ANTHROPIC_IDENTITY_TOKEN_FILE",
            "ANTHROPIC_PROFILE",
            "ANTHROPIC_FEDERATION_RULE_ID",
            "AWS_BEARER_TOKEN_BEDROCK",
            "ANTHROPIC_AWS_API_KEY",
            "ANTHROPIC_FOUNDRY_API_KEY",
            "ANTHROPIC_FOUNDRY_AUTH_TOKEN",
            "CLAUDE_CODE_GATEWAY_TOKEN",
            "CLAUDE_CODE_HOST_CREDS_FILE",
            "CLAUDE_CODE_HOST_AUTH_ENV_VAR",
            "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
            "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
            "MCP_CLIENT_SECRET",
            "MCP_XAA_IDP_CLIENT_SECRET",
        ],
        "real keys and tokens",
    ),
    row(
        Claude,
        C::Routing,
        Removed,
        &[
            "ANTHROPIC_UNIX_SOCKET",
            "CLAUDE_CODE_RUNNER_MODEL_SOCKET",
            "CLAUDE_CODE_API_BASE_URL",
            "CLAUDE_CODE_GB_BASE_URL",
            "CLAUDE_CODE_CUSTOM_OAUTH_URL",
            "CLAUDE_CODE_CLIENT_DATA_URL",
            "CLAUDE_CODE_MODEL_CATALOG_URL",
            "ANTHROPIC_API_HOST",
            "ANTHROPIC_BEDROCK_BASE_URL",
            "ANTHROPIC_BEDROCK_MANTLE_BASE_URL",
            "ANTHROPIC_VERTEX_BASE_URL",
            "ANTHROPIC_FOUNDRY_BASE_URL",
            "ANTHROPIC_FOUNDRY_RESOURCE",
            "ANTHROPIC_AWS_BASE_URL",
            "ANTHROPIC_GOOGLE_CLOUD_BASE_URL",
            "AWS_ENDPOINT_URL_BEDROCK",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
            "CLAUDE_BRIDGE_BASE_URL",
            "CLAUDE_BRIDGE_SESSION_INGRESS_URL",
            "CLAUDE_REMOTE_TOOLS_BRIDGE_URL",
            "CLAUDE_CODE_ARTIFACTS_API_BASE_URL",
            "CLAUDE_CODE_MEMORY_API_BASE_URL",
            "VOICE_STREAM_BASE_URL",
            "_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL",
            "CLAUDE_CODE_REMOTE_SETTINGS_PATH",
            "CLAUDE_CODE_MANAGED_SETTINGS_PATH",
            "USE_LOCAL_OAUTH",
            "USE_STAGING_OAUTH",
        ],
        "other servers",
    ),
    row(
        Claude,
        C::Provider,
        Removed,
        &[
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
            "CLAUDE_CODE_USE_FOUNDRY",
            "CLAUDE_CODE_USE_MANTLE",
            "CLAUDE_CODE_USE_GATEWAY",
            "CLAUDE_CODE_USE_ANTHROPIC_AWS",
            "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
            "ANTHROPIC_VERTEX_PROJECT_ID",
            "ANTHROPIC_AWS_WORKSPACE_ID",
            "ANTHROPIC_GOOGLE_CLOUD_PROJECT",
            "ANTHROPIC_GOOGLE_CLOUD_LOCATION",
            "CLOUD_ML_REGION",
            "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY",
        ],
        "other providers",
    ),
    row(
        Claude,
        C::Header,
        Removed,
        &[
            "ANTHROPIC_CUSTOM_HEADERS",
            "ANTHROPIC_BETAS",
            "CLAUDE_CODE_EXTRA_BODY",
            "CLAUDE_CODE_EXTRA_METADATA",
        ],
        "headers and fields added to requests",
    ),
    row(
        Claude,
        C::Proxy,
        Removed,
        &[
            "CLAUDE_CODE_HTTP_PROXY",
            "CLAUDE_CODE_HTTPS_PROXY",
            "CLAUDE_CODE_PROXY_URL",
            "CLAUDE_CODE_PROXY_HOST",
            "CLAUDE_CODE_PROXY_RESOLVES_HOSTS",
            "CLAUDE_CODE_ENABLE_PROXY_AUTH_HELPER",
            "CLAUDE_CODE_SIMULATE_PROXY_USAGE",
        ],
        "proxies of the client alone",
    ),
    row(
        Claude,
        C::Model,
        Removed,
        &[
            "ANTHROPIC_CUSTOM_MODEL_OPTION",
            "CLAUDE_CODE_SUBAGENT_MODEL_FORCE",
            "CLAUDE_CODE_EFFORT_LEVEL",
            "CLAUDE_CODE_SUBAGENT_EFFORT",
            "CLAUDE_CODE_ALWAYS_ENABLE_EFFORT",
            "MAX_THINKING_TOKENS",
            "FALLBACK_FOR_ALL_PRIMARY_MODELS",
        ],
        "other models, and efforts that a local server refuses",
    ),
    row(
        Claude,
        C::Window,
        Removed,
        &[
            "CLAUDE_CODE_AUTO_COMPACT_WINDOW",
            "CLAUDE_AUTOCOMPACT_PCT_OVERRIDE",
            "CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE",
            "CLAUDE_CODE_DISABLE_UNKNOWN_MODEL_WINDOW_ENFORCEMENT",
            "DISABLE_COMPACT",
            "DISABLE_AUTO_COMPACT",
        ],
        "another window, or no compaction in time",
    ),
    row(
        Claude,
        C::Prompt,
        Removed,
        &[
            "DISABLE_INTERLEAVED_THINKING",
            "ENABLE_PROMPT_CACHING_1H",
            "FORCE_PROMPT_CACHING_5M",
            "ENABLE_TOOL_SEARCH",
            "CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT",
        ],
        "prompts for other servers",
    ),
    row(
        Claude,
        C::Timeout,
        Removed,
        &[
            "CLAUDE_CODE_MAX_RETRIES",
            "CLAUDE_CODE_RETRY_WATCHDOG",
            "CLAUDE_CODE_CONNECT_TIMEOUT_MS",
            "CLAUDE_SLOW_FIRST_BYTE_MS",
        ],
        "patience that fits another server",
    ),
    row(
        Claude,
        C::Telemetry,
        Removed,
        &[
            "OTEL_LOGS_EXPORTER",
            "OTEL_METRICS_EXPORTER",
            "OTEL_TRACES_EXPORTER",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_LOG_USER_PROMPTS",
            "OTEL_LOG_RAW_API_BODIES",
            "OTEL_LOG_ASSISTANT_RESPONSES",
            "OTEL_LOG_TOOL_CONTENT",
            "OTEL_LOG_TOOL_DETAILS",
            "ENABLE_BETA_TRACING_DETAILED",
            "BETA_TRACING_ENDPOINT",
            "ENABLE_ENHANCED_TELEMETRY_BETA",
            "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA",
            "CLAUDE_CODE_PROPAGATE_TRACEPARENT",
            "CLAUDE_CODE_PERFETTO_TRACE",
        ],
        "exporters, which would carry prompts",
    ),
    row(
        Claude,
        C::Traffic,
        Removed,
        &[
            "ENABLE_CLAUDEAI_MCP_SERVERS",
            "FORCE_AUTOUPDATE_PLUGINS",
            "CLAUDE_CODE_SYNC_PLUGINS",
            "CLAUDE_CODE_SYNC_SKILLS",
            "CLAUDE_CODE_PLUGIN_CACHE_DIR",
            "CLAUDE_CODE_PLUGIN_SEED_DIR",
            "CLAUDE_CODE_PLUGIN_DIRS",
            "CLAUDE_CODE_FORCE_BRIDGE",
            "CLAUDE_CODE_REMOTE",
        ],
        "plugins, connectors and remote sessions",
    ),
    row(
        Claude,
        C::Session,
        Removed,
        &[
            "CLAUDECODE",
            "CLAUDE_CODE_ENTRYPOINT",
            "CLAUDE_CODE_SSE_PORT",
            "CLAUDE_CODE_SESSION_ID",
            "CLAUDE_CODE_CHILD_SESSION",
        ],
        "left by an outer session",
    ),
    row(
        Claude,
        C::Runtime,
        Removed,
        &["BUN_OPTIONS", "BUN_BE_BUN", "CLAUDE_CODE_PROCESS_WRAPPER"],
        "would make the client's runtime load or do something else",
    ),
    // Claude Code: removed, by pattern. What a newer client adds is caught here until the table knows it.
    row(
        Claude,
        C::Header,
        Removed,
        &["ANTHROPIC_CUSTOM_*"],
        "headers and options",
    ),
    row(
        Claude,
        C::Provider,
        Removed,
        &[
            "CLAUDE_CODE_USE_*",
            "CLAUDE_CODE_SKIP_*",
            "VERTEX_*",
            "ANTHROPIC_BEDROCK_*",
            "ANTHROPIC_VERTEX_*",
            "ANTHROPIC_FOUNDRY_*",
            "ANTHROPIC_AWS_*",
            "ANTHROPIC_GOOGLE_CLOUD_*",
        ],
        "other providers",
    ),
    row(
        Claude,
        C::Model,
        Removed,
        &["ANTHROPIC_DEFAULT_*", "ANTHROPIC_SMALL_FAST_MODEL*"],
        "other models",
    ),
    row(
        Claude,
        C::Routing,
        Removed,
        &[
            "ANTHROPIC_*",
            "AWS_ENDPOINT_URL_BEDROCK*",
            "CCR_*",
            "AGENT_PROXY_*",
            "SELF_HOSTED_RUNNER_*",
        ],
        "anything else of the cloud client",
    ),
    row(
        Claude,
        C::Telemetry,
        Removed,
        &["OTEL_*", "ANT_OTEL_*"],
        "exporters",
    ),
    row(
        Claude,
        C::Runtime,
        Removed,
        &["BUN_INSPECT*", "BUN_CONFIG_*"],
        "debugging and configuration of the client's runtime",
    ),
    row(
        Claude,
        C::Session,
        Removed,
        &["CLAUDE_*", "_CLAUDE_*"],
        "anything else of an outer session or of the cloud client",
    ),
];

/// The row that decides about this name for Claude Code.
pub fn for_claude(name: &str) -> Option<&'static Variables> {
    ALL.iter()
        .filter(|row| row.reader == Claude)
        .find(|row| row.covers(name))
}

/// Whether the variable is taken out of the environment that Claude Code inherits.
pub fn removed_for_claude(name: &str) -> bool {
    for_claude(name).is_some_and(|row| row.handling == Removed)
}

/// The class of a name that no settings file may set in a local session; None if it may. Stricter than the environment: a proxy from
/// your shell is yours, one from a project's file is not.
pub fn hostile_in_settings(name: &str) -> Option<Class> {
    if let Some(row) = for_claude(name) {
        return (row.handling != Kept || row.class == C::Proxy).then_some(row.class);
    }
    let upper = name.to_ascii_uppercase();
    if upper.ends_with("_PROXY") {
        return Some(C::Proxy);
    }
    if upper.ends_with("_BASE_URL") {
        return Some(C::Routing);
    }
    None
}

/// The exact names that Claude Code must not get from anywhere: no patterns.
pub fn exact_removed_for_claude() -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .filter(|row| row.reader == Claude && row.handling == Removed)
        .flat_map(|row| row.names)
        .copied()
        .filter(|name| !name.ends_with('*'))
}

/// What an engine may inherit. A list of what is allowed, since a list of what is not would let the next secret through.
const ENGINE_MAY_INHERIT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "TZ",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TERM",
    "XDG_*",
    // Downloads: proxies and certificates.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HF_*",
    "HUGGINGFACE_HUB_CACHE",
    "HUGGING_FACE_HUB_TOKEN",
    // The engine and what it computes with.
    "VLLM_MLX_*",
    "MLX_*",
    "CUDA_*",
    "NVIDIA_*",
    "METAL_*",
    "MTL_*",
    "LD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
];

/// The scrubbed environment that an engine inherits: none of the client's variables and no secret but the hub's token.
///
/// Where the hub's folders are is said in full, so that its library finds the same as we do: it reads `~` and `$NAME` in them, counts
/// an empty one as set, and starts relative ones at a working directory that the engine does not share.
pub fn engine_env(host: &Environment) -> BTreeMap<OsString, OsString> {
    let inherited = host.env.iter();
    let mut env: BTreeMap<OsString, OsString> = inherited
        .filter(|(name, _)| allowed_for_engine(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    env.insert("HF_HOME".into(), paths::hub_home(host).into());
    env.insert("HF_HUB_CACHE".into(), Paths::of(host).hub.into());
    if host.var(TOKEN_PATH).is_some() {
        env.insert(TOKEN_PATH.into(), paths::hub_token(host).into());
    } else {
        env.remove(OsStr::new(TOKEN_PATH));
    }
    env
}

/// The environment of a supervisor: what an engine may inherit but for the hub's token, and our own settings. Folders are named from the root.
pub fn supervisor_env(host: &Environment) -> BTreeMap<OsString, OsString> {
    let mut env = engine_env(host);
    let ours = host
        .env
        .iter()
        .filter(|(name, _)| name.to_str().is_some_and(|name| matches("CCLOCAL_*", name)));
    env.extend(ours.map(|(name, value)| (name.clone(), value.clone())));
    // A background process does not share our working directory.
    if let Some(folder) = host.var("CCLOCAL_HOME") {
        env.insert("CCLOCAL_HOME".into(), host.resolve(folder).into());
    }
    for name in HUB_TOKENS {
        env.remove(OsStr::new(name));
    }
    env
}

/// The hub's tokens that are set. The supervisor gets them in its specification, for the engine's download.
pub fn hub_tokens(host: &Environment) -> BTreeMap<String, Secret> {
    let set = HUB_TOKENS.iter();
    set.filter_map(|name| Some(((*name).to_owned(), Secret::new(host.var(name)?))))
        .collect()
}

fn allowed_for_engine(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        ENGINE_MAY_INHERIT
            .iter()
            .any(|pattern| matches(pattern, name))
    })
}

/// The variables that hold the hub's token.
const HUB_TOKENS: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// The variable that names the file with the token.
const TOKEN_PATH: &str = "HF_TOKEN_PATH";

/// Whether this is the hub's token, or leads to it, which an engine that is offline does not need.
pub fn is_hub_token(name: &str) -> bool {
    HUB_TOKENS.contains(&name) || name == TOKEN_PATH
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_first_row_that_covers_a_name_decides() {
        assert!(removed_for_claude("ANTHROPIC_API_KEY"));
        assert!(removed_for_claude("anthropic_api_key"));
        assert!(removed_for_claude("ANTHROPIC_NEW_THING"));
        assert!(removed_for_claude("CLAUDE_CODE_USE_TOMORROWS_PROVIDER"));
        assert!(removed_for_claude("OTEL_EXPORTER_OTLP_LOGS_HEADERS"));
        assert!(removed_for_claude("CLAUDECODE"));
        assert!(!removed_for_claude("ANTHROPIC_BASE_URL"), "it is set");
        assert!(!removed_for_claude("CLAUDE_CODE_NO_FLICKER"));
        for own in [
            "PATH",
            "AWS_PROFILE",
            "AWS_REGION",
            "GITHUB_TOKEN",
            "HTTPS_PROXY",
            "NODE_OPTIONS",
            "BUN_INSTALL",
        ] {
            assert!(!removed_for_claude(own), "{own}");
        }
    }

    #[test]
    fn settings_files_may_set_less_than_the_shell() {
        assert_eq!(hostile_in_settings("http_proxy"), Some(Class::Proxy));
        assert_eq!(hostile_in_settings("YARN_HTTPS_PROXY"), Some(Class::Proxy));
        assert_eq!(
            hostile_in_settings("SOMETHING_BASE_URL"),
            Some(Class::Routing)
        );
        assert_eq!(
            hostile_in_settings("ANTHROPIC_BASE_URL"),
            Some(Class::Routing)
        );
        assert_eq!(
            hostile_in_settings("CLAUDE_CODE_MAX_CONTEXT_TOKENS"),
            Some(Class::Window)
        );
        assert_eq!(hostile_in_settings("MY_APP_MODE"), None);
        assert_eq!(hostile_in_settings("CLAUDE_CODE_NO_FLICKER"), None);
    }

    #[test]
    fn no_name_is_listed_twice_for_one_reader() {
        let mut seen = std::collections::BTreeSet::new();
        for row in ALL {
            for name in row.names {
                assert!(
                    seen.insert((format!("{:?}", row.reader), *name)),
                    "{name} is listed twice"
                );
            }
            assert!(!row.meaning.is_empty());
        }
    }

    #[test]
    fn an_engine_inherits_no_secret() {
        let host = Environment::for_tests(
            Path::new("/home/u"),
            &[
                ("PATH", "/bin"),
                ("HOME", "/home/u"),
                ("LC_ALL", "C"),
                ("HF_TOKEN", "hf"),
                ("https_proxy", "http://p"),
                ("ANTHROPIC_API_KEY", "sk"),
                ("CLAUDE_CODE_OAUTH_TOKEN", "t"),
                ("GITHUB_TOKEN", "g"),
                ("AWS_SECRET_ACCESS_KEY", "a"),
                ("PYTHONPATH", "/elsewhere"),
            ],
        );
        let names: Vec<_> = engine_env(&host)
            .into_keys()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let hub = ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"];
        let rest = ["HOME", "LC_ALL", "PATH", "https_proxy"];
        assert_eq!(names, [&hub[..], &rest].concat());
        let background = supervisor_env(&host);
        assert!(!background.contains_key(OsStr::new("HF_TOKEN")));
        assert_eq!(hub_tokens(&host).keys().collect::<Vec<_>>(), ["HF_TOKEN"]);
    }
}
