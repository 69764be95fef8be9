//! Samples the memory of an engine while it works, and clears its prefix cache or narrows the window when memory runs low. An idle engine is not
//! asked.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::gateway::Metrics;
use crate::supervisor::engine_client::{EngineClient, Silence};
use crate::supervisor::memory_watch::{Decision, MemoryWatch, Sample};
use crate::sys::secret::Secret;

/// How often an engine at work is asked. What happens faster is the business of its own side (`engine/memory.py`).
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest answer that is read, in bytes: a few figures.
const LONGEST_ANSWER: usize = 64 << 10;

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

/// An engine that is watched.
pub(super) struct MemorySampler {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    pub key: Option<Secret>,
    pub watch: MemoryWatch,
    pub figures: Metrics,
    pub tell: mpsc::UnboundedSender<MemoryEvent>,
}

impl MemorySampler {
    /// Watches until it is dropped. An engine that does not tell is left alone.
    pub(super) async fn run(mut self) {
        let Ok(engine) = EngineClient::new(&self.socket, self.key.take()) else {
            return;
        };
        loop {
            self.figures.until_active().await;
            loop {
                let last = self.figures.active() == 0;
                let sample = match engine.get("/cclocal/memory", LONGEST_ANSWER).await {
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
                        let _ = engine.delete("/v1/cache/prefix").await;
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
}
