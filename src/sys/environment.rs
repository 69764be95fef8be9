//! Surroundings of a run: environment, home, working directory, terminal. A value, so that a test can make its own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Exit, Result};
use crate::escape::visible;

/// The surroundings of one run. Everything that decides reads from here, never from the process itself.
#[derive(Debug, Clone)]
pub struct Environment {
    pub env: BTreeMap<OsString, OsString>,
    pub home: PathBuf,
    pub cwd: PathBuf,
    pub stdin_tty: bool,
    pub stdout_tty: bool,
    pub stderr_tty: bool,
}

impl Environment {
    /// The process's real surroundings.
    pub fn real() -> Result<Self> {
        let env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let home = env
            .get(OsStr::new("HOME"))
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .ok_or_else(|| {
                Error::other("HOME is not set")
                    .hint("set HOME to your home directory and run it again")
            })?;
        let cwd = std::env::current_dir()
            .context(Exit::Other, "the current directory cannot be read")
            .map_err(|error| error.hint("change to a directory that exists and run it again"))?;
        Ok(Self {
            env,
            home,
            cwd,
            stdin_tty: std::io::stdin().is_terminal(),
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty: std::io::stderr().is_terminal(),
        })
    }

    /// An environment variable that is set, not empty and valid UTF-8.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env
            .get(OsStr::new(name))
            .and_then(|value| value.to_str())
            .filter(|value| !value.is_empty())
    }

    /// Whether a switch such as `CCLOCAL_NO_MEMCHECK` is on: set to anything but empty, `0`, `false` or `no`.
    pub fn switch(&self, name: &str) -> bool {
        self.var(name).is_some_and(|value| {
            !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no")
        })
    }

    /// The first executable of this name on PATH, or the path itself if `name` is one.
    pub fn which(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        let path = self
            .env
            .get(OsStr::new("PATH"))
            .cloned()
            .unwrap_or_default();
        which::which_in(name, Some(path), &self.cwd).ok()
    }

    /// The word that runs this program in a shell: `cclocal` if that is what the shell finds by the name, else its path.
    pub fn this_program(&self) -> String {
        let Ok(program) = std::env::current_exe() else {
            return "cclocal".into();
        };
        let same =
            |found: &Path| fs_err::canonicalize(found).ok() == fs_err::canonicalize(&program).ok();
        match self.which("cclocal") {
            Some(found) if same(&found) => "cclocal".into(),
            _ => program.display().to_string(),
        }
    }

    /// A path as the user typed it: `~` is home, and a relative one starts at the working directory.
    pub fn resolve(&self, path: &str) -> PathBuf {
        if path == "~" {
            return self.home.clone();
        }
        match path.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => self.cwd.join(path),
        }
    }

    /// A folder of the hub's as its library reads it: `~`, `~name`, then `$NAME` and `${NAME}`, each once; a relative one starts at the working directory.
    /// What is not set stays as it is written. Source: Python's `posixpath.expanduser` and `expandvars`, as huggingface_hub's `constants.py` calls them.
    pub fn expand(&self, path: &str) -> PathBuf {
        let (first, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        let home = match first.strip_prefix('~') {
            Some("") => Some(self.home.clone()),
            Some(name) => nix::unistd::User::from_name(name)
                .ok()
                .flatten()
                .map(|user| user.dir),
            None => None,
        };
        let path = match home.as_deref().and_then(Path::to_str) {
            Some(home) => format!("{}{rest}", home.trim_end_matches('/')),
            None => path.to_owned(),
        };
        self.cwd.join(self.with_variables(&path))
    }

    fn with_variables(&self, mut text: &str) -> String {
        let mut whole = String::new();
        while let Some(at) = text.find('$') {
            whole += &text[..at];
            let rest = &text[at + 1..];
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let (name, length) = match rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            {
                Some((name, _)) => (name, name.len() + 2),
                None => {
                    let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
                    (&rest[..end], end)
                }
            };
            match self
                .env
                .get(OsStr::new(name))
                .and_then(|value| value.to_str())
            {
                Some(value) if !name.is_empty() => whole += value,
                _ => whole += &text[at..=at + length],
            }
            text = &rest[length..];
        }
        whole + text
    }

    /// The path with home written as `~`, for people to read.
    pub fn tilde(&self, path: &Path) -> String {
        let path = match path.strip_prefix(&self.home) {
            Ok(rest) if rest.as_os_str().is_empty() => "~".into(),
            Ok(rest) => format!("~/{}", rest.display()),
            Err(_) => path.display().to_string(),
        };
        visible(&path).into_owned()
    }

    /// A host for tests: the given home and working directory, no terminal, and only these variables.
    pub fn for_tests(home: &Path, vars: &[(&str, &str)]) -> Self {
        Self {
            env: vars
                .iter()
                .map(|(name, value)| (OsString::from(name), OsString::from(value)))
                .collect(),
            home: home.to_path_buf(),
            cwd: home.to_path_buf(),
            stdin_tty: false,
            stdout_tty: false,
            stderr_tty: false,
        }
    }
}
