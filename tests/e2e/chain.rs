//! A model for the real engine that gives the replies it was made for, one after the other: as the demo model does, with any replies in any
//! parser's form, and as slow as a test needs it.

use std::path::Path;

use cclocal::demo::safetensors::{self, Tensor};
use cclocal::demo::tokenizer::Vocabulary;
use serde_json::{Value, json};

use crate::support::Stage;

/// Size of the one attention head. The quantised cache takes groups of 64.
const HEAD: usize = 64;
/// Hidden size of the MLP, which has nothing to do.
const MLP: usize = 8;
const WINDOW: usize = 262_144;
/// The score of a linked token.
const CERTAIN: f32 = 32.0;
/// What it says to a request without tools, and when it has nothing more to say.
const PLAIN: &str = "Nothing more to say.";

/// How a model writes a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Hermes,
    Qwen3Coder,
    Glm47,
    Gemma4,
}

pub const DIALECTS: [Dialect; 4] = [
    Dialect::Hermes,
    Dialect::Qwen3Coder,
    Dialect::Glm47,
    Dialect::Gemma4,
];

impl Dialect {
    /// What its chat template holds, so that the dialect is known.
    fn marks(self) -> &'static str {
        match self {
            Self::Hermes => r#"<tool_call>{"arguments": }</tool_call>"#,
            Self::Qwen3Coder => "<tool_call><function=f><parameter=p></tool_call>",
            Self::Glm47 => "<tool_call>f<arg_key></arg_key><arg_value></arg_value></tool_call>",
            Self::Gemma4 => "<|tool_call>call:f<tool_call|>",
        }
    }

    /// The folder of a model of this dialect.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Hermes => "qwen2-chain",
            Self::Qwen3Coder => "qwen3-coder-chain",
            Self::Glm47 => "glm-4-chain",
            Self::Gemma4 => "gemma-4-chain",
        }
    }

    /// A call as the model writes it. The values are ASCII without the dialect's own marks.
    pub fn call(self, tool: &str, arguments: &[(&str, &str)]) -> String {
        let each = |form: &dyn Fn(&str, &str) -> String| -> String {
            arguments
                .iter()
                .map(|(key, value)| form(key, value))
                .collect()
        };
        match self {
            Self::Hermes => {
                let arguments: serde_json::Map<String, Value> = arguments
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).into()))
                    .collect();
                let call = json!({"name": tool, "arguments": arguments});
                format!("<tool_call>\n{call}\n</tool_call>")
            }
            Self::Qwen3Coder => format!(
                "<tool_call>\n<function={tool}>\n{}</function>\n</tool_call>",
                each(&|key, value| format!("<parameter={key}>\n{value}\n</parameter>\n"))
            ),
            Self::Glm47 => format!(
                "<tool_call>{tool}{}</tool_call>",
                each(&|key, value| format!(
                    "<arg_key>{key}</arg_key><arg_value>{value}</arg_value>"
                ))
            ),
            Self::Gemma4 => {
                let all: Vec<String> = arguments
                    .iter()
                    .map(|(key, value)| format!("{key}:<|\"|>{value}<|\"|>"))
                    .collect();
                format!("<|tool_call>call:{tool}{{{}}}<tool_call|>", all.join(","))
            }
        }
    }
}

/// A model in the making.
pub struct Chain<'a> {
    /// What it says, reply by reply.
    pub replies: &'a [String],
    /// What it says instead if these words were said to it.
    pub rules: &'a [(&'a str, &'a str)],
    /// Bytes of a token, at least.
    pub piece: usize,
    /// Hidden size and vocabulary size, a power of two: what a token costs grows with its square.
    pub width: usize,
    /// In simple mode rather than batched.
    pub simple: bool,
}

impl Default for Chain<'_> {
    fn default() -> Self {
        Self {
            replies: &[],
            rules: &[],
            piece: 6,
            width: 1024,
            simple: false,
        }
    }
}

impl Chain<'_> {
    /// Writes it into the stage, and returns the stage's arguments that serve it.
    pub fn write(&self, stage: &Stage, dialect: Dialect) -> String {
        self.write_to(&stage.path(dialect.folder()), dialect);
        format!("../{}", dialect.folder())
    }

    fn write_to(&self, folder: &Path, dialect: Dialect) {
        let mut vocabulary = Vocabulary::new();
        vocabulary.mark("<|im_start|>");
        let end = vocabulary.mark("<|im_end|>");
        let rules = self.rules.iter().enumerate();
        let rules: Vec<(&str, String, &str)> = rules
            .map(|(number, (words, reply))| (*words, format!("<|rule{number}|>"), *reply))
            .collect();
        let said = self.replies.iter().enumerate();
        let said = said.map(|(number, reply)| (format!("<|reply{number}|>"), reply.as_str()));
        let ruled = rules.iter().map(|(_, mark, reply)| (mark.clone(), *reply));
        let all = std::iter::once(("<|plain|>".to_owned(), PLAIN))
            .chain(ruled)
            .chain(said);
        let mut chains = Vec::new();
        for (mark, reply) in all {
            let mut chain = vec![vocabulary.mark(&mark)];
            chain.extend(vocabulary.cut(reply, self.piece));
            chains.push(chain);
        }
        assert!(
            vocabulary.size() <= self.width,
            "{} tokens",
            vocabulary.size()
        );
        let mut next = vec![end; self.width];
        for pair in chains.iter().flat_map(|chain| chain.windows(2)) {
            next[pair[0]] = pair[1];
        }
        let rules: Vec<[&str; 2]> = rules
            .iter()
            .map(|(words, mark, _)| [*words, mark.as_str()])
            .collect();
        let template = include_str!("chain_template.jinja")
            .replace("MARKS", dialect.marks())
            .replace("REPLIES", &self.replies.len().to_string())
            .replace("RULES", &json!(rules).to_string());
        // A name that the engine takes for llama, and of which we do not know that its cache can be cut back.
        let kind = if self.simple { "iquestcoder" } else { "llama" };
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": kind, "hidden_size": self.width, "num_hidden_layers": 1,
            "intermediate_size": MLP, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": HEAD, "rms_norm_eps": 1e-5,
            "vocab_size": self.width, "rope_theta": 10000.0, "max_position_embeddings": WINDOW, "tie_word_embeddings": false,
            "bos_token_id": null, "eos_token_id": end, "torch_dtype": "float32",
        });
        let tokenizer_config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": WINDOW, "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>", "clean_up_tokenization_spaces": false, "chat_template": template,
        });
        std::fs::create_dir_all(folder).expect("made");
        for (name, content) in [
            ("config.json", config),
            ("generation_config.json", json!({"eos_token_id": end})),
            ("tokenizer.json", vocabulary.tokenizer_json()),
            ("tokenizer_config.json", tokenizer_config),
        ] {
            std::fs::write(folder.join(name), content.to_string()).expect("written");
        }
        let weights = safetensors::encode(&self.tensors(&next));
        std::fs::write(folder.join("model.safetensors"), weights).expect("written");
    }

    /// As of the demo model: rows of a Hadamard matrix, a head that scores each token's successor, and one layer of zeros.
    fn tensors(&self, next: &[usize]) -> Vec<Tensor> {
        let width = self.width;
        let sign = |row: usize, column: usize| {
            if (row & column).count_ones().is_multiple_of(2) {
                1.0
            } else {
                -1.0
            }
        };
        let mut embeddings = Vec::with_capacity(width * width);
        let mut head = vec![0.0_f32; width * width];
        for (token, &successor) in next.iter().enumerate() {
            for column in 0..width {
                embeddings.push(sign(token, column));
                head[successor * width + column] += sign(token, column) * CERTAIN / width as f32;
            }
        }
        let layer = |name: &str| format!("model.layers.0.{name}.weight");
        let zeros = |name: &str, shape: [usize; 2]| Tensor::filled(&layer(name), &shape, 0.0);
        let ones = |name: &str| Tensor::filled(name, &[width], 1.0);
        vec![
            Tensor::new("model.embed_tokens.weight", &[width, width], embeddings),
            Tensor::new("lm_head.weight", &[width, width], head),
            ones("model.norm.weight"),
            ones(&layer("input_layernorm")),
            ones(&layer("post_attention_layernorm")),
            zeros("self_attn.q_proj", [HEAD, width]),
            zeros("self_attn.k_proj", [HEAD, width]),
            zeros("self_attn.v_proj", [HEAD, width]),
            zeros("self_attn.o_proj", [width, HEAD]),
            zeros("mlp.gate_proj", [MLP, width]),
            zeros("mlp.up_proj", [MLP, width]),
            zeros("mlp.down_proj", [width, MLP]),
        ]
    }
}

/// Lines that differ, of about this many bytes in all.
pub fn lines(name: &str, bytes: usize) -> String {
    let mut text = String::new();
    let mut number = 0;
    while text.len() < bytes {
        number += 1;
        text.push_str(&format!("{name} line {number} of a long text.\n"));
    }
    text
}
