//! Paths of all files: pure, from the environment alone. XDG on both systems; `CCLOCAL_HOME` puts all under one root.

use std::path::PathBuf;

use crate::sys::environment::Environment;

/// Our directories. None of them is created here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Settings a person edits: `~/.config/cclocal`.
    pub config: PathBuf,
    /// Installed or permanent files: the engine, the client's profile: `~/.local/share/cclocal`.
    pub data: PathBuf,
    /// Logs, run records, locks: `~/.local/state/cclocal`.
    pub state: PathBuf,
    /// Files that can be made again: `~/.cache/cclocal`.
    pub cache: PathBuf,
    /// The Hugging Face hub cache, found as huggingface_hub finds it.
    pub hub: PathBuf,
}

impl Paths {
    pub fn of(host: &Environment) -> Self {
        let xdg = |name: &str, default: &str| match host.var(name).map(PathBuf::from) {
            // The XDG specification: a relative path is invalid and is ignored.
            Some(path) if path.is_absolute() => path,
            _ => host.home.join(default),
        };
        let base = |kind: &str, name: &str, default: &str| match host.var("CCLOCAL_HOME") {
            Some(root) => host.resolve(root).join(kind),
            None => xdg(name, default).join("cclocal"),
        };
        Self {
            config: base("config", "XDG_CONFIG_HOME", ".config"),
            data: base("data", "XDG_DATA_HOME", ".local/share"),
            state: base("state", "XDG_STATE_HOME", ".local/state"),
            cache: base("cache", "XDG_CACHE_HOME", ".cache"),
            hub: hub_cache(host),
        }
    }

    /// The engine's private Python environment and what belongs to it.
    pub fn engine(&self) -> PathBuf {
        self.data.join("engine")
    }

    /// The private configuration directory that Claude Code runs with.
    pub fn claude_profile(&self) -> PathBuf {
        self.data.join("claude")
    }

    /// Claude Code as installed by us with npm, when the user agreed to that.
    pub fn client(&self) -> PathBuf {
        self.data.join("client")
    }

    /// Folders of links to the text part of multimodal models (see `engine/text_route.py`).
    pub fn text_models(&self) -> PathBuf {
        self.data.join("text-models")
    }

    /// Stored prompt prefixes: a folder for each model (see `engine/patches/kept.py`).
    pub fn kept_prefixes(&self) -> PathBuf {
        self.cache.join("prefixes")
    }

    /// Run folder, with a folder for each supervisor and each session.
    pub fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    /// The folder of the session that is this process.
    pub fn session(&self, pid: i32) -> PathBuf {
        self.run().join(format!("session-{pid}"))
    }

    /// The folder of that session's rehearsal.
    pub fn rehearsal(&self, pid: i32) -> PathBuf {
        self.run().join(format!("rehearsal-{pid}"))
    }

    /// Both.
    pub fn of_session(&self, pid: i32) -> [PathBuf; 2] {
        [self.session(pid), self.rehearsal(pid)]
    }

    /// The engine's log; the previous one is kept beside it as `server.log.1`.
    pub fn server_log(&self) -> PathBuf {
        self.state.join("server.log")
    }
}

/// `HF_HUB_CACHE`, its older name `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`, in huggingface_hub's own order
/// (huggingface_hub 1.x and 2.x, `constants.py`).
fn hub_cache(host: &Environment) -> PathBuf {
    let set = host
        .var("HF_HUB_CACHE")
        .or(host.var("HUGGINGFACE_HUB_CACHE"));
    set.map_or_else(|| hub_home(host).join("hub"), |path| host.expand(path))
}

/// The folder of all that huggingface_hub keeps.
pub fn hub_home(host: &Environment) -> PathBuf {
    match (host.var("HF_HOME"), host.var("XDG_CACHE_HOME")) {
        (Some(path), _) => host.expand(path),
        (None, Some(cache)) => host.expand(cache).join("huggingface"),
        (None, None) => host.home.join(".cache/huggingface"),
    }
}

/// The file with the user's token for the hub, if they have one.
pub fn hub_token(host: &Environment) -> PathBuf {
    host.var("HF_TOKEN_PATH")
        .map_or_else(|| hub_home(host).join("token"), |path| host.expand(path))
}
