//! Reads the layers out of a model's `config.json`, by the rules of the engine's own code for each kind of model.

use serde_json::Value;

use super::{Attention, FeedForward, Heads};

/// Every this many layers of Qwen3.5 and Qwen3-Next has full attention. Source: mlx-lm 0.31.3, `qwen3_5.py`, `full_attention_interval`.
const FULL_ATTENTION_INTERVAL: u64 = 4;

/// Every this many layers of Gemma-4 has full attention, where `layer_types` is missing. Source: mlx-lm 0.31.3, `gemma4_text.py`.
const SLIDING_WINDOW_PATTERN: u64 = 5;

/// Larger than any size in a model: a number above it is not believed, as what is computed from it would not fit in 64 bits. The longest context may be:
/// nothing is multiplied by it.
const LARGEST: u64 = 1 << 24;

/// The configuration of the text model.
pub(super) struct Reader<'a> {
    pub text: &'a Value,
}

impl Reader<'_> {
    pub fn number(&self, key: &str) -> Option<u64> {
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

    pub fn ordinary(&self, index: u64) -> Option<Attention> {
        if self.number("kv_lora_rank").is_some() {
            return self.latent(index);
        }
        let heads = self.heads()?;
        match (self.layer_type(index), self.number("sliding_window")) {
            (Some("sliding_attention"), Some(window)) => Some(Attention::Sliding { heads, window }),
            _ => Some(Attention::Full(heads)),
        }
    }

    pub fn latent(&self, _: u64) -> Option<Attention> {
        Some(Attention::Latent {
            query_heads: self.number("num_attention_heads")?,
            rank: self.number("kv_lora_rank")?,
            rope: self.number("qk_rope_head_dim")?,
            nope: self.number("qk_nope_head_dim")?,
            value: self.number("v_head_dim")?,
        })
    }

    /// The engine goes by the interval alone, not by `layer_types`.
    pub fn hybrid(&self, index: u64) -> Option<Attention> {
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

    pub fn gemma4(&self, index: u64) -> Option<Attention> {
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

    pub fn feed_forward(&self, index: u64) -> Option<FeedForward> {
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
