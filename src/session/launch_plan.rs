//! The launch plan: measured and planned once, then run by a supervisor or printed. Starts nothing that stays.

use std::collections::BTreeMap;

use super::request::Request;
use super::window::{self, Alternative};
use crate::app::App;
use crate::catalog::Source;
use crate::engine::argv::Serve;
use crate::engine::device;
use crate::engine::executable::Executable;
use crate::engine::flags::{self, Flags};
use crate::error::{Error, Exit, Result};
use crate::hub::download_progress::Total;
use crate::hub::{self, Cached};
use crate::memory::plan::Planner;
use crate::memory::working::Device;
use crate::memory::{MemoryEstimate, WeightsSource, budget};
use crate::supervisor::spec::{Port, Spec};
use crate::sys::disk;
use crate::ui;

/// A model and this machine, as they were measured for a request.
#[derive(Debug)]
pub struct Measured {
    pub request: Request,
    pub cached: Cached,
    /// Size of the whole download, if one is needed.
    pub download: Option<Total>,
    pub memory: MemoryEstimate,
}

/// An engine that can be run.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    pub serve: Serve,
    pub cached: Cached,
    /// Size of the whole download, if one is needed.
    pub download: Option<Total>,
    pub memory: MemoryEstimate,
    /// Notes for the person before the start.
    pub notices: Vec<String>,
}

/// How programs that were not asked before are learnt about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// Ask them, and remember.
    Ask,
    /// Start nothing: what is not remembered is taken to be as in the versions that we pin and test.
    Assume,
}

impl Measured {
    /// Measures the model and the machine. `remote` tells what the hub says of the size of a model that is not on this disk.
    pub fn of(
        app: &App,
        request: Request,
        engine: Option<&Executable>,
        remote: impl FnOnce(&str) -> Option<u64>,
    ) -> Result<Self> {
        let App {
            environment, paths, ..
        } = app;
        let os = app.os()?;
        let model = &request.model;
        let cached = match &model.source {
            Source::Hub(id) => hub::cached(&paths.hub, id),
            Source::Folder(folder) => Cached::Complete {
                bytes: hub::folder_bytes(folder),
                snapshot: folder.clone(),
            },
        };
        let (weights, download) = match (&cached, &model.source) {
            (Cached::Missing | Cached::Partial { .. }, Source::Hub(id)) => {
                let total = remote(id)
                    .map(Total::Hub)
                    .or(model.download_bytes.map(Total::Catalog));
                let weights = total.map(|total| match total {
                    Total::Hub(bytes) => (bytes, WeightsSource::Hub),
                    Total::Catalog(bytes) => (bytes, WeightsSource::Catalog),
                });
                (weights, total)
            }
            _ => (Some((cached.bytes(), WeightsSource::Disk)), None),
        };
        let planner = weights.map(|weights| {
            let config = match &model.source {
                Source::Hub(id) => hub::config(&paths.hub, id),
                Source::Folder(folder) => hub::folder_config(folder),
            };
            let device = Device::of(os);
            Planner::of(model, config.as_ref(), weights, device, request.asked)
        });
        let machine = budget::read(environment, os, || {
            device::ask(environment, &paths.cache, engine?)
        });
        let memory = MemoryEstimate::new(machine, weights, request.asked, planner);
        Ok(Self {
            request,
            cached,
            download,
            memory,
        })
    }

    /// Whether the disk has room for what is to be downloaded. Too little is an error.
    pub fn check_disk(&self, app: &App) -> Result<()> {
        let hub = &app.paths.hub;
        let Some((total, free)) = self.download.zip(disk::free(hub)) else {
            return Ok(());
        };
        let there = self.cached.bytes();
        if total.space_needed(there) <= free {
            return Ok(());
        }
        let name = &self.request.model.name;
        Err(
            Error::new(Exit::Machine, format!("there is not enough disk space for {name}"))
                .cause(format!(
                    "{} of {} must still be downloaded to {}, and {} are free there",
                    ui::bytes(total.bytes().saturating_sub(there)),
                    ui::bytes(total.bytes()),
                    app.environment.tilde(hub),
                    ui::bytes(free)
                ))
                .hint("free some space (`cclocal rm` removes models), or keep models on another disk with HF_HOME"),
        )
    }

    /// Plans the engine's run. `engine`: None in a dry run where none is installed.
    pub fn plan(
        self,
        app: &App,
        engine: Option<&Executable>,
        probing: Probing,
    ) -> Result<LaunchPlan> {
        let App {
            environment, paths, ..
        } = app;
        let Self {
            request,
            cached,
            download,
            mut memory,
        } = self;
        let name = &request.model.name;
        let mut notices = request.notices();
        match memory.planned() {
            None => window::check(memory.window, None)?,
            Some(Ok(_)) => {}
            Some(Err(refusal)) if refusal.is_of_memory() => {
                memory.insist();
                notices.extend(window::insisted(name, &memory));
            }
            Some(Err(refusal)) => {
                return Err(window::refused(name, &refusal, Alternative::default()));
            }
        }
        let flags = match (engine, probing) {
            (Some(engine), Probing::Ask) => {
                flags::probe(environment, &paths.cache, &engine.script)?
            }
            (Some(engine), Probing::Assume) => flags::remembered(&paths.cache, &engine.script)
                .unwrap_or_else(Flags::of_pinned_engine),
            (None, _) => Flags::of_pinned_engine(),
        };
        let serve = Serve::new(request.model, memory.window, memory.plan.as_ref(), flags);
        let complete = matches!(cached, Cached::Complete { .. });
        let told = matches!(download, Some(Total::Hub(_)));
        let serve = Serve {
            complete,
            hub_is_silent: !complete && !told && probing == Probing::Ask,
            text_models: paths.text_models(),
            kept_prefixes: (!request.forget_prefix).then(|| paths.kept_prefixes()),
            ..serve
        };
        notices.extend(serve.command(0).notices);
        Ok(LaunchPlan {
            serve,
            cached,
            download,
            memory,
            notices,
        })
    }
}

impl LaunchPlan {
    /// The specification for a supervisor.
    pub fn spec(self, engine: &Executable, port: Port) -> Spec {
        let plan = self.memory.plan.as_ref();
        Spec {
            port,
            engine: engine.clone(),
            cached_bytes: self.cached.bytes(),
            download: self.download,
            weights: self.memory.weights,
            claim: plan.map(|plan| plan.shares.taken()),
            cache_bytes_per_token: plan.map_or(0, |plan| plan.cache_bytes_per_token),
            kept_bytes_per_token: plan.map_or(0, |plan| plan.kept_bytes_per_token),
            memory_limit: self.memory.budget(),
            serve: self.serve,
            hub_tokens: BTreeMap::new(),
            log: None,
        }
    }
}
