//! The specification for a supervisor. It comes through its standard input, so nothing of it is on a command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalog::Source;
use crate::engine::argv::Serve;
use crate::engine::executable::Executable;
use crate::gateway::anthropic::Pictures;
use crate::hub::{self, download_progress::Total};
use crate::sys::secret::{self, Secret};

/// An engine to be run, and the gateway to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub port: Port,
    pub engine: Executable,
    pub serve: Serve,
    /// Bytes of the model that are on this disk already.
    pub cached_bytes: u64,
    /// Size of the whole download, if one is needed.
    pub download: Option<Total>,
    /// Bytes of the weights, if known.
    pub weights: Option<u64>,
    /// Most memory that it takes or may take of the budget, in bytes, if there is a plan.
    pub claim: Option<u64>,
    /// Bytes of the prefix cache's limit for each token of the window. 0: it is not planned.
    pub cache_bytes_per_token: u64,
    /// Bytes of the claim that conversation and prefix cache give back for each token that the window is narrower. 0: there is no plan.
    pub kept_bytes_per_token: u64,
    /// Memory limit of the engine, in bytes, if known: the machine's budget less what others take.
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
    /// All of the model is on this disk by now: engines after this one ask the hub nothing, and need no token.
    pub fn downloaded(&mut self) {
        self.serve.complete = true;
        self.hub_tokens.clear();
    }

    /// The form in which pictures are passed on. `hub`: the cache of models, where `config.json` tells if this one sees.
    pub fn pictures(&self, hub: &Path) -> Pictures {
        let model = &self.serve.model;
        let config = match &model.source {
            Source::Hub(id) => hub::config(hub, id),
            Source::Folder(folder) => hub::folder_config(folder),
        };
        match model.sees_pictures(config.as_ref()) {
            true => Pictures::Shown,
            false => Pictures::Words,
        }
    }

    /// The same with a smaller appetite, for an engine that ran out of memory. Other engines may have what conversation and prefix cache give up by
    /// that; what smaller steps take less stays claimed, as the plan's figure for them may have been what was too low.
    pub fn make_safer(&mut self) {
        let narrower = self.serve.make_safer(self.cache_bytes_per_token);
        let freed = narrower.saturating_mul(self.kept_bytes_per_token);
        self.claim = self.claim.map(|claim| claim.saturating_sub(freed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Choice, resolve};
    use crate::engine::argv::CacheLimit;
    use crate::engine::flags::Flags;
    use crate::memory::{Asked, smallest_window};

    fn spec() -> Spec {
        Spec {
            port: Port::From(8000),
            engine: Executable {
                script: "/engine".into(),
                python: "/python".into(),
            },
            serve: Serve {
                model: resolve(&Choice::Flag("coder".into()), None).expect("a model"),
                window: Asked::default().or(65_536),
                step: 4_096,
                cache: CacheLimit::Share(0.35),
                complete: true,
                hub_is_silent: false,
                flags: Flags::of_pinned_engine(),
                text_models: "/text-models".into(),
                kept_prefixes: None,
            },
            cached_bytes: 0,
            download: None,
            weights: None,
            claim: None,
            cache_bytes_per_token: 0,
            kept_bytes_per_token: 0,
            memory_limit: Some(18_000_000_000),
            hub_tokens: BTreeMap::from([("HF_TOKEN".into(), Secret::new("hf_x"))]),
            log: None,
        }
    }

    /// The engine's step, its limit of the prefix cache, and the port that it is told.
    fn told(spec: &Spec) -> String {
        let argv = spec.serve.command(50123).argv;
        let wanted = ["--prefill-step-size", "--cache-memory", "--port"];
        let is_told = |word: &str| wanted.iter().any(|flag| word.starts_with(flag));
        let told = argv.windows(2).filter(|words| is_told(&words[0]));
        told.map(|words| words.join(" "))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn an_engine_that_ran_out_of_memory_wants_less_each_time_but_still_holds_a_session() {
        let mut spec = spec();
        assert_eq!(
            told(&spec),
            "--port 50123 --cache-memory-percent 0.35 --prefill-step-size 4096"
        );
        spec.make_safer();
        assert_eq!(spec.serve.window.tokens, 49_152);
        assert_eq!(
            told(&spec),
            "--port 50123 --cache-memory-percent 0.17 --prefill-step-size 2048"
        );
        for _ in 0..5 {
            spec.make_safer();
        }
        assert_eq!(spec.serve.window.tokens, smallest_window(8_192));
        assert_eq!(
            told(&spec),
            "--port 50123 --cache-memory-percent 0.05 --prefill-step-size 64"
        );
    }

    #[test]
    fn a_planned_prefix_cache_shrinks_with_the_window_and_still_holds_it() {
        let mut spec = spec();
        spec.serve.cache = CacheLimit::Planned(6_146);
        spec.cache_bytes_per_token = 98_304;
        for window in [49_152, 36_864, 27_648, 27_076] {
            spec.make_safer();
            assert_eq!(spec.serve.window.tokens, window);
            let CacheLimit::Planned(limit) = spec.serve.cache else {
                panic!("{:?}", spec.serve.cache);
            };
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
        // 16,384 tokens, 12,288, 9,216, and 572 to the smallest window.
        assert_eq!(
            claims,
            [
                26_723_200_000,
                24_265_600_000,
                22_422_400_000,
                22_308_000_000
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
