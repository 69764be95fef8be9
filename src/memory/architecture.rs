//! A model's layers, and how each keeps what it has read: they decide how much memory it takes beside its weights.
//!
//! The engine's own code is what counts here, not the model card: mlx-lm 0.31.3, `mlx_lm/models/`.
//!
//! A model whose `config.json` does not tell its layers is planned as a general one ([`Architecture::general`]), which is cautious: every layer attends
//! to all and shares nothing, so it keeps every token; its feed-forward part is dense; where heads are told and those for keys and values are not, each
//! keeps its own. Numbers that the file does tell are taken. It is as deep and wide as its weights are for a model of 4 bits, with the keys and values of
//! Qwen3-Coder-30B-A3B at that size: 6 GB for a conversation of 64k tokens. The window is not planned wider than that unasked.

mod reader;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use self::reader::Reader;

/// Bytes of one number of a cache or an activation. The models of the catalogue compute in bfloat16, whatever their weights are stored as.
const HALF: u64 = 2;

/// More layers than any model has: a file that says more is not believed, as each takes memory of ours.
const MOST_LAYERS: u64 = 4096;

/// A model's layers, and the sizes that working memory follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// The width of the stream between layers, in numbers.
    pub hidden: u64,
    /// Numbers in one row of logits.
    pub vocabulary: u64,
    /// The longest context that the model was made for, in tokens, if its configuration says so.
    pub longest_context: Option<u64>,
    /// Bytes of one number of a cache or an activation.
    pub number: u64,
    pub layers: Vec<Layer>,
    pub knowledge: Knowledge,
}

/// How well a model's layers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// This kind's layout in the engine was looked at.
    Kind,
    /// Its configuration tells them; the kind is taken for the ordinary one.
    Told,
    /// They are guessed from its weights' size.
    Guessed,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub attention: Attention,
    pub feed_forward: FeedForward,
}

/// How a layer attends, and so what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Keys and values of every token. Where the model makes values from keys (K = V), the engine keeps both all the same.
    Full(Heads),
    /// Keys and values of the last tokens.
    Sliding { heads: Heads, window: u64 },
    /// Multi-head latent attention: one compressed row for each token, from which the keys and values of all heads are made anew in each step.
    Latent {
        query_heads: u64,
        /// `kv_lora_rank`.
        rank: u64,
        /// `qk_rope_head_dim`.
        rope: u64,
        /// `qk_nope_head_dim`.
        nope: u64,
        /// `v_head_dim`.
        value: u64,
    },
    /// Gated delta rule: a state of one size, whatever was read.
    Linear {
        key_heads: u64,
        value_heads: u64,
        key_dim: u64,
        value_dim: u64,
        /// Tokens that the convolution looks at.
        kernel: u64,
    },
    /// The keys and values of an earlier layer, so none of its own. With the window of that layer, if it has one.
    Shared { heads: Heads, window: Option<u64> },
}

/// The heads of an ordinary attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub query: u64,
    pub key_value: u64,
    /// Numbers in each.
    pub dim: u64,
}

/// What follows the attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedForward {
    /// Width of the part that every token passes, 0 if there is none.
    pub dense: u64,
    /// Experts that each token passes.
    pub chosen: u64,
    /// Width of one expert.
    pub expert: u64,
}

impl Architecture {
    /// Reads a `config.json`, the nested text part of a multimodal one too. None: it does not say enough.
    pub fn of(config: &Value) -> Option<Self> {
        let text = config
            .get("text_config")
            .filter(|text| text.is_object())
            .unwrap_or(config);
        let read = Reader { text };
        let model_type = text
            .get("model_type")
            .or(config.get("model_type"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let count = (read.number("num_hidden_layers")).filter(|count| *count <= MOST_LAYERS)?;
        let layer = match model_type {
            _ if model_type.starts_with("gemma4") => Reader::gemma4,
            _ if model_type.starts_with("qwen3_5") || model_type == "qwen3_next" => Reader::hybrid,
            "glm4_moe_lite" => Reader::latent,
            _ => Reader::ordinary,
        };
        let layers = (0..count)
            .map(|index| {
                Some(Layer {
                    attention: layer(&read, index)?,
                    feed_forward: read.feed_forward(index)?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let single = ["torch_dtype", "dtype"].iter().any(|key| {
            let named = text.get(*key).or(config.get(*key));
            named.and_then(Value::as_str) == Some("float32")
        });
        Some(Self {
            hidden: read.number("hidden_size")?,
            vocabulary: read.number("vocab_size")?,
            longest_context: text.get("max_position_embeddings").and_then(Value::as_u64),
            number: if single { 2 * HALF } else { HALF },
            layers,
            knowledge: match is_known(model_type) {
                true => Knowledge::Kind,
                false => Knowledge::Told,
            },
        })
    }
}

impl Architecture {
    /// Whether there are layers that keep the last tokens alone.
    pub fn slides(&self) -> bool {
        self.layers
            .iter()
            .any(|layer| matches!(layer.attention, Attention::Sliding { .. }))
    }
}

/// Model types whose layout in the engine was looked at. Those that an end-to-end test measures are marked in `tests/e2e/models/architectures.json`.
fn is_known(model_type: &str) -> bool {
    matches!(
        model_type,
        "llama"
            | "mistral"
            | "qwen2"
            | "qwen3"
            | "qwen3_moe"
            | "glm4_moe_lite"
            | "qwen3_5"
            | "qwen3_5_text"
            | "gemma4"
            | "gemma4_text"
    )
}

/// Bytes of one weight of a model in 4 bits, with its scales, times the weights of a layer for each of its width squared: attention and a feed-forward part
/// of the usual widths have 12.
const LAYER_BYTES: f64 = 12.0 * 0.5625;

/// Width of the stream for each layer. Llama and Qwen of 7 to 32 billion weights: 100 to 128.
const WIDTH_PER_LAYER: u64 = 128;

/// Numbers in a head, and heads with keys and values, of most models.
const HEAD: u64 = 128;
const KEY_VALUE_HEADS: u64 = 4;

/// More layers than are guessed.
const MOST_GUESSED: u64 = 128;

/// The largest vocabulary of the catalogue, and more: Gemma's.
const VOCABULARY: u64 = 262_144;

impl Architecture {
    /// The layers of a model, and whether they are only estimated: from its own `config.json` if that says enough, else as known of a model of the
    /// catalogue, else guessed from what little is told. `weights`: in bytes.
    pub fn of_model(id: &str, config: Option<&Value>, weights: u64) -> (Self, bool) {
        if let Some(read) = config.and_then(Self::of) {
            let estimated = read.knowledge != Knowledge::Kind;
            return (read, estimated);
        }
        let known = known(id).and_then(|known| Some((Self::of(&known.config)?, !known.certain)));
        known.unwrap_or_else(|| (Self::general(config, weights), true))
    }

    /// A general model with weights of so many bytes (see the module's own words).
    pub fn general(config: Option<&Value>, weights: u64) -> Self {
        let parts = ["text_config", "llm_config", "language_config"];
        let nested = |config: &Value| {
            let mut parts = parts.iter().filter_map(|part| config.get(*part));
            parts.find(|part| part.is_object()).cloned()
        };
        let text = config.map_or(Value::Null, |config| {
            nested(config).unwrap_or(config.clone())
        });
        let read = Reader { text: &text };
        let told = |names: &[&str]| {
            let mut numbers = names.iter().filter_map(|name| read.number(name));
            numbers.find(|number| *number > 0)
        };
        let width = (weights as f64 * WIDTH_PER_LAYER as f64 / LAYER_BYTES).cbrt() as u64;
        let width = width.next_multiple_of(WIDTH_PER_LAYER).max(WIDTH_PER_LAYER);
        let hidden = told(&["hidden_size", "n_embd", "d_model", "dim"]).unwrap_or(width);
        let layers = told(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"])
            .filter(|count| *count <= MOST_LAYERS)
            .unwrap_or((width / WIDTH_PER_LAYER).min(MOST_GUESSED));
        let heads = told(&["num_attention_heads", "n_head", "n_heads"]);
        let query = heads.unwrap_or((hidden / HEAD).max(1));
        let key_value = told(&["num_key_value_heads", "n_kv_heads"])
            .or(heads)
            .unwrap_or(query.min(KEY_VALUE_HEADS));
        let dim = told(&["head_dim"]).unwrap_or(HEAD.min(hidden));
        let dense = told(&["intermediate_size", "n_inner", "ffn_dim"]).unwrap_or(4 * hidden);
        let layer = Layer {
            attention: Attention::Full(Heads {
                query,
                key_value,
                dim,
            }),
            feed_forward: FeedForward {
                dense,
                chosen: 0,
                expert: 0,
            },
        };
        let contexts = ["max_position_embeddings", "n_positions"];
        let mut contexts = contexts.iter().filter_map(|name| text.get(*name)?.as_u64());
        Self {
            hidden,
            vocabulary: told(&["vocab_size"]).unwrap_or(VOCABULARY),
            longest_context: contexts.next(),
            number: HALF,
            layers: (0..layers).map(|_| layer).collect(),
            knowledge: Knowledge::Guessed,
        }
    }
}

/// What is known of a model of the catalogue without its files, so that there are plans before anything is downloaded: `architectures.json`, embedded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Whether at least two independent sources agree on all that decides the size of its cache.
    pub certain: bool,
    /// Where the values come from.
    pub source: String,
    /// The part of its `config.json` that matters here.
    pub config: Value,
}

/// What is known of the model of a hub id. The hub does not tell upper from lower case.
pub fn known(id: &str) -> Option<&'static Known> {
    all()
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(id))
        .map(|(_, known)| known)
}

fn all() -> &'static BTreeMap<String, Known> {
    static ALL: OnceLock<BTreeMap<String, Known>> = OnceLock::new();
    ALL.get_or_init(
        || match serde_json::from_str(include_str!("architectures.json")) {
            Ok(all) => all,
            // The file is part of the binary and parsed by a unit test, so this cannot reach a user.
            Err(error) => unreachable!("architectures.json is not valid: {error}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;
    use serde_json::json;

    fn of(config: Value) -> Architecture {
        Architecture::of(&config).expect("an architecture")
    }

    #[test]
    fn an_ordinary_model_has_full_attention_with_its_own_head_size_or_the_usual_one() {
        let config = json!({"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 2, "num_attention_heads": 28,
            "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064});
        let heads = Heads {
            query: 28,
            key_value: 4,
            dim: 128,
        };
        let read = of(config.clone());
        assert_eq!(read.layers[1].attention, Attention::Full(heads));
        assert_eq!(read.layers[1].feed_forward.dense, 18_944);
        assert_eq!(read.longest_context, None);
        let mut own = config;
        own["head_dim"] = json!(64);
        let expected = Attention::Full(Heads { dim: 64, ..heads });
        assert_eq!(of(own).layers[0].attention, expected);
    }

    #[test]
    fn the_text_part_of_a_multimodal_model_is_what_counts() {
        let text = json!({"model_type": "gemma4_text", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32, "intermediate_size": 128, "vocab_size": 320,
            "sliding_window": 512, "num_kv_shared_layers": 2, "use_double_wide_mlp": true,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]});
        let read = of(json!({"model_type": "gemma4", "text_config": text, "hidden_size": 1}));
        let heads = |dim| Heads {
            query: 4,
            key_value: 2,
            dim,
        };
        let attention: Vec<_> = read.layers.iter().map(|layer| layer.attention).collect();
        assert_eq!(
            attention,
            [
                Attention::Sliding {
                    heads: heads(16),
                    window: 512
                },
                Attention::Full(heads(32)),
                Attention::Shared {
                    heads: heads(16),
                    window: Some(512)
                },
                Attention::Shared {
                    heads: heads(32),
                    window: None
                },
            ]
        );
        let widths: Vec<_> = read
            .layers
            .iter()
            .map(|layer| layer.feed_forward.dense)
            .collect();
        assert_eq!(widths, [128, 128, 256, 256]);
    }

    #[test]
    fn a_file_that_tells_of_endless_layers_or_sizes_is_not_believed() {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 64, "vocab_size": 128, "intermediate_size": 128,
            "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": u64::MAX,
        });
        let told = Architecture::of(&config).expect("read");
        assert_eq!(told.layers.len(), 2);
        assert_eq!(told.longest_context, Some(u64::MAX));
        for key in [
            "hidden_size",
            "vocab_size",
            "intermediate_size",
            "num_attention_heads",
            "num_hidden_layers",
        ] {
            let before = config[key].take();
            for number in [1 << 40, u64::MAX] {
                config[key] = json!(number);
                assert_eq!(Architecture::of(&config), None, "{key}");
            }
            config[key] = before;
        }
    }

    #[test]
    fn what_says_too_little_is_no_architecture_and_what_is_not_known_is_marked() {
        assert_eq!(Architecture::of(&json!({"model_type": "qwen2"})), None);
        assert_eq!(Architecture::of(&json!([])), None);
        let config = json!({"model_type": "brand_new", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "intermediate_size": 128, "vocab_size": 320, "torch_dtype": "float32"});
        let read = of(config);
        assert_eq!(read.knowledge, Knowledge::Told);
        assert_eq!(read.number, 4);
    }

    #[test]
    fn every_model_of_the_catalogue_is_known_and_no_other() {
        for entry in &catalog().models {
            let (architecture, _) = Architecture::of_model(&entry.id, None, 0);
            assert_eq!(architecture.knowledge, Knowledge::Kind, "{}", entry.flag);
            assert!(architecture.longest_context.is_some(), "{}", entry.flag);
        }
        assert_eq!(all().len(), catalog().models.len());
    }

    #[test]
    fn what_a_token_and_a_conversation_of_them_take() {
        let figures: Vec<String> = catalog()
            .models
            .iter()
            .map(|entry| {
                let (architecture, _) = Architecture::of_model(&entry.id, None, 0);
                format!(
                    "{}: {} + {} a token, {} for 65536",
                    entry.flag,
                    architecture.constant_bytes(),
                    architecture.bytes_per_token(),
                    architecture.stored_bytes(65_536),
                )
            })
            .collect();
        insta::assert_snapshot!(figures.join("\n"), @"
        gemma-light: 20971520 + 16384 a token, 1094713344 for 65536
        gemma: 209715200 + 20480 a token, 1551892480 for 65536
        review: 0 + 54144 a token, 3548381184 for 65536
        coder: 0 + 98304 a token, 6442450944 for 65536
        qwen3: 51511296 + 32768 a token, 2198994944 for 65536
        coder7b: 0 + 57344 a token, 3758096384 for 65536
        ");
    }

    #[test]
    fn a_model_s_own_configuration_goes_before_what_is_known() {
        let own = serde_json::json!({"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 64, "vocab_size": 320});
        let id = "mlx-community/glm-4.7-flash-4BIT";
        let read = Architecture::of_model(id, Some(&own), 0);
        assert_eq!((read.0.hidden, read.1), (64, false));
        let useless = serde_json::json!({});
        let read = Architecture::of_model(id, Some(&useless), 0);
        assert_eq!(read.0.hidden, 2_048);
        let read = Architecture::of_model("a/b", Some(&useless), 0);
        assert_eq!((read.0.knowledge, read.1), (Knowledge::Guessed, true));
    }

    #[test]
    fn a_general_model_is_as_deep_as_its_weights_and_as_its_configuration_tells() {
        let general = |config: Value, weights| Architecture::general(Some(&config), weights);
        for (gigabytes, layers, bytes_per_token) in
            [(0, 1, 512), (4, 34, 69_632), (16, 53, 108_544)]
        {
            let model = general(json!({}), gigabytes * 1_000_000_000);
            let told = (model.layers.len(), model.bytes_per_token());
            assert_eq!(told, (layers, bytes_per_token), "{gigabytes} GB");
        }
        assert_eq!(general(json!({}), u64::MAX).layers.len(), 128);
        let told = json!({"llm_config": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 4096}});
        let model = general(told, 16_000_000_000);
        assert_eq!((model.layers.len(), model.hidden), (12, 768));
        assert_eq!(model.longest_context, Some(4_096));
        let Attention::Full(heads) = model.layers[0].attention else {
            panic!("{model:?}");
        };
        assert_eq!(heads.key_value, 12, "nothing says that they share");
    }
}
