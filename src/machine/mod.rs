//! Facts about this machine.

pub mod memory;
pub mod platform;
pub mod port;
