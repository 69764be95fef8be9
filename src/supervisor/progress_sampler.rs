//! Asks an engine at work how far it is. An idle engine is not asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use crate::gateway::Metrics;
use crate::gateway::metrics::Standing;
use crate::supervisor::engine_client::{EngineClient, Silence};
use crate::supervisor::progress::{Activity, Progress, Told};
use crate::sys::secret::Secret;

/// How often it is asked: as often as a status line is drawn.
const INTERVAL: Duration = Duration::from_secs(1);

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

    /// The engine's activity for a caller whose requests stand so.
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
        let Ok(engine) = EngineClient::new(&self.socket, self.key) else {
            return;
        };
        loop {
            self.figures.until_active().await;
            while self.figures.active() > 0 {
                match engine.get("/cclocal/progress", LONGEST_ANSWER).await {
                    Ok(told) => {
                        // Between two requests there is none to tell of.
                        if let Ok(told) = serde_json::from_value::<Told>(told) {
                            lock(&self.known).see(Instant::now(), told);
                        }
                    }
                    Err(Silence::Now) => {}
                    Err(Silence::Always) => return,
                }
                tokio::time::sleep(INTERVAL).await;
            }
            lock(&self.known).clear();
        }
    }
}
