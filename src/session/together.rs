//! Claude Code in the foreground, side by side with whatever answers it: an engine of ours behind a lease, or one that somebody else runs.

use std::ffi::OsString;
use std::path::Path;

use nix::sys::signal::Signal;

use super::client::{self, Output};
use super::folder::Folder;
use super::prepare::{self, Client, Probing};
use crate::claude::foreground::{self, Foreground};
use crate::error::{Context, Error, Exit, Result};
use crate::host::Host;
use crate::machine::platform::Os;
use crate::paths::Paths;
use crate::plan::claude::ClaudePlan;
use crate::process::Ended;
use crate::process::signals::Signals;
use crate::secret::Secret;
use crate::ui::Ui;

/// What a session runs with.
pub struct Session<'a> {
    pub host: &'a Host,
    pub paths: &'a Paths,
    pub ui: &'a Ui,
    pub os: Os,
    /// Claude Code's program.
    pub claude: &'a Path,
    /// What follows `--` on the command line.
    pub args: &'a [OsString],
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

/// Runs Claude Code until it ends, nobody answers it any more, or a signal comes.
pub(super) async fn run(
    session: &Session<'_>,
    endpoint: Endpoint<'_>,
    keeper: &mut impl Keeper,
    signals: &mut Signals,
) -> Result<(Outcome, ClaudePlan)> {
    let &Session {
        host,
        paths,
        ui,
        os,
        claude,
        args,
    } = session;
    let folder = Folder::make(paths)?;
    let settings = folder.settings();
    let client = Client {
        program: Some(claude),
        args,
        settings: &settings,
        port: endpoint.port,
        token: endpoint.token,
        model: endpoint.model,
        context_window: endpoint.context_window,
        output_tokens: endpoint.output_tokens,
    };
    let plan = prepare::plan_client(host, paths, os, client, Probing::Ask)?;
    for notice in &plan.notices {
        ui.notice(notice);
    }
    let mut command = client::command(
        host,
        paths,
        claude,
        &plan,
        &settings,
        &host.cwd,
        Output::Inherited,
    )?;
    let foreground = Foreground::start(&mut command).context(
        Exit::ClaudeMissing,
        format!("{} cannot be started", host.tilde(claude)),
    )?;
    keeper.client_started(foreground.pid()).await;
    let outcome = together(foreground, keeper, signals).await;
    keeper.client_ended().await;
    Ok((outcome, plan))
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
    if talked && session.ui.interactive && session.host.stdout_tty {
        session.ui.say(&format!(
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
