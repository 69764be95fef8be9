//! Claude Code by npm, into our own folder, when the user agreed to that. Nothing global is touched.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::log;
use crate::sys::paths::Paths;

/// How many of npm's last lines are shown when it fails.
const SHOWN_LINES: usize = 8;

const PACKAGE: &str = "@anthropic-ai/claude-code";

/// Path of the executable that [`install`] installs.
///
/// It is the platform package's own binary: the launcher that the main package links in `.bin` is completed by an install script, which
/// npm 11 does not run unless it is told to.
pub(crate) fn executable(paths: &Paths) -> PathBuf {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("macos", "aarch64") => "darwin-arm64",
        ("macos", _) => "darwin-x64",
        (_, "aarch64") => "linux-arm64",
        _ => "linux-x64",
    };
    paths
        .client()
        .join(format!("node_modules/{PACKAGE}-{platform}/claude"))
}

/// npm, if it is there.
pub(crate) fn npm(environment: &Environment) -> Option<PathBuf> {
    environment.which("npm")
}

/// Installs the newest client with npm. Its words go to a log, and to the person only if it fails.
pub(crate) fn install(environment: &Environment, paths: &Paths) -> Result<PathBuf> {
    let npm = npm(environment).ok_or_else(super::find::missing)?;
    let folder = paths.client();
    let failed = "Claude Code could not be installed with npm";
    files::private_folder(&folder).context(Exit::ClaudeMissing, failed)?;
    // In our process group, so that Ctrl-C ends both.
    let log_path = paths.state.join("setup-client.log");
    let log = log::start(&log_path).context(Exit::ClaudeMissing, failed)?;
    let errors = log.try_clone().context(Exit::ClaudeMissing, failed)?;
    let status = Command::new(npm)
        .args([
            "install",
            "--no-fund",
            "--no-audit",
            "--no-update-notifier",
            "--prefix",
        ])
        .arg(&folder)
        .arg(format!("{PACKAGE}@latest"))
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .context(Exit::ClaudeMissing, failed)?;
    let executable = executable(paths);
    if !status.success() || !executable.is_file() {
        let tail = log::tail(&log_path);
        let shown = tail.len().saturating_sub(SHOWN_LINES);
        return Err(Error::new(Exit::ClaudeMissing, failed)
            .cause(if status.success() {
                "npm installed no executable for this platform".to_owned()
            } else {
                format!("npm ended with {status}")
            })
            .detail(tail[shown..].to_vec())
            .hint("run it again once npm reaches its registry, or install Claude Code another way: https://claude.ai/install.sh"));
    }
    Ok(executable)
}
