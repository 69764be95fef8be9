//! Claude Code in the foreground, side by side with whatever answers it: an engine of ours behind a lease, or one that somebody else runs.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::client::{self, Output};
use super::orphan_guard::Watcher;
use super::prepare::{self, Client};
use super::rehearsal::Rehearsal;
use super::session_dir::Folder;
use crate::app::App;
use crate::claude::command::{ClaudePlan, Features};
use crate::claude::features::Asked;
use crate::claude::foreground::{self, Foreground};
use crate::error::{Context, Error, Exit, Result};
use crate::sys::process::Ended;
use crate::sys::process::signals::Signals;
use crate::sys::secret::Secret;

/// What a session runs with.
pub struct Session<'a> {
    pub app: &'a App,
    /// Claude Code's program.
    pub claude: &'a Path,
    /// The question what it can do, which was asked before.
    pub asked: &'a Asked,
    /// What follows `--` on the command line.
    pub args: &'a [OsString],
    /// Whether options that are not known are passed on.
    pub unknown_options: bool,
}

/// Begins to ask Claude Code what it can do. It answers while the engine is looked at and loads.
pub fn ask_features(app: &App, claude: &Path) -> Asked {
    let App {
        environment, paths, ..
    } = app;
    Asked::begin(environment, &paths.cache, &paths.claude_profile(), claude)
}

/// The gateway that Claude Code is pointed at, and what it serves.
pub struct Endpoint<'a> {
    /// On 127.0.0.1.
    pub port: u16,
    /// This session's own token.
    pub token: Secret,
    /// The served model's name.
    pub model: &'a str,
    /// In tokens.
    pub context_window: u64,
    /// In tokens.
    pub output_tokens: u64,
}

impl Endpoint<'_> {
    /// Claude Code with these arguments, and with its settings in this file.
    pub(super) fn client<'b>(&'b self, args: &'b [OsString], settings: &'b Path) -> Client<'b> {
        Client {
            args,
            unknown_options: false,
            settings,
            port: self.port,
            token: self.token.clone(),
            model: self.model,
            context_window: self.context_window,
            output_tokens: self.output_tokens,
        }
    }
}

/// Who keeps the gateway.
pub(super) trait Keeper {
    /// Claude Code runs as this process.
    async fn client_started(&mut self, pid: i32);
    /// It has ended.
    async fn client_ended(&mut self);
    /// Waits until nobody will answer Claude Code any more, and says why. Can be cancelled and called again.
    async fn lost(&mut self) -> Error;
}

/// How the time with Claude Code ended.
pub(super) enum Outcome {
    Client(Ended),
    Engine(Error),
    Signalled(Signal),
}

/// All that Claude Code's start needs, made while the engine still loads. What it was made from stays until the session's end.
pub(super) struct Prepared<'a> {
    session: &'a Session<'a>,
    endpoint: Endpoint<'a>,
    features: Features,
    folder: Folder,
    plan: ClaudePlan,
    command: Command,
}

/// Plans and writes what Claude Code is started with, as soon as it has said what it can do.
pub(super) async fn prepare<'a>(
    session: &'a Session<'a>,
    endpoint: Endpoint<'a>,
) -> Result<Prepared<'a>> {
    let features = session.asked.answer().await?;
    let folder = Folder::make(&session.app.paths)?;
    let plan = plan(session, &endpoint, &folder, &features)?;
    let command = command(session, &folder, &plan)?;
    Ok(Prepared {
        session,
        endpoint,
        features,
        folder,
        plan,
        command,
    })
}

impl<'a> Prepared<'a> {
    pub(super) fn session(&self) -> &'a Session<'a> {
        self.session
    }

    /// Has Claude Code show how it begins, if that is not known yet. `fronts`: where the gateway remembers it, if it does.
    pub(super) fn rehearse(&self, fronts: Option<&Path>) -> Option<Rehearsal> {
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
        let plan = plan(self.session, &self.endpoint, &self.folder, &self.features)?;
        if !plan.is_same(&self.plan) {
            self.command = command(self.session, &self.folder, &plan)?;
            self.plan = plan;
        }
        Ok(())
    }
}

fn plan(
    session: &Session,
    endpoint: &Endpoint,
    folder: &Folder,
    features: &Features,
) -> Result<ClaudePlan> {
    let settings = folder.settings();
    let client = Client {
        unknown_options: session.unknown_options,
        ..endpoint.client(session.args, &settings)
    };
    prepare::plan_client(session.app, &client, features)
}

fn command(session: &Session, folder: &Folder, plan: &ClaudePlan) -> Result<Command> {
    let App {
        environment, paths, ..
    } = session.app;
    client::command(
        environment,
        session.claude,
        plan,
        &paths.claude_profile(),
        &folder.settings(),
        &environment.cwd,
        Output::Inherited,
    )
}

/// Runs Claude Code until it ends, nobody answers it any more, or a signal comes.
pub(super) async fn run(
    mut prepared: Prepared<'_>,
    keeper: &mut impl Keeper,
    signals: &mut Signals,
) -> Result<(Outcome, ClaudePlan)> {
    prepared.refresh()?;
    let Session { app, claude, .. } = prepared.session;
    let App {
        environment: host,
        ui,
        ..
    } = app;
    for notice in &prepared.plan.notices {
        ui.notice(notice);
    }
    let foreground = Foreground::start(&mut prepared.command).context(
        Exit::ClaudeMissing,
        format!("{} cannot be started", host.tilde(claude)),
    )?;
    let watcher = Watcher::start(host, foreground.pid(), prepared.folder.path());
    keeper.client_started(foreground.pid()).await;
    let outcome = together(foreground, keeper, signals).await;
    drop(watcher);
    keeper.client_ended().await;
    Ok((outcome, prepared.plan))
}

/// Until one of them ends or a signal ends both.
async fn together(
    mut claude: Foreground,
    keeper: &mut impl Keeper,
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

/// Says how to go on with the conversation. Claude Code names its own command for that, which would not find it. `typed`: what follows
/// `cclocal` on the command line.
pub(super) fn say_how_to_go_on(session: &Session, ended: Ended, plan: &ClaudePlan, typed: &str) {
    // One that ended with an error, such as a folder that is not trusted, may have had no conversation.
    let talked = ended == Ended::Code(0) && prepare::is_interactive(plan);
    if talked && session.app.ui.interactive && session.app.environment.stdout_tty {
        session.app.ui.say(&format!(
            "With this model, go on with: cclocal {typed} -- --continue"
        ));
    }
}

/// The error of an engine that is gone, with what becomes of the conversation. `typed`: as above.
pub(super) fn closed(error: Error, typed: &str) -> Error {
    let cause = error.cause.clone().unwrap_or_default();
    let hint = error.hint.clone().unwrap_or_default();
    error
        .cause(format!(
            "{cause}; Claude Code was closed, its conversation is kept"
        ))
        .hint(format!(
            "{hint}; then go on with it: cclocal {typed} -- --continue"
        ))
}
