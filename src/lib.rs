//! cclocal: Claude Code on a model that runs on your own machine. See `docs/architecture.md` for how the parts fit.

pub mod catalog;
pub mod claude;
pub mod cli;
pub mod demo;
pub mod engine;
pub mod env_vars;
pub mod error;
pub mod files;
pub mod gateway;
pub mod host;
pub mod hub;
pub mod machine;
pub mod memory;
pub mod paths;
pub mod plan;
pub mod probe;
pub mod process;
pub mod secret;
pub mod session;
pub mod supervisor;
mod sys;
pub mod ui;
pub mod visible;
