//! The plan: how a budget of memory is shared out, and how much context that leaves. Pure.

use serde::Serialize;

use super::architecture::Architecture;
use super::cache::Stored;
use super::window::{Asked, ContextWindow, OUTPUTS, WIDE_WINDOW, smallest_window};
use super::working::Device;
use crate::catalog::EngineProfile;

/// Windows are multiples of this, in tokens, so that figures are easy to read and to compare.
pub const WINDOW_UNIT: u64 = 1_024;

/// The widest window that is planned unasked, in tokens: the one that Claude Code has with the models that it was made for.
pub const WIDEST_WINDOW: u64 = 200_000;

/// Tokens of a prompt that are read in one step, from the one that takes the least memory to the fastest. The last is the engine's own default
/// (vllm-mlx 0.6.0, `--prefill-step-size`).
pub const STEPS: [u64; 4] = [256, 512, 1_024, 2_048];

/// The step on the engine's multimodal route, which `--prefill-step-size` does not reach, in tokens. Source: vllm-mlx 0.6.0 hands it to its text
/// routes alone; mlx-vlm 0.7.10, `DEFAULT_PREFILL_STEP_SIZE`.
pub const MULTIMODAL_STEP: u64 = 2_048;

/// Of a hundred parts of the budget, those that are planned with. Source: mlx begins to free its own reserves at 95 % of what Metal recommends
/// (`mlx/backend/metal/allocator.cpp`).
const USABLE_PERCENT: u64 = 95;

/// What the engine's process takes beside its arrays, in bytes. Measured on Linux after a request to a tiny model: 134 MB; doubled, as what Metal
/// itself takes was not measured.
const ENGINE_ITSELF: u64 = 270_000_000;

/// By how much the limit of the prefix cache is above what a full window's entries take, in MiB: rounding, and the small arrays of an entry beside
/// keys and values (some bytes for each layer), which the engine counts as well. An entry above the limit is refused, and then every turn is
/// computed anew. No more is needed: an entry is as exact as the formula (`tests/e2e/memory.rs`), and one that is longer than the window is of no
/// use, as the gateway refuses the prompt that would extend it.
const CACHE_MARGIN: u64 = 2;

/// System prompts whose state the engine keeps where it serves one request at a time. Source: vllm-mlx 0.6.0, VLLM_MLX_SYSTEM_KV_SLOTS.
const SYSTEM_PROMPTS: u64 = 4;

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub architecture: &'a Architecture,
    pub profile: EngineProfile,
    pub device: Device,
    /// In bytes.
    pub weights: u64,
    /// What there is for this model, in bytes: the machine's budget less what others take.
    pub budget: u64,
    pub asked: Asked,
    /// The one step that prompts are read in, in tokens, where the engine cannot be told: [`MULTIMODAL_STEP`] on the route with vision.
    pub step: Option<u64>,
    /// Whether the configuration or the weights are not those of the model on this disk.
    pub estimated: bool,
}

/// How the budget is shared out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shares {
    pub weights: u64,
    /// What the running request keeps of a full window.
    pub conversation: u64,
    /// What there is beside for a moment when a turn ends, while its entry of the prefix cache is made: the copies of a layer.
    pub copies: u64,
    /// The prefix cache, which lets the next turn compute only what is new.
    pub prefix_cache: u64,
    /// One step of reading a prompt.
    pub working: u64,
    /// The engine's process beside its arrays.
    pub engine: u64,
    /// What is left of the budget, what is kept out of the plan included.
    pub free: u64,
}

/// A model's run on this machine, in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    #[serde(flatten)]
    pub window: ContextWindow,
    /// The engine's `--prefill-step-size`, in tokens.
    pub prefill_step: u64,
    /// The engine's `--cache-memory-mb`, in MiB. None: this way of serving has no such cache.
    pub cache_memory_mb: Option<u64>,
    /// Bytes of that for each token of the window.
    pub cache_bytes_per_token: u64,
    /// Bytes that conversation and prefix cache give back for each token that the window is narrower.
    pub kept_bytes_per_token: u64,
    /// Whether stored entries are to be quantised (`--kv-cache-quantization`).
    pub quantise: bool,
    /// Bytes that one more token of the conversation takes while it runs, its copies included.
    pub bytes_per_token: u64,
    pub shares: Shares,
    /// Whether the figures rest on what is known of the model's kind rather than on the model itself.
    pub estimated: bool,
    /// What bounds the window.
    pub bound: Bound,
}

/// What bounds a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// It was asked for.
    Asked,
    Memory,
    /// The model was made for no longer context.
    Model,
    /// [`WIDEST_WINDOW`].
    Client,
}

/// Why there is no plan. In tokens where not said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The memory holds no session.
    Memory {
        /// Bytes that the smallest window needs, all in all, and for what.
        needed: u64,
        shares: Shares,
        /// Bytes of the budget that are planned with.
        usable: u64,
        window: u64,
    },
    /// The model was made for shorter contexts than a session needs, or than was asked for.
    Model { longest: u64, needed: u64 },
    /// The window that was asked for does not fit; this one does.
    Asked { window: u64, fits: u64 },
    /// The window that was asked for does not hold the reply that was asked for.
    Reply { window: u64, needed: u64 },
}

impl Refusal {
    /// Whether more memory would help. Else it is what was asked for, or the model.
    pub fn is_of_memory(&self) -> bool {
        match self {
            Refusal::Memory { .. } | Refusal::Asked { .. } => true,
            Refusal::Model { .. } | Refusal::Reply { .. } => false,
        }
    }
}

impl Shares {
    /// What the worst moment takes in all: the copies are made when nothing is read.
    pub fn taken(&self) -> u64 {
        let moment = self.copies.max(self.working);
        self.weights + self.conversation + self.prefix_cache + moment + self.engine
    }
}

impl Plan {
    /// Shares the budget out. First comes a window of [`WIDE_WINDOW`], read in small steps, then faster steps, then a wider window: so more memory
    /// never gives a smaller window, nor a slower step at the same window.
    pub fn of(inputs: &Inputs) -> Result<Self, Refusal> {
        match inputs.asked.output {
            Some(output) => Self::with_output(inputs, output),
            None => {
                let mut refusal = None;
                for output in OUTPUTS {
                    match Self::with_output(inputs, output) {
                        Ok(plan) => return Ok(plan),
                        Err(why) => refusal = Some(why),
                    }
                }
                Err(refusal.unwrap_or(Refusal::Reply {
                    window: 0,
                    needed: 0,
                }))
            }
        }
    }

    /// What is tried where the memory holds no plan, and where it is to be tried all the same: what was asked for, else the smallest window, in the
    /// way that takes the least.
    pub fn thriftiest(inputs: &Inputs) -> Self {
        let asked = inputs.asked;
        let fits =
            |output: u64| (asked.window).is_some_and(|window| smallest_window(output) <= window);
        let [longest, shortest] = OUTPUTS;
        let usual = if fits(longest) { longest } else { shortest };
        let output = asked.output.unwrap_or(usual);
        let (window, bound) = match asked.window {
            Some(window) => (window, Bound::Asked),
            None => (smallest_window(output), Bound::Memory),
        };
        Self::made(inputs, output, window, Way::thriftiest(inputs), bound)
    }

    /// The same with a smaller window, in tokens, which leaves memory to other programs.
    pub fn narrowed(&self, inputs: &Inputs, window: u64) -> Self {
        let way = Way {
            step: self.prefill_step,
            stored: match self.quantise {
                true => Stored::Quantised,
                false => Stored::Plain,
            },
        };
        Self::made(inputs, self.window.output, window, way, Bound::Asked)
    }

    fn with_output(inputs: &Inputs, output: u64) -> Result<Self, Refusal> {
        let Inputs {
            architecture,
            asked,
            ..
        } = *inputs;
        let smallest = smallest_window(output);
        let longest = architecture.longest_context.unwrap_or(u64::MAX);
        let needed = asked.window.unwrap_or(smallest);
        if longest < needed {
            return Err(Refusal::Model { longest, needed });
        }
        if needed < smallest {
            return Err(Refusal::Reply {
                window: needed,
                needed: smallest,
            });
        }
        let thriftiest = Way::thriftiest(inputs);
        let least = thriftiest.total(inputs, smallest);
        if least > usable(inputs.budget) {
            return Err(Refusal::Memory {
                needed: least,
                shares: thriftiest.shares(inputs, smallest),
                usable: usable(inputs.budget),
                window: smallest,
            });
        }
        if let Some(window) = asked.window {
            let way =
                Way::all(inputs).rfind(|way| way.total(inputs, window) <= usable(inputs.budget));
            return match way {
                Some(way) => Ok(Self::made(inputs, output, window, way, Bound::Asked)),
                None => Err(Refusal::Asked {
                    window,
                    fits: widest(inputs, smallest, window).0,
                }),
            };
        }
        let (most, bound) = if longest < WIDEST_WINDOW.max(smallest) {
            (longest, Bound::Model)
        } else {
            (WIDEST_WINDOW.max(smallest), Bound::Client)
        };
        let (window, way) = widest(inputs, smallest, most);
        let bound = if window + WINDOW_UNIT > most {
            bound
        } else {
            Bound::Memory
        };
        Ok(Self::made(inputs, output, window, way, bound))
    }

    fn made(inputs: &Inputs, output: u64, window: u64, way: Way, bound: Bound) -> Self {
        let mut shares = way.shares(inputs, window);
        let taken = way.total(inputs, window);
        shares.free = inputs.budget.saturating_sub(taken);
        let less = way.shares(inputs, window - WINDOW_UNIT);
        let kept = |shares: &Shares| shares.conversation + shares.prefix_cache;
        Self {
            window: ContextWindow {
                tokens: window,
                output,
            },
            prefill_step: way.step,
            cache_memory_mb: match inputs.profile {
                EngineProfile::Batched | EngineProfile::Text => {
                    Some((shares.prefix_cache >> 20) + CACHE_MARGIN)
                }
                EngineProfile::Simple => None,
            },
            cache_bytes_per_token: (shares.prefix_cache - less.prefix_cache) / WINDOW_UNIT,
            kept_bytes_per_token: (kept(&shares) - kept(&less)) / WINDOW_UNIT,
            quantise: way.stored == Stored::Quantised,
            bytes_per_token: (taken - less.taken()) / WINDOW_UNIT,
            shares,
            estimated: inputs.estimated || !inputs.architecture.known,
            bound,
        }
    }
}

/// What of a budget is planned with, in bytes.
pub fn usable(budget: u64) -> u64 {
    budget / 100 * USABLE_PERCENT
}

/// The widest window from `smallest` to `most`, and the best way to serve it, where the thriftiest way can serve the smallest.
fn widest(inputs: &Inputs, smallest: u64, most: u64) -> (u64, Way) {
    let fits = |way: Way, window: u64| way.total(inputs, window) <= usable(inputs.budget);
    let best = |window: u64| Way::all(inputs).rfind(|&way| fits(way, window));
    let thriftiest = Way::thriftiest(inputs);
    let wide = rounded(WIDE_WINDOW.clamp(smallest, most), smallest);
    let window = match best(wide) {
        None => longest(smallest, wide, |window| fits(thriftiest, window)),
        Some(way) if Some(way) == Way::all(inputs).next_back() => {
            longest(wide, most, |window| fits(way, window))
        }
        Some(_) => wide,
    };
    (window, best(window).unwrap_or(thriftiest))
}

/// The largest window of a range that fits, where the smallest of the range does, as a multiple of [`WINDOW_UNIT`] if that is not below it.
fn longest(smallest: u64, most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (smallest, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    rounded(low, smallest)
}

fn rounded(window: u64, smallest: u64) -> u64 {
    (window / WINDOW_UNIT * WINDOW_UNIT).max(smallest)
}

/// A way of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    step: u64,
    stored: Stored,
}

impl Way {
    /// All ways, from the one that takes the least memory to the best: faster steps count more than entries that are not quantised.
    fn all(inputs: &Inputs) -> impl DoubleEndedIterator<Item = Self> + use<> {
        let batched = inputs.profile.is_batched();
        let only = inputs.step;
        let steps = STEPS.into_iter().filter(move |_| only.is_none());
        steps.chain(only).flat_map(move |step| {
            let quantised = batched.then_some(Stored::Quantised);
            let stored = quantised.into_iter().chain([Stored::Plain]);
            stored.map(move |stored| Way { step, stored })
        })
    }

    fn thriftiest(inputs: &Inputs) -> Self {
        Self::all(inputs).next().unwrap_or(Way {
            step: STEPS[0],
            stored: Stored::Plain,
        })
    }

    fn shares(self, inputs: &Inputs, window: u64) -> Shares {
        let Inputs {
            architecture,
            profile,
            device,
            weights,
            ..
        } = *inputs;
        let entry = architecture.stored_bytes(window, self.stored);
        let copies = architecture.copied_bytes(window);
        let (copies, prefix_cache) = match profile {
            EngineProfile::Batched => (copies, entry),
            // Beside the newest snapshot the one at the last question is kept (`engine/snapshots.py`).
            EngineProfile::Text => (
                copies,
                2 * architecture.snapshot_bytes(window, self.step, self.stored),
            ),
            // The state of some system prompts alone is kept, and not even that where there are sliding windows.
            EngineProfile::Simple if architecture.slides() => (0, 0),
            EngineProfile::Simple => {
                let prompt = architecture.stored_bytes(super::FIRST_REQUEST, Stored::Plain);
                (0, SYSTEM_PROMPTS * prompt)
            }
        };
        Shares {
            weights,
            conversation: architecture.most_live_bytes(window, self.step),
            copies,
            prefix_cache,
            working: architecture.working_bytes(self.step, window, device),
            engine: ENGINE_ITSELF,
            free: 0,
        }
    }

    /// Bytes at the worst moment.
    fn total(self, inputs: &Inputs, window: u64) -> u64 {
        self.shares(inputs, window).taken()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// 96 KiB for each token.
    fn architecture(longest: u64) -> Architecture {
        Architecture::of(&json!({"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
            "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts_per_tok": 8,
            "vocab_size": 151936, "max_position_embeddings": longest}))
        .expect("an architecture")
    }

    fn inputs(architecture: &Architecture, budget: u64) -> Inputs<'_> {
        Inputs {
            architecture,
            profile: EngineProfile::Batched,
            device: Device::Metal,
            weights: 17_200_000_000,
            budget,
            asked: Asked::default(),
            step: None,
            estimated: false,
        }
    }

    fn asking(architecture: &Architecture, budget: u64, asked: Asked) -> Result<Plan, Refusal> {
        Plan::of(&Inputs {
            asked,
            ..inputs(architecture, budget)
        })
    }

    #[test]
    fn shares_add_up_and_stay_within_what_is_planned_with() {
        let architecture = architecture(262_144);
        let budget = 40_000_000_000;
        let plan = Plan::of(&inputs(&architecture, budget)).expect("a plan");
        let shares = plan.shares;
        assert_eq!(shares.taken() + shares.free, budget);
        assert!(shares.free >= budget / 20);
        assert!(shares.conversation >= plan.window.tokens * 98_304);
        let limit = plan.cache_memory_mb.expect("a limit") << 20;
        let margin = limit - shares.prefix_cache;
        assert!((1 << 20..=2 << 20).contains(&margin), "{margin}");
        assert_eq!(plan.window.tokens % WINDOW_UNIT, 0);
        assert_eq!(plan.window.output, OUTPUTS[0]);
    }

    #[test]
    fn the_window_is_bounded_by_the_model_and_by_the_client() {
        let ample = 1 << 40;
        let short = architecture(32_768);
        let plan = Plan::of(&inputs(&short, ample)).expect("a plan");
        assert_eq!((plan.window.tokens, plan.bound), (32_768, Bound::Model));
        assert_eq!(plan.prefill_step, STEPS[3]);
        let plan = Plan::of(&inputs(&architecture(262_144), ample)).expect("a plan");
        assert_eq!((plan.window.tokens, plan.bound), (199_680, Bound::Client));
        assert!(!plan.quantise);
    }

    #[test]
    fn what_is_asked_for_is_taken_to_the_token_or_refused() {
        let architecture = architecture(262_144);
        let ask = |budget, window, output| {
            let asked = Asked { window, output };
            asking(&architecture, budget, asked)
        };
        let plan = ask(1 << 40, Some(50_001), Some(16_000)).expect("a plan");
        assert_eq!((plan.window.tokens, plan.window.output), (50_001, 16_000));
        assert_eq!(plan.bound, Bound::Asked);
        let tight = 32_000_000_000;
        let fits = ask(tight, None, Some(8_192)).expect("a plan").window.tokens;
        let refused = ask(tight, Some(150_000), Some(8_192));
        assert_eq!(
            refused,
            Err(Refusal::Asked {
                window: 150_000,
                fits
            })
        );
        assert_eq!(
            ask(1 << 40, Some(20_000), Some(8_192)),
            Err(Refusal::Reply {
                window: 20_000,
                needed: 29_384
            })
        );
        assert_eq!(
            ask(1 << 40, Some(300_000), None),
            Err(Refusal::Model {
                longest: 262_144,
                needed: 300_000
            })
        );
        assert!(matches!(
            ask(17_000_000_000, None, None),
            Err(Refusal::Memory { .. })
        ));
    }

    #[test]
    fn where_nothing_fits_the_thriftiest_way_is_tried() {
        let architecture = architecture(262_144);
        let tried = |window, output| {
            let plan = Plan::thriftiest(&Inputs {
                asked: Asked { window, output },
                ..inputs(&architecture, 17_000_000_000)
            });
            assert!(plan.quantise && plan.prefill_step == STEPS[0]);
            assert_eq!(plan.shares.free, 0);
            (plan.window.tokens, plan.window.output)
        };
        assert_eq!(tried(None, None), (25_288, 4_096));
        assert_eq!(tried(None, Some(8_192)), (29_384, 8_192));
        assert_eq!(tried(Some(26_000), None), (26_000, 4_096));
        assert_eq!(tried(Some(50_000), None), (50_000, 8_192));
    }

    #[test]
    fn a_smaller_window_is_served_the_same_way_and_takes_less() {
        let architecture = architecture(262_144);
        let inputs = inputs(&architecture, 40_000_000_000);
        let plan = Plan::of(&inputs).expect("a plan");
        let narrowed = plan.narrowed(&inputs, 32_768);
        assert_eq!(narrowed.prefill_step, plan.prefill_step);
        assert_eq!(narrowed.quantise, plan.quantise);
        assert!(narrowed.shares.taken() < plan.shares.taken());
        let kept = |plan: &Plan| plan.shares.conversation + plan.shares.prefix_cache;
        let tokens = plan.window.tokens - narrowed.window.tokens;
        let given_back = kept(&plan) - kept(&narrowed);
        // But for rounding.
        let told = tokens * plan.kept_bytes_per_token;
        assert!(
            given_back - tokens < told && told <= given_back,
            "{told} {given_back}"
        );
        assert_eq!(narrowed.window.output, plan.window.output);
    }

    #[test]
    fn a_step_that_cannot_be_chosen_is_planned_with() {
        let architecture = architecture(262_144);
        let plan = |step| {
            Plan::of(&Inputs {
                device: Device::Other,
                profile: EngineProfile::Simple,
                step,
                ..inputs(&architecture, 40_000_000_000)
            })
            .expect("a plan")
        };
        let (chosen, told) = (plan(None), plan(Some(MULTIMODAL_STEP)));
        assert_eq!(told.prefill_step, MULTIMODAL_STEP);
        assert!(chosen.prefill_step < MULTIMODAL_STEP);
        assert!(told.window.tokens < chosen.window.tokens);
    }

    proptest! {
        #[test]
        fn more_memory_never_gives_a_smaller_window_nor_a_slower_step(
            gib in 8_u64..200,
            more in 1_u64..20_000_000_000,
            heads in 1_u64..9,
            simple in any::<bool>(),
            metal in any::<bool>(),
            output in prop::option::of(1_024_u64..20_000),
        ) {
            let mut architecture = architecture(262_144);
            for layer in &mut architecture.layers {
                if let super::super::architecture::Attention::Full(own) = &mut layer.attention {
                    own.key_value = heads;
                }
            }
            let plan = |budget| Plan::of(&Inputs {
                profile: if simple { EngineProfile::Simple } else { EngineProfile::Batched },
                device: if metal { Device::Metal } else { Device::Other },
                asked: Asked { window: None, output },
                ..inputs(&architecture, budget)
            });
            let (less, more) = (plan(gib << 30), plan((gib << 30) + more));
            if let Ok(less) = less {
                let more = more.expect("it had a plan with less");
                prop_assert!(less.window.tokens >= smallest_window(less.window.output));
                prop_assert!(more.window.output >= less.window.output);
                prop_assert!(more.window.tokens >= less.window.tokens);
                if more.window.tokens == less.window.tokens && more.window.output == less.window.output {
                    prop_assert!(more.prefill_step >= less.prefill_step);
                    prop_assert!(less.quantise || !more.quantise || more.prefill_step > less.prefill_step);
                }
                prop_assert!(less.shares.taken() <= (gib << 30));
            }
        }
    }
}
