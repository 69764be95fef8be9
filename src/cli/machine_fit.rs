//! The window that models get on this machine.

use serde_json::Value;

use crate::catalog::{Choice, ModelArgument, Source, catalog, resolve};
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
        let choice = Choice::Argument(ModelArgument::Hub(id.into()));
        self.plan_of(&choice, on_disk, Asked::default())
    }

    /// The same for any model, with what was asked for it.
    pub(super) fn of_choice(&self, choice: &Choice, weights: Option<u64>, asked: Asked) -> Fit {
        self.plan_of(choice, weights, asked).unwrap_or(Fit::Unknown)
    }

    fn plan_of(&self, choice: &Choice, on_disk: Option<u64>, asked: Asked) -> Option<Fit> {
        let hub = &self.paths.hub;
        let model = resolve(choice, None)?;
        let config: Option<Value> = match &model.source {
            Source::Hub(id) => hub::config(hub, id),
            Source::Folder(folder) => hub::folder_config(folder),
        };
        let model = resolve(choice, config.as_ref())?;
        let weights = match (on_disk, &model.source) {
            (Some(bytes), _) => (bytes, WeightsSource::Disk),
            (None, Source::Hub(id)) => (
                catalog().by_id(id)?.download_bytes(),
                WeightsSource::Catalog,
            ),
            (None, Source::Folder(_)) => return None,
        };
        let device = Device::of(self.os);
        let planner = Planner::of(&model, config.as_ref(), weights, device, asked);
        if planner.architecture.knowledge == Knowledge::Guessed {
            return None;
        }
        let raised = self.limit.raised().map(|mib| planner.on(mib << 20));
        Some(Fit::of(&planner.on(self.memory?.budget), raised.as_ref()))
    }
}
