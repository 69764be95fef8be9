//! The engine's command line and environment, from the model and what this engine's `serve --help` offers. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::catalog::{EngineProfile, Form, Model};
use crate::engine::env;
use crate::engine::flags::Flags;
use crate::memory::plan::Plan;

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
const USUAL_CACHE: &str = "0.35";

/// Facts that the engine's command line is made from.
pub struct Inputs<'a> {
    pub model: &'a Model,
    /// In tokens.
    pub output_tokens: u64,
    /// The plan of memory. None: too little is known of the model or the machine.
    pub plan: Option<&'a Plan>,
    /// All of the model is on this disk, so the engine has no reason to look anything up.
    pub complete: bool,
    pub flags: &'a Flags,
    /// Folder for the text parts of models.
    pub text_models: &'a Path,
    /// Folder for computed prefixes that outlive the engine. None: they don't.
    pub kept_prefixes: Option<&'a Path>,
}

/// How the engine is run. The key is not in here: it is given inside the process (see `engine/bootstrap.py`).
#[derive(Debug, Clone, Serialize)]
pub struct EnginePlan {
    /// `serve …`, without the program.
    pub argv: Vec<String>,
    /// Variables set on top of the scrubbed environment.
    pub env: BTreeMap<String, String>,
    /// Lines for the user: abilities that this engine lacks.
    pub notices: Vec<String>,
    /// Whether the engine takes a key. Without one, every program of this machine can use it.
    pub takes_key: bool,
}

/// Plans the engine's run.
pub fn plan(inputs: &Inputs) -> EnginePlan {
    let mut argv = Argv {
        flags: inputs.flags,
        argv: vec!["serve".into(), inputs.model.engine_argument()],
        notices: Vec::new(),
    };
    // Loopback alone, by number: a name could resolve to something else.
    argv.must(
        "--host",
        "127.0.0.1",
        "it could listen on every network interface",
    );
    // Behind the gateway, on a port that is chosen at each start: this one stands for it.
    argv.must("--port", "0", "its port cannot be chosen");
    argv.must(
        "--served-model-name",
        &inputs.model.served_name,
        "Claude Code may be told that the model does not exist",
    );
    if inputs.model.engine_profile.is_batched() {
        if argv.switch("--continuous-batching") {
            argv.value("--max-num-seqs", "1");
        } else {
            argv.notices
                .push("this engine has no --continuous-batching: every turn computes the whole conversation again".into());
        }
        // Read by the engine in this mode only.
        argv.prefix_cache(inputs.plan);
        argv.value("--stream-interval", "4");
    }
    let step = inputs.plan.map_or(USUAL_STEP, |plan| plan.prefill_step);
    argv.value("--prefill-step-size", &step.to_string());
    argv.value(
        "--max-tokens",
        &MAX_OUTPUT_TOKENS
            .min(inputs.output_tokens.max(1))
            .to_string(),
    );
    argv.value("--max-request-tokens", &MAX_OUTPUT_TOKENS.to_string());
    argv.value("--timeout", &REQUEST_TIMEOUT_SECONDS.to_string());
    argv.tool_calls(inputs.model.form);
    let kwargs = &inputs.model.chat_template_kwargs;
    if !kwargs.is_empty() {
        let kwargs = Value::Object(kwargs.clone()).to_string();
        argv.must(
            "--default-chat-template-kwargs",
            &kwargs,
            "thinking cannot be turned off, and thoughts may be taken for tool calls",
        );
    }
    argv.switch("--tool-call-truncation-notice");
    if inputs.complete {
        // Beside HF_HUB_OFFLINE: else the engine tries three times, for 18 s, before it says that a file is missing. Not `--offline`, which
        // asks for every file of the repository, and so fails for a model that the engine itself downloaded without its README.
        argv.value("--download-retries", "1");
    }
    let takes_key = inputs.flags.has("--api-key");
    if !takes_key {
        argv.notices.push(
            "this engine has no --api-key: other programs on this machine can use it while it runs"
                .into(),
        );
    }

    let profile = inputs.model.engine_profile;
    let mut env = env::fixed();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set(env::THINKING, inputs.model.thinking.to_string());
    if profile == EngineProfile::Simple {
        set(env::ADMISSION, "wait".into());
    }
    if profile == EngineProfile::Text {
        set(env::TEXT_ROUTE, inputs.text_models.display().to_string());
    }
    if let Some(folder) = inputs.kept_prefixes.filter(|_| profile.is_batched()) {
        set(env::KEPT_PREFIX, folder.display().to_string());
    }
    if inputs.complete {
        set(env::OFFLINE, "1".into());
    }
    EnginePlan {
        argv: argv.argv,
        env,
        notices: argv.notices,
        takes_key,
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

    /// How much the prefix cache may hold, and how.
    fn prefix_cache(&mut self, plan: Option<&Plan>) {
        let limit = plan.and_then(|plan| plan.cache_memory_mb);
        if !limit.is_some_and(|mib| self.value("--cache-memory-mb", &mib.to_string())) {
            self.value("--cache-memory-percent", USUAL_CACHE);
        }
        if plan.is_none_or(|plan| plan.quantise) {
            self.switch("--kv-cache-quantization");
        }
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
    use crate::memory::WeightsSource;
    use crate::memory::plan::Asked;
    use crate::memory::planner::Planner;
    use crate::memory::working::Device;

    fn planned(flag: &str, flags: &Flags, complete: bool) -> EnginePlan {
        let model = resolve(&Choice::Flag(flag.into()), None).expect("a model");
        plan(&Inputs {
            model: &model,
            output_tokens: 8192,
            plan: None,
            complete,
            flags,
            text_models: Path::new("/data/text-models"),
            kept_prefixes: Some(Path::new("/cache/prefixes")),
        })
    }

    #[test]
    fn a_trimmable_model_is_batched_one_at_a_time() {
        let plan = planned("coder", &Flags::of_pinned_engine(), true);
        insta::assert_snapshot!(plan.argv.join(" "), @r#"serve mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit --host 127.0.0.1 --port 0 --served-model-name mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit --continuous-batching --max-num-seqs 1 --cache-memory-percent 0.35 --kv-cache-quantization --stream-interval 4 --prefill-step-size 2048 --max-tokens 8192 --max-request-tokens 32768 --timeout 3600 --enable-auto-tool-choice --tool-call-parser qwen3_coder --default-chat-template-kwargs {"enable_thinking":false} --download-retries 1"#);
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
        let model = resolve(&Choice::Flag("coder".into()), None).expect("a model");
        let weights = (18_000_000_000, WeightsSource::Catalog);
        let planner = Planner::of(&model, None, weights, Device::Metal, Asked::default());
        let planner = planner.expect("known");
        let flags = |plan: &Plan, flags: &Flags| {
            let argv = crate::engine::argv::plan(&Inputs {
                model: &model,
                output_tokens: plan.output_tokens,
                plan: Some(plan),
                complete: true,
                flags,
                text_models: Path::new("/data/text-models"),
                kept_prefixes: Some(Path::new("/cache/prefixes")),
            })
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
                "--cache-memory-mb {} --kv-cache-quantization --stream-interval 4 --prefill-step-size {} --max-tokens {}",
                tight.cache_memory_mb.expect("a limit"),
                tight.prefill_step,
                tight.output_tokens
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
        insta::assert_snapshot!(plan.argv.join(" "), @r#"serve mlx-community/gemma-4-e4b-it-4bit --host 127.0.0.1 --port 0 --served-model-name mlx-community/gemma-4-e4b-it-4bit --continuous-batching --max-num-seqs 1 --cache-memory-percent 0.35 --kv-cache-quantization --stream-interval 4 --prefill-step-size 2048 --max-tokens 8192 --max-request-tokens 32768 --timeout 3600 --enable-auto-tool-choice --tool-call-parser gemma4 --default-chat-template-kwargs {"enable_thinking":false}"#);
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
        let model = resolve(&Choice::Flag("gemma".into()), None).expect("a model");
        let plan = plan(&Inputs {
            model: &model.whole(),
            output_tokens: 8192,
            plan: None,
            complete: true,
            flags: &Flags::of_pinned_engine(),
            text_models: Path::new("/data/text-models"),
            kept_prefixes: Some(Path::new("/cache/prefixes")),
        });
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
        let plan = planned("gemma", &Flags::from_help(help), false);
        insta::assert_snapshot!(plan.argv.join(" "), @"serve mlx-community/gemma-4-26b-a4b-it-4bit --host 127.0.0.1 --port 0 --enable-auto-tool-choice --tool-call-parser auto --tool-call-truncation-notice");
        insta::assert_snapshot!(plan.notices.join("\n"), @"
        this engine has no --served-model-name: Claude Code may be told that the model does not exist
        this engine has no --continuous-batching: every turn computes the whole conversation again
        this engine has no tool-call parser gemma4: using auto, so earlier tool calls are shown to the model as text
        this engine has no --default-chat-template-kwargs: thinking cannot be turned off, and thoughts may be taken for tool calls
        this engine has no --api-key: other programs on this machine can use it while it runs
        ");
        assert!(!plan.takes_key);
    }
}
