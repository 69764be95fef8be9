//! Everything that will be run, decided before anything is: pure.

pub mod claude;
pub mod claude_args;
pub mod engine;
pub mod overlay;
pub mod setting_keys;
