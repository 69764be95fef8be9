//! Finds out all that a plan needs (what is installed, cached, free) and makes the plan. Starts nothing that stays.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::client;
pub use super::request::{DEFAULT_OUTPUT_TOKENS, Request, learn, model};
use super::window::{self, Instead};
use crate::app::App;
use crate::catalog::{Model, Source};
use crate::claude::command as plan_claude;
use crate::claude::command::{ClaudePlan, Features};
use crate::claude::features;
use crate::claude::profile;
use crate::claude::settings_files;
use crate::engine::argv as plan_engine;
use crate::engine::argv::EnginePlan;
use crate::engine::device;
use crate::engine::executable::Executable;
use crate::engine::flags::Flags;
use crate::error::{Error, Exit, Result};
use crate::hub::download_progress::Total;
use crate::hub::{self, Cached};
use crate::memory::budget as machine_memory;
use crate::memory::plan::Asked;
use crate::memory::planner::Planner;
use crate::memory::{self, Figures, Fit, WeightsSource};
use crate::supervisor::spec::{Port, Spec};
use crate::sys::disk;
use crate::sys::paths::Paths;
use crate::sys::platform::Os;
use crate::sys::secret::Secret;
use crate::ui;

/// An engine that can be run.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub model: Model,
    pub cached: Cached,
    pub memory: Figures,
    /// What the whole download takes, if there is one to be made.
    pub download: Option<Total>,
    pub engine: EnginePlan,
    /// What a person should know before it starts.
    pub notices: Vec<String>,
}

impl Prepared {
    /// What a supervisor is asked to run.
    pub fn spec(self, engine: &Executable, port: Port) -> Spec {
        Spec {
            port,
            engine: engine.clone(),
            argv: self.engine.argv,
            env: self.engine.env,
            takes_key: self.engine.takes_key,
            complete: matches!(self.cached, Cached::Complete { .. }),
            cached_bytes: self.cached.bytes(),
            download: self.download,
            context_window: self.memory.context_window,
            output_tokens: self.memory.output_tokens,
            weights: self.memory.weights,
            claim: self.memory.plan.as_ref().map(|plan| plan.shares.taken()),
            cache_bytes_per_token: (self.memory.plan.as_ref())
                .map_or(0, |plan| plan.cache_bytes_per_token),
            kept_bytes_per_token: (self.memory.plan.as_ref())
                .map_or(0, |plan| plan.kept_bytes_per_token),
            memory_limit: self.memory.budget(),
            model: self.model,
            hub_tokens: BTreeMap::new(),
            log: None,
        }
    }
}

/// How programs that were not asked before are learnt about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// Ask them, and remember.
    Ask,
    /// Start nothing: what is not remembered is taken to be as in the versions that we pin and test.
    Assume,
}

/// How big the model is, and what there is for it.
#[derive(Debug)]
pub struct Measured {
    pub cached: Cached,
    /// What the whole download takes, if there is one to be made.
    pub download: Option<Total>,
    pub memory: Figures,
}

/// Measures the model and the machine. `remote` tells what the hub says of the size of a model that is not on this disk.
pub fn measure(
    app: &App,
    request: &Request,
    engine: Option<&Executable>,
    remote: impl FnOnce(&str) -> Option<u64>,
) -> Result<Measured> {
    let App {
        environment: host,
        paths,
        ..
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
    let asked = Asked {
        window: request.context_window,
        output: request.output_tokens,
    };
    let planner = weights.and_then(|weights| {
        let config = match &model.source {
            Source::Hub(id) => hub::config(&paths.hub, id),
            Source::Folder(folder) => hub::folder_config(folder),
        };
        let device = memory::working::Device::of(os);
        Planner::of(model, config.as_ref(), weights, device, asked)
    });
    let memory = Figures::new(
        machine_memory::read(host, os, || device::ask(host, &paths.cache, engine?)),
        weights,
        asked,
        planner,
    );
    Ok(Measured {
        cached,
        download,
        memory,
    })
}

/// Whether the disk has room for what is to be downloaded. Too little is an error.
pub fn check_disk(app: &App, name: &str, measured: &Measured) -> Result<()> {
    let App {
        environment: host,
        paths,
        ..
    } = app;
    let Some((total, free)) = measured.download.zip(disk::free(&paths.hub)) else {
        return Ok(());
    };
    let needed = total.room_needed(measured.cached.bytes());
    if needed <= free {
        return Ok(());
    }
    Err(
        Error::new(Exit::Machine, format!("the disk has no room for {name}"))
            .cause(format!(
                "{} of {} are still to be downloaded to {}, and {} are free there",
                ui::bytes(total.bytes().saturating_sub(measured.cached.bytes())),
                ui::bytes(total.bytes()),
                host.tilde(&paths.hub),
                ui::bytes(free)
            ))
            .hint("free some space (`cclocal rm` removes models), or keep models on another disk with HF_HOME"),
    )
}

/// Plans the engine's run. `engine`: None in a dry run where none is installed.
pub fn prepare(
    app: &App,
    request: &Request,
    measured: Measured,
    engine: Option<&Executable>,
    probing: Probing,
) -> Result<Prepared> {
    let App {
        environment: host,
        paths,
        ..
    } = app;
    let Measured {
        cached,
        download,
        mut memory,
    } = measured;
    let model = request.model.clone();
    let mut notices = request.notices();
    match memory.planned() {
        None => check_window(memory.context_window, memory.output_tokens, None)?,
        Some(Ok(_)) => {}
        Some(Err(refusal)) if refusal.is_of_memory() => {
            memory.insist();
            notices.extend(window::insisted(&model.name, &memory));
        }
        Some(Err(refusal)) => {
            return Err(window::refused(&model.name, &refusal, Instead::default()));
        }
    }
    if let (None, Some(machine), Some(bytes), Fit::TooBig(_)) =
        (&memory.plan, &memory.machine, memory.weights, memory.fit())
    {
        notices.push(format!(
            "{} needs {} for its weights alone, and this machine has {} for it ({}): expect it to fail; cclocal --gemma-light is smaller",
            model.name,
            ui::bytes(bytes),
            ui::bytes(machine.budget.saturating_sub(memory.others)),
            machine.budget_source.words()
        ));
    }
    let flags = match (engine, probing) {
        (Some(engine), Probing::Ask) => {
            crate::engine::flags::probe(host, &paths.cache, &engine.script)?
        }
        (Some(engine), Probing::Assume) => {
            crate::engine::flags::remembered(&paths.cache, &engine.script)
                .unwrap_or_else(Flags::of_pinned_engine)
        }
        (None, _) => Flags::of_pinned_engine(),
    };
    let engine = plan_engine::plan(&plan_engine::Inputs {
        model: &model,
        output_tokens: memory.output_tokens,
        plan: memory.plan.as_ref(),
        complete: matches!(cached, Cached::Complete { .. }),
        flags: &flags,
        text_models: &paths.text_models(),
        kept_prefixes: (!request.forget_prefix).then_some(paths.kept_prefixes().as_path()),
    });
    notices.extend(engine.notices.iter().cloned());
    Ok(Prepared {
        model,
        cached,
        memory,
        download,
        engine,
        notices,
    })
}

/// What Claude Code is started for.
pub struct Client<'a> {
    /// What follows `--` on the command line.
    pub args: &'a [OsString],
    /// Whether options that are not known are passed on.
    pub unknown_options: bool,
    /// Where its settings will be written.
    pub settings: &'a Path,
    /// The gateway's port on 127.0.0.1.
    pub port: u16,
    pub token: Secret,
    /// The served model's name.
    pub model: &'a str,
    /// In tokens.
    pub context_window: u64,
    /// In tokens.
    pub output_tokens: u64,
}

/// What Claude Code can be asked for, as far as it is remembered. `program`: None where it is not installed.
pub fn assumed_features(paths: &Paths, program: Option<&Path>) -> Features {
    program
        .and_then(|claude| features::remembered(&paths.cache, claude))
        .unwrap_or_default()
}

/// Plans Claude Code's run, with the settings files as they are now. Errors: arguments and settings that would take the session elsewhere.
pub fn plan_client(app: &App, client: &Client, features: &Features) -> Result<ClaudePlan> {
    let App {
        environment: host,
        paths,
        ..
    } = app;
    let settings_files = settings_files::read(host, app.os()? == Os::Macos)?;
    let profile_dir = paths.claude_profile();
    let mut plan = plan_claude::plan(&plan_claude::Inputs {
        environment: host,
        profile_dir: &profile_dir,
        settings_path: client.settings,
        base_url: format!("http://127.0.0.1:{}", client.port),
        token: client.token.clone(),
        model: client.model.to_owned(),
        context_window: client.context_window,
        output_tokens: client.output_tokens,
        user_args: client.args,
        unknown_options: client.unknown_options,
        own_settings: &profile::own_settings(host, &profile_dir),
        settings_files: &settings_files,
        features,
    })?;
    if client::options_without_debugger(host).is_some() {
        plan.notices.push("Claude Code ends at once where NODE_OPTIONS attaches a debugger: in this session those options are left out of it".into());
    }
    Ok(plan)
}

/// Whether a person will talk with Claude Code, rather than a script.
pub fn is_interactive(plan: &ClaudePlan) -> bool {
    !plan.argv.iter().any(|word| {
        ["-p", "--print", "--help", "-h", "--version", "-v"]
            .iter()
            .any(|flag| word == flag)
    })
}

/// A window that the reply's budget, the reserve for compaction and Claude Code's own first request do not fit in could not hold a turn.
/// `most`: the largest that can be had, where there is such a limit.
pub(super) fn check_window(window: u64, output: u64, most: Option<u64>) -> Result<()> {
    if memory::smallest_window(output) <= window {
        return Ok(());
    }
    Err(window::no_room(window, output, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_must_leave_room_for_the_question() {
        assert!(check_window(32_768, 8_192, None).is_ok());
        let error = check_window(32_768, 32_768, None).expect_err("no room");
        insta::assert_snapshot!(error, @"
        error: replies of 32768 tokens leave no room in a window of 32768 tokens
          cause: Claude Code's own first request takes 8192 tokens of it, and it keeps 13000 free to compact in
          hint: take --out-tokens 11576 or less, or --ctx 53960 or more
        ");
        let error = check_window(20_000, 8_192, None).expect_err("no room");
        insta::assert_snapshot!(error, @"
        error: replies of 8192 tokens leave no room in a window of 20000 tokens
          cause: Claude Code's own first request takes 8192 tokens of it, and it keeps 13000 free to compact in
          hint: take --ctx 29384 or more
        ");
    }
}
