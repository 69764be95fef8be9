//! The session itself: Claude Code in the foreground, side by side with whatever answers it, which is an engine of ours behind a lease, or one that
//! somebody else runs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::orphan_guard::Watcher;
use super::rehearsal::Rehearsal;
use super::release;
use super::session_dir::SessionDir;
use super::wait_ready::{self, WaitOutcome};
use crate::app::App;
use crate::claude::command::{ClaudePlan, Features};
use crate::claude::features::Asked;
use crate::claude::foreground::{self, Foreground};
use crate::claude::launch::{self, Endpoint, Output, Places, UserArgs};
use crate::claude::permissions::Asking;
use crate::claude::profile;
use crate::error::{Context, Error, Exit, Result};
use crate::supervisor::protocol::{Granted, SessionMessage, SupervisorMessage};
use crate::supervisor::{Lease, live_line, reservation, socket};
use crate::sys::network;
use crate::sys::process::Ended;
use crate::sys::process::signals::{self, Signals};
use crate::ui::{self, Ui};

/// Surroundings, client and arguments of a session.
pub struct Session<'a> {
    pub app: &'a App,
    /// Claude Code's program.
    pub claude: &'a Path,
    /// The question what it can do, which was asked before.
    pub asked: &'a Asked,
    pub user: UserArgs<'a>,
}

/// Said at the first session.
const UNASKED: &str = "Claude Code's tools run without asking, Bash included; to be asked: --ask, or shift+tab to manual mode";

impl Session<'_> {
    /// The command line with the choice of asking, for a hint. `typed`: the rest of it.
    fn typed(&self, typed: &str) -> String {
        let Asking { asks, chosen } = self.user.asking;
        match (chosen, asks) {
            (false, _) => typed.to_owned(),
            (true, true) => format!("{typed} --ask"),
            (true, false) => format!("{typed} --no-ask"),
        }
    }
}

/// Begins to ask Claude Code what it can do. It answers while the engine is looked at and loads.
pub fn ask_features(app: &App, claude: &Path) -> Asked {
    let App {
        environment, paths, ..
    } = app;
    Asked::begin(environment, &paths.cache, &paths.claude_profile(), claude)
}

/// Process that runs the gateway: the supervisor, or this one with `--connect`.
pub(super) trait GatewayHost {
    /// Claude Code runs as this process.
    async fn client_started(&mut self, pid: i32);
    /// It has ended.
    async fn client_ended(&mut self);
    /// Waits until the gateway or its engine has ended, and returns the reason. Can be cancelled and called again.
    async fn lost(&mut self) -> Error;
}

/// The supervisor runs the gateway, and ends Claude Code if the session vanishes.
impl GatewayHost for Lease {
    async fn client_started(&mut self, pid: i32) {
        let group = nix::unistd::getpgrp().as_raw();
        self.say(&SessionMessage::Client { pid, group }).await;
    }

    async fn client_ended(&mut self) {
        self.say(&SessionMessage::ClientEnded).await;
    }

    async fn lost(&mut self) -> Error {
        loop {
            if let Some(error) = over(self.told().await) {
                return error;
            }
        }
    }
}

/// How the time with Claude Code ended.
pub(super) enum Outcome {
    Client(Ended),
    Engine(Error),
    Signalled(Signal),
}

/// Everything for the start of Claude Code, made while the engine loads. Its files stay until the session's end.
pub(super) struct Prepared<'a> {
    session: &'a Session<'a>,
    endpoint: Endpoint,
    /// The command of the status line, if there is something to show.
    status_line: Option<String>,
    features: Features,
    folder: SessionDir,
    plan: ClaudePlan,
    command: Command,
}

impl<'a> Prepared<'a> {
    /// Plans the command line and writes the settings, as soon as Claude Code's features are known.
    pub(super) async fn new(
        session: &'a Session<'a>,
        endpoint: Endpoint,
        status_line: Option<String>,
    ) -> Result<Self> {
        let features = session.asked.answer().await?;
        let folder = SessionDir::make(&session.app.paths)?;
        let plan = plan(
            session,
            &endpoint,
            status_line.as_deref(),
            &folder,
            &features,
        )?;
        let command = command(session, &folder, &plan)?;
        Ok(Self {
            session,
            endpoint,
            status_line,
            features,
            folder,
            plan,
            command,
        })
    }

    /// Has Claude Code show how it begins, if that is not known yet. `fronts`: where the gateway remembers it, if it does.
    fn rehearse(&self, fronts: Option<&Path>) -> Option<Rehearsal> {
        Rehearsal::begin(
            self.session,
            &self.endpoint,
            fronts,
            &self.features,
            &self.plan,
        )
    }

    /// Settings may have changed while the engine loaded, in a download's hours say: what they would do then is overlaid, too.
    fn refresh(&mut self) -> Result<()> {
        let plan = plan(
            self.session,
            &self.endpoint,
            self.status_line.as_deref(),
            &self.folder,
            &self.features,
        )?;
        if !plan.is_same(&self.plan) {
            self.command = command(self.session, &self.folder, &plan)?;
            self.plan = plan;
        }
        Ok(())
    }

    /// Whether Claude Code will have the terminal.
    pub(super) fn is_interactive(&self) -> bool {
        launch::is_interactive(&self.plan)
    }

    /// Runs Claude Code until it ends, nobody answers it any more, or a signal comes.
    pub(super) async fn run(
        mut self,
        keeper: &mut impl GatewayHost,
        signals: &mut Signals,
    ) -> Result<(Outcome, ClaudePlan)> {
        self.refresh()?;
        let App {
            environment, ui, ..
        } = self.session.app;
        for notice in &self.plan.notices {
            ui.notice(notice);
        }
        let profile = self.session.app.paths.claude_profile();
        if self.plan.unasked && profile::is_first(&profile, "unasked") {
            ui.notice(UNASKED);
        }
        let foreground = Foreground::start(&mut self.command).context(
            Exit::ClaudeMissing,
            format!(
                "{} cannot be started",
                environment.tilde(self.session.claude)
            ),
        )?;
        let watcher = Watcher::start(environment, foreground.pid(), self.folder.path());
        keeper.client_started(foreground.pid()).await;
        let outcome = together(foreground, keeper, signals).await;
        drop(watcher);
        keeper.client_ended().await;
        Ok((outcome, self.plan))
    }
}

fn plan(
    session: &Session,
    endpoint: &Endpoint,
    status_line: Option<&str>,
    folder: &SessionDir,
    features: &Features,
) -> Result<ClaudePlan> {
    let settings = folder.settings();
    let plan = launch::plan(session.app, endpoint, session.user, &settings, features)?;
    Ok(match status_line {
        Some(command) => plan.with_status_line(command),
        None => plan,
    })
}

/// The command that asks the supervisor on this port for the status line of this session. None: its words cannot be written for a shell.
fn status_line(app: &App, port: u16) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let socket = socket::path(&reservation::folder(&app.paths, port));
    let pid = std::process::id().to_string();
    let words = [
        program.to_str()?,
        live_line::COMMAND,
        socket.to_str()?,
        &pid,
    ];
    shlex::try_join(words).ok()
}

fn command(session: &Session, folder: &SessionDir, plan: &ClaudePlan) -> Result<Command> {
    let App {
        environment, paths, ..
    } = session.app;
    let places = Places {
        profile_dir: &paths.claude_profile(),
        settings: &folder.settings(),
        folder: &environment.cwd,
    };
    launch::command(environment, session.claude, plan, places, Output::Inherited)
}

/// Until one of them ends or a signal ends both.
async fn together(
    mut claude: Foreground,
    keeper: &mut impl GatewayHost,
    signals: &mut Signals,
) -> Outcome {
    loop {
        tokio::select! {
            ended = claude.ended() => return Outcome::Client(ended),
            error = keeper.lost() => {
                // Without an engine it could only repeat a request that nobody answers.
                claude.stop(Signal::SIGTERM, foreground::GRACE).await;
                return Outcome::Engine(error);
            }
            signal = signals.next() => match signal {
                // On a terminal the keys have reached Claude Code already, and mean what it says they mean.
                Signal::SIGINT | Signal::SIGQUIT if claude.hears_the_terminal() => {}
                Signal::SIGINT | Signal::SIGQUIT => claude.signal(signal),
                signal => {
                    claude.stop(signal, foreground::GRACE).await;
                    return Outcome::Signalled(signal);
                }
            },
        }
    }
}

/// Runs the session on an engine of ours and returns the status to exit with: Claude Code's own, or 128 + n for a signal. `linger`: how long the engine
/// is kept if nobody else uses it.
pub async fn run(
    session: &Session<'_>,
    mut lease: Lease,
    linger: Duration,
    signals: &mut Signals,
) -> Result<u8> {
    let app = session.app;
    let granted = lease.granted.clone();
    if !network::is_shared(granted.network) {
        let _ = lease.leave(linger).await;
        return Err(elsewhere(&granted));
    }
    // The engine loads meanwhile.
    let prepared = tokio::select! {
        prepared = Prepared::new(session, granted.endpoint(), status_line(app, granted.port)) => prepared,
        signal = signals.next() => {
            release::leave(app, &mut lease, signals, Duration::ZERO).await;
            return Ok(signals::status(signal));
        }
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            release::leave(app, &mut lease, signals, Duration::ZERO).await;
            return Err(error);
        }
    };
    let rehearsal = prepared.rehearse(granted.fronts.as_deref());
    let done = go_on(prepared, lease, linger, signals).await;
    if let Some(rehearsal) = rehearsal {
        rehearsal.end().await;
    }
    done
}

/// The error for an engine whose gateway this session cannot reach.
fn elsewhere(granted: &Granted) -> Error {
    Error::new(
        Exit::Engine,
        format!("{} cannot be reached from here", granted.name),
    )
    .cause(format!(
        "its gateway listens on 127.0.0.1:{} in another container or network namespace",
        granted.port
    ))
    .hint(format!(
        "run this where the engine was started, or start one here: cclocal {}",
        granted.typed
    ))
}

/// From there to the end.
async fn go_on(
    prepared: Prepared<'_>,
    mut lease: Lease,
    linger: Duration,
    signals: &mut Signals,
) -> Result<u8> {
    let session = prepared.session;
    let app = session.app;
    let granted = lease.granted.clone();
    let took = match wait_ready::until_ready(app, &mut lease, signals).await? {
        WaitOutcome::Ready { took } => took,
        WaitOutcome::Interrupted(signal) => {
            release::leave(app, &mut lease, signals, Duration::ZERO).await;
            return Ok(signals::status(signal));
        }
    };
    say_ready(&app.ui, &lease, &took);
    let outcome = prepared.run(&mut lease, signals).await;
    if let Ok((Outcome::Engine(error), _)) = outcome {
        release::wait_until_gone(app, &mut lease, signals).await;
        return Err(closed(error, &session.typed(&granted.typed)));
    }
    release::leave(app, &mut lease, signals, linger).await;
    finish(session, outcome?, &granted.typed)
}

/// The status to exit with. `typed`: what follows `cclocal` on the command line.
pub(super) fn finish(
    session: &Session,
    (outcome, plan): (Outcome, ClaudePlan),
    typed: &str,
) -> Result<u8> {
    let typed = &session.typed(typed);
    match outcome {
        Outcome::Client(ended) => {
            say_how_to_go_on(session, ended, &plan, typed);
            Ok(ended.shell_status())
        }
        Outcome::Signalled(signal) => Ok(signals::status(signal)),
        Outcome::Engine(error) => Err(closed(error, typed)),
    }
}

/// Says how to go on with the conversation. Claude Code names its own command for that, which would not find it.
fn say_how_to_go_on(session: &Session, ended: Ended, plan: &ClaudePlan, typed: &str) {
    let App {
        environment, ui, ..
    } = session.app;
    // One that ended with an error, such as a folder that is not trusted, may have had no conversation.
    let talked = ended == Ended::Code(0) && launch::is_interactive(plan);
    if talked && ui.interactive && environment.stdout_tty {
        ui.say(&format!(
            "To continue this conversation: cclocal {typed} -- --continue"
        ));
    }
}

/// The error of an engine that is gone, with what becomes of the conversation.
fn closed(error: Error, typed: &str) -> Error {
    let cause = error.cause.clone().unwrap_or_default();
    let hint = error.hint.clone().unwrap_or_default();
    error
        .cause(format!(
            "{cause}; Claude Code was closed, its conversation is kept"
        ))
        .hint(format!(
            "{hint}; then continue it: cclocal {typed} -- --continue"
        ))
}

/// Says that the engine is ready, and what it offers.
pub(super) fn say_ready(ui: &Ui, lease: &Lease, took: &str) {
    let granted = &lease.granted;
    let when = match took {
        "" => "is loaded already".to_owned(),
        took => format!("ready in {took}"),
    };
    ui.done(&format!(
        "{} {when} · window {} tokens",
        granted.name,
        ui::thousands(granted.window.tokens),
    ));
}

/// Whether what the supervisor says ends the session. An engine that is started again does not: the gateway lets requests wait for it.
pub fn over(tell: Option<SupervisorMessage>) -> Option<Error> {
    match tell {
        Some(SupervisorMessage::Failed(failure)) => Some(failure.into()),
        Some(SupervisorMessage::Ending) => Some(wait_ready::ended()),
        None => Some(wait_ready::lost()),
        Some(_) => None,
    }
}
