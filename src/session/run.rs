//! The session itself: Claude Code in the terminal, on the engine behind a lease.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::{self, Output};
use super::folder::Folder;
use super::follow::{self, Followed};
use super::leave;
use super::prepare::{self, Client, Probing};
use crate::claude::foreground::{self, Foreground};
use crate::error::{Context, Error, Exit, Result};
use crate::host::Host;
use crate::machine::platform::Os;
use crate::paths::Paths;
use crate::plan::claude::ClaudePlan;
use crate::process::Ended;
use crate::process::signals::{self, Signals};
use crate::secret::Secret;
use crate::supervisor::Lease;
use crate::supervisor::protocol::{Say, Tell};
use crate::supervisor::record;
use crate::ui::{self, Ui};

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
    /// How long the engine is kept if nobody else uses it.
    pub linger: Duration,
}

/// How the time with Claude Code ended.
enum Outcome {
    Client(Ended),
    Engine(Error),
    Signalled(Signal),
}

/// Runs the session and returns the status to exit with: Claude Code's own, or 128 + n for a signal.
pub async fn run(session: &Session<'_>, mut lease: Lease, signals: &mut Signals) -> Result<u8> {
    let ui = session.ui;
    let paths = session.paths;
    let took = match follow::until_ready(paths, ui, &mut lease, signals).await? {
        Followed::Ready { took } => took,
        Followed::Interrupted(signal) => {
            leave::leave(paths, ui, &mut lease, signals, Duration::ZERO).await;
            return Ok(signals::status(signal));
        }
    };
    say_ready(ui, &lease, &took);
    let outcome = with_client(session, &mut lease, signals).await;
    let (port, typed) = (lease.granted.port, lease.granted.typed.clone());
    match outcome {
        Ok((Outcome::Client(ended), plan)) => {
            leave::leave(paths, ui, &mut lease, signals, session.linger).await;
            // Claude Code names its own command for going on, which would not find this conversation. One that ended with an error,
            // such as a folder that is not trusted, may have had none.
            let talked = ended == Ended::Code(0) && prepare::is_interactive(&plan);
            if talked && ui.interactive && session.host.stdout_tty {
                ui.say(&format!(
                    "With this model, go on with: cclocal {typed} -- --continue"
                ));
            }
            Ok(ended.shell_status())
        }
        Ok((Outcome::Signalled(signal), _)) => {
            leave::leave(paths, ui, &mut lease, signals, session.linger).await;
            Ok(signals::status(signal))
        }
        Ok((Outcome::Engine(error), _)) => {
            lease.gone().await;
            record::sweep_after(session.paths, port);
            let cause = error.cause.clone().unwrap_or_default();
            let hint = error.hint.clone().unwrap_or_default();
            Err(error
                .cause(format!(
                    "{cause}; Claude Code was closed, its conversation is kept"
                ))
                .hint(format!(
                    "{hint}; then go on with it: cclocal {typed} -- --continue"
                )))
        }
        Err(error) => {
            leave::leave(paths, ui, &mut lease, signals, session.linger).await;
            Err(error)
        }
    }
}

/// Says that the engine is ready, and what it offers.
pub fn say_ready(ui: &Ui, lease: &Lease, took: &str) {
    let granted = &lease.granted;
    let when = match took {
        "" => "is loaded already".to_owned(),
        took => format!("ready in {took}"),
    };
    ui.done(&format!(
        "{} {when} · window {} tokens",
        granted.name,
        ui::thousands(granted.context_window),
    ));
}

async fn with_client(
    session: &Session<'_>,
    lease: &mut Lease,
    signals: &mut Signals,
) -> Result<(Outcome, ClaudePlan)> {
    let &Session {
        host,
        paths,
        ui,
        os,
        claude,
        args,
        ..
    } = session;
    let folder = Folder::make(paths)?;
    let settings = folder.settings();
    let granted = &lease.granted;
    let client = Client {
        program: Some(claude),
        args,
        settings: &settings,
        port: granted.port,
        token: Secret::new(granted.token.clone()),
        model: &granted.served_name,
        context_window: granted.context_window,
        output_tokens: granted.output_tokens,
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
    lease
        .say(&Say::Client {
            pid: foreground.pid(),
            group: nix::unistd::getpgrp().as_raw(),
        })
        .await;
    let outcome = together(foreground, lease, signals).await;
    lease.say(&Say::ClientEnded).await;
    Ok((outcome, plan))
}

/// Claude Code and the engine side by side, until one of them ends or a signal ends both.
async fn together(mut claude: Foreground, lease: &mut Lease, signals: &mut Signals) -> Outcome {
    loop {
        tokio::select! {
            ended = claude.ended() => return Outcome::Client(ended),
            tell = lease.told() => if let Some(error) = over(tell) {
                // Without an engine it could only repeat a request that nobody answers.
                claude.stop(Signal::SIGTERM, foreground::GRACE).await;
                return Outcome::Engine(error);
            },
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

/// Whether what the supervisor says ends the session. An engine that is started again does not: the gateway lets requests wait for it.
pub fn over(tell: Option<Tell>) -> Option<Error> {
    match tell {
        Some(Tell::Failed(failure)) => Some(failure.into()),
        Some(Tell::Ending) => Some(follow::ended()),
        None => Some(follow::lost()),
        Some(_) => None,
    }
}
