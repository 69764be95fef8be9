//! Facts about this machine.

pub mod disk;
pub mod gpu_limit;
pub mod loopback;
pub mod memory;
pub mod network;
pub mod platform;
pub mod port;
