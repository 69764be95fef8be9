//! The memory preflight: what can be done about memory before an engine runs out of it, and what each choice comes to.

use super::budget::{Memory, wired_limit};
use super::plan::{Bound, Plan, Refusal};
use super::{MemoryEstimate, NARROW_WINDOW, WIDE_WINDOW, smallest_window};
use crate::sys::environment::Environment;
use crate::sys::platform::Os;

/// What a smaller window has to leave to other programs to be offered, in bytes.
const WORTH_OFFERING: u64 = 500_000_000;

/// By how much a window has to grow for a person to be asked about it at each start, in hundredths.
const WORTH_ASKING: u64 = 150;

/// What is left for everything but the GPU when its limit is raised, in MiB. Source: the scripts' README, problem 17 ("RAM−3GB").
const LEFT_FOR_THE_SYSTEM_MIB: u64 = 3 * 1024;

/// Whether memory is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checking {
    /// Ask where memory is tight.
    WhenTight,
    /// Ask in any case.
    Always,
    Never,
}

/// The limit of GPU memory, as an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Not a Mac, or one that does not have the setting, or where it is as high as we would set it.
    None,
    /// It can be raised, in MiB. From 0: the system's own choice.
    Raise { from: u64, to: u64 },
}

impl Limit {
    /// As the system has it.
    pub fn find(environment: &Environment, os: Os, machine: Option<Memory>) -> Self {
        let ram = machine.map_or(0, |machine| machine.ram);
        let set = match os {
            Os::Macos => wired_limit(environment),
            Os::Linux => None,
        };
        Self::of(os, ram, set)
    }

    /// By the limit that is set now, if there is such a setting.
    pub fn of(os: Os, ram: u64, set: Option<u64>) -> Self {
        let to = (ram >> 20).saturating_sub(LEFT_FOR_THE_SYSTEM_MIB);
        match (os, set) {
            (Os::Macos, Some(from)) if from < to => Limit::Raise { from, to },
            _ => Limit::None,
        }
    }

    /// What it would be after raising, in MiB.
    pub fn raised(self) -> Option<u64> {
        match self {
            Limit::Raise { to, .. } => Some(to),
            Limit::None => None,
        }
    }
}

/// What a person can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Shrink,
    Raise,
    Continue,
    Quit,
}

/// What there is, and what it could be. Only what has an effect is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// With the memory as it is.
    pub now: Result<Plan, Refusal>,
    /// With a smaller window, which leaves memory to other programs.
    pub smaller: Option<Plan>,
    pub raise: Option<Raise>,
}

/// A higher GPU limit, and what it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    /// In MiB; 0: the system's own choice.
    pub from: u64,
    /// In MiB.
    pub to: u64,
    pub plan: Plan,
}

impl Choices {
    /// None: too little is known for a plan.
    pub fn of(estimate: &MemoryEstimate, limit: Limit) -> Option<Self> {
        let (planner, budget) = estimate.planner.as_ref().zip(estimate.budget())?;
        let now = planner.on(budget);
        let smaller = now.as_ref().ok().and_then(|plan| {
            let window = NARROW_WINDOW.max(smallest_window(plan.window.output));
            if estimate.asked.window.is_some() || plan.window.tokens <= window {
                return None;
            }
            let smaller = planner.narrowed(plan, window, budget);
            (left_by(plan, &smaller) >= WORTH_OFFERING).then_some(smaller)
        });
        let raise = match limit {
            Limit::Raise { from, to } => planner
                .on((to << 20).saturating_sub(estimate.others))
                .ok()
                .filter(|plan| gains(&now, plan))
                .map(|plan| Raise { from, to, plan }),
            Limit::None => None,
        };
        Some(Self {
            now,
            smaller,
            raise,
        })
    }

    /// Whether the question is to be asked.
    pub fn are_asked(&self, checking: Checking) -> bool {
        match checking {
            Checking::Never => false,
            Checking::Always => true,
            Checking::WhenTight => match (&self.now, &self.raise) {
                (Err(_), _) => true,
                (Ok(_), None) => false,
                (Ok(now), Some(raise)) => is_short(&self.now) && is_much_more(now, &raise.plan),
            },
        }
    }

    /// What Enter means. What is planned fits, so it is gone on with, without a password.
    pub fn recommended(&self) -> Answer {
        match (&self.now, &self.raise) {
            (Ok(_), _) => Answer::Continue,
            (Err(_), Some(_)) => Answer::Raise,
            (Err(_), None) => Answer::Quit,
        }
    }
}

/// Whether memory is what bounds it, to less than a wide window.
pub fn is_short(plan: &Result<Plan, Refusal>) -> bool {
    match plan {
        Ok(plan) => plan.bound == Bound::Memory && plan.window.tokens < WIDE_WINDOW,
        Err(refusal) => refusal.is_of_memory(),
    }
}

/// Whether more memory would change enough to be asked for.
pub fn is_worth_asking(now: &Result<Plan, Refusal>, then: &Result<Plan, Refusal>) -> bool {
    match (now, then) {
        (Err(_), Ok(_)) => true,
        (Ok(now), Ok(then)) => is_much_more(now, then),
        (_, Err(_)) => false,
    }
}

fn is_much_more(now: &Plan, then: &Plan) -> bool {
    then.window.tokens * 100 >= now.window.tokens * WORTH_ASKING
}

/// What the smaller plan leaves to others beside the first, in bytes.
pub fn left_by(plan: &Plan, smaller: &Plan) -> u64 {
    plan.shares.taken().saturating_sub(smaller.shares.taken())
}

fn gains(now: &Result<Plan, Refusal>, then: &Plan) -> bool {
    match now {
        Err(_) => true,
        Ok(now) => {
            (then.window.tokens, then.window.output) > (now.window.tokens, now.window.output)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Choice, catalog, resolve};
    use crate::memory::WeightsSource;
    use crate::memory::budget::BudgetSource;
    use crate::memory::plan::Planner;
    use crate::memory::window::Asked;
    use crate::memory::working::Device;

    /// What there is for a model of the catalogue on a Mac of so many GiB, at three quarters of them.
    fn choices(flag: &str, gib: u64, window: Option<u64>) -> Choices {
        let entry = catalog().by_flag(flag).expect("a model");
        let model = resolve(&Choice::Flag(flag.into()), None).expect("a model");
        let weights = (entry.download_bytes(), WeightsSource::Catalog);
        let asked = Asked {
            window,
            output: None,
        };
        let ram = gib << 30;
        let machine = Memory {
            ram,
            budget: ram / 4 * 3,
            budget_source: BudgetSource::ThreeQuartersOfRam,
        };
        let planner = Planner::of(&model, None, weights, Device::Metal, asked);
        let estimate = MemoryEstimate::new(Some(machine), Some(weights), asked, Some(planner));
        Choices::of(&estimate, Limit::of(Os::Macos, ram, Some(0))).expect("known")
    }

    fn asked(choices: &Choices) -> bool {
        choices.are_asked(Checking::WhenTight)
    }

    #[test]
    fn with_room_nothing_is_asked() {
        for (flag, gib) in [("gemma-light", 16), ("gemma", 48), ("coder7b", 16)] {
            assert!(!asked(&choices(flag, gib, None)), "{flag}");
        }
        let ample = choices("gemma-light", 16, None);
        assert!(ample.are_asked(Checking::Always));
        assert!(!ample.are_asked(Checking::Never));
    }

    #[test]
    fn a_model_that_needs_the_limit_raised_is_raised_by_enter() {
        let choices = choices("coder", 24, None);
        assert!(matches!(choices.now, Err(Refusal::Memory { .. })));
        assert!(asked(&choices));
        assert_eq!(choices.recommended(), Answer::Raise);
        assert_eq!(choices.smaller, None);
        let raise = choices.raise.expect("it helps");
        assert_eq!((raise.from, raise.to), (0, 21_504));
    }

    #[test]
    fn a_small_window_that_would_grow_is_asked_about_and_enter_takes_what_fits() {
        let choices = choices("gemma", 24, None);
        assert!(choices.now.is_ok() && asked(&choices));
        assert_eq!(choices.recommended(), Answer::Continue);
    }

    #[test]
    fn what_does_not_help_is_not_offered() {
        let never = choices("coder", 16, None);
        assert_eq!((&never.smaller, &never.raise), (&None, &None));
        assert_eq!(never.recommended(), Answer::Quit);
        let as_asked = choices("gemma", 48, Some(70_000));
        assert_eq!(as_asked.smaller, None, "that window was asked for");
        assert_eq!(as_asked.raise, None, "it fits");
        assert!(!asked(&as_asked));
        let longest = choices("coder7b", 64, None);
        assert_eq!((longest.smaller, longest.raise), (None, None));
    }

    #[test]
    fn a_smaller_window_says_what_it_leaves() {
        let choices = choices("coder", 48, None);
        assert!(choices.raise.is_some());
        let plan = choices.now.expect("a plan");
        let smaller = choices.smaller.expect("it leaves something");
        assert_eq!(smaller.window.tokens, NARROW_WINDOW);
        assert!(left_by(&plan, &smaller) > WORTH_OFFERING);
    }

    #[test]
    fn the_limit_leaves_three_gib_for_the_rest() {
        let limit = |set| Limit::of(Os::Macos, 24 << 30, set);
        assert_eq!(
            limit(Some(0)),
            Limit::Raise {
                from: 0,
                to: 21_504
            }
        );
        assert_eq!(
            limit(Some(20_000)),
            Limit::Raise {
                from: 20_000,
                to: 21_504
            }
        );
        assert_eq!(limit(Some(21_504)), Limit::None);
        assert_eq!(limit(Some(22_000)), Limit::None);
        assert_eq!(limit(None), Limit::None);
        assert_eq!(Limit::of(Os::Linux, 24 << 30, Some(0)), Limit::None);
    }
}
