//! A session: from what was asked for to Claude Code in the terminal, and back to a clean machine.

mod client;
pub mod connect;
pub mod engine;
pub mod preflight;
pub mod prepare;
pub mod reservation;
mod run;
mod serve;
pub mod signals;
pub mod startup;

pub use client::{Output, command as client_command};
pub use run::run;
pub use serve::serve;
