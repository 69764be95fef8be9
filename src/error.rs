//! The one error type for what users meet: what happened, why, and the one thing to do next.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::escape::visible;

/// Exit statuses that are ours. Claude Code's own status is passed through unchanged and is not listed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything that has no status of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The engine is not installed, or its installation failed.
    EngineMissing = 10,
    /// Claude Code is not installed.
    ClaudeMissing = 11,
    /// This machine cannot run it: platform, memory or disk.
    Machine = 12,
    /// The port is taken.
    PortInUse = 13,
    /// The engine did not start, or died.
    Engine = 14,
    /// The model's download failed or stalled.
    Download = 15,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The status with this code.
    pub fn of_code(code: u8) -> Self {
        [
            Exit::Usage,
            Exit::EngineMissing,
            Exit::ClaudeMissing,
            Exit::Machine,
            Exit::PortInUse,
            Exit::Engine,
            Exit::Download,
        ]
        .into_iter()
        .find(|exit| exit.code() == code)
        .unwrap_or(Exit::Other)
    }
}

/// Error for a user: `message` says what happened, `cause` why, `hint` what to do next.
#[derive(Debug, Clone)]
pub struct Error {
    pub exit: Exit,
    pub message: String,
    pub cause: Option<String>,
    pub hint: Option<String>,
    /// Lines shown as they are under the error, such as the end of the engine's log.
    pub detail: Vec<String>,
    /// The error that it came of, for programs: `cause` is that one in words.
    pub source: Option<Arc<anyhow::Error>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            cause: None,
            hint: None,
            detail: Vec::new(),
            source: None,
        }
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Other, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// The error that it came of. A full disk is the machine's fault and wants the same of everybody, whatever was being written.
    #[must_use]
    pub fn because(mut self, source: impl Into<anyhow::Error>) -> Self {
        let source = source.into();
        self.cause = Some(words(&source));
        if is_of_a_full_disk(&source) {
            self.exit = Exit::Machine;
            self.hint = Some("free some space on that disk and run it again".into());
        }
        self.source = Some(Arc::new(source));
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn detail(mut self, lines: Vec<String>) -> Self {
        self.detail = lines;
        self
    }
}

/// The plain form, without colour: `error:`, `cause:`, `hint:`, then the detail lines.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", visible(&self.message))?;
        if let Some(cause) = &self.cause {
            write!(f, "\n  cause: {}", visible(cause))?;
        }
        for line in &self.detail {
            write!(f, "\n  | {}", visible(line))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {}", visible(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source: &anyhow::Error = self.source.as_deref()?;
        Some(&**source)
    }
}

/// Errors are equal that say the same.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        let said = |error: &Self| (error.exit, error.to_string());
        said(self) == said(other)
    }
}

impl Eq for Error {}

/// The chain of an error as one sentence. Some name the error below themselves.
fn words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |words, error| {
        let error = error.to_string();
        match words.contains(&error) {
            true => words,
            false if words.is_empty() => error,
            false => format!("{words}: {error}"),
        }
    })
}

fn is_of_a_full_disk(error: &anyhow::Error) -> bool {
    error.chain().any(|error| {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
    })
}

/// Turns a foreign error into ours, with a message that says what we were doing.
pub trait Context<T> {
    fn context(self, exit: Exit, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, exit: Exit, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::new(exit, message).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_machines_fault_whatever_was_written() {
        let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let full = anyhow::Error::new(full).context("the index was not kept");
        let error = Err::<(), _>(full).context(Exit::Other, "the file cannot be written");
        let error = error.expect_err("full");
        assert_eq!(error.exit, Exit::Machine);
        assert_eq!(
            error.cause.as_deref(),
            Some("the index was not kept: No space left on device (os error 28)")
        );
        assert!(error.hint.is_some());
    }

    #[test]
    fn the_error_that_it_came_of_is_there_for_programs_and_said_once() {
        use std::error::Error as _;
        let missing = fs_err::read("/nowhere/file").context(Exit::Other, "no file");
        let error = missing.expect_err("missing");
        let cause = error.cause.clone().expect("a cause");
        assert_eq!(cause.matches("os error 2").count(), 1, "{cause}");
        let source = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::NotFound));
    }
}
