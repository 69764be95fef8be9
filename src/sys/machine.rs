//! The memory of this machine and of its processes, as sysinfo tells it on every system.

use std::time::Duration;

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// RAM, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ram {
    pub total: u64,
    /// Memory that is available without swapping.
    pub available: u64,
}

/// The machine's RAM. None: the system does not tell.
pub fn ram() -> Option<Ram> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let total = system.total_memory();
    (total > 0).then(|| Ram {
        total,
        available: system.available_memory(),
    })
}

/// The age of a process, in whole seconds. None: there is no such process.
pub fn age(pid: i32) -> Option<Duration> {
    let pid = Pid::from_u32(u32::try_from(pid).ok()?);
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    Some(Duration::from_secs(system.process(pid)?.run_time()))
}

/// The resident memory of a process, in bytes. None: there is no such process, or it has ended and nobody has waited for it yet.
pub fn resident(pid: i32) -> Option<u64> {
    let pid = Pid::from_u32(u32::try_from(pid).ok()?);
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    let bytes = system.process(pid)?.memory();
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_less_than_there_is() {
        let ram = ram().expect("told");
        let own = resident(i32::try_from(std::process::id()).expect("small"));
        assert!(ram.available <= ram.total);
        assert!(own.is_some_and(|bytes| bytes > 1 << 20 && bytes < ram.total));
        assert_eq!(resident(i32::MAX), None);
    }
}
