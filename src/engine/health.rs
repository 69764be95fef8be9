//! Whether the engine answers on its socket: `GET /health`, once it has proved that it is ours.

use std::path::Path;
use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;

use super::proof::{self, Challenge};
use super::server::BASE_URL;
use crate::sys::network;
use crate::sys::secret::Secret;

/// How often a starting engine is asked. A refused connection costs some 50 µs, and half of this is what a session waits longer than it must.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long one answer may take. While the engine starts nothing else is going on in it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Health {
    status: String,
    #[serde(default)]
    model_loaded: bool,
    #[serde(default)]
    model_name: Option<String>,
}

/// The program that answers is not the engine that was started.
pub(super) struct Impostor;

/// Asks a starting engine.
#[derive(Debug)]
pub(super) struct HealthCheck {
    /// None: it cannot be made.
    client: Option<Client>,
    proof_key: Secret,
}

impl HealthCheck {
    /// Over this socket alone, so no certificates are read for it.
    pub(super) fn on(socket: &Path, proof_key: Secret) -> Self {
        let client = network::plain_http()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_DEADLINE)
            .unix_socket(socket)
            .build();
        Self {
            client: client.ok(),
            proof_key,
        }
    }

    /// Waits until the engine says that this model is loaded. Its socket opens only after that, so until then connections are refused; whoever
    /// waits here also watches the process. Errors: something answers that cannot prove to be the engine.
    pub(super) async fn until_ready(&self, served_name: &str) -> Result<(), Impostor> {
        let Some(client) = &self.client else {
            return std::future::pending().await;
        };
        loop {
            if self.proves_itself(client).await? && is_healthy(client, served_name).await {
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// False: nothing answers yet.
    async fn proves_itself(&self, client: &Client) -> Result<bool, Impostor> {
        let Ok(challenge) = Challenge::new(&self.proof_key) else {
            return Ok(false);
        };
        let url = format!("{BASE_URL}{}", challenge.target());
        let Ok(answer) = client.get(url).send().await else {
            return Ok(false);
        };
        // One that goes on for ever is not read.
        if answer.content_length() != Some(proof::LENGTH) {
            return Err(Impostor);
        }
        match answer.bytes().await {
            Ok(answer) if challenge.accepts(&answer) => Ok(true),
            Ok(_) => Err(Impostor),
            Err(_) => Ok(false),
        }
    }
}

async fn is_healthy(client: &Client, served_name: &str) -> bool {
    let Ok(response) = client.get(format!("{BASE_URL}/health")).send().await else {
        return false;
    };
    response.json::<Health>().await.is_ok_and(|health| {
        health.status == "healthy"
            && health.model_loaded
            && health.model_name.is_none_or(|name| name == served_name)
    })
}
