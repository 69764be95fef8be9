//! What of a model's `config.json` decides how much memory it takes beside its weights: its layers, and how each keeps what it has read.
//!
//! The engine's own code is what counts here, not the model card: mlx-lm 0.31.3, `mlx_lm/models/`.

use serde_json::Value;

/// Bytes of one number of a cache or an activation. The models of the catalogue compute in bfloat16, whatever their weights are stored as.
const HALF: u64 = 2;

/// Every this many layers of Qwen3.5 and Qwen3-Next has full attention. Source: mlx-lm 0.31.3, `qwen3_5.py`, `full_attention_interval`.
const FULL_ATTENTION_INTERVAL: u64 = 4;

/// Every this many layers of Gemma-4 has full attention, where `layer_types` is missing. Source: mlx-lm 0.31.3, `gemma4_text.py`.
const SLIDING_WINDOW_PATTERN: u64 = 5;

/// More layers than any model has: a file that says more is not believed, as each takes memory of ours.
const MOST_LAYERS: u64 = 4096;

/// Larger than any size in a model: a number above it is not believed, as what is computed from it would not fit in 64 bits. The longest context may be:
/// nothing is multiplied by it.
const LARGEST: u64 = 1 << 24;

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
    /// Whether this kind of model is one whose layout in the engine is known. Else it was taken for the ordinary one.
    pub known: bool,
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
            known: is_known(model_type),
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

/// The configuration of the text model.
struct Reader<'a> {
    text: &'a Value,
}

impl Reader<'_> {
    fn number(&self, key: &str) -> Option<u64> {
        let number = self.text.get(key).and_then(Value::as_u64);
        number.filter(|number| *number <= LARGEST)
    }

    fn flag(&self, key: &str) -> bool {
        self.text.get(key).and_then(Value::as_bool) == Some(true)
    }

    /// The name of a layer's kind, if the configuration lists them.
    fn layer_type(&self, index: u64) -> Option<&str> {
        let types = self.text.get("layer_types")?.as_array()?;
        types.get(usize::try_from(index).ok()?)?.as_str()
    }

    fn heads(&self) -> Option<Heads> {
        let query = self
            .number("num_attention_heads")
            .filter(|&heads| heads > 0)?;
        Some(Heads {
            query,
            key_value: self.number("num_key_value_heads").unwrap_or(query),
            dim: match self.number("head_dim") {
                Some(dim) => dim,
                None => self.number("hidden_size")? / query,
            },
        })
    }

    fn ordinary(&self, index: u64) -> Option<Attention> {
        if self.number("kv_lora_rank").is_some() {
            return self.latent(index);
        }
        let heads = self.heads()?;
        match (self.layer_type(index), self.number("sliding_window")) {
            (Some("sliding_attention"), Some(window)) => Some(Attention::Sliding { heads, window }),
            _ => Some(Attention::Full(heads)),
        }
    }

    fn latent(&self, _: u64) -> Option<Attention> {
        Some(Attention::Latent {
            query_heads: self.number("num_attention_heads")?,
            rank: self.number("kv_lora_rank")?,
            rope: self.number("qk_rope_head_dim")?,
            nope: self.number("qk_nope_head_dim")?,
            value: self.number("v_head_dim")?,
        })
    }

    /// The engine goes by the interval alone, not by `layer_types`.
    fn hybrid(&self, index: u64) -> Option<Attention> {
        let interval = self
            .number("full_attention_interval")
            .unwrap_or(FULL_ATTENTION_INTERVAL)
            .max(1);
        if (index + 1).is_multiple_of(interval) {
            return self.heads().map(Attention::Full);
        }
        Some(Attention::Linear {
            key_heads: self.number("linear_num_key_heads")?,
            value_heads: self.number("linear_num_value_heads")?,
            key_dim: self.number("linear_key_head_dim")?,
            value_dim: self.number("linear_value_head_dim")?,
            kernel: self.number("linear_conv_kernel_dim")?.max(1),
        })
    }

    fn gemma4(&self, index: u64) -> Option<Attention> {
        let heads = self.heads()?;
        let full = match self.layer_type(index) {
            Some(kind) => kind == "full_attention",
            None => {
                let pattern = self.number("sliding_window_pattern");
                (index + 1).is_multiple_of(pattern.unwrap_or(SLIDING_WINDOW_PATTERN).max(1))
            }
        };
        let key_value = match self.number("num_global_key_value_heads") {
            Some(heads) if self.flag("attention_k_eq_v") => heads,
            _ => heads.key_value,
        };
        let heads = if full {
            Heads {
                key_value,
                dim: self
                    .number("global_head_dim")
                    .filter(|&dim| dim > 0)
                    .unwrap_or(heads.dim),
                ..heads
            }
        } else {
            heads
        };
        let window = match full {
            true => None,
            false => Some(self.number("sliding_window")?),
        };
        let own = self
            .number("num_hidden_layers")?
            .saturating_sub(self.number("num_kv_shared_layers").unwrap_or(0));
        Some(match window {
            window if index >= own => Attention::Shared { heads, window },
            Some(window) => Attention::Sliding { heads, window },
            None => Attention::Full(heads),
        })
    }

    fn feed_forward(&self, index: u64) -> Option<FeedForward> {
        let dense = self.number("intermediate_size");
        let Some(expert) = self
            .number("moe_intermediate_size")
            .filter(|&width| width > 0)
        else {
            // Gemma-4's layers without keys of their own may be twice as wide.
            let own = self
                .number("num_hidden_layers")?
                .saturating_sub(self.number("num_kv_shared_layers").unwrap_or(0));
            let double = self.flag("use_double_wide_mlp") && index >= own;
            return Some(FeedForward {
                dense: dense? * if double { 2 } else { 1 },
                chosen: 0,
                expert: 0,
            });
        };
        let chosen = ["num_experts_per_tok", "top_k_experts"]
            .iter()
            .find_map(|key| self.number(key))?;
        if index < self.number("first_k_dense_replace").unwrap_or(0) {
            return Some(FeedForward {
                dense: dense?,
                chosen: 0,
                expert: 0,
            });
        }
        let beside = if self.flag("enable_moe_block") {
            dense?
        } else {
            self.number("n_shared_experts").unwrap_or(0) * expert
                + self.number("shared_expert_intermediate_size").unwrap_or(0)
        };
        Some(FeedForward {
            dense: beside,
            chosen,
            expert,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(!read.known);
        assert_eq!(read.number, 4);
    }
}
