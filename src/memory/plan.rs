//! The plan: how a budget of memory is shared out, and how much context that leaves. Pure.

use serde::Serialize;
use serde_json::Value;

use super::WeightsSource;
use super::architecture::{Architecture, Knowledge};
use super::window::{Asked, ContextWindow, LEAST_WORK, OUTPUTS, WIDE_WINDOW, smallest_window};
use super::working::Device;
use crate::catalog::{EngineProfile, Model, Source};

/// Windows are multiples of this, in tokens, so that figures are easy to read and to compare.
pub const WINDOW_UNIT: u64 = 1_024;

/// The widest window that is planned unasked, in tokens: the one that Claude Code has with the models that it was made for.
pub const WIDEST_WINDOW: u64 = 200_000;

/// Tokens of a prompt that are read in one step, from the one that takes the least memory to the fastest. The last is the engine's own default
/// (vllm-mlx 0.6.0, `--prefill-step-size`).
pub const STEPS: [u64; 6] = [64, 128, 256, 512, 1_024, 2_048];

/// The step below which a window wider than [`WORTHWHILE_WORK`] asks for is not worth it, in tokens.
const USUAL_STEP: u64 = 256;

/// The step below which a window wider than [`WIDE_WINDOW`] is not worth it, in tokens. Larger ones save little time.
const GOOD_STEP: u64 = 512;

/// Tokens of work that are worth smaller steps than [`USUAL_STEP`].
const WORTHWHILE_WORK: u64 = 16_384;

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

/// Tokens of what is kept beside the one conversation that is always kept: the client's own questions in the background. Where that is all there
/// is room for, a second long conversation takes the place of the first, which is then computed again.
const BESIDE: u64 = 2_048;

/// Snapshots that there are beside a conversation of the layers that cannot be cut back: at its last question and at the end of its prompt
/// (`engine/patches/snapshots.py`).
const SNAPSHOTS: u64 = 2;

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
    /// A full window's conversation. It is held once: by the request that runs, and between turns by the prefix cache, which lets the next turn
    /// compute only what is new.
    pub conversation: u64,
    /// Copies of a layer, which are there for a moment while one becomes the other.
    pub copies: u64,
    /// The rest of the prefix cache: snapshots of layers that cannot be cut back, and other conversations.
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
    /// How many conversations of a full window are kept whole, where any is.
    pub conversations: u64,
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

    /// Shares a budget out, in bytes: the machine's less what others take. First comes a window that leaves [`WORTHWHILE_WORK`], read in steps as
    /// small as they must be, then steps of [`USUAL_STEP`], a window of [`WIDE_WINDOW`], steps of [`GOOD_STEP`], the widest window, and last
    /// faster steps and a second conversation: so more memory never gives a smaller window, nor a slower step at the same window.
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
        let way = Way {
            step: self.steps().next().unwrap_or(STEPS[0]),
            conversations: 1,
        };
        self.made(ContextWindow { tokens, output }, budget, way, bound)
    }

    /// The same plan with a smaller window, in tokens, which leaves memory to other programs. `budget`: the plan's, in bytes.
    pub fn narrowed(&self, plan: &Plan, tokens: u64, budget: u64) -> Plan {
        let way = Way {
            step: plan.prefill_step,
            conversations: plan.conversations,
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
        let made = |tokens, step, bound| {
            let both = Way {
                step,
                conversations: 2,
            };
            let way = match both.total(self, tokens) <= usable(budget) {
                true if self.profile.is_batched() => both,
                _ => Way::of(step),
            };
            self.made(ContextWindow { tokens, output }, budget, way, bound)
        };
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
        let thriftiest = Way::of(self.steps().next().unwrap_or(STEPS[0]));
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
            let fits = |&step: &u64| Way::of(step).total(self, window) <= usable(budget);
            return match self.steps().rfind(fits) {
                Some(step) => Ok(made(window, step, Bound::Asked)),
                None => Err(Refusal::Asked {
                    window,
                    fits: longest_that_fits(smallest, window, |window| {
                        thriftiest.total(self, window) <= usable(budget)
                    }),
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
        let (window, step) = widest(self, budget, smallest, most);
        let bound = if window + WINDOW_UNIT > most {
            bound
        } else {
            Bound::Memory
        };
        Ok(made(window, step, bound))
    }

    /// The steps in which prompts can be read, in tokens, from the one that takes the least memory.
    fn steps(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        let only = self.step;
        let steps = STEPS.into_iter().filter(move |_| only.is_none());
        steps.chain(only)
    }

    fn made(&self, window: ContextWindow, budget: u64, way: Way, bound: Bound) -> Plan {
        let mut shares = way.shares(self, window.tokens);
        let taken = way.total(self, window.tokens);
        shares.free = budget.saturating_sub(taken);
        let less = way.shares(self, window.tokens - WINDOW_UNIT);
        let kept = |shares: &Shares| shares.conversation + shares.prefix_cache;
        let limit = |tokens| way.cache_limit(self, tokens);
        Plan {
            window,
            prefill_step: way.step,
            cache_memory_mb: match self.profile {
                EngineProfile::Batched | EngineProfile::Text => {
                    Some((limit(window.tokens) >> 20) + CACHE_MARGIN)
                }
                EngineProfile::Simple => None,
            },
            cache_bytes_per_token: (limit(window.tokens) - limit(window.tokens - WINDOW_UNIT))
                / WINDOW_UNIT,
            kept_bytes_per_token: (kept(&shares) - kept(&less)) / WINDOW_UNIT,
            conversations: way.conversations,
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

/// The widest window from `smallest` to `most`, and the largest step to read it in, where the smallest step can read the smallest.
fn widest(planner: &Planner, budget: u64, smallest: u64, most: u64) -> (u64, u64) {
    let fits = |step: u64, window: u64| Way::of(step).total(planner, window) <= usable(budget);
    let best = |window: u64| planner.steps().rfind(|&step| fits(step, window));
    let least = planner.steps().next().unwrap_or(STEPS[0]);
    let (usual, good) = (least.max(USUAL_STEP), least.max(GOOD_STEP));
    let up_to = |window: u64| rounded(window.clamp(smallest, most), smallest);
    let (modest, wide) = (
        up_to(smallest - LEAST_WORK + WORTHWHILE_WORK + WINDOW_UNIT),
        up_to(WIDE_WINDOW),
    );
    let window = match best(wide) {
        Some(step) if step >= good => longest_that_fits(wide, most, |window| fits(good, window)),
        Some(step) if step >= usual => wide,
        _ if fits(usual, modest) => longest_that_fits(modest, wide, |window| fits(usual, window)),
        _ if fits(least, modest) => modest,
        _ => longest_that_fits(smallest, modest, |window| fits(least, window)),
    };
    (window, best(window).unwrap_or(least))
}

/// The largest window of a range that fits, where the smallest of the range does, as a multiple of [`WINDOW_UNIT`] if that is not below it.
fn longest_that_fits(smallest: u64, most: u64, fits: impl Fn(u64) -> bool) -> u64 {
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
    /// How many of a full window are kept whole.
    conversations: u64,
}

impl Way {
    /// With one conversation.
    fn of(step: u64) -> Self {
        Way {
            step,
            conversations: 1,
        }
    }

    /// Bytes of entries of the prefix cache: those of the conversations that are kept whole, the running one included, and of short questions.
    fn cache_limit(self, planner: &Planner, window: u64) -> u64 {
        let architecture = &planner.architecture;
        let beside = match self.conversations {
            1 => architecture.stored_bytes(window.min(BESIDE)),
            _ => 0,
        };
        let snapshots = SNAPSHOTS * architecture.constant_bytes();
        self.conversations * (architecture.stored_bytes(window) + snapshots) + beside
    }

    fn shares(self, planner: &Planner, window: u64) -> Shares {
        let &Planner {
            ref architecture,
            profile,
            device,
            weights,
            ..
        } = planner;
        let (copies, prefix_cache) = match profile {
            EngineProfile::Batched | EngineProfile::Text => {
                let running = architecture.stored_bytes(window);
                (
                    architecture.copied_bytes(window),
                    self.cache_limit(planner, window) - running,
                )
            }
            // The state of some system prompts alone is kept, and not even that where there are sliding windows.
            EngineProfile::Simple if architecture.slides() => (0, 0),
            EngineProfile::Simple => {
                let prompt = architecture.stored_bytes(super::FIRST_REQUEST);
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
