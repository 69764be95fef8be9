//! The window that models get on this machine.

use serde_json::Value;

use crate::catalog::{Choice, ModelArgument, catalog, resolve};
use crate::engine::device;
use crate::engine::executable::{self, Found};
use crate::hub;
use crate::memory::architecture::Knowledge;
use crate::memory::budget::{self as machine_memory, Memory};
use crate::memory::fit::Fit;
use crate::memory::plan::Planner;
use crate::memory::preflight::Limit;
use crate::memory::working::Device;
use crate::memory::{Asked, WeightsSource};
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::platform::{Os, Platform};

/// Memory of this machine, and the window that each model gets with it.
pub(super) struct MachineFit<'a> {
    paths: &'a Paths,
    /// If the system told.
    pub memory: Option<Memory>,
    os: Os,
    limit: Limit,
}

impl<'a> MachineFit<'a> {
    pub(super) fn find(host: &Environment, paths: &'a Paths) -> Self {
        let os = Platform::detect(host).map_or(Os::Linux, |platform| platform.os);
        let memory = machine_memory::read(host, os, || match executable::find(host, paths) {
            Ok(Found::Ready(engine)) => device::ask(host, &paths.cache, &engine),
            _ => None,
        });
        Self {
            paths,
            memory,
            os,
            limit: Limit::find(host, os, memory),
        }
    }

    /// How a model fits, with no other engine beside it. `weights`: its bytes on this disk, if all of it is there; else the catalogue's figure is taken.
    pub(super) fn room(&self, id: &str, weights: Option<u64>) -> Fit {
        self.plan(id, weights).unwrap_or(Fit::Unknown)
    }

    fn plan(&self, id: &str, on_disk: Option<u64>) -> Option<Fit> {
        let config: Option<Value> = hub::config(&self.paths.hub, id);
        let choice = Choice::Argument(ModelArgument::Hub(id.into()));
        let model = resolve(&choice, config.as_ref())?;
        let weights = match on_disk {
            Some(bytes) => (bytes, WeightsSource::Disk),
            None => (
                catalog().by_id(id)?.download_bytes(),
                WeightsSource::Catalog,
            ),
        };
        let device = Device::of(self.os);
        let planner = Planner::of(&model, config.as_ref(), weights, device, Asked::default());
        if planner.architecture.knowledge == Knowledge::Guessed {
            return None;
        }
        let raised = self.limit.raised().map(|mib| planner.on(mib << 20));
        Some(Fit::of(&planner.on(self.memory?.budget), raised.as_ref()))
    }
}
