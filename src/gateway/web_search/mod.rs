//! Web searches, which no engine can make: the gateway answers the requests for them itself, so that none reaches the model as a prompt.
//!
//! Claude Code's WebSearch sends a request of its own, with the API's server tool `web_search_20250305` as the only one. It is answered from the search service that
//! the session's user named (`--web-search`), or with the API's error and a sentence. The service belongs to the session, not to the engine, which others use too:
//! [`super::Access`] knows it by the caller.
//!
//! - [`request`]: which requests ask for a search, and for what, pure;
//! - [`backend`]: the services, as a command line names them, pure;
//! - [`client`]: asking one;
//! - [`hits`]: its answer, made harmless, pure;
//! - [`reply`]: the reply to the client, pure.

mod backend;
mod client;
mod hits;
mod reply;
mod request;

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;

pub use backend::{Backend, Kind};

use self::reply::{Failed, Reply};
use self::request::{Query, Recognised};
use super::anthropic::ApiError;
use super::auth::Caller;
use super::server::Gateway;
use crate::sys::secret::Secret;

/// The searching side of a gateway.
#[derive(Debug, Default)]
pub(crate) struct WebSearch {
    client: client::SearchClient,
    /// Whether it was logged that the server tool is left out beside others.
    logged: AtomicBool,
}

/// A request, after the gateway has looked for a search in it.
pub(crate) enum Intercepted {
    /// It asked for a web search, and this is the reply.
    Reply(Response),
    /// It is for the model, with this body.
    Message(Bytes),
}

/// Answers the body of `POST /v1/messages` if it asks for a web search.
pub(crate) async fn intercept(
    gateway: &Gateway,
    caller: Caller,
    body: Bytes,
) -> Result<Intercepted, ApiError> {
    let length = body.len();
    let read = move || (request::read(&body), body);
    let (recognised, body) = gateway.reading.work(length, read).await?;
    match recognised {
        Recognised::Other => Ok(Intercepted::Message(body)),
        Recognised::WithoutSearch(body) => {
            if !gateway.web_search.logged.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    "a client offers the model the server tool web_search beside others: it is left out, as engines cannot search"
                );
            }
            Ok(Intercepted::Message(body.into()))
        }
        Recognised::Search(query) => search(gateway, caller, &query)
            .await
            .map(Intercepted::Reply),
    }
}

async fn search(gateway: &Gateway, caller: Caller, query: &Query) -> Result<Response, ApiError> {
    let backend = gateway.access.search_backend(caller);
    let outcome = match &backend {
        None => Err(Failed::no_backend()),
        Some(backend) => {
            let client = &gateway.web_search.client;
            client.search(backend, query, gateway.limits.search).await
        }
    };
    if let (Err(failed), Some(backend)) = (&outcome, &backend) {
        tracing::info!(code = ?failed.code, host = backend.host(), "a web search failed");
    }
    let id = Secret::random().map_err(|error| ApiError::new(500, "api_error", error.message))?;
    let reply = Reply {
        id: &id.expose()[..24],
        model: &query.model,
        query: &query.text,
        host: backend.as_ref().map_or("", Backend::host),
        outcome: &outcome,
    };
    let (body, kind) = match query.stream {
        true => (reply.streamed(), "text/event-stream"),
        false => (reply.plain(), "application/json"),
    };
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
