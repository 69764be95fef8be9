//! How much memory there is: RAM, and the part of it that a model may use.

use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::platform::Os;
use crate::host::Host;
use crate::process;

const SYSCTL_DEADLINE: Duration = Duration::from_secs(5);

/// Where the figure for the budget comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetSource {
    /// `iogpu.wired_limit_mb` is set on this Mac.
    WiredLimit,
    /// 75 % of RAM: a rule of thumb for Apple Silicon, where the limit is not set.
    ThreeQuartersOfRam,
    /// Linux: memory that can be had without swapping, `MemAvailable` of `/proc/meminfo`.
    AvailableRam,
}

impl BudgetSource {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            BudgetSource::WiredLimit => "iogpu.wired_limit_mb",
            BudgetSource::ThreeQuartersOfRam => "75 % of RAM, a rule of thumb",
            BudgetSource::AvailableRam => "available RAM",
        }
    }
}

/// Memory of this machine, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub ram: u64,
    /// What weights, caches and working memory together may take.
    pub budget: u64,
    pub budget_source: BudgetSource,
}

/// Asks the system. None if it does not tell.
pub fn read(host: &Host, os: Os) -> Option<Memory> {
    match os {
        Os::Macos => {
            let ram = sysctl(host, "hw.memsize")?;
            let limit_mib = sysctl(host, "iogpu.wired_limit_mb").unwrap_or(0);
            Some(if limit_mib > 0 {
                Memory {
                    ram,
                    budget: limit_mib << 20,
                    budget_source: BudgetSource::WiredLimit,
                }
            } else {
                Memory {
                    ram,
                    budget: ram / 4 * 3,
                    budget_source: BudgetSource::ThreeQuartersOfRam,
                }
            })
        }
        Os::Linux => {
            let text = fs_err::read_to_string("/proc/meminfo").ok()?;
            Some(Memory {
                ram: meminfo(&text, "MemTotal")?,
                budget: meminfo(&text, "MemAvailable")?,
                budget_source: BudgetSource::AvailableRam,
            })
        }
    }
}

fn sysctl(host: &Host, name: &str) -> Option<u64> {
    let program = host.which("sysctl")?;
    let finished = process::run(Command::new(program).args(["-n", name]), SYSCTL_DEADLINE).ok()?;
    finished.stdout.trim().parse().ok()
}

/// A line of `/proc/meminfo`, in bytes. Its "kB" are 1024 bytes (proc(5)).
fn meminfo(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line
            .strip_prefix(name)?
            .strip_prefix(':')?
            .trim()
            .strip_suffix("kB")?;
        value.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_units_of_1024() {
        let text = "MemTotal:       24689164 kB\nMemFree: 1 kB\nMemAvailable:    24000000 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(24_000_000 * 1024));
        assert_eq!(meminfo(text, "Mem"), None);
    }
}
