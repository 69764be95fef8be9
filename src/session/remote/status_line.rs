//! Claude Code's status line in a session on an engine that somebody else runs: a file in the session's folder, which the line's command prints.

use std::path::PathBuf;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::escape::visible;
use crate::gateway::Away;
use crate::ui::{self, Ui};

/// The status line: its file, and its words while the engine answers.
pub(super) struct StatusLine {
    file: PathBuf,
    usual: String,
}

impl StatusLine {
    /// `window`: in tokens.
    pub(super) fn new(app: &App, model: &str, host: &str, window: u64) -> Self {
        let folder = app.paths.session(nix::unistd::getpid().as_raw());
        Self {
            file: folder.join("status-line"),
            usual: format!("{model} at {host} · window {}", ui::kilo(window)),
        }
    }

    /// The command that prints it. None: its words cannot be written for a shell.
    pub(super) fn command(&self) -> Option<String> {
        shlex::try_join(["cat", self.file.to_str()?]).ok()
    }

    /// Keeps it true until dropped: it says when the engine goes away. The session's folder is there.
    ///
    /// `ui`: where the same is said, if Claude Code does not have the terminal.
    pub(super) fn keep(
        self,
        mut away: watch::Receiver<Option<Away>>,
        ui: Option<Ui>,
    ) -> AbortOnDropHandle<()> {
        self.write(None);
        AbortOnDropHandle::new(tokio::spawn(async move {
            while away.changed().await.is_ok() {
                let now = away.borrow_and_update().clone();
                self.write(now.as_ref());
                match (&ui, now) {
                    (None, _) => {}
                    (Some(ui), Some(away)) => ui.notice(&away.words),
                    (Some(ui), None) => ui.done("the engine is back"),
                }
            }
        }))
    }

    fn write(&self, away: Option<&Away>) {
        let line = match away {
            Some(away) => format!("{}; requests wait for it", away.words),
            None => self.usual.clone(),
        };
        if let Err(error) = fs_err::write(&self.file, format!("{}\n", visible(&line))) {
            tracing::debug!(%error, "the status line could not be written");
        }
    }
}
