//! The session itself: engine up, Claude Code in the terminal, engine down.

use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::client::{self, Output};
use super::engine::{self, Up};
use super::prepare::Prepared;
use super::reservation::Reservation;
use super::signals::{self, Signals};
use crate::claude::foreground::{self, Foreground};
use crate::engine::executable::Executable;
use crate::engine::lifecycle::End;
use crate::engine::server::{self, Server};
use crate::error::{Context, Exit, Result};
use crate::host::Host;
use crate::paths::Paths;
use crate::process::Ended;
use crate::ui::{self, Ui};

/// How the time with Claude Code ended.
enum Outcome {
    Client(Ended),
    Engine(End),
    Signalled(Signal),
}

/// Runs the session and returns the status to exit with: Claude Code's own, or 128 + n for a signal.
pub async fn run(
    host: &Host,
    paths: &Paths,
    ui: &Ui,
    prepared: &Prepared,
    engine: &Executable,
    claude: &Path,
    signals: &mut Signals,
) -> Result<u8> {
    let reservation = Reservation::take(host, paths, prepared.port, &prepared.model.served_name)?;
    let log = engine::log_path(paths, prepared.port);
    let (mut server, took) =
        match engine::bring_up(host, paths, ui, prepared, engine, log, signals).await? {
            Up::Ready { server, took } => (server, took),
            Up::Interrupted(signal) => return Ok(signals::status(signal)),
        };
    ui.done(&format!(
        "{} ready in {} · window {} tokens",
        prepared.model.name,
        took,
        ui::thousands(prepared.memory.context_window),
    ));
    let outcome = client::command(
        host,
        paths,
        claude,
        &prepared.claude,
        &reservation.settings(),
        &host.cwd,
        Output::Inherited,
    )
    .and_then(|mut command| {
        Foreground::start(&mut command).context(
            Exit::ClaudeMissing,
            format!("{} cannot be started", host.tilde(claude)),
        )
    });
    let outcome = match outcome {
        Ok(foreground) => {
            server.client(Some(foreground.pid()));
            let outcome = together(foreground, &mut server, signals).await;
            server.client(None);
            Ok(outcome)
        }
        Err(error) => Err(error),
    };
    let explained = match &outcome {
        // Read before the engine is taken down: by itself it left words about its end.
        Ok(Outcome::Engine(end)) => Some(server.explain(*end)),
        _ => None,
    };
    let started = Instant::now();
    engine::take_down(ui, &mut server, signals, server::GRACE).await;
    tracing::debug!(took = ?started.elapsed(), "engine stopped");
    match outcome? {
        Outcome::Client(ended) => {
            // Claude Code names its own command for going on, which would not find this conversation. One that ended with an error,
            // such as a folder that is not trusted, may have had none.
            let talked = ended == Ended::Code(0) && prepared.claude_is_interactive();
            if talked && ui.interactive && host.stdout_tty {
                ui.say(&format!(
                    "With this model, go on with: cclocal {} -- --continue",
                    prepared.model.typed
                ));
            }
            Ok(ended.shell_status())
        }
        Outcome::Signalled(signal) => Ok(signals::status(signal)),
        Outcome::Engine(end) => {
            let error = explained.unwrap_or_else(|| server.explain(end));
            let cause = error.cause.clone().unwrap_or_default();
            let hint = error.hint.clone().unwrap_or_default();
            Err(error
                .cause(format!(
                    "{cause}; Claude Code was closed, its conversation is kept"
                ))
                .hint(format!(
                    "{hint}; then go on with it: cclocal {} -- --continue",
                    prepared.model.typed
                )))
        }
    }
}

/// Claude Code and the engine side by side, until one of them ends or a signal ends both.
async fn together(mut claude: Foreground, server: &mut Server, signals: &mut Signals) -> Outcome {
    loop {
        tokio::select! {
            ended = claude.ended() => return Outcome::Client(ended),
            end = server.ended() => {
                // Without an engine it could only repeat a request that nobody answers.
                claude.stop(Signal::SIGTERM, foreground::GRACE).await;
                return Outcome::Engine(end);
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
