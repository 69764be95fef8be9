//! Models of the Hugging Face hub: the cache on disk, downloads into it, and the hub's answers.

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
