//! A session: from what was asked for to Claude Code in the terminal, and back to a clean machine.

pub mod acquire;
pub mod choose;
mod client;
pub mod connect;
mod memory_chart;
mod orphan_guard;
pub mod preflight;
pub mod prepare;
mod progress;
mod rehearsal;
pub mod release;
pub mod remote;
mod request;
mod run;
mod serve;
pub mod session_dir;
mod together;
pub mod wait_ready;
pub mod window;

pub use client::{Output, command as client_command};
pub use run::{over, run};
pub use serve::serve;
pub use together::{Session, ask_features};
