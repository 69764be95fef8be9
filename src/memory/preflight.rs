//! Whether there is enough GPU memory for a session, and what can be done if there is not, where too little is known for a plan (see `choices.rs`).
//! Pure.

use super::{Figures, Fit, NARROW_WINDOW, smallest_window};
use crate::sys::platform::Os;

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
    /// Not a Mac, or one that does not have the setting.
    None,
    /// It is at or above what we would set, in MiB.
    Fine { mib: u64 },
    /// It can be raised, in MiB. From 0: the system's own choice.
    Raise { from: u64, to: u64 },
}

impl Limit {
    /// By the limit that is set now, if there is such a setting.
    pub fn of(os: Os, ram: u64, set: Option<u64>) -> Self {
        let to = (ram >> 20).saturating_sub(LEFT_FOR_THE_SYSTEM_MIB);
        match (os, set) {
            (Os::Macos, Some(mib)) if mib >= to => Limit::Fine { mib },
            (Os::Macos, Some(from)) => Limit::Raise { from, to },
            _ => Limit::None,
        }
    }

    /// What it would be after raising, in MiB.
    pub fn raised(self) -> Option<u64> {
        match self {
            Limit::Raise { to, .. } => Some(to),
            Limit::None | Limit::Fine { .. } => None,
        }
    }
}

/// What a person can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Shrink,
    Raise,
    Both,
    Continue,
    Quit,
}

/// The question, with what it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    pub fit: Fit,
    pub weights: u64,
    /// What there is for it: the machine's budget less what others take.
    pub budget: u64,
    /// Bytes that other engines of ours take or may come to take.
    pub others: u64,
    pub limit: Limit,
    /// The window as it is, in tokens, and as it would be. None: it is as small as it is of use.
    pub window: u64,
    pub shrunk: Option<u64>,
}

impl Question {
    /// The question to ask, if there is one to ask. Where nothing is known there is nothing to offer.
    pub fn of(figures: &Figures, checking: Checking, limit: Limit) -> Option<Self> {
        let small = NARROW_WINDOW.max(smallest_window(figures.window.output));
        let (machine, weights) = figures.machine.zip(figures.weights)?;
        let fit = figures.fit();
        let asked = match checking {
            Checking::Never => false,
            Checking::Always => true,
            Checking::WhenTight => fit != Fit::Ample,
        };
        asked.then_some(Self {
            fit,
            weights,
            budget: machine.budget.saturating_sub(figures.others),
            others: figures.others,
            limit,
            window: figures.window.tokens,
            shrunk: (figures.window.tokens > small).then_some(small),
        })
    }

    /// The budget after raising the limit, in bytes.
    pub fn raised_budget(&self) -> Option<u64> {
        self.limit
            .raised()
            .map(|mib| (mib << 20).saturating_sub(self.others))
    }

    /// What Enter means. A smaller window makes room, but none for weights that do not fit by themselves.
    pub fn recommended(&self) -> Answer {
        let fits_when_raised = self
            .raised_budget()
            .is_some_and(|budget| budget >= self.weights);
        match (self.fit, self.shrunk) {
            (Fit::TooBig(_), Some(_)) if fits_when_raised => Answer::Both,
            (Fit::TooBig(_), None) if fits_when_raised => Answer::Raise,
            (Fit::TooBig(_), _) => Answer::Quit,
            (_, Some(_)) => Answer::Shrink,
            (Fit::Tight(_), None) if fits_when_raised => Answer::Raise,
            (_, None) => Answer::Continue,
        }
    }

    /// The answers that are offered.
    pub fn answers(&self) -> Vec<Answer> {
        let raise = self.limit.raised().is_some();
        let shrink = self.shrunk.is_some();
        let all = [
            (shrink, Answer::Shrink),
            (raise, Answer::Raise),
            (shrink && raise, Answer::Both),
            (true, Answer::Continue),
            (true, Answer::Quit),
        ];
        let offered = all.into_iter().filter(|(offered, _)| *offered);
        offered.map(|(_, answer)| answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::WeightsSource;
    use crate::memory::budget::{BudgetSource, Memory};
    use crate::memory::window::Asked;

    const GIB: u64 = 1 << 30;

    fn figures(ram: u64, weights: u64, window: Option<u64>) -> Figures {
        asking(
            ram,
            weights,
            Asked {
                window,
                output: None,
            },
        )
    }

    fn asking(ram: u64, weights: u64, asked: Asked) -> Figures {
        let machine = Memory {
            ram,
            budget: ram / 4 * 3,
            budget_source: BudgetSource::ThreeQuartersOfRam,
        };
        let weights = Some((weights, WeightsSource::Disk));
        Figures::new(Some(machine), weights, asked, None)
    }

    fn question(ram_gib: u64, weights: u64, asked: Option<u64>) -> Option<Question> {
        let limit = Limit::of(Os::Macos, ram_gib * GIB, Some(0));
        let figures = figures(ram_gib * GIB, weights, asked);
        Question::of(&figures, Checking::WhenTight, limit)
    }

    #[test]
    fn it_is_asked_only_where_memory_is_tight_unless_it_is_to_be_asked_always() {
        assert_eq!(question(16, 5_000_000_000, None), None);
        let ample = figures(16 * GIB, 5_000_000_000, None);
        assert!(Question::of(&ample, Checking::Always, Limit::None).is_some());
        let tight = figures(24 * GIB, 16_000_000_000, None);
        assert!(Question::of(&tight, Checking::WhenTight, Limit::None).is_some());
        assert!(Question::of(&tight, Checking::Never, Limit::None).is_none());
        let unknown = Figures::new(None, None, Asked::default(), None);
        assert!(Question::of(&unknown, Checking::Always, Limit::None).is_none());
    }

    #[test]
    fn the_limit_leaves_three_gib_for_the_rest() {
        let limit = |set| Limit::of(Os::Macos, 24 * GIB, set);
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
        assert_eq!(limit(Some(21_504)), Limit::Fine { mib: 21_504 });
        assert_eq!(limit(Some(22_000)), Limit::Fine { mib: 22_000 });
        assert_eq!(limit(None), Limit::None);
        assert_eq!(Limit::of(Os::Linux, 24 * GIB, Some(0)), Limit::None);
    }

    #[test]
    fn enter_takes_what_helps() {
        let recommended = |ram, weights, asked| {
            question(ram, weights, asked).map(|question| question.recommended())
        };
        assert_eq!(recommended(24, 16_000_000_000, None), Some(Answer::Shrink));
        assert_eq!(
            recommended(24, 16_000_000_000, Some(32_768)),
            Some(Answer::Raise),
            "the window is small already"
        );
        assert_eq!(
            recommended(24, 20_000_000_000, None),
            Some(Answer::Both),
            "too big for the budget, not for the raised one"
        );
        assert_eq!(recommended(16, 18_000_000_000, None), Some(Answer::Quit));
    }

    #[test]
    fn the_small_window_holds_the_longest_reply() {
        let shrunk = |output| {
            let asked = Asked {
                window: None,
                output: Some(output),
            };
            let figures = asking(24 * GIB, 16_000_000_000, asked);
            Question::of(&figures, Checking::WhenTight, Limit::None)
                .and_then(|question| question.shrunk)
        };
        assert_eq!(shrunk(8_192), Some(32_768));
        assert_eq!(shrunk(16_384), Some(37_576));
    }

    #[test]
    fn what_changes_nothing_is_not_offered() {
        use Answer::{Both, Continue, Quit, Raise, Shrink};
        let question = question(24, 16_000_000_000, None).expect("tight");
        assert_eq!(question.answers(), [Shrink, Raise, Both, Continue, Quit]);
        let without_limit = Question {
            limit: Limit::Fine { mib: 21_504 },
            ..question
        };
        assert_eq!(without_limit.answers(), [Shrink, Continue, Quit]);
        let without_window = Question {
            shrunk: None,
            ..question
        };
        assert_eq!(without_window.answers(), [Raise, Continue, Quit]);
    }
}
