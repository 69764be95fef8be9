//! Waiting for an engine to be ready, with a line that says what it is busy with.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::app::App;
use crate::error::{Error, Exit, Result};
use crate::hub::download_progress::{DownloadProgress, Total};
use crate::supervisor::Lease;
use crate::supervisor::protocol::{Progress, SupervisorMessage};
use crate::supervisor::{port_holder, reservation};
use crate::sys::paths::Paths;
use crate::sys::process::signals::Signals;
use crate::ui;

/// How long a supervisor may say nothing while its engine starts: it says four times a second what that is busy with.
const SILENCE: Duration = Duration::from_secs(60);

/// How the wait ended, when the engine did not fail.
pub enum WaitOutcome {
    Ready {
        /// How long it took, in words. Empty: nothing had to be waited for.
        took: String,
    },
    Interrupted(Signal),
}

/// Waits until the engine behind the lease is ready.
pub async fn until_ready(
    app: &App,
    lease: &mut Lease,
    signals: &mut Signals,
) -> Result<WaitOutcome> {
    let App { paths, ui, .. } = app;
    let name = lease.granted.name.clone();
    let mut shown = None;
    let mut waited = false;
    loop {
        let tell = tokio::select! {
            tell = lease.told() => tell,
            () = tokio::time::sleep(SILENCE) => return Err(silent(paths, lease)),
            signal = signals.next() => return Ok(WaitOutcome::Interrupted(signal)),
        };
        match tell {
            Some(SupervisorMessage::Ready { took, lacking }) => {
                drop(shown.take());
                for words in lacking {
                    ui.notice(&words);
                }
                return Ok(WaitOutcome::Ready {
                    took: if waited { took } else { String::new() },
                });
            }
            Some(SupervisorMessage::Progress(progress)) => {
                waited = true;
                let line = line(&name, &progress, ui.columns());
                shown.get_or_insert_with(|| ui.progress(&line)).show(&line);
            }
            Some(SupervisorMessage::Restarting { why }) => {
                drop(shown.take());
                ui.notice(&format!("the engine crashed ({why}) and is starting again"));
            }
            Some(SupervisorMessage::Failed(failure)) => return Err(failure.into()),
            Some(SupervisorMessage::Ending) => return Err(ended()),
            Some(_) => {}
            None => {
                reservation::sweep_after(paths, lease.granted.port);
                return Err(lost());
            }
        }
    }
}

/// The error for a supervisor that has gone silent.
fn silent(paths: &Paths, lease: &Lease) -> Error {
    let message = "the engine does not become ready";
    match port_holder::of(paths, lease.granted.port) {
        Some(holder) => holder.silent(message),
        None => lost(),
    }
}

/// The engine was ended by somebody.
pub fn ended() -> Error {
    Error::new(Exit::Engine, "the engine was stopped")
        .cause("it was stopped with `cclocal stop`, or by a signal to its supervisor")
        .hint("run it again")
}

/// The supervisor is gone without a word.
pub fn lost() -> Error {
    Error::new(Exit::Engine, "the engine's supervisor is gone")
        .cause("it was killed, and the engine with it")
        .hint("run it again; if nobody killed it, its log is supervisor.log in cclocal's state folder")
}

/// The line, for a terminal with this many columns.
fn line(name: &str, progress: &Progress, columns: usize) -> String {
    match progress {
        Progress::Downloading { standing } => downloading(name, standing, columns),
        Progress::Loading { seconds: 0 } => format!("loading {name} into memory"),
        Progress::Loading { seconds } => format!("loading {name} into memory ({seconds} s)"),
    }
}

/// The line of a download, as much of it as fits: first the speed is left out, then the rest of the name.
pub(super) fn downloading(name: &str, standing: &DownloadProgress, columns: usize) -> String {
    let so_far = match standing.total {
        Some(total) => {
            let about = match total {
                Total::Hub(_) => "",
                Total::Catalog(_) => "about ",
            };
            format!(
                "{} of {about}{}, {} %",
                ui::bytes(standing.bytes),
                ui::bytes(total.bytes()),
                standing.percent.unwrap_or(0)
            )
        }
        None => ui::bytes(standing.bytes),
    };
    let speed = standing
        .speed
        .map(|speed| format!(" · {}/s", ui::bytes(speed)))
        .unwrap_or_default();
    let left = standing
        .left
        .map(|left| format!(" · {} left", ui::roughly(left)))
        .unwrap_or_default();
    let full = format!("downloading {name}: {so_far}{speed}{left}");
    let short = format!("downloading {name}: {so_far}{left}");
    for line in [full, short] {
        if console::measure_text_width(&line) <= columns {
            return line;
        }
    }
    let rest = format!(": {so_far}{left}");
    let room = columns.saturating_sub(console::measure_text_width(&rest));
    let start = format!("downloading {name}");
    format!("{}{rest}", console::truncate_str(&start, room.max(12), "…"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn standing(speed: Option<u64>) -> DownloadProgress {
        DownloadProgress {
            bytes: 8_400_000_000,
            total: Some(Total::Hub(16_200_000_000)),
            percent: Some(51),
            speed,
            left: speed.map(|speed| Duration::from_secs(7_800_000_000 / speed)),
        }
    }

    #[test]
    fn the_line_fits_and_keeps_what_matters() {
        let line = |columns| downloading("Gemma-4-26B-A4B", &standing(Some(42_000_000)), columns);
        insta::assert_snapshot!([line(80), line(66), line(50)].join("\n"), @"
        downloading Gemma-4-26B-A4B: 8.4 GB of 16.2 GB, 51 % · 42 MB/s · 3 min left
        downloading Gemma-4-26B-A4B: 8.4 GB of 16.2 GB, 51 % · 3 min left
        downloading…: 8.4 GB of 16.2 GB, 51 % · 3 min left
        ");
        assert_eq!(
            downloading("Gemma-4-26B-A4B", &standing(None), 80),
            "downloading Gemma-4-26B-A4B: 8.4 GB of 16.2 GB, 51 %"
        );
        let unknown = DownloadProgress {
            total: None,
            percent: None,
            left: None,
            ..standing(Some(42_000_000))
        };
        assert_eq!(
            downloading("org/name", &unknown, 80),
            "downloading org/name: 8.4 GB · 42 MB/s"
        );
        for columns in [60, 66, 80] {
            assert!(console::measure_text_width(&line(columns)) <= columns);
        }
    }
}
