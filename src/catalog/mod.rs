//! The models we know: `catalog.json`, embedded, and how a model is chosen from it.

mod choice;
mod entry;
mod form;
mod id;
pub mod servable;
pub mod template;

pub use choice::{Choice, Model, Own, Source, resolve};
pub use entry::{Catalog, EngineProfile, Entry, catalog};
pub use form::Form;
pub use id::{ModelArgument, is_hub_id, parse_model_argument};
