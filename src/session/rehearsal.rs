//! Claude Code shows how it begins before the user has asked anything.
//!
//! System prompt and tools are new with every version of it, and the engine can compute them while the first question is typed, if they are known by
//! then. So a version that was not seen yet is started a second time, on a terminal that nobody sees, in an empty folder and with a profile of its own,
//! and asks something. The gateway takes that request and answers none (`gateway/warm.rs`). Once for each version, and only where people type.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::run::Session;
use super::session_dir::SessionDir;
use crate::claude::command::{ClaudePlan, Features};
use crate::claude::launch::{self, Endpoint, Output, Places, UserArgs};
use crate::claude::profile;
use crate::claude::pty::Hidden;
use crate::error::{Context, Exit, Result};
use crate::gateway;
use crate::sys::capabilities;
use crate::sys::files;
use crate::sys::secret::Secret;

const TOPIC: &str = "rehearsal";

/// Prompt of the rehearsal. Any prompt comes after the same system prompt.
const QUESTION: &str = "hi";

/// How long it may take until it asks: a cold start on a busy machine, many times over.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a killed one may take to be gone.
const GRACE: Duration = Duration::from_secs(2);

/// A rehearsal that runs or is over.
pub(super) struct Rehearsal {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Rehearsal {
    /// Begins one, if people type to this session and its Claude Code was not seen yet.
    ///
    /// `fronts`: the folder in which the gateway remembers, if it does; what was seen is written down there, too. `plan`: of the session itself.
    pub(super) fn begin(
        session: &Session,
        endpoint: &Endpoint,
        fronts: Option<&Path>,
        features: &Features,
        plan: &ClaudePlan,
    ) -> Option<Self> {
        let fronts = fronts?.to_owned();
        let environment = &session.app.environment;
        let typed = environment.stdin_tty && environment.stdout_tty && launch::is_interactive(plan);
        if !typed || capabilities::remembered::<bool>(&fronts, TOPIC, session.claude).is_some() {
            return None;
        }
        let (folder, command) = command(session, endpoint, features)
            .inspect_err(|error| tracing::debug!(%error, "no rehearsal"))
            .ok()?;
        let stop = CancellationToken::new();
        let stage = Stage {
            command,
            port: endpoint.port,
            token: endpoint.token.clone(),
            stop: stop.clone(),
        };
        let claude = session.claude.to_owned();
        let task = tokio::spawn(async move {
            let seen = stage.perform().await;
            tracing::debug!(?seen, "the rehearsal is over");
            // One that fails would fail again, and each time take a minute.
            if let Some(seen) = seen {
                capabilities::remember(&fronts, TOPIC, &claude, &seen);
            }
            drop(folder);
        });
        Some(Self { stop, task })
    }

    /// Ends it, if it is not over. A process that cannot even be killed, on a disk that does not answer say, is not waited for.
    pub(super) async fn end(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(GRACE, self.task).await;
    }
}

/// Claude Code's command, and the folder that it needs.
fn command(
    session: &Session,
    endpoint: &Endpoint,
    features: &Features,
) -> Result<(SessionDir, Command)> {
    const SAYING: &str = "a folder for the rehearsal cannot be made";
    let folder = SessionDir::for_rehearsal(&session.app.paths)?;
    let [profile, work]: [PathBuf; 2] = ["profile", "work"].map(|name| folder.path().join(name));
    files::private_folder(&work).context(Exit::Other, SAYING)?;
    let work = fs_err::canonicalize(work).context(Exit::Other, SAYING)?;
    profile::begin_rehearsal(&session.app.paths.claude_profile(), &profile, &work)?;
    let settings = folder.settings();
    let args = [OsString::from(QUESTION)];
    let user = UserArgs {
        args: &args,
        pass_unknown: false,
        asking: session.user.asking,
    };
    let plan = launch::plan(session.app, endpoint, user, &settings, features)?;
    let places = Places {
        profile_dir: &profile,
        settings: &settings,
        folder: &work,
    };
    let command = launch::command(
        &session.app.environment,
        session.claude,
        &plan.for_rehearsal(&profile),
        places,
        Output::Inherited,
    )?;
    Ok((folder, command))
}

/// Point that Claude Code has reached.
struct Stage {
    command: Command,
    /// The gateway's, on 127.0.0.1.
    port: u16,
    token: Secret,
    stop: CancellationToken,
}

impl Stage {
    /// Whether it asked. None: nobody waited for it.
    async fn perform(mut self) -> Option<bool> {
        let asked = gateway::client_here().ok()?;
        let asked = asked
            .get(format!("http://127.0.0.1:{}/rehearsal", self.port))
            .bearer_auth(self.token.expose())
            .send();
        let mut claude = match Hidden::start(&mut self.command) {
            Ok(claude) => claude,
            Err(error) => {
                tracing::debug!(%error, "Claude Code cannot be started for a rehearsal");
                return Some(false);
            }
        };
        let seen = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            answer = asked => (answer.is_ok_and(|answer| answer.status().is_success())).then_some(true),
            _ = claude.ended() => Some(false),
            () = tokio::time::sleep(DEADLINE) => Some(false),
        };
        claude.end().await;
        seen
    }
}
