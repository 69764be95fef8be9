//! What the models of the catalogue get on a machine.

use super::WeightsSource;
use super::plan::{Plan, Refusal};
use super::planner::Planner;
use super::window::Asked;
use super::working::Device;
use crate::catalog::{Choice, Entry, catalog, resolve};

/// The plan of a model of the catalogue. `weights`: its bytes on this disk, if all of it is there; else the catalogue's figure is taken and the
/// plan is estimated. None: its architecture is unknown.
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
    Planner::of(&model, None, weights, device, asked).map(|planner| planner.on(budget))
}

/// The model to take instead of one that does not fit: the biggest that does, and its window in tokens.
pub fn instead(budget: u64, device: Device, asked: Asked) -> Option<(&'static Entry, u64)> {
    let fitting = catalog().models.iter().filter_map(|entry| {
        let plan = plan(entry, None, budget, device, asked)?.ok()?;
        Some((entry, plan.window.tokens))
    });
    // The first of those that are equally big.
    fitting.rev().max_by_key(|(entry, _)| entry.download_gb)
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
        assert_eq!(on(96).as_deref(), Some("coder"));
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
