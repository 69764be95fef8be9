//! Environment variables as data: one row says what becomes of some of them. The tables are `claude::env` and `engine::env`, and
//! [`OWN`] here.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::environment::Environment;

/// Treatment of a variable on its way to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Always set to this value.
    Fixed(&'static str),
    /// Set to a value that depends on the session.
    Computed,
    /// Passed on as it is.
    Passed,
    /// Not passed on.
    Removed,
}

/// Variables that are treated alike.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Separated by spaces. A name that ends in `*` stands for all that begin so.
    pub names: &'static str,
    pub treatment: Treatment,
    pub reason: &'static str,
}

impl Row {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.split_whitespace()
    }

    /// Whether the row is about this name.
    pub fn covers(&self, name: &str) -> bool {
        self.names().any(|pattern| matches(pattern, name))
    }
}

/// Whether a name is, or begins as, the pattern says. Case does not matter: some programs read a name in either case.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

/// The variables of this environment that the rows pass on.
pub fn passed(host: &Environment, rows: &[Row]) -> BTreeMap<OsString, OsString> {
    let passes = |name: &str| {
        rows.iter()
            .any(|row| row.treatment == Treatment::Passed && row.covers(name))
    };
    host.env
        .iter()
        .filter(|(name, _)| name.to_str().is_some_and(passes))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Variables that any program needs to run.
pub const SYSTEM: Row = Row {
    names: "PATH HOME USER LOGNAME SHELL TMPDIR TZ LANG LANGUAGE LC_* TERM XDG_* LD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH",
    treatment: Treatment::Passed,
    reason: "the system's",
};

/// Variables that cclocal itself reads, with their meaning. `docs/configuration.md` names each of them.
#[rustfmt::skip]
pub const OWN: &[(&str, &str)] = &[
    ("CCLOCAL_HOME", "one folder for everything that cclocal keeps, in place of the XDG folders"),
    ("CCLOCAL_ENGINE", "another `vllm-mlx` executable"),
    ("CCLOCAL_CLAUDE", "another `claude` executable"),
    ("CCLOCAL_PLATFORM", "`macos` takes the paths of a Mac on any system, for tests"),
    ("CCLOCAL_NO_MEMCHECK", "the same as `--no-mem-check`"),
    ("CCLOCAL_FORCE_MEMCHECK", "the same as `--safe`"),
    ("CCLOCAL_FORGET_PREFIX", "the same as `--forget-prefix`"),
    ("CCLOCAL_STALL_LIMIT", "seconds without progress after which a start counts as stalled"),
    ("CCLOCAL_LINGER", "seconds for which the engine is kept after its last session"),
    ("CCLOCAL_LOG", "level of the diagnostics on standard error"),
    ("BRAVE_API_KEY TAVILY_API_KEY", "key of the service that `--web-search` names; not passed on then"),
    ("NO_COLOR", "no colours"),
    ("SSL_CERT_FILE SSL_CERT_DIR", "certificates of authorities, with `--connect`"),
    ("XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_CACHE_HOME", "where cclocal and the hub keep their files"),
    ("HF_HOME HF_HUB_CACHE HUGGINGFACE_HUB_CACHE", "where models are kept"),
    ("HF_ENDPOINT", "a mirror of the hub"),
    ("HF_TOKEN HF_TOKEN_PATH HUGGING_FACE_HUB_TOKEN", "token for gated models"),
    ("HF_HUB_OFFLINE TRANSFORMERS_OFFLINE HF_HUB_DISABLE_IMPLICIT_TOKEN", "what the hub is asked, and with which token"),
];
