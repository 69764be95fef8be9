//! Finds an engine for a session: one that runs already, or a new one if it fits in memory beside those that run.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::catalog::Source;
use crate::engine::executable::Executable;
use crate::error::{Context, Error, Exit, Result};
use crate::hub::{self, Cached, api};
use crate::memory::MemoryEstimate;
use crate::memory::gpu_limit::Raised;
use crate::memory::preflight::{self, Checking, Choices, Limit};
use crate::session::launch_plan::{LaunchPlan, Measured, Probing};
use crate::session::preflight::{self as prompt, Outcome};
use crate::session::request::{self, Request};
use crate::session::window::{self, Alternative};
use crate::supervisor::protocol::Status;
use crate::supervisor::registry::{self, Running};
use crate::supervisor::reservation::USUAL_PORT;
use crate::supervisor::spawn;
use crate::supervisor::spec::Port;
use crate::sys::files::{self, Lock};
use crate::sys::paths::Paths;
use crate::sys::platform::Os;
use crate::sys::port;
use crate::sys::process;
use crate::ui;

/// Attempts, as other engines may start or stop in between.
const TRIES: usize = 5;

/// How long another session may take to start an engine: longer than it waits for one itself.
const OTHERS_START: Duration = Duration::from_secs(30);

/// Engine that a session asks for.
pub struct Acquire<'a> {
    pub app: &'a App,
    pub request: &'a Request,
    pub engine: &'a Executable,
    pub checking: Checking,
}

/// Outcome of [`acquire`].
pub enum Acquired {
    /// The gateway to the engine listens on this port; the engine may still be starting.
    Port(u16),
    /// It is not wanted any more: end with this exit status.
    Left(u8),
}

/// Finds the engine or starts one. `raised`: the raised GPU limit, also if that fails; whoever called puts it back.
pub fn acquire(acquire: &Acquire, raised: &mut Option<Raised>) -> Result<Acquired> {
    let wanted = acquire.request.wanted(&acquire.engine.script);
    for _ in 0..TRIES {
        let running = current(acquire)?;
        if let Some(status) = running.iter().find(|status| wanted.is(status)) {
            for notice in acquire.request.notices() {
                acquire.app.ui.notice(&notice);
            }
            return Ok(Acquired::Port(status.port));
        }
        let plan = match check(acquire, &running)? {
            Checked::Go(plan, limit) => {
                *raised = limit.or(raised.take());
                (*plan)?
            }
            Checked::Again => continue,
            Checked::Left(status) => return Ok(Acquired::Left(status)),
        };
        // Two that start at once: the second finds the first.
        let lock = lock(acquire)?;
        let ports = |statuses: &[Status]| -> Vec<u16> {
            statuses.iter().map(|status| status.port).collect()
        };
        if ports(&current(acquire)?) != ports(&running) {
            drop(lock);
            continue;
        }
        for notice in &plan.notices {
            acquire.app.ui.notice(notice);
        }
        let port = match acquire.request.port {
            Some(port) => Port::Exactly(port),
            None => Port::From(USUAL_PORT),
        };
        let mut spec = plan.spec(acquire.engine, port);
        if acquire.checking == Checking::Never {
            // It is not shrunk later either.
            spec.memory_limit = None;
        }
        return spawn::start(&acquire.app.environment, &spec).map(Acquired::Port);
    }
    Err(
        Error::other("other engines keep starting and stopping at the same time")
            .hint("run it again; `cclocal status` shows what runs"),
    )
}

/// Engines that run and can be used. Waits for one that is ending; replaces an idle one of another version.
///
/// Errors: one does not answer. It may have the model that is asked for, and takes an unknown amount of memory.
fn current(acquire: &Acquire) -> Result<Vec<Status>> {
    let mut usable = Vec::new();
    for running in registry::running(&acquire.app.paths) {
        match running {
            Running::Known(status) if !registry::is_usable(&status) => {
                let _progress = acquire.app.ui.progress("waiting for an engine that is ending");
                registry::wait_until_gone(&acquire.app.paths, status.port)?;
            }
            Running::Known(status)
                if status.version != env!("CARGO_PKG_VERSION") && status.is_idle() =>
            {
                replace(acquire, status.port, &status.version)?;
            }
            Running::Known(status) => usable.push(*status),
            Running::Foreign {
                port,
                version,
                used: false,
                ..
            } => replace(acquire, port, &version)?,
            Running::Silent(holder) => {
                return Err(holder.silent(format!(
                    "{} was not started",
                    acquire.request.model.name
                )));
            }
            Running::Foreign { port, version, .. } => acquire.app.ui.notice(&format!(
                "another version of cclocal ({version}) runs an engine on port {port}; its memory is not counted"
            )),
        }
    }
    Ok(usable)
}

fn replace(acquire: &Acquire, port: u16, version: &str) -> Result<()> {
    acquire.app.ui.notice(&format!(
        "stopping an idle engine of another version of cclocal ({version})"
    ));
    registry::stop(&acquire.app.paths, port, false)
}

/// Outcome of the memory check.
enum Checked {
    /// With the GPU limit, if it was raised for it.
    Go(Box<Result<LaunchPlan>>, Option<Raised>),
    /// An engine was stopped to make room: check again.
    Again,
    Left(u8),
}

/// Checks that the model fits in memory beside those that run, and makes the plan.
fn check(acquire: &Acquire, running: &[Status]) -> Result<Checked> {
    let &Acquire {
        app,
        request,
        engine,
        checking,
    } = acquire;
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let os = app.os()?;
    let name = request.model.name.as_str();
    let mut request = request.clone();
    refuse_offline(app, &request)?;
    let mut size = None;
    request::learn(paths, &mut request, |id| {
        let _progress = ui.progress(&format!("asking the hub about {name}"));
        let told = process::runtime().map(|runtime| runtime.block_on(api::model_info(host, id)));
        let told = told.unwrap_or_default();
        size = told.size;
        told
    })?;
    let ask_hub = |id: &str| {
        if size.is_some() {
            return size;
        }
        let _progress = ui.progress(&format!("asking the hub for the size of {name}"));
        process::runtime().ok()?.block_on(api::size(host, id))
    };
    let mut measured = Measured::of(app, request, Some(engine), ask_hub)?;
    let others: u64 = running
        .iter()
        .map(|status| claim(os, status))
        .fold(0, u64::saturating_add);
    measured.memory.with_others(others);
    if let Some(Err(refusal)) = measured.memory.planned()
        && !refusal.is_of_memory()
    {
        return Err(window::refused(name, &refusal, Alternative::default()));
    }
    if checking != Checking::Never && !running.is_empty() {
        let unused = running.iter().filter(|status| status.is_idle());
        if would_help(&measured.memory, unused) && make_room(acquire, running)? {
            return Ok(Checked::Again);
        }
        refuse_beside(acquire, &measured.memory, running)?;
    }
    if checking != Checking::Never {
        for status in running {
            ui.notice(&format!("also loaded: {}", words(status)));
        }
    }
    measured.check_disk(app)?;
    let raised = match prompt::check(app, name, checking, &mut measured.memory)? {
        Outcome::Go(raised) => raised,
        Outcome::Left(status) => return Ok(Checked::Left(status)),
    };
    let plan = measured.plan(app, Some(engine), Probing::Ask);
    Ok(Checked::Go(Box::new(plan), raised))
}

/// Refuses a model of which nothing is on this disk where nothing may be downloaded. The engine would find that out itself, after three tries.
pub(super) fn refuse_offline(app: &App, request: &Request) -> Result<()> {
    let is_missing = match &request.model.source {
        Source::Hub(id) => matches!(hub::cached(&app.paths.hub, id), Cached::Missing),
        Source::Folder(_) => false,
    };
    if !is_missing || !app.environment.switch("HF_HUB_OFFLINE") {
        return Ok(());
    }
    let name = &request.model.name;
    Err(
        Error::new(Exit::Download, format!("{name} is not on this disk"))
            .cause("offline mode is on (HF_HUB_OFFLINE), so it cannot be downloaded")
            .hint("unset HF_HUB_OFFLINE and run it again; cclocal list shows what is on this disk"),
    )
}

/// Memory for the conversation of an engine whose plan is unknown, in bytes. Source: the scripts' README, problem 17 ("~6GB").
const CONVERSATION: u64 = 6_000_000_000;

/// Memory of the budget that an engine takes or may take, in bytes: its plan, else its weights and [`CONVERSATION`]. Less what it has taken already,
/// if the budget is the memory that is available now.
fn claim(os: Os, status: &Status) -> u64 {
    let all = whole_claim(status);
    match os {
        Os::Macos => all,
        Os::Linux => all.saturating_sub(status.resident.unwrap_or(0)),
    }
}

/// The same, with what it has taken already.
fn whole_claim(status: &Status) -> u64 {
    let guess = status.weights.unwrap_or(0).saturating_add(CONVERSATION);
    status.claim.unwrap_or(guess)
}

/// Whether the GPU limit can be raised, and would give it room.
fn raising_helps(acquire: &Acquire, estimate: &MemoryEstimate) -> Result<bool> {
    let App {
        environment, ui, ..
    } = acquire.app;
    let option = Limit::find(environment, acquire.app.os()?, estimate.machine);
    let choices = Choices::of(estimate, option);
    Ok(ui.interactive && choices.is_some_and(|choices| choices.raise.is_some()))
}

/// Stops idle engines, if the person agrees; without a terminal, without asking. True if one was stopped.
fn make_room(acquire: &Acquire, running: &[Status]) -> Result<bool> {
    let mut made = false;
    for status in running.iter().filter(|status| status.is_idle()) {
        let ui = &acquire.app.ui;
        let agreed = if ui.interactive {
            ui.confirm(&format!(
                "{} is loaded and idle. Stop it to make room?",
                words(status)
            ))
        } else {
            ui.notice(&format!("stopping {} to make room", words(status)));
            true
        };
        if agreed {
            let _progress = ui.progress("stopping it");
            registry::stop(&acquire.app.paths, status.port, false)?;
            made = true;
        }
    }
    Ok(made)
}

/// Whether the model would fit, or get a much larger window, without these engines.
fn would_help<'a>(estimate: &MemoryEstimate, ended: impl Iterator<Item = &'a Status>) -> bool {
    let (Some(now), Some(budget)) = (estimate.planned(), estimate.budget()) else {
        return false;
    };
    let freed = ended.map(whole_claim).fold(0, u64::saturating_add);
    let then = estimate.planned_on(budget.saturating_add(freed));
    preflight::is_short(&now) && then.is_some_and(|then| preflight::is_worth_asking(&now, &then))
}

/// Errors: the model would fit alone, and does not fit beside engines in use.
fn refuse_beside(acquire: &Acquire, estimate: &MemoryEstimate, running: &[Status]) -> Result<()> {
    let name = &acquire.request.model.name;
    let fits_alone = match estimate.planned() {
        Some(Ok(_)) => false,
        // What can be raised is asked about.
        Some(Err(_)) if raising_helps(acquire, estimate)? => false,
        Some(Err(_)) => would_help(estimate, running.iter()),
        None => false,
    };
    if !fits_alone {
        return Ok(());
    }
    let what: Vec<String> = running.iter().map(words).collect();
    Err(Error::new(
        Exit::Machine,
        format!("{name} does not fit in memory beside the models that are loaded"),
    )
    .cause(what.join("; "))
    .hint(match running.first() {
        Some(status) => format!(
            "close that session first, or use its model here too: cclocal {}",
            status.typed
        ),
        None => "close that session first".into(),
    }))
}

/// Description of an engine: model, memory, port and sessions.
pub fn words(status: &Status) -> String {
    let memory = status.weights.or(status.resident);
    let memory = memory.map_or_else(String::new, |bytes| format!("{}, ", ui::memory(bytes)));
    let sessions = match status.sessions.as_slice() {
        [] => "no session".to_owned(),
        [pid] => format!("1 session, process {pid}"),
        pids => format!("{} sessions", pids.len()),
    };
    format!("{} ({memory}port {}, {sessions})", status.name, status.port)
}

/// The engine on this port; without a port the only one that runs, else the one on the usual port.
pub fn find_running(paths: &Paths, asked: Option<u16>) -> Result<Status> {
    let running = registry::statuses(paths);
    let wanted = match (asked, running.as_slice()) {
        (None, [only]) => only.port,
        (asked, _) => asked.unwrap_or(USUAL_PORT),
    };
    if let Some(status) = running.iter().find(|status| status.port == wanted) {
        return Ok(status.clone());
    }
    let there = registry::at(paths, wanted);
    if let Some(Running::Silent(holder)) = &there {
        return Err(holder.silent(format!("the engine on port {wanted} cannot be used")));
    }
    let error = Error::other(format!("no engine of cclocal runs on port {wanted}"));
    if !running.is_empty() {
        let others: Vec<String> = running.iter().map(words).collect();
        return Err(error
            .cause(format!("running: {}", others.join("; ")))
            .hint(format!(
                "name its port: cclocal connect --port {}",
                running[0].port
            )));
    }
    let cause = match there {
        Some(Running::Foreign { version, .. }) => {
            format!("the engine there belongs to another version of cclocal ({version})")
        }
        _ if port::is_free(wanted) => "nothing listens there".to_owned(),
        _ => "another program listens there".to_owned(),
    };
    Err(error
        .cause(cause)
        .hint("start one with `cclocal --server`, in another terminal"))
}

/// The lock under which engines are started. It is held for milliseconds.
fn lock(acquire: &Acquire) -> Result<Lock> {
    let folder = &acquire.app.paths.state;
    let unusable = || {
        format!(
            "the folder {} cannot be used",
            acquire.app.environment.tilde(folder)
        )
    };
    let take = || {
        files::private_folder(folder)?;
        Lock::exclusive(files::open_lock(&folder.join("start.lock"), 0o600)?)
    };
    let since = Instant::now();
    loop {
        if let Some(lock) = take().context(Exit::Other, unusable())? {
            return Ok(lock);
        }
        if since.elapsed() >= OTHERS_START {
            let seconds = OTHERS_START.as_secs();
            return Err(
                Error::other("another session of cclocal is starting an engine")
                    .cause(format!("it has not finished within {seconds} s"))
                    .hint("if that session is suspended, resume it or end it, then run this again"),
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How long the engine is kept after its last session: as asked, else as usual; not at all where the GPU limit was raised for it.
pub fn linger(asked: Option<u64>, limit: Option<&Raised>) -> Duration {
    match (limit, asked) {
        (Some(_), _) => Duration::ZERO,
        (None, Some(seconds)) => Duration::from_secs(seconds),
        (None, None) => crate::session::release::LINGER,
    }
}
