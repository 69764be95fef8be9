//! How much memory there is: RAM, and the part of it that a model may use.

use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::environment::Environment;
use crate::sys::machine;
use crate::sys::platform::Os;
use crate::sys::process;

/// Far more than these small programs take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The setting of macOS for the memory that the GPU may wire, in MiB; 0 leaves it to the system.
pub const WIRED_LIMIT: &str = "iogpu.wired_limit_mb";

/// Where the figure for the budget comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetSource {
    /// `iogpu.wired_limit_mb` is set on this Mac.
    WiredLimit,
    /// What Metal recommends, as the engine's Python reports it.
    Metal,
    /// 75 % of RAM: a rule of thumb for Apple Silicon, where the limit is not set and Metal was not asked.
    ThreeQuartersOfRam,
    /// Linux: free memory of the first NVIDIA GPU, for an engine that computes on it.
    Nvidia,
    /// Linux: memory that can be had without swapping.
    AvailableRam,
}

impl BudgetSource {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            BudgetSource::WiredLimit => "iogpu.wired_limit_mb",
            BudgetSource::Metal => "the limit that Metal recommends",
            BudgetSource::ThreeQuartersOfRam => "75 % of RAM, a rule of thumb",
            BudgetSource::Nvidia => "free on the NVIDIA GPU",
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

/// The device that the engine would compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub gpu: bool,
    /// Metal's `recommendedMaxWorkingSetSize`, in bytes: what the GPU may use without the system working against it.
    pub recommended: Option<u64>,
}

/// Asks the system, and the engine's device through `device` where the system alone does not tell. None if nobody tells.
pub fn read(host: &Environment, os: Os, device: impl FnOnce() -> Option<Device>) -> Option<Memory> {
    match os {
        Os::Macos => {
            let ram = match host.var("CCLOCAL_PLATFORM") {
                // Tests take the Mac's way on any system, with a `sysctl` of their own.
                Some(_) => sysctl(host, "hw.memsize")?,
                None => machine::ram()?.total,
            };
            let (budget, budget_source) = match wired_limit(host) {
                Some(limit @ 1..) => (limit << 20, BudgetSource::WiredLimit),
                _ => match device().and_then(|device| device.recommended) {
                    Some(recommended) => (recommended, BudgetSource::Metal),
                    None => (ram / 4 * 3, BudgetSource::ThreeQuartersOfRam),
                },
            };
            Some(Memory {
                ram,
                budget,
                budget_source,
            })
        }
        Os::Linux => {
            let ram = machine::ram()?;
            let (budget, budget_source) = match nvidia(host, device) {
                Some(free) => (free, BudgetSource::Nvidia),
                None => (ram.available, BudgetSource::AvailableRam),
            };
            Some(Memory {
                ram: ram.total,
                budget,
                budget_source,
            })
        }
    }
}

/// `iogpu.wired_limit_mb`, in MiB. None where the system has no such setting.
pub fn wired_limit(host: &Environment) -> Option<u64> {
    sysctl(host, WIRED_LIMIT)
}

fn sysctl(host: &Environment, name: &str) -> Option<u64> {
    answer(host, "sysctl", &["-n", name])?.trim().parse().ok()
}

/// Free bytes of the first NVIDIA GPU, the one that mlx uses, if the engine would compute on it: ours computes on the CPU.
fn nvidia(host: &Environment, device: impl FnOnce() -> Option<Device>) -> Option<u64> {
    let query = ["--query-gpu=memory.free", "--format=csv,noheader,nounits"];
    let mib: u64 = answer(host, "nvidia-smi", &query)?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()?;
    device()?.gpu.then_some(mib << 20)
}

fn answer(host: &Environment, program: &str, args: &[&str]) -> Option<String> {
    let program = host.which(program)?;
    let finished = process::run(Command::new(program).args(args), DEADLINE).ok()?;
    finished.success.then_some(finished.stdout)
}
