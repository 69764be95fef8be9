//! The plan: how a budget of memory is shared out, and how much context that leaves. Pure.

use serde::Serialize;
use serde_json::Value;

use super::WeightsSource;
use super::architecture::{Architecture, Knowledge};
use super::cache::Stored;
use super::window::{Asked, ContextWindow, OUTPUTS, WIDE_WINDOW, smallest_window};
use super::working::Device;
use crate::catalog::{EngineProfile, Model, Source};

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

/// Of a hundred parts of the budget, those that are planned with. Source: mlx begins to free its own reserves at 95 % of the limit that Metal recommends
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

/// All that a plan for a model needs but the budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planner {
    pub architecture: Architecture,
    pub profile: EngineProfile,
    pub device: Device,
    /// In bytes.
    pub weights: u64,
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
    /// [`WIDE_WINDOW`], as the model's layers are guessed.
    Guess,
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

impl Planner {
    /// `config`: the model's own `config.json`, if it is on this disk.
    pub fn of(
        model: &Model,
        config: Option<&Value>,
        (weights, source): (u64, WeightsSource),
        device: Device,
        asked: Asked,
    ) -> Self {
        let id = match &model.source {
            Source::Hub(id) => id,
            Source::Folder(_) => "",
        };
        let (architecture, estimated) = Architecture::of_model(id, config, weights);
        let multimodal = model.takes_multimodal_route(config);
        Self {
            architecture,
            profile: model.engine_profile,
            device,
            weights,
            asked,
            step: multimodal.then_some(MULTIMODAL_STEP),
            estimated: estimated || source != WeightsSource::Disk,
        }
    }

    /// Shares a budget out, in bytes: the machine's less what others take. First comes a window of [`WIDE_WINDOW`], read in small steps, then faster steps, then a wider window: so more memory
    /// never gives a smaller window, nor a slower step at the same window.
    pub fn on(&self, budget: u64) -> Result<Plan, Refusal> {
        match self.asked.output {
            Some(output) => self.with_output(output, budget),
            None => {
                let mut refusal = None;
                for output in OUTPUTS {
                    match self.with_output(output, budget) {
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
    pub fn thriftiest_on(&self, budget: u64) -> Plan {
        let asked = self.asked;
        let fits =
            |output: u64| (asked.window).is_some_and(|window| smallest_window(output) <= window);
        let [longest, shortest] = OUTPUTS;
        let usual = if fits(longest) { longest } else { shortest };
        let output = asked.output.unwrap_or(usual);
        let (tokens, bound) = match asked.window {
            Some(window) => (window, Bound::Asked),
            None => (smallest_window(output), Bound::Memory),
        };
        self.made(
            ContextWindow { tokens, output },
            budget,
            Way::thriftiest(self),
            bound,
        )
    }

    /// The same plan with a smaller window, in tokens, which leaves memory to other programs. `budget`: the plan's, in bytes.
    pub fn narrowed(&self, plan: &Plan, tokens: u64, budget: u64) -> Plan {
        let way = Way {
            step: plan.prefill_step,
            stored: match plan.quantise {
                true => Stored::Quantised,
                false => Stored::Plain,
            },
        };
        let window = ContextWindow {
            tokens,
            ..plan.window
        };
        self.made(window, budget, way, Bound::Asked)
    }

    fn with_output(&self, output: u64, budget: u64) -> Result<Plan, Refusal> {
        let Self {
            architecture,
            asked,
            ..
        } = self;
        let made =
            |tokens, way, bound| self.made(ContextWindow { tokens, output }, budget, way, bound);
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
        let thriftiest = Way::thriftiest(self);
        let least = thriftiest.total(self, smallest);
        if least > usable(budget) {
            return Err(Refusal::Memory {
                needed: least,
                shares: thriftiest.shares(self, smallest),
                usable: usable(budget),
                window: smallest,
            });
        }
        if let Some(window) = asked.window {
            let way = Way::all(self).rfind(|way| way.total(self, window) <= usable(budget));
            return match way {
                Some(way) => Ok(made(window, way, Bound::Asked)),
                None => Err(Refusal::Asked {
                    window,
                    fits: widest(self, budget, smallest, window).0,
                }),
            };
        }
        let (most, bound) = match architecture.knowledge {
            Knowledge::Guessed => (WIDE_WINDOW.max(smallest), Bound::Guess),
            _ => (WIDEST_WINDOW.max(smallest), Bound::Client),
        };
        let (most, bound) = if longest < most {
            (longest, Bound::Model)
        } else {
            (most, bound)
        };
        let (window, way) = widest(self, budget, smallest, most);
        let bound = if window + WINDOW_UNIT > most {
            bound
        } else {
            Bound::Memory
        };
        Ok(made(window, way, bound))
    }

    fn made(&self, window: ContextWindow, budget: u64, way: Way, bound: Bound) -> Plan {
        let mut shares = way.shares(self, window.tokens);
        let taken = way.total(self, window.tokens);
        shares.free = budget.saturating_sub(taken);
        let less = way.shares(self, window.tokens - WINDOW_UNIT);
        let kept = |shares: &Shares| shares.conversation + shares.prefix_cache;
        Plan {
            window,
            prefill_step: way.step,
            cache_memory_mb: match self.profile {
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
            estimated: self.estimated || self.architecture.knowledge != Knowledge::Kind,
            bound,
        }
    }
}

/// What of a budget is planned with, in bytes.
pub fn usable(budget: u64) -> u64 {
    budget / 100 * USABLE_PERCENT
}

/// The widest window from `smallest` to `most`, and the best way to serve it, where the thriftiest way can serve the smallest.
fn widest(planner: &Planner, budget: u64, smallest: u64, most: u64) -> (u64, Way) {
    let fits = |way: Way, window: u64| way.total(planner, window) <= usable(budget);
    let best = |window: u64| Way::all(planner).rfind(|&way| fits(way, window));
    let thriftiest = Way::thriftiest(planner);
    let wide = rounded(WIDE_WINDOW.clamp(smallest, most), smallest);
    let window = match best(wide) {
        None => longest(smallest, wide, |window| fits(thriftiest, window)),
        Some(way) if Some(way) == Way::all(planner).next_back() => {
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
    fn all(planner: &Planner) -> impl DoubleEndedIterator<Item = Self> + use<> {
        let batched = planner.profile.is_batched();
        let only = planner.step;
        let steps = STEPS.into_iter().filter(move |_| only.is_none());
        steps.chain(only).flat_map(move |step| {
            let quantised = batched.then_some(Stored::Quantised);
            let stored = quantised.into_iter().chain([Stored::Plain]);
            stored.map(move |stored| Way { step, stored })
        })
    }

    fn thriftiest(planner: &Planner) -> Self {
        Self::all(planner).next().unwrap_or(Way {
            step: STEPS[0],
            stored: Stored::Plain,
        })
    }

    fn shares(self, planner: &Planner, window: u64) -> Shares {
        let &Planner {
            ref architecture,
            profile,
            device,
            weights,
            ..
        } = planner;
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
    fn total(self, planner: &Planner, window: u64) -> u64 {
        self.shares(planner, window).taken()
    }
}

#[cfg(test)]
mod tests;
