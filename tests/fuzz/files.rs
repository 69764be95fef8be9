//! Files: a model's, settings, records of our own, and what goes over our socket.

use std::fs;
use std::path::Path;

use cclocal::catalog::template;
use cclocal::claude::setting_keys;
use cclocal::claude::{node_options, settings_files};
use cclocal::hub::{self, scan};
use cclocal::memory::Asked;
use cclocal::memory::WeightsSource;
use cclocal::memory::architecture::Architecture;
use cclocal::memory::gpu_limit;
use cclocal::memory::plan::Planner;
use cclocal::memory::working::Device;
use cclocal::supervisor::protocol::{SessionMessage, SupervisorMessage, SupervisorRequest};
use cclocal::supervisor::spec::Spec;
use cclocal::sys::environment::Environment;
use cclocal::sys::paths::Paths;
use cclocal::{catalog, engine};
use proptest::prelude::*;
use serde_json::Value;

use crate::made_up::{config, nearly, value};

const NAMES: &[&str] = &[
    "model_type",
    "architectures",
    "text_config",
    "vision_config",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "layer_types",
    "sliding_window",
    "sliding_window_pattern",
    "intermediate_size",
    "num_experts",
    "moe_intermediate_size",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "full_attention_interval",
    "num_kv_shared_layers",
    "quantization",
    "torch_dtype",
    "dtype",
    "first_k_dense_replace",
    "rope_scaling",
    "global_head_dim",
];

const VALUES: &[&str] = &[
    "llama",
    "qwen3",
    "qwen3_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_next",
    "gemma4",
    "gemma4_text",
    "glm4_moe_lite",
    "gpt_oss",
    "mistral3",
    "deepseek_v3",
    "full_attention",
    "sliding_attention",
    "linear_attention",
    "bfloat16",
    "float32",
];

/// Configurations of models, as a model of any size may have them.
fn configs() -> Vec<Vec<u8>> {
    [
        r#"{"model_type":"llama","hidden_size":2048,"num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072}"#,
        r#"{"model_type":"gemma4","text_config":{"model_type":"gemma4_text","hidden_size":2560,"num_hidden_layers":6,"num_attention_heads":8,"num_key_value_heads":4,"head_dim":256,"global_head_dim":512,"sliding_window":512,"layer_types":["sliding_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention"],"vocab_size":262144},"vision_config":{}}"#,
        r#"{"model_type":"glm4_moe_lite","hidden_size":2048,"num_hidden_layers":47,"num_attention_heads":20,"kv_lora_rank":512,"qk_rope_head_dim":64,"qk_nope_head_dim":192,"v_head_dim":256,"moe_intermediate_size":1536,"num_experts_per_tok":4,"vocab_size":154880}"#,
        r#"{"model_type":"qwen3_5_moe","text_config":{"hidden_size":2048,"num_hidden_layers":8,"full_attention_interval":4,"linear_num_key_heads":16,"linear_num_value_heads":32,"linear_key_head_dim":128,"linear_value_head_dim":128,"linear_conv_kernel_dim":4,"num_attention_heads":16,"num_key_value_heads":2,"head_dim":256,"vocab_size":248320}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A plan on any budget is one, or is refused.
fn plan(config: &Value, weights: u64, budget: u64, asked: Asked) {
    let _ = Architecture::of(config);
    for id in ["org/any", "mlx-community/gemma-4-e4b-it-4bit"] {
        let choice = catalog::Choice::Argument(catalog::ModelArgument::Hub(id.into()));
        let Some(model) = catalog::resolve(&choice, Some(config)) else {
            continue;
        };
        let weights = (weights, WeightsSource::Disk);
        for device in [Device::Metal, Device::Other] {
            let _ = Planner::of(&model, Some(config), weights, device, asked).on(budget);
        }
    }
}

/// Asked for within what the command line takes, or not at all.
fn asked() -> impl Strategy<Value = Asked> {
    let tokens = || prop::option::of(1..10_000_000_u64);
    (tokens(), tokens()).prop_map(|(window, output)| Asked { window, output })
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_models_configuration(bytes in nearly(configs()), weights in any::<u64>(), budget in any::<u64>(), asked in asked()) {
        if let Ok(config) = serde_json::from_slice(&bytes) {
            plan(&config, weights, budget, asked);
        }
    }

    #[test]
    fn a_configuration_of_any_shape(config in value(NAMES, VALUES), weights in 0..1_u64 << 45, budget in 0..1_u64 << 45, asked in asked()) {
        plan(&config, weights, budget, asked);
    }

    #[test]
    fn a_chat_template(text in nearly(vec![
        br#"{% if tools %}{{ '<tool_call>\n{"name": <f>}\n</tool_call>' }}{# a comment #}{% endif %}{% if enable_thinking %}<think>{% endif %}"#.to_vec(),
        br#"{"chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "tool_use", "template": "[TOOL_CALLS] tools"}]}"#.to_vec(),
        br#"{"chat_template": {"default": "x", "tool_use": "<|channel|>"}, "chat_template_type": "x"}"#.to_vec(),
    ])) {
        let text = String::from_utf8_lossy(&text).into_owned();
        let _ = template::traits(&text);
        for file in template::FILES {
            let _ = template::read(|name| (name == file).then(|| text.clone()));
        }
    }

    #[test]
    fn words_of_programs(text in nearly(vec![
        b"[cclocal] patch memory: not applied (x)\nINFO: started\n\x1b[31mred\x1b[0m 10%\r100%\n".to_vec(),
        b"usage: serve [-h] [--port PORT]\n  --tool-call-parser {auto,qwen3.5,\n   hermes}\n".to_vec(),
    ])) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        fs::write(&log, text.as_slice()).expect("written");
        let _ = (cclocal::sys::log::tail(&log), engine::patches::lacking(&log), engine::exit_reason::last_words(&log));
        let text = String::from_utf8_lossy(&text);
        let _ = engine::flags::Flags::from_help(&text);
        let shown = cclocal::escape::visible(&text);
        prop_assert!(!shown.contains(char::is_control));
    }

    #[test]
    fn options_of_node(options in r#"(--(inspect|debug|require|title)(-brk)?(=[a-z"\\ ]{0,4})?| |"|\\|[a-z]){0,12}"#) {
        if let Some(kept) = node_options::without_debugger(&options) {
            prop_assert!(!kept.contains("--inspect") && !kept.contains("--debug"), "{}", kept);
            prop_assert!(kept.len() <= options.len());
        }
    }

    #[test]
    fn folders_of_the_hub(path in r#"(~|/|\$|\{|\}|HOME|HF|[a-z_]|é){0,12}"#) {
        let host = Environment::for_tests(Path::new("/home/u"), &[("HOME", "/home/u"), ("HF", "$HOME")]);
        prop_assert!(host.expand(&path).is_absolute());
    }

    #[test]
    fn words_over_the_socket(line in nearly(vec![
        br#"{"ask":"lease","protocol":2,"pid":1,"linger":{"secs":300,"nanos":0},"web_search":null}"#.to_vec(),
        br#"{"ask":"stop","even_if_used":true}"#.to_vec(),
        br#"{"say":"leave","linger":{"secs":18446744073709551615,"nanos":999999999}}"#.to_vec(),
        br#"{"say":"client","pid":-1,"group":2147483647}"#.to_vec(),
        br#"{"tell":"failed","exit":14,"message":"x","cause":null,"hint":null,"detail":[]}"#.to_vec(),
        br#"{"tell":"ready","took":"1 s","lacking":["x"]}"#.to_vec(),
        br#"{"port":{"from":8000},"argv":[],"env":{},"takes_key":true}"#.to_vec(),
    ])) {
        let _ = serde_json::from_slice::<SupervisorRequest>(&line);
        let _ = serde_json::from_slice::<SessionMessage>(&line);
        let _ = serde_json::from_slice::<SupervisorMessage>(&line);
        let _ = serde_json::from_slice::<Spec>(&line);
    }
}

proptest! {
    // Each takes some files.
    #![proptest_config(proptest::test_runner::Config { cases: config().cases.div_ceil(8), ..config() })]

    #[test]
    fn a_models_folder(
        reference in nearly(vec![b"abc\n".to_vec()]),
        model_config in nearly(configs()),
        index in nearly(vec![br#"{"metadata":{"total_size":1},"weight_map":{"a.weight":"model-1.safetensors","b":"model-2.safetensors"}}"#.to_vec()]),
        tokenizer in nearly(vec![br#"{"chat_template":"<tool_call></tool_call> tools"}"#.to_vec()]),
    ) {
        let home = tempfile::tempdir().expect("a folder");
        let folder = hub::model_folder(home.path(), "org/name");
        write(&folder.join("refs/main"), &reference);
        for (name, bytes) in [
            ("config.json", &model_config),
            ("model.safetensors.index.json", &index),
            ("tokenizer_config.json", &tokenizer),
        ] {
            write(&folder.join("snapshots/abc").join(name), bytes);
        }
        write(&folder.join("snapshots/abc/tokenizer.json"), b"{}");
        let models = scan::scan(home.path()).expect("scanned");
        prop_assert_eq!(models.len(), 1);
        prop_assert!(models[0].bytes < 1 << 20);
        let _ = (hub::cached(home.path(), "org/name"), hub::config(home.path(), "org/name"));
        let _ = (hub::template(home.path(), "org/name"), hub::settled_files(home.path(), "org/name"));
        let _ = hub::check_cached_files(home.path(), "org/name");
    }

    #[test]
    fn settings_and_records(
        settings in nearly(vec![
            br#"{"env":{"ANTHROPIC_BASE_URL":"http://x"},"hooks":{"Stop":[{"hooks":[{"type":"http","url":"http://x"}]}]},"permissions":{"allow":["Bash"]}}"#.to_vec(),
            b"\xef\xbb\xbf{}".to_vec(),
            b"\xff\xfe{\0}\0".to_vec(),
            b"gitdir: /x/.git/worktrees/w\n".to_vec(),
        ]),
        record in nearly(vec![br#"{"lock":"x","environment":"/x/envs/one","engine":"0.6.0","python":"3.12.1"}"#.to_vec(), br#"{"original":0,"raised":22000}"#.to_vec()]),
    ) {
        let home = tempfile::tempdir().expect("a folder");
        let host = Environment::for_tests(home.path(), &[]);
        for name in [".claude/settings.json", ".claude/settings.local.json", ".git"] {
            write(&home.path().join(name), &settings);
        }
        for file in settings_files::read(&host, false).unwrap_or_default() {
            if let Some(read) = file.settings() {
                let _ = setting_keys::sanitized(read);
            }
        }
        let paths = Paths::of(&host);
        write(&paths.engine().join("current.json"), &record);
        write(&paths.state.join("gpu-limit.json"), &record);
        let _ = engine::install::status(&paths);
        let _ = gpu_limit::find(&host, &paths);
    }
}
