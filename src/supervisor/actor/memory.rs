//! The memory of the engine that runs: that it is watched, what is known of it, and the window that follows.

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::supervisor::memory_sampler::{EngineMemory, MemoryEvent, MemorySampler};

/// Everything about memory that changes while an engine runs.
pub(super) struct Memory {
    /// In tokens; the gateway follows it.
    window: watch::Sender<u64>,
    /// None: no engine is watched.
    known: Option<EngineMemory>,
    /// Ends with the engine that it watches.
    watcher: Option<AbortOnDropHandle<()>>,
    to_notice: mpsc::UnboundedSender<MemoryEvent>,
    noticed: mpsc::UnboundedReceiver<MemoryEvent>,
}

impl Memory {
    /// `window`: in tokens.
    pub(super) fn new(window: u64) -> Self {
        let (to_notice, noticed) = mpsc::unbounded_channel();
        Self {
            window: watch::Sender::new(window),
            known: None,
            watcher: None,
            to_notice,
            noticed,
        }
    }

    /// The window as it is now, in tokens.
    pub(super) fn window(&self) -> u64 {
        *self.window.borrow()
    }

    /// The window for whoever has to follow it.
    pub(super) fn follow_window(&self) -> watch::Receiver<u64> {
        self.window.subscribe()
    }

    pub(super) fn known(&self) -> Option<EngineMemory> {
        self.known
    }

    /// Has an engine watched. `limit`: what it may hold, in bytes.
    pub(super) fn begin(
        &mut self,
        limit: u64,
        watched: impl FnOnce(mpsc::UnboundedSender<MemoryEvent>) -> MemorySampler,
    ) {
        self.known = Some(EngineMemory {
            limit,
            ..EngineMemory::default()
        });
        let watched = watched(self.to_notice.clone());
        self.watcher = Some(AbortOnDropHandle::new(tokio::spawn(watched.run())));
    }

    /// The next message about memory. Can be cancelled and called again.
    pub(super) async fn next(&mut self) -> Option<MemoryEvent> {
        self.noticed.recv().await
    }

    pub(super) fn notice(&mut self, noticed: MemoryEvent) {
        let Some(known) = &mut self.known else {
            // Of an engine that has gone meanwhile.
            return;
        };
        match noticed {
            MemoryEvent::Sample(sample) => {
                known.held = sample.held;
                known.peak = known.peak.max(sample.peak);
                known.dropped = sample.dropped;
            }
            MemoryEvent::Cleared => {
                known.cleared += 1;
                tracing::warn!(
                    held = known.held,
                    limit = known.limit,
                    "memory runs short: the prefix cache was cleared"
                );
            }
            MemoryEvent::Narrowed(window) => {
                let before = self.window.send_replace(window);
                known.narrowed_from.get_or_insert(before);
                tracing::warn!(
                    held = known.held,
                    limit = known.limit,
                    window,
                    before,
                    "memory runs short: the window is narrower"
                );
            }
        }
    }

    /// The engine has gone. A new one begins anew, with this window, in tokens.
    pub(super) fn end(&mut self, window: u64) {
        self.watcher = None;
        self.known = None;
        while self.noticed.try_recv().is_ok() {}
        self.window.send_replace(window);
    }
}
