//! The engine, `vllm-mlx`: installed, started, watched, and understood when it ends.

pub mod argv;
pub mod complaint;
pub mod device;
pub mod executable;
pub mod exit_reason;
pub mod flags;
mod health;
pub mod install;
pub mod lifecycle;
pub mod patches;
pub mod proof;
pub mod server;
