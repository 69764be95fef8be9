//! A session: from what was asked for to Claude Code in the terminal, and back to a clean machine.

pub mod choose;
mod client;
pub mod connect;
pub mod elsewhere;
pub mod folder;
pub mod follow;
pub mod leave;
mod picture;
pub mod preflight;
pub mod prepare;
mod progress;
pub mod reach;
mod rehearsal;
mod request;
mod run;
mod serve;
mod together;
mod watcher;
pub mod window;

pub use client::{Output, command as client_command};
pub use run::{over, run};
pub use serve::serve;
pub use together::Session;
