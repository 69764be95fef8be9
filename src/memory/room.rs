//! What a model gets on a machine, in a word.

use super::plan::{Plan, Refusal};

/// What a model gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This window, in tokens.
    Window { tokens: u64, estimated: bool },
    /// Its weights fit, but by our estimates, which are cautious, no session beside them.
    Tight,
    /// Its weights alone are this many bytes more than there are.
    TooBig(u64),
    /// It holds no session anywhere: it was made for contexts of so many tokens.
    TooShort(u64),
    /// Its size, its layers or the machine's memory are unknown.
    Unknown,
}

impl Room {
    /// What a plan comes to, for weights and a budget in bytes.
    pub fn of(plan: &Result<Plan, Refusal>, weights: u64, budget: u64) -> Self {
        match plan {
            Ok(plan) => Room::Window {
                tokens: plan.context_window,
                estimated: plan.estimated,
            },
            Err(Refusal::Memory { .. }) => match weights.checked_sub(budget) {
                Some(short @ 1..) => Room::TooBig(short),
                _ => Room::Tight,
            },
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
            Room::Tight | Room::TooBig(_) | Room::TooShort(_) | Room::Unknown => None,
        }
    }
}
