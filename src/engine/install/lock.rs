//! The lock file that is part of this program: which packages, in which versions, with which hashes.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The lock of the system that this program was built for. The files are written by `.ci/lock-engine.sh`.
pub(super) const LOCK: &str = if cfg!(target_os = "macos") {
    include_str!("../locks/macos-arm64.lock")
} else if cfg!(target_arch = "aarch64") {
    include_str!("../locks/linux-aarch64.lock")
} else {
    include_str!("../locks/linux-x86_64.lock")
};

/// The lock's SHA-256 in hexadecimal: the identity of what is to be installed.
pub(super) fn identity() -> String {
    sha256(LOCK.as_bytes())
}

/// The number of packages in the lock.
pub(super) fn packages() -> usize {
    LOCK.lines().filter(|line| pin(line).is_some()).count()
}

/// The version of a package in the lock.
pub(super) fn version_of(package: &str) -> Option<&'static str> {
    LOCK.lines()
        .filter_map(pin)
        .find(|(name, _)| *name == package)
        .map(|(_, version)| version)
}

/// The packages of the lock and their versions.
pub(super) fn pins() -> impl Iterator<Item = (&'static str, &'static str)> {
    LOCK.lines().filter_map(pin)
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn pin(line: &'static str) -> Option<(&'static str, &'static str)> {
    let (name, rest) = line.split_once("==")?;
    Some((name, rest.split_whitespace().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_and_has_a_hash() {
        for name in ["macos-arm64", "linux-x86_64", "linux-aarch64"] {
            let file = format!(
                "{}/src/engine/locks/{name}.lock",
                env!("CARGO_MANIFEST_DIR")
            );
            let lock = fs_err::read_to_string(file).expect("a lock");
            let entries: Vec<String> = lock
                .replace("\\\n", " ")
                .lines()
                .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
                .map(str::to_owned)
                .collect();
            assert!(entries.len() > 40, "{name} has {} packages", entries.len());
            for entry in &entries {
                assert!(
                    entry.contains("==") && entry.contains("--hash=sha256:"),
                    "{name}: {entry}"
                );
                assert!(!entry.contains("://"), "{name} names a server: {entry}");
            }
            let has = |package: &str| {
                entries
                    .iter()
                    .any(|entry| entry.starts_with(&format!("{package}==")))
            };
            assert!(has("vllm-mlx") && has("mlx") && has("mlx-lm") && has("mlx-vlm"));
            assert_eq!(has("mlx-metal"), name == "macos-arm64");
            assert_eq!(has("mlx-cpu"), name != "macos-arm64");
        }
    }

    #[test]
    fn versions_can_be_looked_up() {
        assert_eq!(version_of("vllm-mlx"), Some("0.6.0"));
        assert_eq!(version_of("no-such-package"), None);
        assert!(packages() > 40);
    }
}
