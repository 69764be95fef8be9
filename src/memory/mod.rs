//! Memory arithmetic: pure.

pub mod architecture;
pub mod budget;
pub mod cache;
pub mod chart;
pub mod fit;
pub mod gpu_limit;
pub mod plan;
pub mod preflight;
pub mod window;
pub mod working;

use serde::Serialize;

use crate::memory::budget::Memory;
use plan::{Bound, Plan, Planner, Refusal};
pub use window::{
    Asked, ContextWindow, FIRST_REQUEST, NARROW_WINDOW, OUTPUTS, WIDE_WINDOW, smallest_window,
};

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

/// Estimate of the memory for a model, and the window that follows.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryEstimate {
    /// This machine's memory, if the system told.
    pub machine: Option<Memory>,
    /// Bytes of the weights, if known.
    pub weights: Option<u64>,
    pub weights_source: Option<WeightsSource>,
    /// Bytes of the budget that other engines of ours take or may take.
    pub others: u64,
    /// Budget less others and weights, in bytes; below zero it does not fit.
    pub headroom: Option<i64>,
    /// The window for Claude Code and the gateway.
    #[serde(flatten)]
    pub window: ContextWindow,
    #[serde(skip)]
    pub asked: Asked,
    /// Why this window, in words.
    pub why: String,
    /// The planner, if enough is known of the model.
    #[serde(skip)]
    pub planner: Option<Planner>,
    /// The plan, if enough is known of the model and the machine, and the model fits or is started anyway.
    #[serde(skip)]
    pub plan: Option<Plan>,
}

impl MemoryEstimate {
    /// A window: what was asked for, else what the plan gives, else a narrow one. Where memory is short, the preflight comes next and may change it.
    pub fn new(
        machine: Option<Memory>,
        weights: Option<(u64, WeightsSource)>,
        asked: Asked,
        planner: Option<Planner>,
    ) -> Self {
        let headroom = headroom(machine, weights.map(|(bytes, _)| bytes));
        let why = match asked.window {
            Some(_) => AS_ASKED.into(),
            None => "memory or model size unknown".into(),
        };
        let mut estimate = Self {
            machine,
            weights: weights.map(|(bytes, _)| bytes),
            weights_source: weights.map(|(_, source)| source),
            others: 0,
            headroom,
            window: asked.or(NARROW_WINDOW),
            asked,
            why,
            planner,
            plan: None,
        };
        estimate.settle();
        estimate
    }

    /// The budget less what others take, in bytes.
    pub fn budget(&self) -> Option<u64> {
        Some(self.machine?.budget.saturating_sub(self.others))
    }

    /// The plan on this machine beside what runs, if enough is known for one.
    pub fn planned(&self) -> Option<Result<Plan, Refusal>> {
        self.planned_on(self.budget()?)
    }

    /// The plan with this budget for the model, in bytes.
    pub fn planned_on(&self, budget: u64) -> Option<Result<Plan, Refusal>> {
        Some(self.planner.as_ref()?.on(budget))
    }

    /// Takes what the plan says, if there is one.
    fn settle(&mut self) {
        self.plan = None;
        if let Some(Ok(plan)) = self.planned() {
            let why = match plan.bound {
                Bound::Asked => AS_ASKED.into(),
                Bound::Model => "the model's maximum".into(),
                Bound::Guess => "the default for a model whose layers are unknown".into(),
                Bound::Client => "the most that Claude Code uses".into(),
                Bound::Memory => {
                    let about = if plan.estimated { ", estimated" } else { "" };
                    format!(
                        "all that fits in memory, at {:.1} kB a token{about}",
                        plan.bytes_per_token as f64 / 1e3
                    )
                }
            };
            self.take(plan, why);
        }
    }

    /// Takes the smallest plan for a model that does not fit in memory.
    pub fn insist(&mut self) {
        if let (None, Some(planner), Some(budget)) = (&self.plan, &self.planner, self.budget()) {
            let plan = planner.thriftiest_on(budget);
            let why = match plan.bound {
                Bound::Asked => AS_ASKED,
                _ => "the smallest useful one; it does not fit in memory",
            };
            self.take(plan, why.into());
        }
    }

    fn take(&mut self, plan: Plan, why: String) {
        self.window = plan.window;
        self.why = why;
        self.plan = Some(plan);
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
        self.settle();
    }

    /// The same with a smaller window, in tokens.
    pub fn shrink(&mut self, window: u64) {
        let why = format!("shrunk from {} to save memory", self.window.tokens);
        if let (Some(plan), Some(planner), Some(budget)) =
            (&self.plan, &self.planner, self.budget())
        {
            let plan = planner.narrowed(plan, window, budget);
            self.take(plan, why);
        }
    }
}

/// Why the window is what it is, where it was asked for.
const AS_ASKED: &str = "as you set it";

/// Budget less weights, in bytes, if both are known.
pub fn headroom(machine: Option<Memory>, weights: Option<u64>) -> Option<i64> {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    machine
        .zip(weights)
        .map(|(memory, weights)| signed(memory.budget) - signed(weights))
}

#[cfg(test)]
mod tests {
    use super::working::Device;
    use super::*;
    use crate::catalog::{Choice, catalog, resolve};
    use crate::memory::budget::BudgetSource;

    fn mac(gib: u64) -> Memory {
        let ram = gib << 30;
        Memory {
            ram,
            budget: ram / 4 * 3,
            budget_source: BudgetSource::ThreeQuartersOfRam,
        }
    }

    #[test]
    fn the_window_is_what_was_asked_for_else_by_what_is_known() {
        let window = |estimate: MemoryEstimate| estimate.window.tokens;
        assert_eq!(
            window(MemoryEstimate::new(None, None, Asked::default(), None)),
            NARROW_WINDOW
        );
        let asked = Asked {
            window: Some(50_000),
            output: Some(4_000),
        };
        let estimate = MemoryEstimate::new(None, None, asked, None);
        assert_eq!(
            (estimate.window.tokens, estimate.window.output),
            (50_000, 4_000)
        );
    }

    #[test]
    fn the_plan_decides_all_and_changes_with_what_it_rests_on() {
        let entry = catalog().by_flag("gemma").expect("a model");
        let model = resolve(&Choice::Flag(entry.flag.clone()), None).expect("a model");
        let weights = (entry.download_bytes(), WeightsSource::Catalog);
        let asked = Asked::default();
        let planner = Planner::of(&model, None, weights, Device::Metal, asked);
        let mut estimate = MemoryEstimate::new(Some(mac(48)), Some(weights), asked, Some(planner));
        let decided = |estimate: &MemoryEstimate| {
            let plan = estimate.plan.as_ref();
            plan.map(|plan| (plan.window.tokens, plan.window.output))
        };
        let told =
            |estimate: &MemoryEstimate| Some((estimate.window.tokens, estimate.window.output));
        let wide = decided(&estimate);
        assert!(wide.is_some() && told(&estimate) == wide);
        estimate.shrink(40_000);
        assert_eq!(decided(&estimate), Some((40_000, 8_192)));
        assert_eq!(told(&estimate), Some((40_000, 8_192)));
        estimate.with_others(23_000_000_000);
        assert_eq!(decided(&estimate), None);
        assert!(matches!(
            estimate.planned(),
            Some(Err(Refusal::Memory { .. }))
        ));
        estimate.insist();
        assert_eq!(decided(&estimate), Some((22_980, 4_096)));
        assert_eq!(told(&estimate), Some((22_980, 4_096)));
        estimate.with_others(0);
        assert_eq!(decided(&estimate), wide, "there is room again");
    }
}
