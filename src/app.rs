//! Context of a command: passed on whole, so that no function below names each part again.

use std::sync::OnceLock;

use crate::error::Result;
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::platform::{Os, Platform};
use crate::ui::Ui;

/// Environment, folders, terminal and platform of one run.
#[derive(Debug)]
pub struct App {
    pub environment: Environment,
    pub paths: Paths,
    pub ui: Ui,
    platform: OnceLock<Platform>,
}

impl App {
    pub fn new(environment: Environment) -> Self {
        Self {
            paths: Paths::of(&environment),
            ui: Ui::of(&environment),
            platform: OnceLock::new(),
            environment,
        }
    }

    /// The platform, asked for when it is first wanted. Errors: cclocal does not run on it.
    pub fn platform(&self) -> Result<&Platform> {
        if let Some(platform) = self.platform.get() {
            return Ok(platform);
        }
        let platform = Platform::detect(&self.environment)?;
        Ok(self.platform.get_or_init(|| platform))
    }

    /// The operating system. Errors: as above.
    pub fn os(&self) -> Result<Os> {
        self.platform().map(|platform| platform.os)
    }
}
