//! Settings: the file that a person writes, and the one place where flag, variable, file and default are weighed against each other.
//!
//! - [`key`]: the keys and their values, pure;
//! - [`edit`]: changes to its text, pure;
//! - [`fault`]: its faults, in words;
//! - [`file`]: the file, read and checked;
//! - [`resolve`]: which value counts, and where it comes from.

pub mod edit;
pub mod fault;
pub mod file;
pub mod key;
pub mod resolve;

pub use file::{OwnModel, Place, Remote, Settings};
pub use key::Value;
pub use resolve::{Flags, Options, Origin, Resolved, Resolver};
