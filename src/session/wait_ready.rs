//! Waiting for an engine to be ready, with a line that says what it is busy with.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::progress;
use crate::app::App;
use crate::error::{Error, Exit, Result};
use crate::supervisor::Lease;
use crate::supervisor::protocol::Tell;
use crate::supervisor::{port_holder, reservation};
use crate::sys::paths::Paths;
use crate::sys::process::signals::Signals;

/// How long a supervisor may say nothing while its engine starts: it says four times a second what that is busy with.
const SILENCE: Duration = Duration::from_secs(60);

/// How the wait ended, when the engine did not fail.
pub enum Followed {
    Ready {
        /// How long it took, in words. Empty: nothing had to be waited for.
        took: String,
    },
    Interrupted(Signal),
}

/// Waits until the engine behind the lease is ready.
pub async fn until_ready(app: &App, lease: &mut Lease, signals: &mut Signals) -> Result<Followed> {
    let App { paths, ui, .. } = app;
    let name = lease.granted.name.clone();
    let mut shown = None;
    let mut waited = false;
    loop {
        let tell = tokio::select! {
            tell = lease.told() => tell,
            () = tokio::time::sleep(SILENCE) => return Err(silent(paths, lease)),
            signal = signals.next() => return Ok(Followed::Interrupted(signal)),
        };
        match tell {
            Some(Tell::Ready { took, lacking }) => {
                drop(shown.take());
                for words in lacking {
                    ui.notice(&words);
                }
                return Ok(Followed::Ready {
                    took: if waited { took } else { String::new() },
                });
            }
            Some(Tell::Progress(progress)) => {
                waited = true;
                let line = progress::line(&name, &progress, ui.columns());
                shown.get_or_insert_with(|| ui.progress(&line)).show(&line);
            }
            Some(Tell::Restarting { why }) => {
                drop(shown.take());
                ui.notice(&format!("the engine died ({why}) and is started again"));
            }
            Some(Tell::Failed(failure)) => return Err(failure.into()),
            Some(Tell::Ending) => return Err(ended()),
            Some(_) => {}
            None => {
                reservation::sweep_after(paths, lease.granted.port);
                return Err(lost());
            }
        }
    }
}

/// It says nothing any more.
fn silent(paths: &Paths, lease: &Lease) -> Error {
    let message = "the engine does not get ready";
    match port_holder::of(paths, lease.granted.port) {
        Some(holder) => holder.silent(message),
        None => lost(),
    }
}

/// The engine was ended by somebody.
pub fn ended() -> Error {
    Error::new(Exit::Engine, "the engine was ended")
        .cause("by `cclocal stop`, or a signal to its supervisor")
        .hint("run it again")
}

/// The supervisor is gone without a word.
pub fn lost() -> Error {
    Error::new(Exit::Engine, "the engine's supervisor is gone")
        .cause("it was killed, and the engine with it")
        .hint("run it again; if nobody killed it, its log is supervisor.log in cclocal's state folder")
}
