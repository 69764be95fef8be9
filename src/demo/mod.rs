//! The built-in demo: a model written from code, so that the whole chain can be shown without a download.

pub mod chain;
pub mod model;
pub mod safetensors;
pub mod tokenizer;
