//! The platforms that the engine does not run on, and why.

use crate::error::{Error, Exit, Result};
use crate::sys::platform::{Libc, Os, Platform};

/// The oldest macOS that mlx's packages are built for.
const MACOS_MIN: (u32, u32) = (14, 0);
/// The oldest glibc that mlx's packages are built for (`manylinux_2_35`).
const GLIBC_MIN: (u32, u32) = (2, 35);

/// Refuses a platform that the engine's packages do not exist for. Exit status 12.
pub fn supported(platform: &Platform) -> Result<()> {
    match platform.os {
        Os::Macos => macos(platform),
        Os::Linux => linux(platform),
    }
}

fn macos(platform: &Platform) -> Result<()> {
    if platform.arch != "arm64" {
        return Err(refused(
            "Intel Macs cannot run the engine",
            "mlx computes on Apple Silicon's GPU and has no packages for Intel",
        )
        .hint("use a Mac with an M1 or newer, or Linux"));
    }
    match platform.macos_version {
        Some(version) if version < MACOS_MIN => Err(refused(
            &format!(
                "macOS {}.{} is too old for the engine",
                version.0, version.1
            ),
            "mlx needs macOS 14 or newer",
        )
        .hint("update macOS in System Settings > General > Software Update")),
        // Not to know the version is no reason to refuse: the packages themselves will tell.
        _ => Ok(()),
    }
}

fn linux(platform: &Platform) -> Result<()> {
    if !matches!(platform.arch.as_str(), "x86_64" | "aarch64") {
        return Err(refused(
            &format!("the engine does not run on {}", platform.arch),
            "mlx has packages for x86_64 and aarch64 only",
        ));
    }
    match platform.libc() {
        Libc::Musl => Err(refused(
            "the engine does not run on a system with musl, such as Alpine",
            "mlx's packages are built for glibc",
        )
        .hint("use a distribution with glibc 2.35 or newer, for example in a container: Debian 12, Ubuntu 22.04, Fedora 36")),
        Libc::Gnu(major, minor) if (major, minor) < GLIBC_MIN => Err(refused(
            &format!("glibc {major}.{minor} is too old for the engine"),
            &format!("mlx's packages need glibc {}.{} or newer", GLIBC_MIN.0, GLIBC_MIN.1),
        )
        .hint("use Debian 12, Ubuntu 22.04, Fedora 36 or newer")),
        Libc::Gnu(..) | Libc::System | Libc::Unknown => Ok(()),
    }
}

fn refused(message: &str, cause: &str) -> Error {
    Error::new(Exit::Machine, message).cause(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::platform::tests::platform;

    #[test]
    fn what_is_refused() {
        let linux = |arch: &str, libc| supported(&platform(Os::Linux, arch, None, libc));
        let mac = |arch: &str, version| {
            supported(&platform(Os::Macos, arch, Some(version), Libc::System))
        };
        assert!(linux("x86_64", Libc::Gnu(2, 36)).is_ok());
        assert!(linux("aarch64", Libc::Gnu(2, 35)).is_ok());
        assert!(linux("x86_64", Libc::Unknown).is_ok());
        assert!(linux("x86_64", Libc::Gnu(2, 31)).is_err());
        assert!(linux("x86_64", Libc::Musl).is_err());
        assert!(linux("riscv64", Libc::Gnu(2, 40)).is_err());
        assert!(mac("arm64", (14, 0)).is_ok());
        assert!(mac("arm64", (26, 1)).is_ok());
        assert!(mac("arm64", (13, 7)).is_err());
        let said: Vec<String> = [
            linux("x86_64", Libc::Gnu(2, 31)),
            linux("x86_64", Libc::Musl),
            linux("riscv64", Libc::Gnu(2, 40)),
            mac("arm64", (13, 7)),
            mac("x86_64", (15, 0)),
        ]
        .map(|refused| refused.expect_err("refused").to_string())
        .to_vec();
        insta::assert_snapshot!(said.join("\n"), @"
        error: glibc 2.31 is too old for the engine
          cause: mlx's packages need glibc 2.35 or newer
          hint: use Debian 12, Ubuntu 22.04, Fedora 36 or newer
        error: the engine does not run on a system with musl, such as Alpine
          cause: mlx's packages are built for glibc
          hint: use a distribution with glibc 2.35 or newer, for example in a container: Debian 12, Ubuntu 22.04, Fedora 36
        error: the engine does not run on riscv64
          cause: mlx has packages for x86_64 and aarch64 only
        error: macOS 13.7 is too old for the engine
          cause: mlx needs macOS 14 or newer
          hint: update macOS in System Settings > General > Software Update
        error: Intel Macs cannot run the engine
          cause: mlx computes on Apple Silicon's GPU and has no packages for Intel
          hint: use a Mac with an M1 or newer, or Linux
        ");
        assert_eq!(
            mac("x86_64", (15, 0)).expect_err("refused").exit,
            Exit::Machine
        );
    }
}
