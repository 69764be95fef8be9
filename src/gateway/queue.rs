//! One request at a time, in the order in which they came.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The way to the engine. Clones lead to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Queue(Arc<Semaphore>);

/// A place in the queue. Dropped, it is given up.
pub(crate) struct Place(Waiting);

enum Waiting {
    There(OwnedSemaphorePermit),
    Behind(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
}

/// One's turn. Dropped, it is the next one's.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Takes the place at the end.
    pub(crate) fn enter(&self) -> Place {
        use futures_util::FutureExt;
        let semaphore = self.0.clone();
        // It is never closed: None does not happen.
        let mut waiting: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(async move { semaphore.acquire_owned().await.ok() });
        // The semaphore is fair: places are in the order of first polls, so this one is taken here and now.
        match waiting.as_mut().now_or_never().flatten() {
            Some(permit) => Place(Waiting::There(permit)),
            None => Place(Waiting::Behind(waiting)),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// Waits for one's turn.
    pub(crate) async fn turn(self) -> Turn {
        let permit = match self.0 {
            Waiting::There(permit) => Some(permit),
            Waiting::Behind(waiting) => waiting.await,
        };
        match permit {
            Some(_permit) => Turn { _permit },
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_come_in_the_order_of_entering_not_of_asking() {
        let queue = Queue::new();
        let first = queue.enter();
        let second = queue.enter();
        let third = queue.enter();
        let mut third = Box::pin(third.turn());
        assert!(third.as_mut().now_or_never().is_none());
        let mut second = Box::pin(second.turn());
        assert!(second.as_mut().now_or_never().is_none());
        let turn = first.turn().now_or_never().expect("it is its turn");
        assert!(second.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(third.as_mut().now_or_never().is_none());
        let turn = second.now_or_never().expect("it is its turn");
        drop(turn);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_leaves_is_not_waited_for() {
        let queue = Queue::new();
        let turn = queue.enter().turn().await;
        let gone = queue.enter();
        let mut next = Box::pin(queue.enter().turn());
        assert!(next.as_mut().now_or_never().is_none());
        drop(gone);
        drop(turn);
        assert!(next.now_or_never().is_some());
    }
}
