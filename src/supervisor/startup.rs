//! An engine that is starting: what it is busy with, and whether it has stopped getting on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::protocol::Progress;
use super::spec::Spec;
use crate::catalog::{Model, Source};
use crate::engine::server::Server;
use crate::error::{Error, Exit, Result};
use crate::hub::download_progress::{Download, DownloadProgress};
use crate::hub::{self, Cached};
use crate::sys::environment::Environment;
use crate::ui;

/// How long nothing may happen. Source: the scripts' README, problem 16.
const STALL_LIMIT: Duration = Duration::from_secs(240);

/// How often a loading engine is looked at for signs of life.
const PULSE_INTERVAL: Duration = Duration::from_secs(3);

/// The limit that is set, `CCLOCAL_STALL_LIMIT` in seconds, else the usual one.
pub fn stall_limit(host: &Environment) -> Result<Duration> {
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

/// Step of the start.
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
pub struct Startup {
    hub: PathBuf,
    model: Model,
    limit: Duration,
    started: Instant,
    phase: Phase,
    /// None if there is nothing to download.
    download: Option<Download>,
    looked: Instant,
}

impl Startup {
    pub fn new(hub: &Path, spec: &Spec, limit: Duration, now: Instant) -> Self {
        let download = match spec.serve.complete {
            true => None,
            false => Some(Download::new(now, spec.cached_bytes, spec.download)),
        };
        Self {
            hub: hub.to_owned(),
            model: spec.serve.model.clone(),
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
    pub async fn look(&mut self, now: Instant, server: &Server, host: &Environment) -> Result<()> {
        self.look_at_files(now);
        match (&mut self.phase, &self.download) {
            (Phase::Downloading, Some(download)) if download.stalled_for(now) >= self.limit => {
                Err(stalled(self.limit, &download.progress()))
            }
            (Phase::Downloading, _) => Ok(()),
            (Phase::Loading { pulse, alive, .. }, _) => {
                if now.duration_since(self.looked) >= PULSE_INTERVAL.min(self.limit) {
                    self.looked = now;
                    let seen = server.pulse();
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
        let (Some(download), Source::Hub(id)) = (&mut self.download, &self.model.source) else {
            return;
        };
        let cached = hub::cached(&self.hub, id);
        download.update(now, cached.bytes());
        match (&cached, self.phase) {
            (Cached::Complete { .. }, Phase::Downloading) => self.phase = Phase::loading(now),
            (Cached::Complete { .. }, Phase::Loading { .. }) | (_, Phase::Downloading) => {}
            (_, Phase::Loading { .. }) => self.phase = Phase::Downloading,
        }
    }

    /// The current step, with its progress.
    pub fn progress(&self, now: Instant) -> Progress {
        match (&self.phase, &self.download) {
            (Phase::Downloading, Some(download)) => Progress::Downloading {
                standing: download.progress(),
            },
            _ => Progress::Loading {
                seconds: self.loading_for(now).unwrap_or_default().as_secs(),
            },
        }
    }

    /// How long it has been loading. None: it does not yet.
    fn loading_for(&self, now: Instant) -> Option<Duration> {
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

pub fn stalled(limit: Duration, standing: &DownloadProgress) -> Error {
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
            "no data for {} s; {there} downloaded so far, which are kept",
            limit.as_secs()
        ))
        .hint("check the network and run it again: the download resumes. CCLOCAL_STALL_LIMIT=600 waits longer")
}

fn stuck(limit: Duration, log: &str) -> Error {
    Error::new(Exit::Engine, "the engine does not become ready")
        .cause(format!(
            "no sign of progress for {} s while loading",
            limit.as_secs()
        ))
        .hint(format!(
            "read its log, {log}; CCLOCAL_STALL_LIMIT=600 waits longer"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_a_number_of_seconds() {
        let limit = |value| {
            let vars = [("CCLOCAL_STALL_LIMIT", value)];
            stall_limit(&Environment::for_tests(Path::new("/"), &vars))
        };
        assert_eq!(limit(""), Ok(STALL_LIMIT));
        assert_eq!(limit("3"), Ok(Duration::from_secs(3)));
        for wrong in ["0", "-1", "4m", "1.5"] {
            assert_eq!(limit(wrong).map_err(|error| error.exit), Err(Exit::Usage));
        }
    }
}
