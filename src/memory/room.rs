//! What a model gets on a machine, in a word.

use super::plan::{Plan, Refusal};

/// What a model gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This window, in tokens.
    Window { tokens: u64, estimated: bool },
    /// It holds no session: this many bytes are missing for the smallest.
    TooBig(u64),
    /// It holds no session anywhere: it was made for contexts of so many tokens.
    TooShort(u64),
    /// Its size, its layers or the machine's memory are unknown.
    Unknown,
}

impl Room {
    pub fn of(plan: &Result<Plan, Refusal>) -> Self {
        match plan {
            Ok(plan) => Room::Window {
                tokens: plan.context_window,
                estimated: plan.estimated,
            },
            Err(Refusal::Memory { needed, usable, .. }) => {
                Room::TooBig(needed.saturating_sub(*usable))
            }
            Err(Refusal::Model { longest, .. }) => Room::TooShort(*longest),
            Err(Refusal::Asked { fits, .. }) => Room::Window {
                tokens: *fits,
                estimated: false,
            },
            Err(Refusal::Reply { .. }) => Room::Unknown,
        }
    }

    /// The window, in tokens.
    pub fn window(self) -> Option<u64> {
        match self {
            Room::Window { tokens, .. } => Some(tokens),
            Room::TooBig(_) | Room::TooShort(_) | Room::Unknown => None,
        }
    }
}
