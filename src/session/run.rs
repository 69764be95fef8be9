//! The session itself: Claude Code in the terminal, on the engine behind a lease.

use std::time::Duration;

use super::release;
use super::together::{self, Endpoint, Keeper, Outcome, Prepared, Session};
use crate::error::{Error, Exit, Result};
use crate::session::wait_ready::{self, Followed};
use crate::supervisor::Lease;
use crate::supervisor::protocol::{Granted, Say, Tell};
use crate::sys::network;
use crate::sys::process::signals::{self, Signals};
use crate::sys::secret::Secret;
use crate::ui::{self, Ui};

/// Runs the session and returns the status to exit with: Claude Code's own, or 128 + n for a signal. `linger`: how long the engine is kept if
/// nobody else uses it.
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
    let endpoint = Endpoint {
        port: granted.port,
        token: Secret::new(granted.token.clone()),
        model: &granted.served_name,
        context_window: granted.context_window,
        output_tokens: granted.output_tokens,
    };
    // The engine loads meanwhile.
    let prepared = tokio::select! {
        prepared = together::prepare(session, endpoint) => prepared,
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
        format!("{} is not reached from here", granted.name),
    )
    .cause(format!(
        "its gateway listens on 127.0.0.1:{} of another network: it was started outside of this container or network namespace, or inside of one",
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
    let session = prepared.session();
    let app = session.app;
    let granted = lease.granted.clone();
    let took = match wait_ready::until_ready(app, &mut lease, signals).await? {
        Followed::Ready { took } => took,
        Followed::Interrupted(signal) => {
            release::leave(app, &mut lease, signals, Duration::ZERO).await;
            return Ok(signals::status(signal));
        }
    };
    say_ready(&app.ui, &lease, &took);
    let outcome = together::run(prepared, &mut lease, signals).await;
    match outcome {
        Ok((Outcome::Client(ended), plan)) => {
            release::leave(app, &mut lease, signals, linger).await;
            together::say_how_to_go_on(session, ended, &plan, &granted.typed);
            Ok(ended.shell_status())
        }
        Ok((Outcome::Signalled(signal), _)) => {
            release::leave(app, &mut lease, signals, linger).await;
            Ok(signals::status(signal))
        }
        Ok((Outcome::Engine(error), _)) => {
            release::wait_until_gone(app, &mut lease, signals).await;
            Err(together::closed(error, &granted.typed))
        }
        Err(error) => {
            release::leave(app, &mut lease, signals, linger).await;
            Err(error)
        }
    }
}

/// The supervisor keeps the gateway, and ends Claude Code should the session vanish.
impl Keeper for Lease {
    async fn client_started(&mut self, pid: i32) {
        let group = nix::unistd::getpgrp().as_raw();
        self.say(&Say::Client { pid, group }).await;
    }

    async fn client_ended(&mut self) {
        self.say(&Say::ClientEnded).await;
    }

    async fn lost(&mut self) -> Error {
        loop {
            if let Some(error) = over(self.told().await) {
                return error;
            }
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

/// Whether what the supervisor says ends the session. An engine that is started again does not: the gateway lets requests wait for it.
pub fn over(tell: Option<Tell>) -> Option<Error> {
    match tell {
        Some(Tell::Failed(failure)) => Some(failure.into()),
        Some(Tell::Ending) => Some(wait_ready::ended()),
        None => Some(wait_ready::lost()),
        Some(_) => None,
    }
}
