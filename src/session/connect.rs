//! Claude Code in this terminal, on the engine of a server that runs elsewhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::client::{self, Output};
use super::reservation::{self, Record};
use super::signals::{self, Signals};
use crate::claude::features;
use crate::claude::foreground::{self, Foreground};
use crate::claude::settings_files;
use crate::error::{Context, Error, Exit, Result};
use crate::files;
use crate::host::Host;
use crate::machine::platform::{Os, Platform};
use crate::machine::port;
use crate::paths::Paths;
use crate::plan::claude as plan_claude;
use crate::secret::Secret;
use crate::ui::Ui;

/// Finds the server on this port.
pub fn find(paths: &Paths, port: u16) -> Result<(Record, Secret)> {
    let nobody = |cause: &str| {
        Error::other(format!("no server of cclocal runs on port {port}"))
            .cause(cause)
            .hint("start one with `cclocal --server`, in another terminal")
    };
    let record = match reservation::running(paths, port) {
        Some(record) => record,
        None if port::is_free(port) => return Err(nobody("nothing listens there")),
        None => return Err(nobody("another program listens there")),
    };
    let Some(server) = &record.server else {
        return Err(nobody(&format!(
            "the cclocal there (process {}) is a session of its own, or its engine is still loading",
            record.pid
        )));
    };
    let key = fs_err::read_to_string(&server.key_file)
        .context(Exit::Other, "the server's key cannot be read")?;
    Ok((record, Secret::new(key)))
}

/// Runs Claude Code on that server in the current folder and returns its status, or 128 + n for a signal.
pub async fn run(
    host: &Host,
    paths: &Paths,
    ui: &Ui,
    claude: &Path,
    found: (Record, Secret),
    claude_args: &[OsString],
    signals: &mut Signals,
) -> Result<u8> {
    let (record, token) = found;
    let Some(server) = &record.server else {
        return Err(Error::other("that is no server"));
    };
    let platform = Platform::detect(host)?;
    let features = features::probe(host, &paths.cache, &paths.claude_profile(), claude)?;
    let settings_files = settings_files::read(host, platform.os == Os::Macos)?;
    let folder = Folder::make(paths).context(
        Exit::Other,
        "a folder for Claude Code's settings cannot be made",
    )?;
    let settings = folder.0.join("claude-settings.json");
    let plan = plan_claude::plan(&plan_claude::Inputs {
        host,
        profile_dir: &paths.claude_profile(),
        settings_path: &settings,
        base_url: format!("http://127.0.0.1:{}", record.port),
        token,
        model: record.model.clone(),
        context_window: server.context_window,
        output_tokens: server.output_tokens,
        user_args: claude_args,
        settings_files: &settings_files,
        features: &features,
    })?;
    for notice in &plan.notices {
        ui.notice(notice);
    }
    let mut command = client::command(
        host,
        paths,
        claude,
        &plan,
        &settings,
        &host.cwd,
        Output::Inherited,
    )?;
    let mut claude = Foreground::start(&mut command).context(
        Exit::ClaudeMissing,
        format!("{} cannot be started", host.tilde(claude)),
    )?;
    loop {
        tokio::select! {
            ended = claude.ended() => return Ok(ended.shell_status()),
            signal = signals.next() => match signal {
                Signal::SIGINT | Signal::SIGQUIT if claude.hears_the_terminal() => {}
                Signal::SIGINT | Signal::SIGQUIT => claude.signal(signal),
                signal => {
                    claude.stop(signal, foreground::GRACE).await;
                    return Ok(signals::status(signal));
                }
            },
        }
    }
}

/// A folder of this connection alone: the server's own goes with the server, and Claude Code may not lose its settings while it runs.
struct Folder(PathBuf);

impl Folder {
    fn make(paths: &Paths) -> std::io::Result<Self> {
        let above = paths.state.join("run");
        sweep(&above);
        let folder = above.join(format!("connect-{}", std::process::id()));
        files::private_folder(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what connections left that were killed.
fn sweep(above: &Path) {
    for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("connect-")?.parse::<i32>().ok());
        let gone = |pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)
                == Err(nix::errno::Errno::ESRCH)
        };
        if owner.is_some_and(gone) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
