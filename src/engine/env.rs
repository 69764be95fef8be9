//! Environment of the engine: what it inherits, what is set for it, and why.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::sys::environment::Environment;
use crate::sys::paths::{self, Paths};
use crate::sys::secret::Secret;
use crate::sys::variables::{Row, SYSTEM, Treatment, passed};

use Treatment::{Computed, Fixed, Passed};

/// Bytes that the engine may hold in memory (`patches/memory.py`).
pub const MEMORY_LIMIT: &str = "CCLOCAL_MEMORY_LIMIT";
/// Folder for the computed prefixes that outlive an engine (`patches/kept.py`).
pub const KEPT_PREFIX: &str = "CCLOCAL_KEPT_PREFIX";
/// Folder in which the text part of a model is made (`patches/text_route.py`).
pub const TEXT_ROUTE: &str = "CCLOCAL_TEXT_ROUTE";
/// Whether hybrid models write thoughts. Source: vllm-mlx 0.6.0.
pub const THINKING: &str = "VLLM_MLX_ENABLE_THINKING";
/// Treatment of a second request while the first is answered. Source: vllm-mlx 0.6.0.
pub const ADMISSION: &str = "VLLM_MLX_SIMPLE_ENGINE_LOCK_ADMISSION";
/// `1`: the hub is not asked. Source: huggingface_hub, "Environment variables".
pub const OFFLINE: &str = "HF_HUB_OFFLINE";

const fn row(names: &'static str, treatment: Treatment, reason: &'static str) -> Row {
    Row {
        names,
        treatment,
        reason,
    }
}

/// Variables that the engine gets. It gets no others: a list of those to remove would let the next secret through.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    SYSTEM,
    row("HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE", Passed, "proxies and certificates for downloads"),
    row("HF_* HUGGINGFACE_HUB_CACHE HUGGING_FACE_HUB_TOKEN", Passed, "the hub: folders in full; the token only while there is something to download"),
    row("VLLM_MLX_* MLX_* CUDA_* NVIDIA_* METAL_* MTL_* OMP_NUM_THREADS TOKENIZERS_PARALLELISM", Passed, "the engine and what it computes with"),
    row(THINKING, Computed, "`--think`"),
    row(ADMISSION, Computed, "`wait` in simple mode: a second request waits instead of failing"),
    row(TEXT_ROUTE, Computed, "the text part of multimodal models"),
    row(KEPT_PREFIX, Computed, "what was computed of a system prompt and tools is kept for the next engine"),
    row(MEMORY_LIMIT, Computed, "before the engine would hold more, it drops what it keeps of earlier turns"),
    row(OFFLINE, Computed, "`1` once the model is complete on disk: the engine asks nobody"),
    row("HF_HUB_DISABLE_TELEMETRY", Fixed("1"), "nothing of ours calls home"),
    row("PYTHONUNBUFFERED", Fixed("1"), "the last words before a crash are in the log"),
];

/// Variables that hold the hub's token.
const HUB_TOKENS: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// Variable that names the file with the hub's token.
const TOKEN_PATH: &str = "HF_TOKEN_PATH";

/// The variables that are set for every engine alike.
pub fn fixed() -> BTreeMap<String, String> {
    let fixed = TABLE.iter().filter_map(|row| match row.treatment {
        Fixed(value) => Some((row.names.to_owned(), value.to_owned())),
        _ => None,
    });
    fixed.collect()
}

/// The environment that an engine inherits.
///
/// The hub's folders are named in full, so that its library finds the same as we do: it reads `~` and `$NAME` in them, counts an empty
/// one as set, and starts relative ones at a working directory that the engine does not share.
pub fn inherited(host: &Environment) -> BTreeMap<OsString, OsString> {
    let mut env = passed(host, TABLE);
    env.insert("HF_HOME".into(), paths::hub_home(host).into());
    env.insert("HF_HUB_CACHE".into(), Paths::of(host).hub.into());
    if host.var(TOKEN_PATH).is_some() {
        env.insert(TOKEN_PATH.into(), paths::hub_token(host).into());
    } else {
        env.remove(OsStr::new(TOKEN_PATH));
    }
    env
}

/// The environment of a supervisor: an engine's without the hub's token, and our own settings.
pub fn of_supervisor(host: &Environment) -> BTreeMap<OsString, OsString> {
    let mut env = inherited(host);
    env.retain(|name, _| !HUB_TOKENS.iter().any(|token| name == *token));
    env.extend(passed(host, &[row("CCLOCAL_*", Passed, "our own")]));
    // A background process does not share our working directory.
    if let Some(folder) = host.var("CCLOCAL_HOME") {
        env.insert("CCLOCAL_HOME".into(), host.resolve(folder).into());
    }
    env
}

/// The hub's tokens that are set. The supervisor gets them in its specification, for the engine's download.
pub fn hub_tokens(host: &Environment) -> BTreeMap<String, Secret> {
    let set = HUB_TOKENS.iter();
    set.filter_map(|name| Some(((*name).to_owned(), Secret::new(host.var(name)?))))
        .collect()
}

/// Whether this is the hub's token, or leads to it, which an engine that is offline does not need.
pub fn is_hub_token(name: &str) -> bool {
    HUB_TOKENS.contains(&name) || name == TOKEN_PATH
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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
        let names: Vec<_> = inherited(&host)
            .into_keys()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let hub = ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"];
        let rest = ["HOME", "LC_ALL", "PATH", "https_proxy"];
        assert_eq!(names, [&hub[..], &rest].concat());
        assert!(!of_supervisor(&host).contains_key(OsStr::new("HF_TOKEN")));
        assert_eq!(hub_tokens(&host).keys().collect::<Vec<_>>(), ["HF_TOKEN"]);
    }
}
