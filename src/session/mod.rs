//! A session: from what was asked for to Claude Code in the terminal, and back to a clean machine.

pub mod acquire;
pub mod launch_plan;
mod orphan_guard;
pub mod preflight;
pub mod pull;
mod rehearsal;
pub mod release;
pub mod remote;
pub mod request;
mod run;
mod serve;
pub mod session_dir;
pub mod wait_ready;
pub mod window;

use crate::error::{Context, Exit, Result};
use crate::sys::process;

pub use run::{Session, ask_features, over, run};
pub use serve::serve;

/// The asynchronous runtime of a session.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    process::runtime().context(Exit::Other, "the asynchronous runtime cannot be started")
}
