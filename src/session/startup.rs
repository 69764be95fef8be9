//! An engine that is starting: what it is busy with, in one line, and whether it has stopped getting on.

use std::time::{Duration, Instant};

use super::prepare::Prepared;
use crate::catalog::Source;
use crate::engine::server::Server;
use crate::error::{Error, Exit, Result};
use crate::host::Host;
use crate::hub::watch::{Download, Standing, Total};
use crate::hub::{self, Cached};
use crate::paths::Paths;
use crate::ui;

/// How long nothing may happen. Source: the scripts' README, problem 16.
const STALL_LIMIT: Duration = Duration::from_secs(240);

/// How often a loading engine is looked at for signs of life.
const PULSE_INTERVAL: Duration = Duration::from_secs(3);

/// The limit that is set, `CCLOCAL_STALL_LIMIT` in seconds, else the usual one.
pub fn stall_limit(host: &Host) -> Result<Duration> {
    let Some(set) = host.var("CCLOCAL_STALL_LIMIT") else {
        return Ok(STALL_LIMIT);
    };
    match set.parse::<u64>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::usage(format!(
            "CCLOCAL_STALL_LIMIT={set} is not a number of seconds"
        ))
        .hint("set it to a whole number above 0, or unset it for 240")),
    }
}

/// What the engine is busy with.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Downloading,
    Loading {
        since: Instant,
        /// The last sign of life, and when it was seen.
        pulse: Option<(u64, u64)>,
        alive: Instant,
    },
}

impl Phase {
    fn loading(now: Instant) -> Self {
        Phase::Loading {
            since: now,
            pulse: None,
            alive: now,
        }
    }
}

/// Watches an engine from its start until it answers.
#[derive(Debug)]
pub struct Startup<'a> {
    paths: &'a Paths,
    prepared: &'a Prepared,
    limit: Duration,
    started: Instant,
    phase: Phase,
    /// None if there is nothing to download.
    download: Option<Download>,
    looked: Instant,
}

impl<'a> Startup<'a> {
    pub fn new(paths: &'a Paths, prepared: &'a Prepared, limit: Duration, now: Instant) -> Self {
        let download = match &prepared.cached {
            Cached::Complete { .. } => None,
            cached => Some(Download::new(now, cached.bytes(), prepared.download)),
        };
        Self {
            paths,
            prepared,
            limit,
            started: now,
            phase: match download {
                Some(_) => Phase::Downloading,
                None => Phase::loading(now),
            },
            download,
            looked: now,
        }
    }

    /// Looks at it. An engine that has stopped getting on is an error, which says what there is to do.
    pub async fn look(&mut self, now: Instant, server: &Server, host: &Host) -> Result<()> {
        self.look_at_files(now);
        match (&mut self.phase, &self.download) {
            (Phase::Downloading, Some(download)) if download.silent(now) >= self.limit => {
                Err(stalled(self.limit, &download.standing()))
            }
            (Phase::Downloading, _) => Ok(()),
            (Phase::Loading { pulse, alive, .. }, _) => {
                if now.duration_since(self.looked) >= PULSE_INTERVAL.min(self.limit) {
                    self.looked = now;
                    let seen = server.pulse().await;
                    if seen != *pulse {
                        *pulse = seen;
                        *alive = now;
                    }
                }
                if now.duration_since(*alive) >= self.limit {
                    return Err(stuck(self.limit, &host.tilde(server.log())));
                }
                Ok(())
            }
        }
    }

    /// Whether it still downloads is seen from the files. All that serving needs may be there before the last file has begun to come, so what
    /// looked complete can be incomplete again.
    fn look_at_files(&mut self, now: Instant) {
        let (Some(download), Source::Hub(id)) = (&mut self.download, &self.prepared.model.source)
        else {
            return;
        };
        let cached = hub::cached(&self.paths.hub, id);
        download.at(now, cached.bytes());
        match (&cached, self.phase) {
            (Cached::Complete { .. }, Phase::Downloading) => self.phase = Phase::loading(now),
            (Cached::Complete { .. }, Phase::Loading { .. }) | (_, Phase::Downloading) => {}
            (_, Phase::Loading { .. }) => self.phase = Phase::Downloading,
        }
    }

    /// The line that says where it is, for a terminal with this many columns.
    pub fn line(&self, columns: usize) -> String {
        let name = &self.prepared.model.name;
        match (&self.phase, &self.download) {
            (Phase::Downloading, Some(download)) => {
                downloading(name, &download.standing(), columns)
            }
            _ => format!("loading {name} into memory"),
        }
    }

    /// How long it has been loading. None: it does not yet.
    pub fn loading_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Downloading => None,
            Phase::Loading { since, .. } => Some(now.duration_since(since)),
        }
    }

    /// How long it took until it was ready, in words.
    pub fn took(&self, now: Instant) -> String {
        let loading = self.loading_for(now).unwrap_or_default();
        match &self.download {
            Some(download) => format!(
                "{} (downloaded {} in {})",
                ui::seconds(loading),
                ui::bytes(download.fetched()),
                ui::seconds(now.duration_since(self.started).saturating_sub(loading))
            ),
            None => ui::seconds(loading),
        }
    }
}

/// The line of a download, as much of it as fits: first the speed is left out, then the rest of the name.
fn downloading(name: &str, standing: &Standing, columns: usize) -> String {
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

fn stalled(limit: Duration, standing: &Standing) -> Error {
    let there = match standing.total {
        Some(total) => format!(
            "{} of {}",
            ui::bytes(standing.bytes),
            ui::bytes(total.bytes())
        ),
        None => ui::bytes(standing.bytes),
    };
    Error::new(Exit::Download, "the download has stalled")
        .cause(format!(
            "nothing has come for {} s; {there} is there and kept",
            limit.as_secs()
        ))
        .hint("check the network and run it again, it goes on where it stopped; CCLOCAL_STALL_LIMIT=600 would wait longer")
}

fn stuck(limit: Duration, log: &str) -> Error {
    Error::new(Exit::Engine, "the engine does not get ready")
        .cause(format!(
            "while loading it has given no sign of life for {} s",
            limit.as_secs()
        ))
        .hint(format!(
            "read its log, {log}; CCLOCAL_STALL_LIMIT=600 would wait longer"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(speed: Option<u64>) -> Standing {
        Standing {
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
        let unknown = Standing {
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

    #[test]
    fn the_limit_is_a_number_of_seconds() {
        let limit = |value| {
            let vars = [("CCLOCAL_STALL_LIMIT", value)];
            stall_limit(&Host::for_tests(std::path::Path::new("/"), &vars))
        };
        assert_eq!(limit(""), Ok(STALL_LIMIT));
        assert_eq!(limit("3"), Ok(Duration::from_secs(3)));
        for wrong in ["0", "-1", "4m", "1.5"] {
            assert_eq!(limit(wrong).map_err(|error| error.exit), Err(Exit::Usage));
        }
    }
}
