//! `cclocal logs`: the engine's log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use super::args::LogsArgs;
use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::supervisor::process::engine_log;
use crate::supervisor::registry;
use crate::supervisor::reservation::USUAL_PORT;
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::ui::Ui;

/// How often a log that is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// How much is read at a time, in bytes.
const BLOCK: usize = 64 * 1024;

pub(super) fn run(app: &App, args: &LogsArgs) -> Result<()> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let running = registry::statuses(paths);
    let status = match args.port {
        Some(port) => running.iter().find(|status| status.port == port),
        None => running
            .iter()
            .find(|status| status.port == USUAL_PORT)
            .or(running.first()),
    };
    let path = match status {
        Some(status) => status.log.clone(),
        // The log of the last one is what one looks for when it is gone.
        None => engine_log(paths, args.port.unwrap_or(USUAL_PORT)),
    };
    let mut file = files::open(&path).map_err(|error| {
        Error::other("there is no log")
            .because(error)
            .hint("an engine writes one when it starts; `cclocal status` shows what runs")
    })?;
    let unreadable = || format!("{} cannot be read", host.tilde(&path));
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read(&mut block).context(Exit::Other, unreadable())?;
        if read > 0 {
            show(host, ui, &block[..read]);
            continue;
        }
        if !args.follow {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
        // A new engine begins a new log at the same place.
        if let Ok(named) = files::open(&path)
            && !same(&file, &named)
        {
            file = named;
            file.seek(SeekFrom::Start(0))
                .context(Exit::Other, unreadable())?;
        }
    }
}

/// Shows a part of the log: as it is, but on a terminal without what that would obey. The log has words of the model and of its prompts in it.
fn show(host: &Environment, ui: &Ui, bytes: &[u8]) {
    if !host.stdout_tty {
        return ui.bytes(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let text = console::strip_ansi_codes(&text).replace('\t', "    ");
    for part in text.split_inclusive('\r') {
        // What is painted over begins its line anew.
        match part.strip_suffix('\r') {
            Some(part) => {
                ui.data(part);
                ui.bytes(b"\r");
            }
            None => ui.data(part),
        }
    }
}

fn same(one: &File, other: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
