//! What is asked for, and who answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use super::anthropic::ApiError;
use super::exchange::{self, client_name};
use super::outage::Outages;
use super::server::Gateway;
use super::upstream::{self, Failure};
use super::{Engine, limits, prefix_warmer, request_reader};
use crate::gateway::auth::{Caller, refuse_browsers};

/// How long a count of tokens waits for an engine that starts.
const COUNT_WAITS: Duration = Duration::from_secs(10);

/// Set once a request on the connection has shown a token.
#[derive(Debug, Clone, Default)]
pub(super) struct Authenticated(Arc<AtomicBool>);

impl Authenticated {
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/messages", post(create))
        .route("/v1/messages/count_tokens", post(count))
        .route("/v1/models", get(models))
        .route("/rehearsal", get(rehearsed))
        .route("/rehearsal/v1/messages", post(rehearse))
        .route("/rehearsal/v1/models", get(models))
        .route("/api/hello", get(hello))
        .route("/health", get(health))
        .fallback(async || ApiError::new(404, "not_found_error", "there is nothing here"))
        .method_not_allowed_fallback(async || {
            ApiError::new(405, "invalid_request_error", "not with this method")
        })
        .layer(from_fn_with_state(gateway.clone(), check))
        .with_state(gateway)
}

/// Before anything is looked at: who asks, and how.
async fn check(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    if let Err(error) = refuse_browsers(request.uri(), request.headers()) {
        return error.into_response();
    }
    // These two say nothing that a stranger could use.
    if !matches!(request.uri().path(), "/health" | "/api/hello") {
        let Some(caller) = gateway.access.check(request.headers()) else {
            let message = "a valid token is needed, as Authorization: Bearer or as x-api-key";
            return ApiError::new(401, "authentication_error", message).into_response();
        };
        if let Some(authenticated) = request.extensions().get::<Authenticated>() {
            authenticated.0.store(true, Ordering::Relaxed);
        }
        request.extensions_mut().insert(caller);
    }
    if request.method() == Method::POST && !is_json(request.headers()) {
        let message = "Content-Type: application/json is needed";
        return ApiError::new(415, "invalid_request_error", message).into_response();
    }
    next.run(request).await
}

/// A page's form or simple request cannot say so.
fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The client's first request, of which the system prompt and the tools are wanted, and no answer.
async fn rehearse(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = limits::read(&headers, body, &gateway.limits, &gateway.room).await?;
    Err(prefix_warmer::rehearse(&gateway, caller, client_name(&headers), body.bytes).await)
}

/// Answered when that request has come.
async fn rehearsed(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
) -> StatusCode {
    tokio::select! {
        () = prefix_warmer::rehearsed(&gateway, caller) => StatusCode::NO_CONTENT,
        () = gateway.stop.cancelled() => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn create(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = limits::read(&headers, body, &gateway.limits, &gateway.room).await?;
    let answer = || exchange::answer(&gateway, caller, &headers, body.clone());
    match answer().await {
        // One that it fails at again, it always fails at: the client is not to try for minutes.
        Err(error) if error.status == 500 && gateway.exclusive => answer()
            .await
            .map_err(|error| upstream::permanent_failure(error, gateway.log.as_deref())),
        done => done,
    }
}

async fn count(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = limits::read(&headers, body, &gateway.limits, &gateway.room).await?;
    let prompt = request_reader::count(&gateway, body.bytes).await?;
    // It is held until the count is known.
    let _taken = body.taken;
    let mut engine = gateway.engine.clone();
    let busy = |message: &str| ApiError::new(529, "overloaded_error", message);
    let target = tokio::time::timeout(COUNT_WAITS, upstream::ready(&mut engine))
        .await
        .map_err(|_| busy("the engine is starting"))??;
    let counted = gateway
        .upstream
        .count(&target, prompt.into(), gateway.limits.count)
        .await;
    match counted {
        Ok(tokens) => Ok(Json(json!({"input_tokens": tokens}))),
        // Some refuse to count what is longer than their window, and say how long it is at least.
        Err(Failure::Away(error) | Failure::Busy(error, _)) => Err(error),
        Err(Failure::Refused(error)) => match error.overflow.and_then(|said| said.prompt) {
            Some(tokens) => Ok(Json(json!({"input_tokens": tokens}))),
            None => Err(error),
        },
        Err(Failure::Lost(_)) => Err(busy("the engine was lost")),
        Err(Failure::Stalled) => Err(busy("the engine does not count now")),
    }
}

/// The one model that is served. Any other name is taken for it, too.
async fn models(State(gateway): State<Gateway>) -> Json<Value> {
    let name = &gateway.served.name;
    let model = json!({
        "type": "model",
        "id": name,
        "display_name": name,
        // "May be set to an epoch value if the release date is unknown", says the API's reference.
        "created_at": "1970-01-01T00:00:00Z",
        // vLLM's name for it: another cclocal reads it.
        "max_model_len": *gateway.window.borrow(),
    });
    Json(json!({"data": [model], "has_more": false, "first_id": name, "last_id": name}))
}

async fn hello() -> StatusCode {
    StatusCode::OK
}

async fn health(State(gateway): State<Gateway>) -> (StatusCode, Json<Value>) {
    let (status, state) = match &*gateway.engine.borrow() {
        Engine::Ready { .. } => (StatusCode::OK, "healthy"),
        Engine::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Engine::Gone(_) => (StatusCode::SERVICE_UNAVAILABLE, "gone"),
    };
    match gateway.outages.as_ref().and_then(Outages::now) {
        Some(away) => {
            let state = json!({"status": "away", "message": away.words});
            (StatusCode::SERVICE_UNAVAILABLE, Json(state))
        }
        None => (status, Json(json!({"status": state}))),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.json())).into_response();
        if self.status == upstream::GONE {
            // The real client then shows the message at once, instead of after ten attempts in three minutes.
            response
                .headers_mut()
                .insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}
