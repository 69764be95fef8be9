//! The bytes that the engine keeps of a conversation, layer by layer, exactly as it allocates them.
//!
//! Source: mlx-lm 0.31.3, `mlx_lm/models/cache.py`, and vllm-mlx 0.6.0, `vllm_mlx/memory_cache.py`. An end-to-end test holds it against the
//! engine (`tests/e2e/memory.rs`).

use super::architecture::{Architecture, Attention, Heads};

/// Rows by which a cache grows. Source: `KVCache.step`, the same in the other classes.
pub const ROWS: u64 = 256;

/// Bytes of one number of a linear layer's state: it is kept in single precision. Source: mlx-lm 0.31.3, `gated_delta.py`.
const SINGLE: u64 = 4;

/// How often a layer is there beside the conversation while it goes from a request into the prefix cache or back.
const COPIES: u64 = 2;

impl Architecture {
    /// Bytes that one more token adds to a long conversation.
    pub fn bytes_per_token(&self) -> u64 {
        let rows = self.layers.iter().map(|layer| match layer.attention {
            Attention::Full(_) | Attention::Latent { .. } => self.row(layer.attention),
            _ => 0,
        });
        rows.sum()
    }

    /// Bytes that are kept however long the conversation is: linear states, and sliding windows once they are full.
    pub fn constant_bytes(&self) -> u64 {
        let constants = self.layers.iter().map(|layer| match layer.attention {
            Attention::Sliding { window, .. } => window * self.row(layer.attention),
            Attention::Linear { .. } => self.state(layer.attention),
            _ => 0,
        });
        constants.sum()
    }

    /// Bytes that the caches of a running request hold after a new conversation was read in steps and continued token by token, once it is
    /// longer than the sliding windows.
    pub fn live_bytes(&self, tokens: u64) -> u64 {
        self.constant_bytes() + tokens.div_ceil(ROWS) * ROWS * self.bytes_per_token()
    }

    /// The most that the caches of a running request can hold: one that began with a stored entry grows from that entry's length, and a
    /// sliding window holds a whole step more while a prompt is read.
    pub fn most_live_bytes(&self, tokens: u64, step: u64) -> u64 {
        self.constant_bytes() + (tokens + ROWS) * self.bytes_per_token() + self.sliding_step(step)
    }

    /// Bytes of a step's rows in the layers with a sliding window.
    fn sliding_step(&self, step: u64) -> u64 {
        let sliding = self.layers.iter().map(|layer| match layer.attention {
            Attention::Sliding { .. } => step * self.row(layer.attention),
            _ => 0,
        });
        sliding.sum()
    }

    /// Bytes of a stored entry of the prefix cache. It holds the rows that are used, without those that are free.
    pub fn stored_bytes(&self, tokens: u64) -> u64 {
        let layers = self.layers.iter().map(|layer| match layer.attention {
            Attention::Full(_) | Attention::Latent { .. } => tokens * self.row(layer.attention),
            Attention::Sliding { window, .. } => tokens.min(window) * self.row(layer.attention),
            Attention::Linear { .. } => self.state(layer.attention),
            Attention::Shared { .. } => 0,
        });
        layers.sum()
    }

    /// The most that there is for a moment while a conversation becomes an entry or an entry becomes one again: a layer of it, as it was taken out
    /// and as it is kept. That it is no more than a layer is our doing (`engine/patches/take_over.py`).
    pub fn copied_bytes(&self, tokens: u64) -> u64 {
        let layers = self.layers.iter().map(|layer| match layer.attention {
            Attention::Full(_) | Attention::Latent { .. } => {
                (tokens + ROWS) * self.row(layer.attention)
            }
            Attention::Sliding { window, .. } => {
                (tokens + ROWS).min(window) * self.row(layer.attention)
            }
            Attention::Linear { .. } => self.state(layer.attention),
            Attention::Shared { .. } => 0,
        });
        COPIES * layers.max().unwrap_or(0)
    }

    /// Bytes that each layer's cache holds after the model was given these numbers of tokens, one after the other. Layers that share another's
    /// cache have none. This follows the engine's code step by step.
    pub fn held(&self, updates: &[u64]) -> Vec<u64> {
        let layers = self
            .layers
            .iter()
            .filter_map(|layer| match layer.attention {
                Attention::Shared { .. } => None,
                Attention::Linear { .. } => Some(self.state(layer.attention)),
                Attention::Sliding { window, .. } => {
                    Some(rotating_rows(updates, window) * self.row(layer.attention))
                }
                Attention::Full(_) | Attention::Latent { .. } => {
                    Some(growing_rows(updates) * self.row(layer.attention))
                }
            });
        layers.collect()
    }

    /// Bytes of one token's row in a layer's cache.
    pub fn row(&self, attention: Attention) -> u64 {
        let (keys, values) = widths(attention);
        (keys + values) * self.number
    }

    /// Bytes of a linear layer's state: the last tokens that the convolution looks at, and the memory of the delta rule.
    fn state(&self, attention: Attention) -> u64 {
        let Attention::Linear {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            kernel,
        } = attention
        else {
            return 0;
        };
        let convolved = 2 * key_heads * key_dim + value_heads * value_dim;
        (kernel - 1) * convolved * self.number + value_heads * value_dim * key_dim * SINGLE
    }
}

/// Numbers in one token's keys and values.
fn widths(attention: Attention) -> (u64, u64) {
    match attention {
        Attention::Full(Heads { key_value, dim, .. })
        | Attention::Sliding {
            heads: Heads { key_value, dim, .. },
            ..
        } => (key_value * dim, key_value * dim),
        Attention::Latent { rank, rope, .. } => (rank, rope),
        Attention::Linear { .. } | Attention::Shared { .. } => (0, 0),
    }
}

/// Rows of a `KVCache` (and of a `BatchKVCache`).
fn growing_rows(updates: &[u64]) -> u64 {
    let (mut used, mut rows) = (0, 0);
    for &update in updates {
        if used + update > rows {
            rows = used + update.div_ceil(ROWS) * ROWS;
        }
        used += update;
    }
    rows
}

/// Rows of a `RotatingKVCache` (and of a `BatchRotatingKVCache`).
fn rotating_rows(updates: &[u64], window: u64) -> u64 {
    let (mut offset, mut rows, mut used) = (0_u64, 0_u64, 0_u64);
    for &update in updates {
        if update == 1 {
            if offset >= rows && rows < window {
                rows += ROWS.min(window - offset);
                used = offset;
            }
            if rows > window {
                rows = window;
                used = window;
            }
            if used == window {
                used = 0;
            }
            used += 1;
        } else {
            // Rows in order and without free ones, then all but as many as the first new token may look at are dropped.
            let kept = if used == rows || used < offset {
                rows
            } else {
                used
            };
            rows = kept.min(window - 1) + update;
            used = rows;
        }
        offset += update;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn tiny() -> Architecture {
        Architecture::of(&json!({"model_type": "gemma4_text", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 128, "vocab_size": 320, "sliding_window": 512,
            "layer_types": ["sliding_attention", "full_attention"]}))
        .expect("an architecture")
    }

    #[test]
    fn rows_come_in_blocks_and_a_window_holds_a_step_more_while_a_prompt_is_read() {
        assert_eq!(growing_rows(&[300]), 512);
        assert_eq!(growing_rows(&[512, 512, 1]), 1_280);
        assert_eq!(growing_rows(&[300, 300]), 812, "a block after what is used");
        assert_eq!(rotating_rows(&[1_024, 1_024], 512), 511 + 1_024);
        assert_eq!(rotating_rows(&[1_024, 1_024, 1], 512), 512);
        assert_eq!(rotating_rows(&[100, 1], 512), 356);
    }

    #[test]
    fn an_entry_holds_the_rows_that_are_used() {
        assert_eq!(tiny().stored_bytes(1_000), (1_000 + 512) * 256);
    }

    proptest! {
        #[test]
        fn what_is_held_is_as_said_and_never_more_than_the_most(step in 1_u64..5, prompt in 513_u64..6_000, more in 1_u64..600) {
            let model = tiny();
            let step = step * ROWS;
            let mut updates = vec![step; usize::try_from(prompt / step).expect("small")];
            updates.extend(Some(prompt % step).filter(|&rest| rest > 0));
            let most = model.most_live_bytes(prompt, step);
            prop_assert!(model.held(&updates).iter().sum::<u64>() <= most);
            updates.extend(std::iter::repeat_n(1, usize::try_from(more).expect("small")));
            let held: u64 = model.held(&updates).iter().sum();
            prop_assert_eq!(held, model.live_bytes(prompt + more));
            prop_assert!(held <= model.most_live_bytes(prompt + more, step));
        }
    }
}
