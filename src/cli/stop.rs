//! `cclocal stop`: ends what runs.

use super::args::StopArgs;
use crate::app::App;
use crate::error::{Error, Result};
use crate::session::acquire;
use crate::supervisor::port_holder::{self, Holder};
use crate::supervisor::registry::{self, Running};
use crate::sys::paths::Paths;
use crate::ui::Ui;

pub(super) fn run(app: &App, args: &StopArgs) -> Result<()> {
    let App { paths, ui, .. } = app;
    let running = registry::running(paths);
    let chosen: Vec<&Running> = running
        .iter()
        .filter(|running| args.port.is_none_or(|port| running.port() == port))
        .collect();
    if chosen.is_empty() {
        if let Some(port) = args.port {
            return Err(
                Error::other(format!("no engine of cclocal runs on port {port}"))
                    .hint("`cclocal status` shows what runs"),
            );
        }
        ui.say("No engine is running.");
        return Ok(());
    }
    let mut refused = None;
    for running in chosen {
        if let Running::Silent(holder) = running {
            if let Err(error) = end_silent(paths, ui, holder, args.force) {
                refused = Some(error);
            }
            continue;
        }
        let words = match running {
            Running::Known(status) => acquire::words(status),
            Running::Foreign { port, version, .. } => {
                format!("the engine of cclocal {version} on port {port}")
            }
            Running::Silent(holder) => holder.words(),
        };
        let progress = ui.progress(&format!("stopping {words}"));
        let ended = registry::stop(paths, running.port(), args.force);
        drop(progress);
        match ended {
            Ok(()) => ui.done(&format!("stopped {words}")),
            // The others are ended all the same.
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// Stops by force an engine that does not answer, if `--force` was given or the person agrees: work of its sessions is lost.
fn end_silent(paths: &Paths, ui: &Ui, holder: &Holder, force: bool) -> Result<()> {
    let words = holder.words();
    let question = format!("{words} does not answer. Stop it, and end the sessions that use it?");
    if !force && !ui.confirm_loss(&question) {
        return Err(holder.silent(format!(
            "the engine on port {} was not stopped",
            holder.port
        )));
    }
    let progress = ui.progress(&format!("stopping {words}, which does not answer"));
    let ended = port_holder::end(paths, holder);
    drop(progress);
    ended.map(|()| ui.done(&format!("stopped {words}")))
}
