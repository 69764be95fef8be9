//! A session on an engine that somebody else runs, maybe on another machine. No engine is started and nothing stays in the background: the
//! gateway is in this process, on a private port, for as long as the session.
//!
//! - [`address`]: where the engine is, and what may be sent there, pure;
//! - [`token`]: the key that it wants, and that Claude Code never sees;
//! - [`ask`]: what it says of itself;
//! - [`window`]: how long window and replies are;
//! - [`status_line`]: what Claude Code's status line says.

pub mod address;
pub mod ask;
mod status_line;
pub mod token;
pub mod window;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::release;
use crate::claude::launch::Endpoint;
use crate::error::{Context, Error, Exit, Result};
use crate::gateway::web_search::Backend;
use crate::gateway::{self, Access, Caller, Engine, Metrics, Outages, Settings, anthropic};
use crate::memory::Asked;
use crate::session::run::{self, GatewayHost, Prepared, Session};
use crate::sys::process::signals::{self, Signals};
use crate::sys::secret::Secret;
use crate::ui;
use address::Address;
use ask::Model;
use status_line::StatusLine;
use window::Window;

/// How many requests an engine gets at a time that does not say how many it works at together.
const PARALLEL: u64 = 4;

/// How long requests wait for an engine that is away, unless asked for otherwise: a restart with a large model takes minutes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The number of the one lease that this gateway knows.
const OURS: u64 = 1;

/// Engine that cclocal does not run, and the options for it.
pub struct RemoteEngine<'a> {
    pub address: &'a Address,
    pub token: Option<&'a Secret>,
    /// The model's id there, if one was asked for.
    pub model: Option<&'a str>,
    pub asked: Asked,
    /// How many requests it gets at a time, if that was asked for.
    pub parallel: Option<u16>,
    /// How long requests wait for it while it is away, if that was asked for.
    pub patience: Option<Duration>,
    /// The service that searches the web, if one was named.
    pub web_search: Option<&'a Backend>,
    /// Command line after `cclocal`, without the arguments for Claude Code.
    pub typed: String,
}

impl RemoteEngine<'_> {
    fn patience(&self) -> Duration {
        self.patience.unwrap_or(PATIENCE)
    }
}

/// Runs the session and returns the status to exit with: Claude Code's own, or 128 + n for a signal.
pub async fn run(
    session: &Session<'_>,
    remote: &RemoteEngine<'_>,
    signals: &mut Signals,
) -> Result<u8> {
    let ui = &session.app.ui;
    let host = remote.address.host();
    let model = {
        let mut progress = ui.progress(&format!("asking {host} for its models"));
        let engine = ask::Engine::new(remote.address, remote.token, remote.patience())?;
        tokio::select! {
            model = engine.model(remote.model, &mut progress) => model?,
            signal = signals.next() => return Ok(signals::status(signal)),
        }
    };
    let mut asked = remote.asked;
    let mut typed = remote.typed.clone();
    if let (None, None) = (model.window, asked.window)
        && let Some(tokens) = window::ask(ui, host)
    {
        asked.window = Some(tokens);
        typed += &format!(" --ctx {tokens}");
    }
    let window = window::fit(model.window, asked)?;
    ui.done(&format!(
        "{} at {host} · window {} tokens",
        model.id,
        ui::thousands(window.window.tokens)
    ));
    for notice in window.notices.iter().chain(&model.notices) {
        ui.notice(notice);
    }
    let mut gateway = Gateway::open(remote, &model, &window).await?;
    let endpoint = Endpoint {
        port: gateway.port,
        token: gateway.token.clone(),
        model: model.id,
        window: window.window,
    };
    let line = StatusLine::new(session.app, &endpoint.model, host, window.window.tokens);
    let outcome = match Prepared::new(session, endpoint, line.command()).await {
        Ok(prepared) => {
            // A printed line would stand in the middle of Claude Code's screen.
            let ui = (!prepared.is_interactive()).then(|| ui.clone());
            let _kept = line.keep(gateway.outages.watch(), ui);
            prepared.run(&mut gateway, signals).await
        }
        Err(error) => Err(error),
    };
    let figures = gateway.close().await;
    if let Some(line) = figures {
        ui.say(&line);
    }
    run::finish(session, outcome?, &typed)
}

/// How many requests the engine gets at a time.
fn parallel(remote: &RemoteEngine<'_>, model: &Model) -> usize {
    let told = model.parallel.unwrap_or(PARALLEL);
    let most = remote.parallel.map_or(told, u64::from);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Our gateway to it.
struct Gateway {
    port: u16,
    token: Secret,
    figures: Metrics,
    outages: Outages,
    serving: JoinHandle<Result<()>>,
    stop: DropGuard,
    // The gateway takes its engine for gone when these are.
    _engine: watch::Sender<Engine>,
    _window: watch::Sender<u64>,
}

impl Gateway {
    async fn open(remote: &RemoteEngine<'_>, model: &Model, window: &Window) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context(Exit::Other, "the gateway's port cannot be used")?;
        let port = listener
            .local_addr()
            .context(Exit::Other, "the gateway's port cannot be used")?
            .port();
        let access = Access::new(&Secret::random()?);
        let token = access.grant(OURS)?;
        if let Some(backend) = remote.web_search {
            access.allow_search(OURS, backend.clone(), false);
        }
        // It is taken to be there always: when it does not answer, Claude Code is told so and tries again.
        let (tell_engine, engine) = watch::channel(Engine::Ready {
            base_url: remote.address.base_url().to_owned(),
            key: remote.token.cloned(),
        });
        let (tell_window, tokens) = watch::channel(window.window.tokens);
        let outages = Outages::new(remote.address.host(), remote.patience());
        let served = anthropic::Served {
            name: model.id.clone(),
            window: window.window,
            form: None,
            shows_thoughts: true,
            may_think: true,
            prose_calls: false,
            pictures: anthropic::Pictures::Untouched,
        };
        let settings = Settings {
            // Others may use it, too: what it works at is not ours to cancel.
            exclusive: false,
            parallel: parallel(remote, model),
            outages: Some(outages.clone()),
            pdf_reader: std::env::current_exe().ok(),
            ..Settings::new(served, engine, tokens, access)
        };
        let figures = settings.metrics.clone();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(gateway::serve(
            listener,
            settings,
            stop.clone().cancelled_owned(),
        ));
        Ok(Self {
            port,
            token,
            figures,
            outages,
            serving,
            stop: stop.drop_guard(),
            _engine: tell_engine,
            _window: tell_window,
        })
    }

    /// Closes it, and says what the session came to.
    async fn close(self) -> Option<String> {
        drop(self.stop);
        if !self.serving.is_finished() {
            let _ = self.serving.await;
        }
        release::figures(&self.figures.summary(Caller::Lease(OURS)), 0)
    }
}

impl GatewayHost for Gateway {
    async fn client_started(&mut self, _pid: i32) {}

    async fn client_ended(&mut self) {}

    async fn lost(&mut self) -> Error {
        match (&mut self.serving).await {
            Ok(Err(error)) => error,
            _ => Error::other("the gateway ended by itself"),
        }
    }
}
