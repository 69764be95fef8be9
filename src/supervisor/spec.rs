//! What a supervisor is asked to run. It comes through its standard input, so nothing of it is on a command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalog::{Model, Source};
use crate::engine::env;
use crate::engine::executable::Executable;
use crate::gateway::anthropic::Pictures;
use crate::hub::{self, download_progress::Total};
use crate::memory;
use crate::memory::plan::STEPS;
use crate::sys::secret::{self, Secret};

/// An engine to be run, and the gateway to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub port: Port,
    pub model: Model,
    pub engine: Executable,
    /// `serve …`; the value of `--port` is put in at each start.
    pub argv: Vec<String>,
    /// Set on top of the scrubbed environment.
    pub env: BTreeMap<String, String>,
    pub takes_key: bool,
    /// All of the model is on this disk.
    pub complete: bool,
    /// Bytes of it that are there already.
    pub cached_bytes: u64,
    /// What the whole download takes, if there is one to be made.
    pub download: Option<Total>,
    /// In tokens.
    pub context_window: u64,
    /// In tokens.
    pub output_tokens: u64,
    /// Bytes of the weights, if known.
    pub weights: Option<u64>,
    /// What it takes of the budget at the worst moment, or may come to take, in bytes, if there is a plan.
    pub claim: Option<u64>,
    /// Bytes of the prefix cache's limit for each token of the window. 0: it is not planned.
    pub cache_bytes_per_token: u64,
    /// Bytes of the claim that conversation and prefix cache give back for each token that the window is narrower. 0: there is no plan.
    pub kept_bytes_per_token: u64,
    /// What the engine may hold in memory, in bytes, if known: the machine's budget less what others take.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// The hub's tokens, as variables of an engine that downloads. Gone once all of the model is there.
    #[serde(default, with = "secret::handed")]
    pub hub_tokens: BTreeMap<String, Secret>,
    /// The engine's log, where it is not the usual one.
    pub log: Option<PathBuf>,
}

/// The gateway's port on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Port {
    /// This one or none.
    Exactly(u16),
    /// This one, or the next that is free of other engines of ours.
    From(u16),
}

impl Spec {
    /// The folder in which the engine keeps what it computed of system prompts and tools, if it does.
    pub fn kept_prefixes(&self) -> Option<&Path> {
        self.env.get(env::KEPT_PREFIX).map(Path::new)
    }

    /// All of the model is on this disk by now: engines after this one ask the hub nothing, and need no token.
    pub fn downloaded(&mut self) {
        self.complete = true;
        self.hub_tokens.clear();
        self.env.insert(env::OFFLINE.into(), "1".into());
    }

    /// The form in which pictures are passed on. `hub`: the cache of models, where `config.json` tells if this one sees.
    pub fn pictures(&self, hub: &Path) -> Pictures {
        let config = match &self.model.source {
            Source::Hub(id) => hub::config(hub, id),
            Source::Folder(folder) => hub::folder_config(folder),
        };
        match self.model.sees_pictures(config.as_ref()) {
            true => Pictures::Shown,
            false => Pictures::Words,
        }
    }

    /// The command line for an engine that is told this port.
    pub fn argv_on(&self, port: u16) -> Vec<String> {
        let mut argv = self.argv.clone();
        if let Some(value) = value_of(&mut argv, "--port") {
            *value = port.to_string();
        }
        argv
    }

    /// The same with a smaller appetite, for an engine that ran out of memory: prompts are computed in smaller steps, less is kept for later,
    /// and the window is narrower, as far as a session still fits in it. Other engines may have what conversation and prefix cache give up by that; what
    /// smaller steps take less stays claimed, as the plan's figure for them may have been what was too low.
    pub fn make_safer(&mut self) {
        if let Some(step) = value_of(&mut self.argv, "--prefill-step-size")
            && let Ok(tokens) = step.parse::<u64>()
        {
            *step = (tokens / 2).max(STEPS[0]).min(tokens).to_string();
        }
        if let Some(share) = value_of(&mut self.argv, "--cache-memory-percent")
            && let Ok(part) = share.parse::<f64>()
        {
            *share = format!("{:.2}", (part / 2.0).max(0.05));
        }
        let smallest = memory::smallest_window(self.output_tokens).min(self.context_window);
        let window = (self.context_window / 4 * 3).max(smallest);
        // Its entry of a full window must still fit into the limit, or each turn is computed anew.
        let narrower = self.context_window.saturating_sub(window);
        let given_up = narrower.saturating_mul(self.cache_bytes_per_token);
        if let Some(limit) = value_of(&mut self.argv, "--cache-memory-mb")
            && let Ok(mib) = limit.parse::<u64>()
        {
            *limit = mib.saturating_sub(given_up >> 20).max(1).to_string();
        }
        let freed = narrower.saturating_mul(self.kept_bytes_per_token);
        self.claim = self.claim.map(|claim| claim.saturating_sub(freed));
        self.context_window = window;
    }
}

fn value_of<'a>(argv: &'a mut [String], flag: &str) -> Option<&'a mut String> {
    let at = argv.iter().position(|word| word == flag)?;
    argv.get_mut(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Choice, resolve};

    fn spec() -> Spec {
        let words = "serve m --port 0 --prefill-step-size 4096 --cache-memory-percent 0.35";
        Spec {
            port: Port::From(8000),
            model: resolve(&Choice::Flag("coder".into()), None).expect("a model"),
            engine: Executable {
                script: "/engine".into(),
                python: "/python".into(),
            },
            argv: words.split(' ').map(str::to_owned).collect(),
            env: BTreeMap::new(),
            takes_key: true,
            complete: true,
            cached_bytes: 0,
            download: None,
            context_window: 65_536,
            output_tokens: 8_192,
            weights: None,
            claim: None,
            cache_bytes_per_token: 0,
            kept_bytes_per_token: 0,
            memory_limit: Some(18_000_000_000),
            hub_tokens: BTreeMap::from([("HF_TOKEN".into(), Secret::new("hf_x"))]),
            log: None,
        }
    }

    #[test]
    fn the_port_is_put_in() {
        assert!(spec().argv_on(50123).join(" ").contains("--port 50123 "));
    }

    #[test]
    fn an_engine_that_ran_out_of_memory_wants_less_each_time_but_still_holds_a_session() {
        let mut spec = spec();
        spec.make_safer();
        assert_eq!(spec.context_window, 49_152);
        assert_eq!(
            spec.argv.join(" "),
            "serve m --port 0 --prefill-step-size 2048 --cache-memory-percent 0.17"
        );
        for _ in 0..5 {
            spec.make_safer();
        }
        assert_eq!(spec.context_window, memory::smallest_window(8_192));
        assert_eq!(
            spec.argv.join(" "),
            "serve m --port 0 --prefill-step-size 256 --cache-memory-percent 0.05"
        );
    }

    #[test]
    fn a_planned_prefix_cache_shrinks_with_the_window_and_still_holds_it() {
        let mut spec = spec();
        spec.argv = ["serve", "m", "--cache-memory-mb", "6146"]
            .map(str::to_owned)
            .to_vec();
        spec.cache_bytes_per_token = 98_304;
        for window in [49_152, 36_864, 29_384, 29_384] {
            spec.make_safer();
            assert_eq!(spec.context_window, window);
            let limit: u64 = spec.argv[3].parse().expect("a number");
            let entry = window * 98_304;
            assert!(
                limit << 20 >= entry && limit << 20 < entry + (6 << 20),
                "{limit}"
            );
        }
    }

    #[test]
    fn other_engines_may_have_what_a_narrower_window_gives_up() {
        let mut unplanned = spec();
        unplanned.make_safer();
        assert_eq!(unplanned.claim, None);
        let mut spec = Spec {
            claim: Some(30_000_000_000),
            kept_bytes_per_token: 200_000,
            ..spec()
        };
        let mut claims = Vec::new();
        for _ in 0..4 {
            spec.make_safer();
            claims.push(spec.claim.expect("a claim"));
        }
        // 16,384 tokens, 12,288, 7,480 to the smallest window, none.
        assert_eq!(
            claims,
            [
                26_723_200_000,
                24_265_600_000,
                22_769_600_000,
                22_769_600_000
            ]
        );
    }

    #[test]
    fn it_crosses_the_pipe_whole() {
        let text = serde_json::to_string(&spec()).expect("text");
        let back: Spec = serde_json::from_str(&text).expect("a spec");
        assert_eq!(format!("{back:?}"), format!("{:?}", spec()));
        assert_eq!(back.hub_tokens, spec().hub_tokens);
        assert!(!format!("{back:?}").contains("hf_x"));
    }
}
