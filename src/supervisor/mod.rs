//! The background process that owns one engine and the gateway to it, and the sessions' side of it.
//!
//! - [`state`]: what happens when, pure;
//! - [`spec`]: what a supervisor is asked to run;
//! - [`process`]: the supervisor's process, from its start to its place in the background;
//! - `owner`: its one task, which owns the engine; all else sends it messages;
//! - [`memory_watch`], [`memory_sampler`]: what is done when memory runs short, pure, and the task that looks;
//! - [`protocol`], [`socket`]: what sessions and supervisor say to each other, and where;
//! - `handed`: the listening socket of the gateway, handed to sessions;
//! - [`reservation`]: the port, held for as long as the supervisor lives, and who runs where;
//! - [`port_holder`]: who holds a port, as the kernel tells, and the end of one that does not answer;
//! - [`lease`], [`registry`], [`spawn`]: a session's hold on an engine, finding one, starting one.

mod actor;
mod connection;
mod engine_client;
pub mod last_end;
pub mod lease;
pub mod live_line;
pub mod memory_sampler;
pub mod memory_watch;
pub mod port_holder;
pub mod process;
pub mod progress;
mod progress_sampler;
pub mod protocol;
pub mod registry;
pub mod reservation;
pub mod socket;
mod socket_passing;
pub mod spawn;
pub mod spec;
pub mod startup;
pub mod state;

pub use lease::Lease;
