//! cclocal: Claude Code on a model that runs on your own machine. See `docs/architecture.md` for how the parts fit.

pub mod app;
pub mod catalog;
pub mod claude;
pub mod cli;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod escape;
pub mod gateway;
pub mod hub;
pub mod memory;
pub mod session;
pub mod settings;
pub mod supervisor;
pub mod sys;
pub mod ui;
