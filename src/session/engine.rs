//! The engine of a session: started, watched until it answers, and said in one line where it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::prepare::Prepared;
use super::signals::Signals;
use super::startup::{self, Startup};
use crate::engine::death;
use crate::engine::executable::Executable;
use crate::engine::server::{Launch, Server};
use crate::env_vars;
use crate::error::{Context, Exit, Result};
use crate::files;
use crate::host::Host;
use crate::hub::Cached;
use crate::paths::Paths;
use crate::ui::Ui;

/// How often the line is brought up to date.
const TICK: Duration = Duration::from_millis(250);

/// An engine that is interrupted while it starts has served nobody: it gets little time to end.
const SHORT_GRACE: Duration = Duration::from_secs(2);

/// How bringing the engine up ended, when it did not fail.
pub enum Up {
    Ready {
        server: Server,
        /// How long it took, in words.
        took: String,
    },
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
    let limit = startup::stall_limit(host)?;
    let mut startup = Startup::new(paths, prepared, limit, Instant::now());
    let mut progress = ui.progress(&startup.line(ui.columns()));
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
    let ended = loop {
        tokio::select! {
            result = server.ready() => break result.map(|()| None),
            signal = signals.next() => break Ok(Some(signal)),
            () = tokio::time::sleep(TICK) => {}
        }
        if let Err(error) = startup.look(Instant::now(), &server, host).await {
            break Err(error.detail(death::last_words(server.log())));
        }
        let line = startup.line(ui.columns());
        match startup.loading_for(Instant::now()) {
            Some(time) if time >= Duration::from_secs(1) => {
                progress.show(&format!("{line} ({} s)", time.as_secs()));
            }
            _ => progress.show(&line),
        }
    };
    match ended {
        Ok(None) => Ok(Up::Ready {
            took: startup.took(Instant::now()),
            server,
        }),
        Ok(Some(signal)) => {
            progress.show("stopping the engine");
            server.stop(SHORT_GRACE).await;
            Ok(Up::Interrupted(signal))
        }
        Err(error) => {
            server.stop(SHORT_GRACE).await;
            Err(error)
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
