//! Whether the engine answers: `GET /health`.

use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;

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

/// What asks. Loopback only: a proxy from the environment must never see it, and no certificates are read for it. None: it cannot be made.
pub fn client() -> Option<Client> {
    Client::builder()
        .no_proxy()
        .tls_built_in_root_certs(false)
        .timeout(ANSWER_DEADLINE)
        .build()
        .ok()
}

/// Waits until the engine says that this model is loaded. The port opens only after that, so until then connections are refused; whoever
/// waits here also watches the process.
pub async fn until_ready(client: Option<&Client>, port: u16, served_name: &str) {
    let Some(client) = client else {
        return std::future::pending().await;
    };
    let url = format!("http://127.0.0.1:{port}/health");
    loop {
        if let Ok(response) = client.get(&url).send().await
            && let Ok(health) = response.json::<Health>().await
            && health.status == "healthy"
            && health.model_loaded
            // Somebody else's engine on our port is not ours, however healthy.
            && health.model_name.is_none_or(|name| name == served_name)
        {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
