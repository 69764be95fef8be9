//! A turn that the engine works at: handed on when the engine is free again.

use super::queue;
use super::server::Gateway;
use super::upstream::Target;

/// One's turn while the engine works at it. Dropped in the middle, it is handed on only when the engine has let go of the request.
pub(super) struct InFlight {
    gateway: Gateway,
    turn: Option<queue::Turn>,
    engine: Option<Target>,
}

impl InFlight {
    pub(super) fn new(gateway: &Gateway, turn: queue::Turn) -> Self {
        Self {
            gateway: gateway.clone(),
            turn: Some(turn),
            engine: None,
        }
    }

    pub(super) fn engine_has_it(&mut self, engine: Target) {
        self.engine = Some(engine);
    }

    pub(super) fn engine_is_free(&mut self) {
        self.engine = None;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let (Some(engine), Some(turn)) = (self.engine.take(), self.turn.take()) else {
            return;
        };
        if !self.gateway.exclusive || self.gateway.stop.is_cancelled() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let gateway = self.gateway.clone();
            runtime.spawn(async move {
                tokio::select! {
                    () = gateway.upstream.clear(&engine, gateway.limits.clear) => {}
                    () = gateway.stop.cancelled() => {}
                }
                drop(turn);
            });
        }
    }
}
