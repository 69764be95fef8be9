//! Between Claude Code and the engine: the Anthropic Messages API on both sides, and what lies between repaired.
//!
//! The supervisor owns the listener and says through [`Settings`] where the engine is; everything else happens here.

pub mod access;
pub mod figures;
pub mod wire;

use tokio::sync::watch;

use crate::secret::Secret;

/// Where the engine is, as its owner tells.
#[derive(Debug, Clone)]
pub enum Engine {
    /// It is downloading, loading or being started again: requests wait.
    Starting,
    /// It answers.
    Ready {
        /// Such as `http://127.0.0.1:49152`, without a slash at its end.
        base_url: String,
        /// Sent as `Authorization: Bearer`. None for an engine that takes none.
        key: Option<Secret>,
    },
    /// It is gone for good: every request is refused with this sentence.
    Gone(String),
}

/// What the gateway is told.
#[derive(Clone)]
pub struct Settings {
    /// What is served, and how.
    pub served: wire::Served,
    pub engine: watch::Receiver<Engine>,
    /// The context window in tokens; a longer prompt is refused before it reaches the engine. It can become narrower while the engine runs.
    pub window: watch::Receiver<u64>,
    pub access: access::Access,
    pub figures: figures::Figures,
}

/// Temporary.
pub async fn serve(
    listener: tokio::net::TcpListener,
    settings: Settings,
    stop: impl std::future::Future<Output = ()>,
) {
    use axum::body::Body;
    use axum::extract::{Request, State};
    use axum::response::Response;
    async fn forward(State(settings): State<Settings>, request: Request) -> Response {
        let mut engine = settings.engine.clone();
        if settings.access.check(request.headers()).is_none() {
            return Response::builder()
                .status(401)
                .body(Body::empty())
                .unwrap_or_default();
        }
        let (base_url, key) = loop {
            match engine.borrow_and_update().clone() {
                Engine::Ready { base_url, key } => break (base_url, key),
                Engine::Gone(why) => {
                    return Response::builder()
                        .status(503)
                        .body(Body::from(why))
                        .unwrap_or_default();
                }
                Engine::Starting => {}
            }
            let _ = engine.changed().await;
        };
        let url = format!("{base_url}{}", request.uri());
        let method = request.method().clone();
        let body = axum::body::to_bytes(request.into_body(), 1 << 26)
            .await
            .unwrap_or_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap_or_default();
        let mut forward = client
            .request(method, url)
            .header("content-type", "application/json")
            .body(body);
        if let Some(key) = key {
            forward = forward.bearer_auth(key.expose());
        }
        let mut gone = engine.clone();
        let answer = match forward.send().await {
            Ok(answer) => answer,
            Err(_) => {
                return Response::builder()
                    .status(502)
                    .body(Body::empty())
                    .unwrap_or_default();
            }
        };
        let mut builder = Response::builder().status(answer.status());
        if let Some(kind) = answer.headers().get("content-type") {
            builder = builder.header("content-type", kind);
        }
        use futures_util::StreamExt;
        let stop = async move {
            while matches!(*gone.borrow(), Engine::Ready { .. }) {
                if gone.changed().await.is_err() {
                    break;
                }
            }
        };
        builder
            .body(Body::from_stream(
                answer.bytes_stream().take_until(Box::pin(stop)),
            ))
            .unwrap_or_default()
    }
    let app = axum::Router::new().fallback(forward).with_state(settings);
    tokio::select! {
        _ = axum::serve(listener, app) => {}
        () = stop => {}
    }
}
