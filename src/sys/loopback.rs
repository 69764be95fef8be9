//! Whether a host is this machine itself.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a URL's host is this machine, by a name or number that no other machine can have.
pub fn is_loopback(host: &str) -> bool {
    if host == "localhost" {
        return true;
    }
    if let Ok(four) = host.parse::<Ipv4Addr>() {
        return four.is_loopback();
    }
    let six = host.trim_start_matches('[').trim_end_matches(']');
    six.parse::<Ipv6Addr>().is_ok_and(|six| {
        six.is_loopback() || six.to_ipv4_mapped().is_some_and(|four| four.is_loopback())
    })
}
