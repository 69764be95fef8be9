//! The engine's command line and environment, rendered from what is to be served and what this engine's `serve --help` offers. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::{EngineProfile, Form, Model};
use crate::engine::env;
use crate::engine::flags::Flags;
use crate::memory::plan::{Plan, STEPS};
use crate::memory::{ContextWindow, smallest_window};

/// The output ceiling that we let the engine accept, in tokens. Source: vllm-mlx 0.6.0, default of `--max-request-tokens`.
pub const MAX_OUTPUT_TOKENS: u64 = 32_768;

/// How long the engine may work on one request, in seconds: idle time for a stream, all of it for a plain one. The scripts' 600 s
/// cut off a full window on a slow Mac (64k tokens at 150 tokens/s take 430 s before the first token). It is the gateway that gives up on an
/// engine that stalls (`gateway::Limits`), so this is more than it allows.
const REQUEST_TIMEOUT_SECONDS: u64 = 3_600;

/// How much of a prompt is computed at a time where there is no plan, in tokens. The scripts' 4,096 take up to 10 GB where a model's attention
/// scores are written out (see docs/models.md).
const USUAL_STEP: u64 = 2_048;

/// The share of the memory that is available which the prefix cache may take where there is no plan. Source: the scripts' default.
const USUAL_CACHE: f64 = 0.35;

/// The smallest share of it that an engine is cut down to which ran out of memory.
const LEAST_CACHE: f64 = 0.05;

/// How a model is served: all that the command line and the environment are rendered from, anew at each start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Serve {
    pub model: Model,
    pub window: ContextWindow,
    /// Tokens of a prompt that are computed at a time.
    pub step: u64,
    pub cache: CacheLimit,
    /// All of the model is on this disk, so the engine has no reason to look anything up.
    pub complete: bool,
    /// The hub did not answer before the start: one attempt to download is enough to say so.
    #[serde(default)]
    pub hub_is_silent: bool,
    /// The flags that the engine has.
    pub flags: Flags,
    /// Folder for the text parts of models.
    pub text_models: PathBuf,
    /// Folder for computed prefixes that outlive the engine. None: they don't.
    pub kept_prefixes: Option<PathBuf>,
}

/// The limit of the prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheLimit {
    /// In MiB.
    Planned(u64),
    /// A share of the memory that is available.
    Share(f64),
}

/// How the engine is run. The key is not in here: it is given inside the process (see `engine/bootstrap.py`).
#[derive(Debug, Clone)]
pub struct EngineCommand {
    /// `serve …`, without the program.
    pub argv: Vec<String>,
    /// Variables set on top of the scrubbed environment.
    pub env: BTreeMap<String, String>,
    /// Lines for the user: abilities that this engine lacks.
    pub notices: Vec<String>,
}

impl Serve {
    /// Serves a model: memory is used as planned, or in the usual way where there is no plan.
    pub fn new(model: Model, window: ContextWindow, plan: Option<&Plan>, flags: Flags) -> Self {
        let limit = plan.and_then(|plan| plan.cache_memory_mb);
        let limit = limit.filter(|_| flags.has("--cache-memory-mb"));
        Self {
            model,
            window,
            step: plan.map_or(USUAL_STEP, |plan| plan.prefill_step),
            cache: limit.map_or(CacheLimit::Share(USUAL_CACHE), CacheLimit::Planned),
            complete: false,
            hub_is_silent: false,
            flags,
            text_models: PathBuf::new(),
            kept_prefixes: None,
        }
    }

    /// Whether the engine takes a key. Without one, every program of this machine can use it.
    pub fn takes_key(&self) -> bool {
        self.flags.has("--api-key")
    }

    /// The folder in which the engine keeps what it computed of system prompts and tools, if it does.
    pub fn prefix_folder(&self) -> Option<&PathBuf> {
        (self.kept_prefixes.as_ref()).filter(|_| self.model.engine_profile.is_batched())
    }

    /// Asks for less, for an engine that ran out of memory: prompts are computed in smaller steps, less is kept for later, and the window is narrower,
    /// as far as a session still fits in it. `cache_bytes_per_token`: what the prefix cache's limit gives up with each token. Returns by how many tokens
    /// the window is narrower.
    pub fn make_safer(&mut self, cache_bytes_per_token: u64) -> u64 {
        self.step = (self.step / 2).max(STEPS[0]).min(self.step);
        let smallest = smallest_window(self.window.output).min(self.window.tokens);
        let window = (self.window.tokens / 4 * 3).max(smallest);
        let narrower = self.window.tokens.saturating_sub(window);
        self.cache = match self.cache {
            CacheLimit::Share(share) => CacheLimit::Share((share / 2.0).max(LEAST_CACHE)),
            // Its entry of a full window must still fit into the limit, or each turn is computed anew.
            CacheLimit::Planned(mib) => {
                let given_up = narrower.saturating_mul(cache_bytes_per_token);
                CacheLimit::Planned(mib.saturating_sub(given_up >> 20).max(1))
            }
        };
        self.window.tokens = window;
        narrower
    }

    /// The command for an engine that is told this port.
    pub fn command(&self, port: u16) -> EngineCommand {
        let mut argv = Argv {
            flags: &self.flags,
            argv: vec!["serve".into(), self.model.engine_argument()],
            notices: Vec::new(),
        };
        // Loopback alone, by number: a name could resolve to something else.
        argv.must(
            "--host",
            "127.0.0.1",
            "it could listen on every network interface",
        );
        argv.must("--port", &port.to_string(), "its port cannot be chosen");
        argv.must(
            "--served-model-name",
            &self.model.served_name,
            "Claude Code may be told that the model does not exist",
        );
        if self.model.engine_profile.is_batched() {
            if argv.switch("--continuous-batching") {
                argv.value("--max-num-seqs", "1");
            } else {
                argv.notices
                    .push("this engine has no --continuous-batching: every turn computes the whole conversation again".into());
            }
            // Read by the engine in this mode only.
            argv.prefix_cache(self.cache);
            argv.value("--stream-interval", "4");
        }
        argv.value("--prefill-step-size", &self.step.to_string());
        argv.value(
            "--max-tokens",
            &MAX_OUTPUT_TOKENS.min(self.window.output.max(1)).to_string(),
        );
        argv.value("--max-request-tokens", &MAX_OUTPUT_TOKENS.to_string());
        argv.value("--timeout", &REQUEST_TIMEOUT_SECONDS.to_string());
        argv.tool_calls(self.model.form);
        let kwargs = &self.model.chat_template_kwargs;
        if !kwargs.is_empty() {
            let kwargs = Value::Object(kwargs.clone()).to_string();
            argv.must(
                "--default-chat-template-kwargs",
                &kwargs,
                "thinking cannot be turned off, and thoughts may be taken for tool calls",
            );
        }
        argv.switch("--tool-call-truncation-notice");
        if self.complete || self.hub_is_silent {
            // Else the engine tries three times before it says what is wrong: for 18 s where a file is missing and HF_HUB_OFFLINE is set. Not
            // `--offline`, which asks for every file of the repository, and so fails for a model that the engine itself downloaded without its README.
            argv.value("--download-retries", "1");
        }
        if !self.takes_key() {
            argv.notices.push(
                "this engine has no --api-key: other programs on this machine can use it while it runs"
                    .into(),
            );
        }
        EngineCommand {
            argv: argv.argv,
            env: self.env(),
            notices: argv.notices,
        }
    }

    fn env(&self) -> BTreeMap<String, String> {
        let profile = self.model.engine_profile;
        let mut env = env::fixed();
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        set(env::THINKING, self.model.thinking.to_string());
        if profile == EngineProfile::Simple {
            set(env::ADMISSION, "wait".into());
        }
        if profile == EngineProfile::Text {
            set(env::TEXT_ROUTE, self.text_models.display().to_string());
        }
        if let Some(folder) = self.prefix_folder() {
            set(env::KEPT_PREFIX, folder.display().to_string());
        }
        if self.complete {
            set(env::OFFLINE, "1".into());
        }
        env
    }
}

/// The command line as it grows. A flag that the engine does not have is left out.
struct Argv<'a> {
    flags: &'a Flags,
    argv: Vec<String>,
    notices: Vec<String>,
}

impl Argv<'_> {
    /// A flag without a value. True if the engine has it.
    fn switch(&mut self, flag: &str) -> bool {
        let has = self.flags.has(flag);
        if has {
            self.argv.push(flag.into());
        }
        has
    }

    /// A flag with a value. True if the engine has it.
    fn value(&mut self, flag: &str, value: &str) -> bool {
        let has = self.flags.has(flag);
        if has {
            self.argv.extend([flag.into(), value.into()]);
        }
        has
    }

    /// A flag whose absence the user has to know of.
    fn must(&mut self, flag: &str, value: &str, otherwise: &str) {
        if !self.value(flag, value) {
            self.notices
                .push(format!("this engine has no {flag}: {otherwise}"));
        }
    }

    /// How much the prefix cache may hold.
    fn prefix_cache(&mut self, limit: CacheLimit) {
        match limit {
            CacheLimit::Planned(mib) => self.value("--cache-memory-mb", &mib.to_string()),
            CacheLimit::Share(share) => {
                self.value("--cache-memory-percent", &format!("{share:.2}"))
            }
        };
    }

    /// The engine's own parser, for an engine that does not hand over what the model wrote.
    fn tool_calls(&mut self, form: Option<Form>) {
        let parser = form.map_or("auto", Form::engine_parser);
        let parser = if self.flags.has_choice("--tool-call-parser", parser) {
            parser
        } else {
            self.notices.push(format!(
                "this engine has no tool-call parser {parser}: using auto, so earlier tool calls are shown to the model as text"
            ));
            "auto"
        };
        if !(self.switch("--enable-auto-tool-choice") && self.value("--tool-call-parser", parser)) {
            self.notices.push(
                "this engine cannot be told to parse tool calls: Claude Code may see them as text"
                    .into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Choice, resolve};
    use crate::memory::Asked;
    use crate::memory::WeightsSource;
    use crate::memory::plan::Planner;
    use crate::memory::working::Device;

    fn served(model: Model, plan: Option<&Plan>, flags: &Flags, complete: bool) -> Serve {
        let window = plan.map_or(Asked::default().or(65_536), |plan| plan.window);
        Serve {
            complete,
            text_models: "/data/text-models".into(),
            kept_prefixes: Some("/cache/prefixes".into()),
            ..Serve::new(model, window, plan, flags.clone())
        }
    }

    fn model(flag: &str) -> Model {
        resolve(&Choice::Flag(flag.into()), None).expect("a model")
    }

    fn planned(flag: &str, flags: &Flags, complete: bool) -> EngineCommand {
        served(model(flag), None, flags, complete).command(0)
    }

    #[test]
    fn a_trimmable_model_is_batched_one_at_a_time() {
        let plan = planned("coder", &Flags::of_pinned_engine(), true);
        insta::assert_snapshot!(plan.argv.join(" "), @r#"serve mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit --host 127.0.0.1 --port 0 --served-model-name mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit --continuous-batching --max-num-seqs 1 --cache-memory-percent 0.35 --stream-interval 4 --prefill-step-size 2048 --max-tokens 8192 --max-request-tokens 32768 --timeout 3600 --enable-auto-tool-choice --tool-call-parser qwen3_coder --default-chat-template-kwargs {"enable_thinking":false} --download-retries 1"#);
        assert_eq!(
            plan.env.get("HF_HUB_OFFLINE").map(String::as_str),
            Some("1")
        );
        assert!(
            !plan
                .env
                .contains_key("VLLM_MLX_SIMPLE_ENGINE_LOCK_ADMISSION")
        );
        assert_eq!(plan.notices, Vec::<String>::new());
    }

    #[test]
    fn memory_is_used_as_planned() {
        let model = model("coder");
        let weights = (18_000_000_000, WeightsSource::Catalog);
        let planner = Planner::of(&model, None, weights, Device::Metal, Asked::default());
        let flags = |plan: &Plan, flags: &Flags| {
            let argv = served(model.clone(), Some(plan), flags, true)
                .command(0)
                .argv;
            let from = argv.iter().position(|word| word.contains("cache"));
            let to = argv.iter().position(|word| word == "--max-request-tokens");
            argv[from.expect("a flag")..to.expect("a flag")].join(" ")
        };
        let pinned = Flags::of_pinned_engine();
        let tight = planner.on(31 << 30).expect("a plan");
        let words = flags(&tight, &pinned);
        assert_eq!(
            words,
            format!(
                "--cache-memory-mb {} --stream-interval 4 --prefill-step-size {} --max-tokens {}",
                tight.cache_memory_mb.expect("a limit"),
                tight.prefill_step,
                tight.window.output
            )
        );
        let ample = planner.on(200 << 30).expect("a plan");
        let words = flags(&ample, &pinned);
        let limit = format!(
            "--cache-memory-mb {} --stream-interval 4 ",
            ample.cache_memory_mb.expect("a limit")
        );
        assert!(words.starts_with(&limit), "{words}");
        let help = "usage: serve [--cache-memory-percent P] [--continuous-batching] [--max-request-tokens N]";
        assert_eq!(
            flags(&ample, &Flags::from_help(help)),
            "--cache-memory-percent 0.35"
        );
    }

    #[test]
    fn the_default_model_is_served_by_its_text_part() {
        let plan = planned("gemma-light", &Flags::of_pinned_engine(), false);
        insta::assert_snapshot!(plan.argv.join(" "), @r#"serve mlx-community/gemma-4-e4b-it-4bit --host 127.0.0.1 --port 0 --served-model-name mlx-community/gemma-4-e4b-it-4bit --continuous-batching --max-num-seqs 1 --cache-memory-percent 0.35 --stream-interval 4 --prefill-step-size 2048 --max-tokens 8192 --max-request-tokens 32768 --timeout 3600 --enable-auto-tool-choice --tool-call-parser gemma4 --default-chat-template-kwargs {"enable_thinking":false}"#);
        assert_eq!(
            plan.env.get("CCLOCAL_TEXT_ROUTE").map(String::as_str),
            Some("/data/text-models")
        );
        assert_eq!(
            plan.env.get("CCLOCAL_KEPT_PREFIX").map(String::as_str),
            Some("/cache/prefixes")
        );
        assert!(!plan.env.contains_key("HF_HUB_OFFLINE"));
    }

    #[test]
    fn a_whole_model_waits_its_turn_in_simple_mode() {
        let plan = served(
            model("gemma").whole(),
            None,
            &Flags::of_pinned_engine(),
            true,
        )
        .command(0);
        assert_eq!(
            plan.env
                .get("VLLM_MLX_SIMPLE_ENGINE_LOCK_ADMISSION")
                .map(String::as_str),
            Some("wait")
        );
        assert!(!plan.env.contains_key("CCLOCAL_TEXT_ROUTE"));
        assert!(!plan.env.contains_key("CCLOCAL_KEPT_PREFIX"));
        assert!(!plan.argv.contains(&"--continuous-batching".to_owned()));
    }

    #[test]
    fn only_what_the_engine_has_is_passed_and_what_is_missed_is_said() {
        let help = "usage: serve [--host HOST] [--port PORT] [--tool-call-truncation-notice]\n  --enable-auto-tool-choice\n  --tool-call-parser {auto,hermes}\n";
        let serve = served(model("gemma"), None, &Flags::from_help(help), false);
        let plan = serve.command(0);
        insta::assert_snapshot!(plan.argv.join(" "), @"serve mlx-community/gemma-4-26b-a4b-it-4bit --host 127.0.0.1 --port 0 --enable-auto-tool-choice --tool-call-parser auto --tool-call-truncation-notice");
        insta::assert_snapshot!(plan.notices.join("\n"), @"
        this engine has no --served-model-name: Claude Code may be told that the model does not exist
        this engine has no --continuous-batching: every turn computes the whole conversation again
        this engine has no tool-call parser gemma4: using auto, so earlier tool calls are shown to the model as text
        this engine has no --default-chat-template-kwargs: thinking cannot be turned off, and thoughts may be taken for tool calls
        this engine has no --api-key: other programs on this machine can use it while it runs
        ");
        assert!(!serve.takes_key());
    }
}
