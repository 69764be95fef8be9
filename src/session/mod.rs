//! A session: from what was asked for to Claude Code in the terminal, and back to a clean machine.

pub mod acquire;
pub mod launch_plan;
mod orphan_guard;
pub mod preflight;
mod rehearsal;
pub mod release;
pub mod remote;
pub mod request;
mod run;
mod serve;
pub mod session_dir;
pub mod wait_ready;
pub mod window;

pub use run::{Session, ask_features, over, run};
pub use serve::serve;
