//! Claude Code: found, prepared, and run in the foreground.

mod cli_options;
pub mod command;
pub mod env;
pub mod features;
pub(crate) mod find;
pub(crate) mod foreground;
mod hooks;
pub mod hooks_plugin;
pub(crate) mod install;
pub mod json;
pub mod launch;
mod merge;
pub mod node_options;
pub mod permissions;
pub mod profile;
pub(crate) mod pty;
pub mod setting_keys;
pub mod settings_files;
mod settings_overlay;
mod terminal;
pub mod user_args;
pub mod version;
