//! Whether a port of this machine is free, and who has it if not.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::sys::environment::Environment;
use crate::sys::process;

/// How many ports above the wanted one are tried.
const TRIED: u16 = 100;
const LSOF_DEADLINE: Duration = Duration::from_secs(5);

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub name: String,
}

/// Whether a server could listen on 127.0.0.1 at this port, and would be the one that answers there.
pub fn is_free(port: u16) -> bool {
    // Where another program listens on all addresses, macOS still lets one bind to 127.0.0.1: so binding alone does not tell.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).is_ok()
        && TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err()
}

/// The first free port above this one.
pub fn free_above(port: u16) -> Option<u16> {
    (1..=TRIED)
        .filter_map(|step| port.checked_add(step))
        .find(|port| is_free(*port))
}

/// A port that is free now, chosen by the system.
pub fn any_free() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// The process that listens on the port, as far as this user may know. macOS: `lsof`; Linux: `/proc`, as `lsof` may not be installed there.
pub fn holder(host: &Environment, port: u16) -> Option<Holder> {
    from_lsof(host, port).or_else(|| from_proc(port))
}

fn from_lsof(host: &Environment, port: u16) -> Option<Holder> {
    let lsof = host.which("lsof")?;
    let mut command = Command::new(lsof);
    command.args(["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fpc"]);
    let finished = process::run(&mut command, LSOF_DEADLINE).ok()?;
    let field = |mark: char| {
        finished
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(mark).map(str::to_owned))
    };
    Some(Holder {
        pid: field('p')?.parse().ok()?,
        name: field('c')?,
    })
}

fn from_proc(port: u16) -> Option<Holder> {
    let inodes: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path()).is_ok_and(|target| {
                target
                    .to_str()
                    .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'))
                    .is_some_and(|inode| inodes.contains(inode))
            })
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(Holder {
                pid,
                name: name.trim().to_owned(),
            });
        }
    }
    None
}

/// The inodes of listening sockets on a port, from a table of the form of `/proc/net/tcp` (proc(5)): local address in column 2, state in
/// column 4 (0A is LISTEN), inode in column 10.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = columns.get(1)?.rsplit_once(':')?;
            let listens =
                columns.get(3) == Some(&"0A") && u16::from_str_radix(local, 16) == Ok(port);
            listens.then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_makes_its_port_taken_and_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        assert!(!is_free(port));
        if cfg!(target_os = "linux") {
            let pid = i32::try_from(std::process::id()).expect("a pid");
            assert_eq!(from_proc(port).map(|holder| holder.pid), Some(pid));
        }
        drop(listener);
        assert!(is_free(port));
    }

    #[test]
    fn the_table_is_read_by_its_columns() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n   1: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4243 1\n   2: 00000000:1F41 00000000:0000 0A 0:0 0:0 0 0 0 4244 1\n";
        assert_eq!(listening_inodes(table, 8000), ["4242"]);
    }
}
