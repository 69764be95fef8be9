//! Claude Code: found, prepared, and run in the foreground.

pub mod features;
pub mod find;
pub mod foreground;
pub mod hidden;
pub mod hooks_plugin;
pub mod install;
pub mod json;
pub mod merge;
pub mod profile;
pub mod settings_files;
mod terminal;
