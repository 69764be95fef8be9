//! The Hugging Face hub: its cache on disk, downloads into the cache, and its API.

pub mod api;
mod cache;
pub mod download_progress;
mod folder;
pub mod remove;
pub mod scan;
mod xet_store;

pub use cache::{
    Cached, cached, check_cached_files, config, model_folder, settled_files, template,
};
pub use folder::{check_files, folder_bytes, folder_config, folder_template};
