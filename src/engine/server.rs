//! A running engine: its process, its log and its place in the life cycle.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::executable::Executable;
use super::health::{HealthCheck, Impostor};
use super::lifecycle::{Action, End, Event, State};
use super::{exit_reason, install};
use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::process::Child;
use crate::sys::secret::Secret;
use crate::sys::{disk, files, log, machine};

/// The Python that starts the engine. It ties the engine's life to ours, has it serve on a socket of ours, lets downloads be resumed, streams
/// replies exactly as they were generated, counts prompts as they are, lets the engine free what it has dropped and hold a conversation once, lets one
/// conversation attend without arrays for masks, keeps the engine within its memory, keeps it from computing again what it, or an engine before it, has
/// computed, and lets it read nothing but files.
///
/// In two parts: Linux takes no argument of 128 KiB or more.
const BOOTSTRAP: [&str; 2] = [BEGINNING, REST];

/// Runs the parts of [`BOOTSTRAP`] as one, and leaves the engine's own arguments behind.
const RUN_PARTS: &str =
    "import sys; exec(compile(sys.argv.pop(1) + sys.argv.pop(1), 'cclocal', 'exec'))";

const BEGINNING: &str = concat!(
    include_str!("patches/patches.py"),
    include_str!("patches/files.py"),
    include_str!("patches/listen.py"),
    include_str!("patches/resume.py"),
    include_str!("patches/raw.py"),
    include_str!("patches/history.py"),
    include_str!("patches/count.py")
);

const REST: &str = concat!(
    include_str!("patches/entries.py"),
    include_str!("patches/take_over.py"),
    include_str!("patches/masks.py"),
    include_str!("patches/pauses.py"),
    include_str!("patches/memory.py"),
    include_str!("patches/progress.py"),
    include_str!("patches/text_route.py"),
    include_str!("patches/kept.py"),
    include_str!("patches/snapshots.py"),
    include_str!("patches/bootstrap.py")
);

/// How long an engine may take to end when asked. It has nothing to save (see `bootstrap.py`), and waits only for open streams.
pub const GRACE: Duration = Duration::from_secs(5);

/// Less than this is free on a full disk, in bytes: a block or two may be left over.
const FULL: u64 = 16 * 1024;

/// Base URL of requests on an engine's socket. The host is a placeholder, as the connection goes through the socket.
pub const BASE_URL: &str = "http://localhost";

/// Command of an engine with the start-up patches, without its own arguments.
pub(super) fn bootstrap(executable: &Executable) -> Command {
    let mut command = Command::new(&executable.python);
    command.arg("-c").arg(RUN_PARTS).args(BOOTSTRAP);
    command.arg(&executable.script);
    command
}

/// First line of an engine's input, for `bootstrap.py`.
pub(super) fn first_line(key: &str, socket: &Path, proof_key: &Secret) -> String {
    let told = serde_json::json!({
        "key": key,
        "socket": socket.to_string_lossy(),
        "proof_key": proof_key.expose(),
    });
    format!("{told}\n")
}

/// The folder that engines run in, with nothing in it that a hub id could be mistaken for. Errors: it cannot be made.
pub fn empty_folder(app: &App) -> Result<PathBuf> {
    let folder = app.paths.data.join("empty");
    files::private_folder(&folder).context(
        Exit::Other,
        format!("{} cannot be made", app.environment.tilde(&folder)),
    )?;
    Ok(folder)
}

/// All that starting an engine needs.
pub struct Launch<'a> {
    pub executable: &'a Executable,
    /// `serve …`
    pub argv: &'a [String],
    /// The whole environment.
    pub env: BTreeMap<OsString, OsString>,
    /// The key that requests have to carry. None for an engine that takes none.
    pub key: Option<&'a Secret>,
    /// See [`empty_folder`].
    pub folder: &'a Path,
    pub log: PathBuf,
    /// The Unix socket that it is to serve on, in a folder of this user alone. Its path is UTF-8, and short enough for one.
    pub socket: PathBuf,
    pub served_name: String,
}

/// A running engine. It ends when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
pub struct Server {
    child: Child,
    state: State,
    /// The engine lives for as long as this pipe is open.
    lifeline: Option<ChildStdin>,
    log: PathBuf,
    socket: PathBuf,
    served_name: String,
    health: HealthCheck,
    /// Something answered on its socket that is not the engine.
    impersonated: bool,
    /// An engine that runs keeps its installation from being replaced under it.
    _hold: Option<install::Hold>,
}

impl Server {
    /// Starts the engine in a process group of its own.
    pub fn start(launch: Launch) -> Result<Self> {
        let failed = |what: &str| format!("the engine cannot be started: {what}");
        let log =
            log::start(&launch.log).context(Exit::Engine, failed("its log cannot be written"))?;
        // Of an engine before it. What takes the path from here on is not removed.
        match fs_err::remove_file(&launch.socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "an engine's socket is left");
                let what = "the engine's socket cannot be made";
                let left = format!("{} cannot be removed", launch.socket.display());
                return Err(Error::new(Exit::Engine, what).cause(left));
            }
            _ => {}
        }
        let proof_key = Secret::random()?;
        let key = launch.key.map_or("", Secret::expose);
        let told = first_line(key, &launch.socket, &proof_key);
        let errors = log
            .try_clone()
            .context(Exit::Engine, failed("its log cannot be written"))?;
        let mut command = bootstrap(launch.executable);
        command
            .args(launch.argv)
            .current_dir(launch.folder)
            .env_clear()
            .envs(&launch.env)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors);
        let (child, stdin) = Child::spawn_group(&mut command).context(
            Exit::Engine,
            failed(&launch.executable.python.display().to_string()),
        )?;
        let mut server = Self {
            child,
            state: State::Starting,
            lifeline: stdin,
            log: launch.log,
            health: HealthCheck::on(&launch.socket, proof_key),
            socket: launch.socket,
            served_name: launch.served_name,
            impersonated: false,
            _hold: install::hold(&launch.executable.script),
        };
        if let Some(pipe) = &mut server.lifeline {
            // If it is gone already, its end says why; the pipe does not.
            let _ = pipe.write_all(told.as_bytes());
        }
        Ok(server)
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// The Unix socket that it serves on, behind the gateway.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A sign of life that an engine gives while it loads: its resident memory and the length of its log, in bytes.
    /// None if neither can be read.
    pub fn pulse(&self) -> Option<(u64, u64)> {
        let resident = machine::resident(self.pid());
        let written = fs_err::metadata(&self.log).map(|data| data.len()).ok();
        (resident.is_some() || written.is_some())
            .then(|| (resident.unwrap_or(0), written.unwrap_or(0)))
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until the engine answers for its model, having proved that it is the one that was started. An engine that ends before is an error that says
    /// why; where something else answers in its place, it is ended. Can be cancelled and called again.
    pub async fn ready(&mut self) -> Result<()> {
        let event = loop {
            tokio::select! {
                ended = self.child.ended() => break Event::Exited(ended),
                found = self.health.until_ready(&self.served_name), if !self.impersonated => match found {
                    Ok(()) => break Event::Healthy,
                    Err(Impostor) => {
                        self.impersonated = true;
                        self.child.signal_group(Signal::SIGKILL);
                    }
                },
            }
        };
        self.apply(event);
        match self.state {
            State::Gone(end) => Err(self.explain(end)),
            _ => Ok(()),
        }
    }

    /// Waits for the engine to end. Can be cancelled and called again.
    pub async fn ended(&mut self) -> End {
        loop {
            if let State::Gone(end) = self.state {
                return end;
            }
            let ended = self.child.ended().await;
            self.apply(Event::Exited(ended));
        }
    }

    /// Why the engine ended, for people.
    pub fn explain(&self, end: End) -> Error {
        if self.impersonated {
            return exit_reason::impersonated(&self.socket)
                .detail(exit_reason::last_words(&self.log));
        }
        let error = exit_reason::explain(end, &log::tail(&self.log), &self.log);
        // One that cannot write its log ends, and has no place to say why.
        if disk::free(&self.log).is_some_and(|free| free < FULL) {
            return exit_reason::disk_full(error);
        }
        error
    }

    /// Asks the engine to end. [`Server::ended`] tells when it has; one that takes too long is to be killed.
    pub fn ask_to_end(&mut self) {
        self.apply(Event::Stop);
    }

    /// Ends an engine that did not end when it was asked to, with its whole process group.
    pub fn kill(&mut self) {
        self.apply(Event::GraceOver);
    }

    fn apply(&mut self, event: Event) {
        let (state, action) = self.state.on(event);
        tracing::debug!(?event, ?state, ?action, pid = self.child.pid(), "engine");
        self.state = state;
        match action {
            Action::Nothing => {}
            Action::Terminate => self.child.signal(Signal::SIGTERM),
            Action::Kill => self.child.signal_group(Signal::SIGKILL),
        }
        if matches!(state, State::Gone(_)) {
            self.lifeline = None;
        }
    }
}

impl Drop for Server {
    /// For ways out that could not wait, such as a panic. Closing the pipe would do the same a moment later.
    fn drop(&mut self) {
        self.child.signal_group(Signal::SIGKILL);
    }
}
