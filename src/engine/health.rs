//! Whether the engine answers: `GET /health`.

use std::time::Duration;

use serde::Deserialize;

/// How often a starting engine is asked.
const INTERVAL: Duration = Duration::from_millis(100);
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

/// Waits until the engine says that this model is loaded. The port opens only after that, so until then connections are refused; whoever
/// waits here also watches the process.
pub async fn until_ready(port: u16, served_name: &str) {
    // Loopback only: a proxy from the environment must never see this.
    let Ok(client) = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_DEADLINE)
        .build()
    else {
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
