//! The answer to a request for the engine's status.

use crate::engine::server::Server;
use crate::gateway::auth::Caller;
use crate::gateway::metrics::Standing;
use crate::memory::ContextWindow;
use crate::supervisor::actor::Actor;
use crate::supervisor::connection::MessageSender;
use crate::supervisor::process::engine_log;
use crate::supervisor::protocol::{Live, PROTOCOL, PhaseName, Progress, Status, SupervisorMessage};
use crate::supervisor::state::Phase;
use crate::sys::{machine, network};

impl Actor<'_> {
    /// Tells how things are now.
    pub(super) fn tell_status(&self, tell: MessageSender) {
        let mut status = self.status();
        status.resident = status.engine_pid.and_then(machine::resident);
        tell.tell(SupervisorMessage::Status(Box::new(status)));
    }

    /// Tells the session that is this process how things are for it at this moment.
    pub(super) fn tell_live(&self, pid: i32, tell: &MessageSender) {
        let lease = self.leases.iter().find(|(_, lease)| lease.pid == pid);
        let caller = lease.map(|(id, _)| Caller::Lease(*id));
        let standing = caller.map_or(Standing::Idle, |caller| self.figures.standing(Some(caller)));
        let figures = caller.map(|caller| self.figures.summary(caller));
        tell.tell(SupervisorMessage::Live(Live {
            name: self.spec.serve.model.name.clone(),
            phase: self.phase(),
            progress: self.progress(),
            window: self.memory.window(),
            narrowed_from: self.memory.known().and_then(|known| known.narrowed_from),
            cached_percent: figures.and_then(|figures| figures.cached_percent()),
            activity: self.progress.activity(standing),
        }));
    }

    fn phase(&self) -> PhaseName {
        match self.state.phase {
            Phase::Starting { before: true } | Phase::Waiting => PhaseName::Restarting,
            Phase::Unclaimed | Phase::Starting { before: false } => match self.progress() {
                Some(Progress::Downloading { .. }) => PhaseName::Downloading,
                _ => PhaseName::Loading,
            },
            Phase::Ready => PhaseName::Ready,
            Phase::Ending | Phase::Ended => PhaseName::Ending,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL,
            pid: std::process::id(),
            port: self.reservation.port,
            phase: self.phase(),
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
            now: Some(self.progress.activity(self.figures.standing(None))),
            restarts: self.restarts,
            lacking: self.lacking.clone(),
            figures: self.figures.total(),
            cache_breaks: self.figures.cache_breaks(),
            log: (self.spec.log.clone())
                .unwrap_or_else(|| engine_log(&self.app.paths, self.reservation.port)),
            network: network::own(),
        }
    }
}
