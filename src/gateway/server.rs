//! Connections: taken in within limits, served, and closed when the gateway stops.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::auth::Access;
use super::limits::{BodyBudget, Limits};
use super::metrics::Metrics;
use super::outage::Outages;
use super::queue::Queue;
use super::request_reader::Reading;
use super::routes::{self, Authenticated};
use super::upstream::Upstream;
use super::web_search::WebSearch;
use super::{Engine, Settings, anthropic};
use crate::catalog::Form;
use crate::error::{Context, Exit, Result};
use crate::gateway::prefix_warmer::{self, PrefixWarmer};

/// How long to wait when the system has no more open files for us.
const NO_MORE_FILES: Duration = Duration::from_millis(100);

/// What all requests share.
#[derive(Debug, Clone)]
pub(crate) struct Gateway(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub served: anthropic::Served,
    pub form: Arc<OnceLock<Form>>,
    pub engine: watch::Receiver<Engine>,
    pub window: watch::Receiver<u64>,
    pub access: Access,
    pub metrics: Metrics,
    pub limits: Limits,
    pub exclusive: bool,
    pub outages: Option<Outages>,
    pub log: Option<PathBuf>,
    pub queue: Queue,
    pub room: BodyBudget,
    pub reading: Reading,
    pub upstream: Upstream,
    pub prefix_warmer: PrefixWarmer,
    pub web_search: WebSearch,
    pub stop: CancellationToken,
}

impl Deref for Gateway {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Gateway {
    /// The model as it is served, with all that is known of it by now.
    pub(crate) fn served(&self) -> anthropic::Served {
        let mut served = self.served.clone();
        served.form = self.form.get().copied().or(served.form);
        served
    }
}

/// Serves until `stop` resolves. Then no connection is taken any more, requests under way end with an error, and everything is closed within
/// [`Limits::farewell`].
///
/// Errors: there are no certificates to be read for engines elsewhere.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    // An engine that is ours alone is on this machine.
    let upstream = match (&settings.socket, settings.exclusive) {
        (Some(socket), _) => Upstream::on(socket),
        (None, true) => Upstream::here(),
        (None, false) => Upstream::anywhere(),
    }
    .context(
        Exit::Other,
        "the gateway cannot make connections to the engine",
    )?;
    let gateway = Gateway(Arc::new(Shared {
        served: settings.served,
        form: settings.form,
        engine: settings.engine,
        window: settings.window,
        access: settings.access,
        metrics: settings.metrics,
        room: BodyBudget::new(&settings.limits),
        limits: settings.limits,
        exclusive: settings.exclusive,
        outages: settings.outages,
        log: settings.log,
        queue: Queue::new(settings.parallel),
        reading: Reading::new(settings.pdf_reader),
        upstream,
        prefix_warmer: PrefixWarmer::new(settings.prompt_prefixes),
        web_search: WebSearch::default(),
        stop: CancellationToken::new(),
    }));
    let _warming = AbortOnDropHandle::new(tokio::spawn(prefix_warmer::compute(gateway.clone())));
    let mut connections = Connections::new(gateway.clone());
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = connections.one_ended() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.take_in(stream),
                Err(error) => {
                    tracing::debug!(%error, "a connection cannot be taken in");
                    tokio::time::sleep(NO_MORE_FILES).await;
                }
            },
        }
    }
    drop(listener);
    gateway.stop.cancel();
    connections.close(gateway.limits.farewell).await;
    Ok(())
}

struct Connections {
    gateway: Gateway,
    router: Router,
    tasks: JoinSet<u64>,
    open: BTreeMap<u64, (Authenticated, AbortHandle)>,
    next: u64,
}

impl Connections {
    fn new(gateway: Gateway) -> Self {
        Self {
            router: routes::router(gateway.clone()),
            gateway,
            tasks: JoinSet::new(),
            open: BTreeMap::new(),
            next: 0,
        }
    }

    fn take_in(&mut self, stream: TcpStream) {
        if self.open.len() >= self.gateway.limits.connections && !self.make_room() {
            tracing::debug!("too many connections");
            return;
        }
        let authenticated = Authenticated::default();
        let serving = serve_one(
            stream,
            self.router.clone(),
            authenticated.clone(),
            self.gateway.clone(),
        );
        let id = self.next;
        self.next += 1;
        let task = self.tasks.spawn(async move {
            serving.await;
            id
        });
        self.open.insert(id, (authenticated, task));
    }

    /// Closes the oldest connection that never showed a token, so that strangers cannot keep sessions out.
    fn make_room(&mut self) -> bool {
        let stranger = self
            .open
            .iter()
            .find(|(_, (authenticated, _))| !authenticated.is())
            .map(|(id, _)| *id);
        let Some((_, task)) = stranger.and_then(|id| self.open.remove(&id)) else {
            return false;
        };
        task.abort();
        true
    }

    /// Waits until a connection is over.
    async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(id)) => {
                self.open.remove(&id);
            }
            // It was closed by us, and is forgotten already, or it panicked.
            Some(Err(_)) => self.open.retain(|_, (_, task)| !task.is_finished()),
            None => std::future::pending().await,
        }
    }

    async fn close(mut self, farewell: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(farewell, all).await;
        self.tasks.shutdown().await;
    }
}

async fn serve_one(
    stream: TcpStream,
    router: Router,
    authenticated: Authenticated,
    gateway: Gateway,
) {
    // Events are small, and each is waited for.
    let _ = stream.set_nodelay(true);
    let limits = &gateway.limits;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(authenticated.clone());
        router.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_deadline)
        .max_headers(limits.headers)
        .max_header_size(limits.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = gateway.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
