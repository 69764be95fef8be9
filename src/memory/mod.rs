//! Memory arithmetic: pure.

pub mod architecture;
pub mod cache;
pub mod known;
pub mod offer;
pub mod plan;
pub mod planner;
pub mod preflight;
pub mod room;
pub mod working;

use serde::Serialize;

use crate::machine::memory::Memory;
use plan::{Plan, Refusal};
use planner::Planner;

/// With this much left beside the weights, a long conversation fits, in bytes. Source: the scripts' README, problem 17 ("~6GB").
pub const AMPLE_HEADROOM: u64 = 6_000_000_000;

/// The window of a model that has ample room, in tokens.
pub const WIDE_WINDOW: u64 = 65_536;

/// The window where room is short or unknown, in tokens. Source: the scripts' default. Much less holds no session.
pub const NARROW_WINDOW: u64 = 32_768;

/// What Claude Code's own first request takes of the window, in tokens, with room to work in. Its first request measures about 26 kB
/// (9 tools and the system prompt), some 7,000 tokens.
pub const FIRST_REQUEST: u64 = 8_192;

/// What Claude Code keeps free above the point at which it compacts, beside the longest reply, in tokens. Source: Claude Code 2.1.330's log
/// for windows of 16,384 and 24,576: "fixed prefix > threshold", threshold = window - longest reply - 13,000.
pub const COMPACTION_RESERVE: u64 = 13_000;

/// The smallest window that holds a session with replies of this length, in tokens: in a smaller one Claude Code would want to compact before
/// its first request.
pub fn smallest_window(output_tokens: u64) -> u64 {
    output_tokens + COMPACTION_RESERVE + FIRST_REQUEST
}

/// Where the figure for the weights comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsSource {
    /// Their size on this disk.
    Disk,
    /// What the hub says of its download.
    Hub,
    /// The catalogue's download size.
    Catalog,
}

/// How a model fits the memory that there is for it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// At least [`AMPLE_HEADROOM`] is left.
    Ample,
    /// This much is left, and less than that.
    Tight(u64),
    /// The weights alone exceed it by this much.
    TooBig(u64),
    /// The model's size or the machine's memory is unknown.
    Unknown,
}

impl Fit {
    /// By what is left of the budget beside the weights.
    pub fn of(headroom: Option<i64>) -> Self {
        match headroom {
            None => Fit::Unknown,
            Some(short @ ..0) => Fit::TooBig(short.unsigned_abs()),
            Some(left) if left.unsigned_abs() < AMPLE_HEADROOM => Fit::Tight(left.unsigned_abs()),
            Some(_) => Fit::Ample,
        }
    }
}

/// What is known of memory, and what follows for the window.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// This machine's memory, if the system told.
    pub machine: Option<Memory>,
    /// Bytes of the weights, if known.
    pub weights: Option<u64>,
    pub weights_source: Option<WeightsSource>,
    /// Bytes of the budget that other engines of ours take or may come to take.
    pub others: u64,
    /// Budget less others and weights, in bytes; below zero it does not fit.
    pub headroom: Option<i64>,
    /// The context window that Claude Code is told, in tokens.
    pub context_window: u64,
    /// Whether it was asked for with --ctx.
    #[serde(skip)]
    pub asked: bool,
    /// Why this window, in words.
    pub why: String,
    /// What plans the model, if enough is known of it.
    #[serde(skip)]
    pub planner: Option<Planner>,
}

impl Figures {
    /// Whether there is room, and a window: what was asked for, else a wide one if the figures are known. Where room is short, the preflight
    /// comes next and may shrink it.
    pub fn new(
        machine: Option<Memory>,
        weights: Option<(u64, WeightsSource)>,
        asked: Option<u64>,
    ) -> Self {
        let headroom = headroom(machine, weights.map(|(bytes, _)| bytes));
        let (context_window, why) = match (asked, headroom) {
            (Some(asked), _) => (asked, "as asked with --ctx".into()),
            (None, None) => (NARROW_WINDOW, "memory or model size unknown".into()),
            (None, Some(headroom)) => (
                WIDE_WINDOW,
                format!("{:.1} GB beside the weights", headroom as f64 / 1e9),
            ),
        };
        Self {
            machine,
            weights: weights.map(|(bytes, _)| bytes),
            weights_source: weights.map(|(_, source)| source),
            others: 0,
            headroom,
            context_window,
            asked: asked.is_some(),
            why,
            planner: None,
        }
    }

    /// The plan on this machine beside what runs, if enough is known for one.
    pub fn planned(&self) -> Option<Result<Plan, Refusal>> {
        self.planned_on(self.machine?.budget)
    }

    /// The plan if the machine's budget were this, in bytes.
    pub fn planned_on(&self, budget: u64) -> Option<Result<Plan, Refusal>> {
        let planner = self.planner.as_ref()?;
        Some(planner.on(budget.saturating_sub(self.others)))
    }

    /// Takes the window of the plan, if there is one in which replies of this length have room, and none was asked for.
    pub fn settle(&mut self, output_tokens: u64) {
        let Some(Ok(plan)) = self.planned() else {
            return;
        };
        if !self.asked && plan.context_window >= smallest_window(output_tokens) {
            self.context_window = plan.context_window;
            let about = if plan.estimated { ", estimated" } else { "" };
            self.why = format!(
                "what memory allows: {:.1} kB for each token{about}",
                plan.bytes_per_token as f64 / 1e3
            );
        }
    }

    /// What this model's engine may hold, in bytes, if known: the budget less what others take.
    pub fn limit(&self) -> Option<u64> {
        Some(self.machine?.budget.saturating_sub(self.others))
    }

    pub fn fit(&self) -> Fit {
        Fit::of(self.headroom)
    }

    /// The same with another budget.
    pub fn with_machine(&mut self, machine: Memory) {
        self.machine = Some(machine);
        self.with_others(self.others);
    }

    /// The same beside other engines, which take this many bytes of the budget or may come to take them.
    pub fn with_others(&mut self, others: u64) {
        self.others = others;
        let others = i64::try_from(others).unwrap_or(i64::MAX);
        self.headroom =
            headroom(self.machine, self.weights).map(|headroom| headroom.saturating_sub(others));
    }

    /// The same with a window that bounds the context more closely.
    pub fn shrink(&mut self, window: u64) {
        self.why = format!("shrunk from {} to save memory", self.context_window);
        self.context_window = window;
    }
}

/// Budget less weights, in bytes, if both are known.
pub fn headroom(machine: Option<Memory>, weights: Option<u64>) -> Option<i64> {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    machine
        .zip(weights)
        .map(|(memory, weights)| signed(memory.budget) - signed(weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory::BudgetSource;

    fn mac(gib: u64) -> Memory {
        let ram = gib << 30;
        Memory {
            ram,
            budget: ram / 4 * 3,
            budget_source: BudgetSource::ThreeQuartersOfRam,
        }
    }

    fn figures(gib: u64, weights: u64) -> Figures {
        Figures::new(
            Some(mac(gib)),
            Some((weights, WeightsSource::Catalog)),
            None,
        )
    }

    #[test]
    fn models_fit_or_do_not() {
        assert_eq!(figures(16, 5_000_000_000).fit(), Fit::Ample);
        assert_eq!(figures(24, 16_000_000_000).fit(), Fit::Tight(3_327_352_832));
        assert_eq!(figures(36, 16_000_000_000).fit(), Fit::Ample);
        assert_eq!(
            figures(16, 18_000_000_000).fit(),
            Fit::TooBig(5_115_098_112)
        );
        assert_eq!(Figures::new(None, None, None).fit(), Fit::Unknown);
        assert_eq!(Fit::of(Some(AMPLE_HEADROOM as i64)), Fit::Ample);
        assert_eq!(
            Fit::of(Some(AMPLE_HEADROOM as i64 - 1)),
            Fit::Tight(AMPLE_HEADROOM - 1)
        );
        assert_eq!(Fit::of(Some(0)), Fit::Tight(0));
    }

    #[test]
    fn the_window_is_what_was_asked_for_else_by_what_is_known() {
        let window = |figures: Figures| figures.context_window;
        assert_eq!(window(figures(64, 5_000_000_000)), WIDE_WINDOW);
        assert_eq!(window(Figures::new(None, None, None)), NARROW_WINDOW);
        assert_eq!(window(Figures::new(None, None, Some(50_000))), 50_000);
    }
}
