//! Samples the memory of an engine while it works, and clears its prefix cache or narrows the window when memory runs low. An idle engine is not
//! asked.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::engine::server::BASE_URL;
use crate::gateway::{self, Figures};
use crate::supervisor::memory_watch::{Decision, MemoryWatch, Sample};
use crate::sys::network;
use crate::sys::secret::Secret;

/// How often an engine at work is asked. What happens faster is the business of its own side (`engine/memory.py`).
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest answer that is read, in bytes: a few figures.
const LONGEST_ANSWER: usize = 64 << 10;

/// How long an answer may take. The engine answers between two steps.
const DEADLINE: Duration = Duration::from_secs(30);

/// Memory of an engine, in bytes unless a field says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineMemory {
    /// Limit for the engine.
    pub limit: u64,
    /// Memory that MLX held at the last sample, taken while it works.
    pub held: u64,
    /// The most that it held since its start.
    pub peak: u64,
    /// How often its prefix cache was cleared for memory's sake.
    pub cleared: u64,
    /// Entries of the prefix cache that it has dropped by itself.
    pub dropped: u64,
    /// The window in tokens before it was narrowed for memory's sake.
    pub narrowed_from: Option<u64>,
}

/// Message to the actor.
#[derive(Debug, Clone, Copy)]
pub(super) enum MemoryEvent {
    Sample(Sample),
    Cleared,
    Narrowed(u64),
}

/// Why there is no sample.
enum Silence {
    /// The engine does not answer at this moment.
    Now,
    /// The engine does not report its memory.
    Always,
}

/// An engine that is watched.
pub(super) struct MemorySampler {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    pub key: Option<Secret>,
    pub watch: MemoryWatch,
    pub figures: Figures,
    pub tell: mpsc::UnboundedSender<MemoryEvent>,
}

impl MemorySampler {
    /// Watches until it is dropped. An engine that does not tell is left alone.
    pub(super) async fn run(mut self) {
        let Ok(client) = gateway::client_on(&self.socket) else {
            return;
        };
        loop {
            self.figures.until_active().await;
            loop {
                let last = self.figures.active() == 0;
                let sample = match self.sample(&client).await {
                    Ok(sample) => sample,
                    Err(Silence::Now) => {
                        tokio::time::sleep(INTERVAL).await;
                        break;
                    }
                    Err(Silence::Always) => return,
                };
                let _ = self.tell.send(MemoryEvent::Sample(sample));
                match self.watch.see(&sample) {
                    Decision::Nothing => {}
                    Decision::Clear => {
                        self.clear(&client).await;
                        let _ = self.tell.send(MemoryEvent::Cleared);
                    }
                    Decision::Narrow(window) => {
                        let _ = self.tell.send(MemoryEvent::Narrowed(window));
                    }
                }
                // Once more after the end of the last request: what the turn took in all.
                if last {
                    break;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }

    async fn sample(&self, client: &reqwest::Client) -> Result<Sample, Silence> {
        let mut answer = self.send(client.get(url("/cclocal/memory"))).await?;
        let body = network::body(&mut answer, LONGEST_ANSWER).await;
        let body = body.map_err(|_| Silence::Now)?;
        if body.is_cut {
            return Err(Silence::Always);
        }
        serde_json::from_slice(&body.bytes).map_err(|_| Silence::Always)
    }

    async fn clear(&self, client: &reqwest::Client) {
        let _ = self.send(client.delete(url("/v1/cache/prefix"))).await;
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Silence> {
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
