//! Everything that will be run, decided before anything is: pure.

pub mod claude;
pub mod claude_args;
pub mod claude_options;
pub mod engine;
pub mod hooks;
pub mod overlay;
pub mod setting_keys;
