//! The supervisor's own questions to its engine, over the engine's socket.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::engine::server::BASE_URL;
use crate::gateway;
use crate::sys::network;
use crate::sys::secret::Secret;

/// How long an answer may take. The engine answers between two steps.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no answer.
pub(super) enum Silence {
    /// The engine does not answer at this moment.
    Now,
    /// The engine does not know the question.
    Always,
}

/// Connections to one engine.
pub(super) struct EngineClient {
    client: Client,
    key: Option<Secret>,
}

impl EngineClient {
    /// `socket`: the engine's Unix socket.
    pub(super) fn new(socket: &Path, key: Option<Secret>) -> reqwest::Result<Self> {
        let client = gateway::client_on(socket)?;
        Ok(Self { client, key })
    }

    /// Figures in JSON, of `longest` bytes at most.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        longest: usize,
    ) -> Result<T, Silence> {
        let mut answer = self.send(self.client.get(url(path))).await?;
        let body = network::body(&mut answer, longest).await;
        let body = body.map_err(|_| Silence::Now)?;
        if body.is_cut {
            return Err(Silence::Always);
        }
        serde_json::from_slice(&body.bytes).map_err(|_| Silence::Always)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Silence> {
        self.send(self.client.delete(url(path))).await.map(drop)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Silence> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        };
        let answer = request.timeout(DEADLINE).send().await;
        let answer = answer.map_err(|_| Silence::Now)?;
        answer.error_for_status().map_err(|_| Silence::Always)
    }
}

fn url(path: &str) -> String {
    format!("{BASE_URL}{path}")
}
