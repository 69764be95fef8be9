//! The engine of a session: started, watched until it answers, and said in one line where it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::prepare::Prepared;
use super::signals::Signals;
use crate::catalog::Source;
use crate::engine::executable::Executable;
use crate::engine::server::{Launch, Server};
use crate::env_vars;
use crate::error::{Context, Exit, Result};
use crate::files;
use crate::host::Host;
use crate::hub::{self, Cached};
use crate::paths::Paths;
use crate::ui::{self, Ui};

/// How often the line is brought up to date.
const TICK: Duration = Duration::from_millis(250);

/// An engine that is interrupted while it starts has served nobody: it gets little time to end.
const SHORT_GRACE: Duration = Duration::from_secs(2);

/// How bringing the engine up ended, when it did not fail.
pub enum Up {
    Ready(Server, Duration),
    /// A signal came first. The engine is gone again.
    Interrupted(Signal),
}

/// The log of the engine on this port. The usual port has the usual name.
pub fn log_path(paths: &Paths, port: u16) -> PathBuf {
    if port == 8000 {
        paths.server_log()
    } else {
        paths.state.join(format!("server-{port}.log"))
    }
}

/// Starts the engine and waits until it answers. If it fails, it is gone.
pub async fn bring_up(
    host: &Host,
    paths: &Paths,
    ui: &Ui,
    prepared: &Prepared,
    executable: &Executable,
    log: PathBuf,
    signals: &mut Signals,
) -> Result<Up> {
    let folder = paths.data.join("empty");
    files::private_folder(&folder).context(
        Exit::Other,
        format!("{} cannot be made", host.tilde(&folder)),
    )?;
    let mut env = env_vars::engine_env(host);
    if matches!(prepared.cached, Cached::Complete { .. }) {
        // The token is for downloads, and there is nothing left to download.
        env.retain(|name, _| !name.to_str().is_some_and(env_vars::is_hub_token));
    }
    env.extend(
        prepared
            .engine
            .env
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value))),
    );
    let mut progress = ui.progress(&phase(paths, prepared));
    let mut server = Server::start(Launch {
        executable,
        argv: &prepared.engine.argv,
        env,
        key: prepared.engine.takes_key.then_some(&prepared.token),
        folder: &folder,
        log,
        port: prepared.port,
        served_name: prepared.model.served_name.clone(),
    })?;
    let interrupted = {
        let ready = server.ready();
        tokio::pin!(ready);
        loop {
            tokio::select! {
                result = &mut ready => {
                    result?;
                    break None;
                }
                signal = signals.next() => break Some(signal),
                () = tokio::time::sleep(TICK) => progress.update(&phase(paths, prepared)),
            }
        }
    };
    match interrupted {
        Some(signal) => {
            progress.update("stopping the engine");
            server.stop(SHORT_GRACE).await;
            Ok(Up::Interrupted(signal))
        }
        None => Ok(Up::Ready(server, progress.elapsed())),
    }
}

/// What the engine is busy with, by what there is on the disk.
fn phase(paths: &Paths, prepared: &Prepared) -> String {
    let name = &prepared.model.name;
    let Source::Hub(id) = &prepared.model.source else {
        return format!("loading {name} into memory");
    };
    if matches!(prepared.cached, Cached::Complete { .. }) {
        return format!("loading {name} into memory");
    }
    match hub::cached(&paths.hub, id) {
        Cached::Complete { bytes, .. } => {
            format!("{} on disk, loading {name} into memory", ui::bytes(bytes))
        }
        cached => {
            let so_far = ui::bytes(cached.bytes());
            match prepared.model.download_bytes {
                Some(total) => {
                    format!("downloading {name}: {so_far} of about {}", ui::bytes(total))
                }
                None => format!("downloading {name}: {so_far}"),
            }
        }
    }
}

/// Ends the engine, and says so if it takes a while. A second signal does not wait for it.
pub async fn take_down(ui: &Ui, server: &mut Server, signals: &mut Signals, grace: Duration) {
    let stopped = {
        let stop = server.stop(grace);
        tokio::pin!(stop);
        if tokio::time::timeout(Duration::from_secs(1), &mut stop)
            .await
            .is_ok()
        {
            return;
        }
        let _progress = ui.progress("stopping the engine");
        tokio::select! {
            () = &mut stop => true,
            _ = signals.next() => false,
        }
    };
    if !stopped {
        server.stop(Duration::ZERO).await;
    }
}

/// Where to read more about an engine, for people.
pub fn log_hint(host: &Host, log: &Path) -> String {
    format!("the engine's log: {}", host.tilde(log))
}
