//! Claude Code: found, prepared, and run in the foreground.

pub mod cli_options;
pub mod command;
pub mod features;
pub mod find;
pub mod foreground;
pub mod hooks;
pub mod hooks_plugin;
pub mod install;
pub mod json;
pub mod launch;
pub mod merge;
pub mod node_options;
pub mod profile;
pub mod pty;
pub mod setting_keys;
pub mod settings_files;
pub mod settings_overlay;
mod terminal;
pub mod user_args;
