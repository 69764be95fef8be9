//! The machine: system, memory, GPU limit, disks.

use std::path::Path;

use super::Finding;
use crate::app::App;
use crate::catalog::catalog;
use crate::engine::device;
use crate::engine::executable::{self, Found};
use crate::engine::install;
use crate::memory::budget::{self, Memory};
use crate::memory::gpu_limit::{self, Record};
use crate::sys::disk as disks;
use crate::sys::platform::{Libc, Os, Platform};
use crate::ui;

/// Less than this on the disk of logs and records, in bytes, and the next thing that is written may be cut short.
const SCARCE: u64 = 100_000_000;

pub(super) fn platform(app: &App) -> Vec<Finding> {
    let supported = app
        .platform()
        .and_then(|platform| install::supported(platform).map(|()| platform));
    vec![match supported {
        Ok(platform) => Finding::ok("platform", words(platform)),
        Err(error) => Finding::error("platform", &error),
    }]
}

fn words(platform: &Platform) -> String {
    match (platform.os, platform.macos_version, platform.libc()) {
        (Os::Macos, Some((major, minor)), _) => format!("macOS {major}.{minor}, Apple silicon"),
        (Os::Macos, None, _) => "macOS, Apple silicon".into(),
        (Os::Linux, _, Libc::Gnu(major, minor)) => {
            format!("Linux {}, glibc {major}.{minor}", platform.arch)
        }
        (Os::Linux, ..) => format!("Linux {}", platform.arch),
    }
}

pub(super) fn memory(app: &App) -> Vec<Finding> {
    let Ok(os) = app.os() else {
        return Vec::new();
    };
    let host = &app.environment;
    let memory = budget::read(host, os, || match executable::find(host, &app.paths) {
        Ok(Found::Ready(engine)) => device::look(host, &engine),
        _ => None,
    });
    vec![of_memory(memory)]
}

fn of_memory(memory: Option<Memory>) -> Finding {
    let Some(memory) = memory else {
        return Finding::warn("memory", "the system does not tell how much there is")
            .next("choose the window yourself: --ctx 32768");
    };
    let said = format!(
        "{} RAM, {} for a model ({})",
        ui::memory(memory.ram),
        ui::memory(memory.budget),
        memory.budget_source.words()
    );
    let models = catalog().models.iter();
    let smallest = models.map(crate::catalog::Entry::download_bytes).min();
    match smallest.is_some_and(|bytes| memory.budget < bytes) {
        true => Finding::warn("memory", said)
            .next("close other programs: no model of the catalogue fits in this"),
        false => Finding::ok("memory", said),
    }
}

/// No finding where there is no such limit.
pub(super) fn gpu_limit(app: &App) -> Vec<Finding> {
    if app.os().ok() != Some(Os::Macos) {
        return Vec::new();
    }
    let now = budget::wired_limit(&app.environment);
    let record = gpu_limit::on_record(&app.paths);
    vec![of_limit(record, now, super::runs::anything_runs(app))]
}

/// `now`: the limit in MiB, if the system tells. `used`: an engine or session runs that may need it.
fn of_limit(record: Option<Record>, now: Option<u64>, used: bool) -> Finding {
    const CHECK: &str = "GPU limit";
    match (record, now) {
        (Some(record), Some(now)) if now == record.raised && used => Finding::ok(
            CHECK,
            format!("{now} MiB, raised by cclocal for the sessions that run"),
        ),
        (Some(record), Some(now)) if now == record.raised => Finding::warn(
            CHECK,
            format!("still {now} MiB: a session raised it and was killed"),
        )
        .next(gpu_limit::command(record.original)),
        (Some(record), None) => {
            Finding::warn(CHECK, "raised by cclocal; what it is now is not known")
                .next(gpu_limit::command(record.original))
        }
        (_, Some(now @ 1..)) => Finding::ok(CHECK, format!("{now} MiB, not set by cclocal")),
        (_, Some(0)) => Finding::ok(CHECK, "the system's own"),
        (None, None) => Finding::warn(CHECK, "the system does not tell it"),
    }
}

pub(super) fn disk(app: &App) -> Vec<Finding> {
    let place = |path: &Path| (app.environment.tilde(path), disks::free(path));
    vec![
        of_disk("models", &place(&app.paths.hub), smallest_download()),
        of_disk("cclocal", &place(&app.paths.data), SCARCE),
        of_disk("logs", &place(&app.paths.state), SCARCE),
    ]
    .into_iter()
    .fold(Vec::new(), |mut kept: Vec<Finding>, finding| {
        // One line is enough where all is well, and each place that is short of space has its own.
        if kept.is_empty() || finding.level > super::Level::Ok {
            kept.push(finding);
        }
        kept
    })
}

/// Bytes of the smallest model of the catalogue.
fn smallest_download() -> u64 {
    let models = catalog().models.iter();
    models
        .map(crate::catalog::Entry::download_bytes)
        .min()
        .unwrap_or(0)
}

/// `wanted`: free bytes below which something is to be done.
fn of_disk(what: &str, (place, free): &(String, Option<u64>), wanted: u64) -> Finding {
    const CHECK: &str = "disk";
    match free {
        None => Finding::warn(CHECK, format!("free space of {place} is not known")),
        Some(free) if *free < SCARCE => Finding::fail(
            CHECK,
            format!("{} free for {what}, in {place}", ui::bytes(*free)),
        )
        .next("free some space on that disk"),
        Some(free) if *free < wanted => Finding::warn(
            CHECK,
            format!("{} free for {what}, in {place}", ui::bytes(*free)),
        )
        .next(format!(
            "the smallest model takes {}: cclocal rm removes models",
            ui::bytes(wanted)
        )),
        Some(free) => Finding::ok(
            CHECK,
            format!("{} free for {what}, in {place}", ui::bytes(*free)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::memory::budget::BudgetSource;
    use crate::sys::platform::tests::platform as made;

    #[test]
    fn each_platform_has_its_words() {
        let linux = made(Os::Linux, "aarch64", None, Libc::Gnu(2, 36));
        assert_eq!(words(&linux), "Linux aarch64, glibc 2.36");
        let mac = made(Os::Macos, "arm64", Some((15, 1)), Libc::System);
        assert_eq!(words(&mac), "macOS 15.1, Apple silicon");
    }

    #[test]
    fn too_little_memory_is_a_warning() {
        let of = |gib: u64| {
            of_memory(Some(Memory {
                ram: (2 * gib) << 30,
                budget: gib << 30,
                budget_source: BudgetSource::Metal,
            }))
        };
        let said = "48.0 GB RAM, 24.0 GB for a model (the limit that Metal recommends)";
        assert_eq!(of(24), Finding::ok("memory", said));
        assert_eq!(of(2).level, Level::Warn);
        assert_eq!(of_memory(None).level, Level::Warn);
    }

    #[test]
    fn a_limit_that_nobody_uses_is_to_be_put_back() {
        let record = Some(Record {
            original: 0,
            raised: 21_504,
        });
        let left = of_limit(record, Some(21_504), false);
        assert_eq!(left.level, Level::Warn);
        assert_eq!(
            left.next.as_deref(),
            Some("sudo sysctl iogpu.wired_limit_mb=0")
        );
        for (record, now, used, level) in [
            (record, Some(21_504), true, Level::Ok),
            (record, Some(0), false, Level::Ok),
            (record, Some(9_000), false, Level::Ok),
            (record, None, false, Level::Warn),
            (None, Some(0), false, Level::Ok),
            (None, Some(9_000), false, Level::Ok),
            (None, None, false, Level::Warn),
        ] {
            let found = of_limit(record, now, used);
            assert_eq!(found.level, level, "{record:?} {now:?} {found:?}");
        }
    }

    #[test]
    fn a_full_disk_fails_and_a_small_one_warns() {
        let of = |free| of_disk("models", &("~/hub".into(), free), 5_000_000_000).level;
        assert_eq!(of(Some(10_000_000)), Level::Fail);
        assert_eq!(of(Some(1_000_000_000)), Level::Warn);
        assert_eq!(of(Some(6_000_000_000)), Level::Ok);
        assert_eq!(of(None), Level::Warn);
    }
}
