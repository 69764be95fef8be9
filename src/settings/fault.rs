//! Faults of a settings file, in words.

use super::key::Group;
use crate::error::Error;

/// A fault of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub what: What,
    pub line: usize,
    pub cause: String,
    /// The key or value that was probably meant.
    pub hint: Option<String>,
}

/// Kind of a fault, with the key or the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Syntax,
    UnknownKey(String),
    WrongValue(String),
    WrongName(Group, String),
    Incomplete(Group, String),
}

impl Fault {
    /// The error for a change after which the file would have this fault. `typed`: what was to be changed.
    pub fn of_change(self, typed: &str) -> Error {
        let error = Error::usage(format!(
            "`{typed}` was not changed: the file would be wrong"
        ))
        .cause(self.cause);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error.hint("to see what is there: cclocal config"),
        }
    }

    /// The error for a person. `shown`: the path of the file.
    pub fn error(self, shown: &str) -> Error {
        let error = match self.what {
            What::Syntax => Error::usage(format!("{shown} is not valid TOML")),
            What::UnknownKey(key) => Error::usage(format!("{shown} has an unknown key `{key}`")),
            What::WrongValue(key) => Error::usage(format!("{shown} has a wrong value of `{key}`")),
            What::WrongName(group, name) => Error::usage(format!(
                "{shown} has a {} that cannot be called `{name}`",
                group.one()
            )),
            What::Incomplete(group, name) => Error::usage(format!(
                "{shown} has a {} `{name}` that is not complete",
                group.one()
            )),
        };
        let error = error.cause(format!("line {}: {}", self.line, self.cause));
        match self.hint {
            Some(hint) => error.hint(format!("{hint}; to open the file: cclocal config edit")),
            None => error.hint("to open the file: cclocal config edit"),
        }
    }
}
