//! `cclocal stop`: ends what runs.

use super::args::StopArgs;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::paths::Paths;
use crate::session::reach;
use crate::supervisor::find::{self, Running};
use crate::ui::Ui;

pub fn run(host: &Host, ui: &Ui, args: &StopArgs) -> Result<()> {
    let paths = Paths::of(host);
    let running = find::running(&paths);
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
        ui.say("Nothing runs.");
        return Ok(());
    }
    let mut refused = None;
    for running in chosen {
        let words = match running {
            Running::Known(status) => reach::words(status),
            Running::Foreign { port, version, .. } => {
                format!("the engine of cclocal {version} on port {port}")
            }
        };
        let progress = ui.progress(&format!("ending {words}"));
        let ended = find::stop(&paths, running.port(), args.force);
        drop(progress);
        match ended {
            Ok(()) => ui.done(&format!("ended {words}")),
            // The others are ended all the same.
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), Err)
}
