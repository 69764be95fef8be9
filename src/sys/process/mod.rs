//! Child processes: watched without races, and short ones with a deadline.

mod child;
mod deadline;
pub mod signals;

pub use child::{Change, Child, Ended};
pub use deadline::{Finished, run, run_unless, run_with_input};

/// A runtime for what waits for other programs: one thread is enough.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // How many tasks run before signals, timers and sockets are looked at: with many large requests at once each takes a while (the default is 61).
        .event_interval(8)
        .build()
}
