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
#[derive(Debug)]
enum Phase {
    Downloading(Download),
    Loading {
        /// The last sign of life, and when it was seen.
        pulse: Option<(u64, u64)>,
        alive: Instant,
    },
}

/// Watches an engine from its start until it answers.
#[derive(Debug)]
pub struct Startup<'a> {
    paths: &'a Paths,
    prepared: &'a Prepared,
    limit: Duration,
    started: Instant,
    phase: Phase,
    looked: Instant,
    /// What was downloaded, and in what time.
    downloaded: Option<(u64, Duration)>,
    loading_since: Instant,
}

impl<'a> Startup<'a> {
    pub fn new(paths: &'a Paths, prepared: &'a Prepared, limit: Duration, now: Instant) -> Self {
        let phase = match &prepared.cached {
            Cached::Complete { .. } => Phase::Loading {
                pulse: None,
                alive: now,
            },
            cached => Phase::Downloading(Download::new(now, cached.bytes(), prepared.download)),
        };
        Self {
            paths,
            prepared,
            limit,
            started: now,
            phase,
            looked: now,
            downloaded: None,
            loading_since: now,
        }
    }

    /// Looks at it. An engine that has stopped getting on is an error, which says what there is to do.
    pub async fn look(&mut self, now: Instant, server: &Server, host: &Host) -> Result<()> {
        match &mut self.phase {
            Phase::Downloading(download) => {
                let Source::Hub(id) = &self.prepared.model.source else {
                    return Ok(());
                };
                match hub::cached(&self.paths.hub, id) {
                    Cached::Complete { bytes, .. } => {
                        download.at(now, bytes);
                        self.downloaded =
                            Some((download.fetched(), now.duration_since(self.started)));
                        self.loading_since = now;
                        self.phase = Phase::Loading {
                            pulse: None,
                            alive: now,
                        };
                    }
                    cached => {
                        download.at(now, cached.bytes());
                        if download.silent(now) >= self.limit {
                            return Err(stalled(self.limit, &download.standing()));
                        }
                    }
                }
            }
            Phase::Loading { pulse, alive } => {
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
            }
        }
        Ok(())
    }

    /// The line that says where it is, for a terminal with this many columns.
    pub fn line(&self, columns: usize) -> String {
        let name = &self.prepared.model.name;
        match &self.phase {
            Phase::Downloading(download) => downloading(name, &download.standing(), columns),
            Phase::Loading { .. } => format!("loading {name} into memory"),
        }
    }

    /// Whether the line is about loading: then the time it has taken so far belongs to it.
    pub fn loading_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Downloading(_) => None,
            Phase::Loading { .. } => Some(now.duration_since(self.loading_since)),
        }
    }

    /// How long it took until it was ready, in words.
    pub fn took(&self, now: Instant) -> String {
        let loading = ui::seconds(now.duration_since(self.loading_since));
        match self.downloaded {
            Some((bytes, time)) => format!(
                "{loading} (downloaded {} in {})",
                ui::bytes(bytes),
                ui::seconds(time)
            ),
            None => loading,
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
