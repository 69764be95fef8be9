//! Which network this process is in: inside a container or a namespace, 127.0.0.1 is another machine's.

use std::os::unix::fs::MetadataExt;

/// The number of this process's network namespace. None: the system has none, and all processes share one network.
pub fn own() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/net")
        .ok()
        .map(|namespace| namespace.ino())
}

/// Whether what is in that namespace is reached from here. What is not known is taken to be.
pub fn is_shared(with: Option<u64>) -> bool {
    match (own(), with) {
        (Some(own), Some(with)) => own == with,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_is_another_network() {
        assert!(is_shared(own()) && is_shared(None));
        if let Some(number) = own() {
            assert!(!is_shared(Some(number + 1)));
        }
    }
}
