//! Asks an engine at work how far it is. An idle engine is not asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::server::BASE_URL;
use crate::gateway::metrics::Standing;
use crate::gateway::{self, Metrics};
use crate::supervisor::progress::{Activity, Progress};
use crate::sys::network;
use crate::sys::secret::Secret;

/// How often it is asked: as often as a status line is drawn.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take. The engine answers between two steps.
const DEADLINE: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes: a few figures.
const LONGEST_ANSWER: usize = 4 << 10;

/// Progress of the engine that runs.
#[derive(Default)]
pub(super) struct EngineProgress {
    known: Arc<Mutex<Progress>>,
    /// Ends with the engine that it asks.
    sampler: Option<AbortOnDropHandle<()>>,
}

impl EngineProgress {
    /// Has an engine asked. `socket`: its Unix socket.
    pub(super) fn begin(&mut self, socket: &Path, key: Option<Secret>, figures: Metrics) {
        let sampler = Sampler {
            socket: socket.to_owned(),
            key,
            figures,
            known: self.known.clone(),
        };
        self.sampler = Some(AbortOnDropHandle::new(tokio::spawn(sampler.run())));
    }

    /// The engine has gone.
    pub(super) fn end(&mut self) {
        self.sampler = None;
        lock(&self.known).clear();
    }

    /// What the engine does for one whose requests stand so.
    pub(super) fn activity(&self, standing: Standing) -> Activity {
        lock(&self.known).activity(standing, Instant::now())
    }
}

fn lock(known: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sampler {
    socket: PathBuf,
    key: Option<Secret>,
    figures: Metrics,
    known: Arc<Mutex<Progress>>,
}

impl Sampler {
    /// Asks until it is dropped. An engine that does not tell is left alone.
    async fn run(self) {
        let Ok(client) = gateway::client_on(&self.socket) else {
            return;
        };
        loop {
            self.figures.until_active().await;
            while self.figures.active() > 0 {
                match self.ask(&client).await {
                    Ok(Some(told)) => {
                        if let Ok(told) = serde_json::from_value(told) {
                            lock(&self.known).see(Instant::now(), told);
                        }
                    }
                    Ok(None) => return,
                    // It does not answer at this moment.
                    Err(_) => {}
                }
                tokio::time::sleep(INTERVAL).await;
            }
            lock(&self.known).clear();
        }
    }

    /// None: it does not tell.
    async fn ask(&self, client: &reqwest::Client) -> reqwest::Result<Option<Value>> {
        let request = client.get(format!("{BASE_URL}/cclocal/progress"));
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        };
        let mut answer = request.timeout(DEADLINE).send().await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let body = network::body(&mut answer, LONGEST_ANSWER).await?;
        Ok(serde_json::from_slice(&body.bytes).ok())
    }
}
