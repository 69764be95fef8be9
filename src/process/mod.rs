//! Child processes: watched without races, and short ones with a deadline.

mod child;
mod deadline;
pub mod signals;

pub use child::{Change, Child, Ended};
pub use deadline::{Finished, run};
