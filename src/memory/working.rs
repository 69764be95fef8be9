//! The memory that one step of reading a prompt takes beside weights and caches.
//!
//! It is an upper bound, not a measure: what is in it was derived from the engine's code, and an end-to-end test holds it against what the engine
//! takes on a CPU (`tests/e2e/memory.rs`). The logits are not in it: of a prompt, the engine computes those of the last token alone.

use super::architecture::{Architecture, Attention, FeedForward, Heads, Layer};
use crate::sys::platform::Os;

/// Head sizes for which Metal has a kernel that attends without writing all scores down. Source: mlx, `scaled_dot_product_attention.cpp`,
/// `sdpa_full_supported_head_dim`, which asks for keys and values of one size, too. Newer versions may have more.
const FUSED: [u64; 3] = [64, 80, 128];

/// Layers whose intermediate results are there at once: MLX allocates for operations that are still queued. Estimated from its limit of ten
/// queued command buffers (`mlx/transforms.cpp`, MAX_ACTIVE_TASKS); on a CPU, it was seen for the small results and not for the scores.
const LAYERS_AT_ONCE: u64 = 2;

/// Results of the width of the stream between layers that one layer makes: norms, sums, projections. Counted in mlx-lm's layers, with the copies
/// in single precision of those operations for which a CPU has no kernel.
const STREAMS: u64 = 8;

/// Results of the width of a projection that one layer makes of it: itself, reshaped, rotated or activated.
const PROJECTIONS: u64 = 4;

/// Copies of a row of logits, in single precision: itself, its logarithm of probabilities, and what sampling sorts.
const LOGITS: u64 = 4;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A Mac's GPU.
    Metal,
    /// A CPU, or another GPU.
    Other,
}

impl Device {
    /// The device of a system's engine.
    pub fn of(os: Os) -> Self {
        match os {
            Os::Macos => Device::Metal,
            Os::Linux => Device::Other,
        }
    }
}

impl Architecture {
    /// Bytes that reading `step` tokens at the end of a context of `tokens` takes.
    pub fn working_bytes(&self, step: u64, tokens: u64, device: Device) -> u64 {
        let layers = self
            .layers
            .iter()
            .map(|&layer| self.layer_bytes(layer, step, tokens, device));
        // A cache that grows is copied.
        let grown = self.layers.iter().map(|layer| match layer.attention {
            Attention::Full(_) | Attention::Latent { .. } => tokens * self.row(layer.attention),
            Attention::Sliding { window, .. } => (window + step) * self.row(layer.attention),
            Attention::Linear { .. } | Attention::Shared { .. } => 0,
        });
        LAYERS_AT_ONCE * layers.max().unwrap_or(0)
            + grown.max().unwrap_or(0)
            + LOGITS * self.vocabulary * 4
    }

    fn layer_bytes(&self, layer: Layer, step: u64, tokens: u64, device: Device) -> u64 {
        let Layer {
            attention,
            feed_forward,
        } = layer;
        let FeedForward {
            dense,
            chosen,
            expert,
        } = feed_forward;
        let experts = chosen * (2 * self.hidden + PROJECTIONS * expert);
        let width = STREAMS * self.hidden + PROJECTIONS * dense + experts + projected(attention);
        step * width * self.number + self.attention_bytes(attention, step, tokens, device)
    }

    /// What grows with the length of the context: scores, masks, and keys and values that are made anew.
    fn attention_bytes(&self, attention: Attention, step: u64, tokens: u64, device: Device) -> u64 {
        match attention {
            Attention::Full(heads)
            | Attention::Shared {
                heads,
                window: None,
            } => self.scores(heads, step, tokens, device),
            Attention::Sliding { heads, window }
            | Attention::Shared {
                heads,
                window: Some(window),
            } => self.scores(heads, step, tokens.min(window + step), device),
            // The scores of the rotated part are written down on any device, as the mask of those of the rest.
            Attention::Latent {
                query_heads,
                nope,
                value,
                ..
            } => {
                let scores = 2 * query_heads * step * tokens * self.number;
                let expanded = query_heads * tokens * (nope + value) * self.number;
                scores + expanded + step * tokens
            }
            // On a CPU, token by token, with a state each.
            Attention::Linear {
                value_heads,
                key_dim,
                value_dim,
                ..
            } => match device {
                Device::Metal => 0,
                Device::Other => step * value_heads * key_dim * value_dim * 4,
            },
        }
    }

    fn scores(&self, heads: Heads, step: u64, tokens: u64, device: Device) -> u64 {
        let mask = step * tokens;
        if device == Device::Metal && FUSED.contains(&heads.dim) {
            return mask;
        }
        heads.query * step * tokens * self.number + mask
    }
}

/// Numbers that the projections of an attention make of one token.
fn projected(attention: Attention) -> u64 {
    PROJECTIONS
        * match attention {
            Attention::Full(heads)
            | Attention::Sliding { heads, .. }
            | Attention::Shared { heads, .. } => (heads.query + 2 * heads.key_value) * heads.dim,
            Attention::Latent {
                query_heads,
                rank,
                rope,
                nope,
                value,
            } => query_heads * (nope + rope + value) + rank + rope,
            Attention::Linear {
                key_heads,
                value_heads,
                key_dim,
                value_dim,
                ..
            } => 2 * key_heads * key_dim + 2 * value_heads * (key_dim + value_dim),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metal_does_not_write_scores_down_where_it_has_a_kernel() {
        let model = |dim| {
            Architecture::of(&json!({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8,
                "num_key_value_heads": 2, "head_dim": dim, "intermediate_size": 64, "vocab_size": 320}))
            .expect("an architecture")
        };
        let more = |dim, device| {
            let model = model(dim);
            let (short, long) = (1_024, 65_536);
            model.working_bytes(512, long, device) - model.working_bytes(512, short, device)
        };
        let scores = 2 * 8 * 512 * (65_536 - 1_024) * 2;
        assert!(more(128, Device::Metal) < scores);
        assert!(more(128, Device::Other) >= scores);
        assert!(more(256, Device::Metal) >= scores);
    }
}
