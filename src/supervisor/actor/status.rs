//! What is said of the engine to whoever asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::engine::server::{self, Server};
use crate::memory::ContextWindow;
use crate::supervisor::actor::Owner;
use crate::supervisor::connection::Teller;
use crate::supervisor::process::engine_log;
use crate::supervisor::protocol::{PROTOCOL, PhaseName, Progress, Status, Tell};
use crate::supervisor::state::Phase;
use crate::sys::network;

/// How long a figure is told again that another program was asked for.
const FRESH: Duration = Duration::from_secs(1);

/// The resident memory of an engine's process, as it was told last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Resident(Arc<Mutex<Option<Told>>>);

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    pid: i32,
    bytes: Option<u64>,
}

impl Resident {
    /// In bytes. All who ask at the same time are told the same, for which one program is run at most.
    async fn of(&self, pid: i32) -> Option<u64> {
        let mut told = self.0.lock().await;
        if let Some(told) = *told
            && told.pid == pid
            && told.at.elapsed() < FRESH
        {
            return told.bytes;
        }
        let bytes = server::resident(pid).await.map(|kib| kib << 10);
        let at = Instant::now();
        *told = Some(Told { at, pid, bytes });
        bytes
    }
}

impl Owner<'_> {
    /// Tells how things are now. The owner itself waits for nothing here.
    pub(super) fn tell_status(&self, tell: Teller) {
        let mut status = Box::new(self.status());
        let resident = self.resident.clone();
        tokio::spawn(async move {
            if let Some(pid) = status.engine_pid {
                status.resident = resident.of(pid).await;
            }
            tell.tell(Tell::Status(status));
        });
    }

    fn status(&self) -> Status {
        let phase = match self.state.phase {
            Phase::Starting { before: true } | Phase::Waiting => PhaseName::Restarting,
            Phase::Unclaimed | Phase::Starting { before: false } => match self.progress() {
                Some(Progress::Downloading { .. }) => PhaseName::Downloading,
                _ => PhaseName::Loading,
            },
            Phase::Ready => PhaseName::Ready,
            Phase::Ending | Phase::Ended => PhaseName::Ending,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL,
            pid: std::process::id(),
            port: self.reservation.port,
            phase,
            name: self.spec.serve.model.name.clone(),
            typed: self.spec.serve.model.typed.clone(),
            served_name: self.spec.serve.model.served_name.clone(),
            source: self.spec.serve.model.source.clone(),
            profile: self.spec.serve.model.engine_profile,
            thinking: self.spec.serve.model.thinking,
            engine: self.spec.engine.script.clone(),
            keeps_prefix: self.spec.serve.prefix_folder().is_some(),
            window: ContextWindow {
                tokens: self.memory.window(),
                ..self.spec.serve.window
            },
            weights: self.spec.weights,
            claim: self.spec.claim,
            resident: None,
            memory: self.memory.known(),
            engine_pid: self.engine.as_ref().map(Server::pid),
            sessions: self.leases.values().map(|lease| lease.pid).collect(),
            up: self.started.elapsed().as_secs(),
            ends_in: self.linger_over.map(|at| {
                at.saturating_duration_since(tokio::time::Instant::now())
                    .as_secs()
            }),
            busy: self.figures.active() + self.figures.queued(),
            restarts: self.restarts,
            lacking: self.lacking.clone(),
            figures: self.figures.total(),
            log: (self.spec.log.clone())
                .unwrap_or_else(|| engine_log(&self.app.paths, self.reservation.port)),
            network: network::own(),
        }
    }
}
