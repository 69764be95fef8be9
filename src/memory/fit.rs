//! How a model fits on a machine: its window, or the memory that is missing; and the model of the catalogue that fits instead.

use super::WeightsSource;
use super::plan::{Plan, Planner, Refusal};
use super::window::Asked;
use super::working::Device;
use crate::catalog::{Choice, Entry, catalog, resolve};

/// How a model fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// This window, in tokens.
    Window { tokens: u64, estimated: bool },
    /// Only with the GPU limit raised: this window, in tokens.
    Raised { tokens: u64, estimated: bool },
    /// This many bytes are missing for the smallest useful window.
    TooBig(u64),
    /// Its context window, in tokens, is too small for Claude Code.
    TooShort(u64),
    /// Its size, its layers or the machine's memory are unknown.
    Unknown,
}

impl Fit {
    /// The fit of a plan. `raised`: the plan with the GPU limit raised, where it can be.
    pub fn of(plan: &Result<Plan, Refusal>, raised: Option<&Result<Plan, Refusal>>) -> Self {
        match (plan, raised) {
            (Ok(plan), _) => Fit::Window {
                tokens: plan.window.tokens,
                estimated: plan.estimated,
            },
            (Err(Refusal::Memory { .. }), Some(Ok(plan))) => Fit::Raised {
                tokens: plan.window.tokens,
                estimated: plan.estimated,
            },
            (Err(refusal), _) => Fit::refused(refusal),
        }
    }

    fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Memory { needed, usable, .. } => Fit::TooBig(needed.saturating_sub(*usable)),
            Refusal::Model { longest, .. } => Fit::TooShort(*longest),
            Refusal::Asked { fits, .. } => Fit::Window {
                tokens: *fits,
                estimated: false,
            },
            Refusal::Reply { .. } => Fit::Unknown,
        }
    }

    /// The window that a raised GPU limit gives where there is none without, in tokens.
    pub fn raised(self) -> Option<u64> {
        match self {
            Fit::Raised { tokens, .. } => Some(tokens),
            Fit::Window { .. } | Fit::TooBig(_) | Fit::TooShort(_) | Fit::Unknown => None,
        }
    }

    /// The window with the memory as it is, in tokens.
    pub fn window(self) -> Option<u64> {
        match self {
            Fit::Window { tokens, .. } => Some(tokens),
            Fit::Raised { .. } | Fit::TooBig(_) | Fit::TooShort(_) | Fit::Unknown => None,
        }
    }
}

/// The plan of a model of the catalogue. `weights`: its bytes on this disk, if all of it is there; else the catalogue's figure is taken and the
/// plan is estimated. None: the catalogue does not have it.
pub fn plan(
    entry: &Entry,
    weights: Option<u64>,
    budget: u64,
    device: Device,
    asked: Asked,
) -> Option<Result<Plan, Refusal>> {
    let model = resolve(&Choice::Flag(entry.flag.clone()), None)?;
    let weights = match weights {
        Some(bytes) => (bytes, WeightsSource::Disk),
        None => (entry.download_bytes(), WeightsSource::Catalog),
    };
    Some(Planner::of(&model, None, weights, device, asked).on(budget))
}

/// The model to take instead of one that does not fit: of those that do, one for the largest Macs, and its window in tokens.
pub fn instead(budget: u64, device: Device, asked: Asked) -> Option<(&'static Entry, u64)> {
    let fitting = catalog().models.iter().filter_map(|entry| {
        let plan = plan(entry, None, budget, device, asked)?.ok()?;
        Some((entry, plan.window.tokens))
    });
    // The first of several.
    fitting.rev().max_by_key(|(entry, _)| entry.ram_gb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(gib: u64) -> Option<String> {
        let asked = Asked::default();
        instead(gib << 30, Device::Metal, asked).map(|(entry, _)| entry.flag.clone())
    }

    #[test]
    fn the_biggest_that_fits_is_offered() {
        assert_eq!(on(2), None);
        assert_eq!(on(12).as_deref(), Some("gemma-light"));
        assert_eq!(on(20).as_deref(), Some("gemma"));
        assert_eq!(on(96).as_deref(), Some("gemma"));
    }

    /// The sizes that Macs are sold with, in GB. With the GPU limit raised to all but 3 GiB the model holds a session on that of the catalogue, and
    /// not on the one before.
    #[test]
    fn the_catalogue_names_the_smallest_mac_that_a_model_runs_on() {
        let sizes = [16, 24, 32, 36, 48, 64];
        for entry in &catalog().models {
            let fits = |ram: &u64| {
                let budget = (ram - 3) << 30;
                let made = plan(entry, None, budget, Device::Metal, Asked::default());
                made.expect("known").is_ok()
            };
            let smallest = sizes.iter().find(|ram| fits(ram));
            assert_eq!(smallest, Some(&entry.ram_gb), "{}", entry.name);
        }
    }

    #[test]
    fn what_is_on_the_disk_is_no_estimate() {
        let entry = catalog().by_flag("gemma").expect("a model");
        let plan = |weights| {
            let budget = 24 << 30;
            let made = plan(entry, weights, budget, Device::Metal, Asked::default());
            made.expect("known").expect("it fits")
        };
        assert!(plan(None).estimated);
        let exact = plan(Some(15_000_000_000));
        assert!(!exact.estimated);
        assert!(exact.window.tokens >= plan(None).window.tokens);
    }
}
