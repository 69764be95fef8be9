//! Which system this is: what decides whether the engine can run here at all.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::process;

/// Far more than these small programs take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Os {
    Macos,
    Linux,
}

/// The C library, which decides which prebuilt packages load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU, with its version.
    Gnu(u32, u32),
    Musl,
    /// The system's own, as on macOS.
    System,
    /// No program here tells.
    Unknown,
}

/// Platform: operating system, architecture, versions.
#[derive(Debug, Clone)]
pub struct Platform {
    pub os: Os,
    /// The machine's own architecture, `arm64` or `x86_64` on a Mac and `x86_64` or `aarch64` on Linux, also when this program is translated.
    pub arch: String,
    /// macOS only: major and minor version.
    pub macos_version: Option<(u32, u32)>,
    libc: OnceLock<Libc>,
    host: Environment,
}

impl Platform {
    /// Asks the system. `CCLOCAL_PLATFORM=macos` takes the Mac's way on any system.
    pub fn detect(host: &Environment) -> Result<Self> {
        let os = match (host.var("CCLOCAL_PLATFORM"), std::env::consts::OS) {
            (Some("macos"), _) | (_, "macos") => Os::Macos,
            (_, "linux") => Os::Linux,
            (_, other) => {
                return Err(
                    Error::new(Exit::Machine, format!("cclocal does not run on {other}"))
                        .cause("the engine exists for macOS on Apple Silicon and for Linux")
                        .hint("on Windows, use Linux in WSL 2"),
                );
            }
        };
        let mut platform = Self {
            os,
            arch: ask(host, "uname", &["-m"]).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            macos_version: None,
            libc: OnceLock::new(),
            host: host.clone(),
        };
        if os == Os::Macos {
            platform.macos_version =
                ask(host, "sw_vers", &["-productVersion"]).and_then(|text| version(&text));
            // Under Rosetta `uname -m` says x86_64 on Apple Silicon.
            if platform.arch != "arm64"
                && ask(host, "sysctl", &["-n", "hw.optional.arm64"]).as_deref() == Some("1")
            {
                platform.arch = "arm64".to_owned();
            }
        }
        Ok(platform)
    }

    /// The C library, asked for when it is first wanted.
    pub fn libc(&self) -> Libc {
        *self.libc.get_or_init(|| match self.os {
            Os::Macos => Libc::System,
            Os::Linux => libc(&self.host),
        })
    }
}

fn libc(host: &Environment) -> Libc {
    if let Some(text) = ask(host, "getconf", &["GNU_LIBC_VERSION"])
        && let Some((major, minor)) = text.strip_prefix("glibc").and_then(version)
    {
        return Libc::Gnu(major, minor);
    }
    // musl's `ldd` says what it is on standard error, and fails while doing so.
    let Some(ldd) = host.which("ldd") else {
        return Libc::Unknown;
    };
    let Ok(finished) = process::run(Command::new(ldd).arg("--version").env_clear(), DEADLINE)
    else {
        return Libc::Unknown;
    };
    if (finished.stdout.clone() + &finished.stderr)
        .to_lowercase()
        .contains("musl")
    {
        return Libc::Musl;
    }
    let first = finished
        .stdout
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().last());
    match first.and_then(version) {
        Some((major, minor)) => Libc::Gnu(major, minor),
        None => Libc::Unknown,
    }
}

/// The first line that a program on PATH prints. None if it is not there, fails, or hangs.
fn ask(host: &Environment, program: &str, args: &[&str]) -> Option<String> {
    let path = host.env.get(std::ffi::OsStr::new("PATH"))?;
    let mut command = Command::new(host.which(program)?);
    command
        .args(args)
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C");
    let finished = process::run(&mut command, DEADLINE).ok()?;
    let line = finished.stdout.lines().next()?.trim().to_owned();
    (finished.success && !line.is_empty()).then_some(line)
}

/// `14.6.1` and `14` as major and minor.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split('.').map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    Some((
        major,
        parts.next().and_then(std::result::Result::ok).unwrap_or(0),
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A platform made by hand.
    pub(crate) fn platform(
        os: Os,
        arch: &str,
        macos_version: Option<(u32, u32)>,
        libc: Libc,
    ) -> Platform {
        Platform {
            os,
            arch: arch.to_owned(),
            macos_version,
            libc: OnceLock::from(libc),
            host: Environment::for_tests(std::path::Path::new("/"), &[]),
        }
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("14.6.1\n"), Some((14, 6)));
        assert_eq!(version("26"), Some((26, 0)));
        assert_eq!(version("glibc"), None);
    }
}
