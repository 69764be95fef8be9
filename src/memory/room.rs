//! What a model gets on a machine, in a word.

use super::plan::{Plan, Refusal};

/// What a model gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This window, in tokens.
    Window { tokens: u64, estimated: bool },
    /// No session as it is, and this window, in tokens, with the GPU limit raised.
    Raised { tokens: u64, estimated: bool },
    /// The smallest session needs this many bytes more than there are.
    TooBig(u64),
    /// It holds no session anywhere: it was made for contexts of so many tokens.
    TooShort(u64),
    /// Its size, its layers or the machine's memory are unknown.
    Unknown,
}

impl Room {
    /// What a plan comes to. `raised`: the plan with the GPU limit raised, where it can be.
    pub fn of(plan: &Result<Plan, Refusal>, raised: Option<&Result<Plan, Refusal>>) -> Self {
        match (plan, raised) {
            (Ok(plan), _) => Room::Window {
                tokens: plan.window.tokens,
                estimated: plan.estimated,
            },
            (Err(Refusal::Memory { .. }), Some(Ok(plan))) => Room::Raised {
                tokens: plan.window.tokens,
                estimated: plan.estimated,
            },
            (Err(refusal), _) => Room::refused(refusal),
        }
    }

    fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Memory { needed, usable, .. } => Room::TooBig(needed.saturating_sub(*usable)),
            Refusal::Model { longest, .. } => Room::TooShort(*longest),
            Refusal::Asked { fits, .. } => Room::Window {
                tokens: *fits,
                estimated: false,
            },
            Refusal::Reply { .. } => Room::Unknown,
        }
    }

    /// The window that a raised GPU limit gives where there is none without, in tokens.
    pub fn raised(self) -> Option<u64> {
        match self {
            Room::Raised { tokens, .. } => Some(tokens),
            Room::Window { .. } | Room::TooBig(_) | Room::TooShort(_) | Room::Unknown => None,
        }
    }

    /// The window with the memory as it is, in tokens.
    pub fn window(self) -> Option<u64> {
        match self {
            Room::Window { tokens, .. } => Some(tokens),
            Room::Raised { .. } | Room::TooBig(_) | Room::TooShort(_) | Room::Unknown => None,
        }
    }
}
