//! The engines that run: asked, not read off files, so that what a killed supervisor left is not taken for one. One that does not answer is known by
//! the locks that it holds.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::socket;
use crate::catalog::{EngineProfile, Source};
use crate::error::{Error, Result};
use crate::hub::remove;
use crate::hub::scan::Model;
use crate::memory::Asked;
use crate::supervisor::port_holder::{self, Holder};
use crate::supervisor::protocol::{
    PROTOCOL, PhaseName, Status, SupervisorMessage, SupervisorRequest,
};
use crate::supervisor::reservation::{self, Record};
use crate::sys::network;
use crate::sys::paths::Paths;

/// How long an engine may take to be gone: its time of grace, and what the supervisor itself needs.
pub const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// How long one may have no socket: it is just beginning, or ending. A crowded machine takes a second or two for that.
const SETTLED: Duration = Duration::from_secs(5);

/// An engine that runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Running {
    /// An engine whose supervisor speaks our protocol.
    Known(Box<Status>),
    /// An engine of another version of cclocal, with another protocol.
    Foreign {
        port: u16,
        version: String,
        used: bool,
        record: Option<Record>,
    },
    /// An engine whose supervisor does not answer: it is suspended, or hangs.
    Silent(Holder),
}

impl Running {
    pub fn port(&self) -> u16 {
        match self {
            Running::Known(status) => status.port,
            Running::Foreign { port, .. } => *port,
            Running::Silent(holder) => holder.port,
        }
    }

    /// The supervisor's process, if it is known.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Running::Known(status) => i32::try_from(status.pid).ok(),
            Running::Foreign { record, .. } => {
                i32::try_from(record.as_ref().map(|record| record.pid)?).ok()
            }
            Running::Silent(holder) => holder.pid,
        }
    }

    /// Whether it serves this model, or may: of one that does not answer and wrote nothing it is not known what it serves.
    pub fn serves(&self, model: &Model) -> bool {
        match self {
            Running::Known(status) => match &status.source {
                Source::Hub(id) => remove::serves(id, model),
                Source::Folder(folder) => remove::serves(&folder.display().to_string(), model),
            },
            Running::Foreign { record, .. } => record
                .as_ref()
                .is_some_and(|record| remove::serves(&record.served(), model)),
            Running::Silent(holder) => holder
                .source()
                .is_none_or(|served| remove::serves(&served, model)),
        }
    }
}

/// All that run, by their ports.
pub fn running(paths: &Paths) -> Vec<Running> {
    reservation::ports(paths)
        .into_iter()
        .filter_map(|port| at(paths, port))
        .collect()
}

/// Statuses of the engines whose supervisors speak our protocol.
pub fn statuses(paths: &Paths) -> Vec<Status> {
    running(paths)
        .into_iter()
        .filter_map(|running| match running {
            Running::Known(status) => Some(*status),
            Running::Foreign { .. } | Running::Silent(_) => None,
        })
        .collect()
}

/// The one at this port, if one runs there.
pub fn at(paths: &Paths, port: u16) -> Option<Running> {
    match ask(paths, port, &SupervisorRequest::Status) {
        Answer::Told(answer) => Some(known(paths, port, &answer)),
        Answer::Silent(holder) => Some(Running::Silent(holder)),
        Answer::Nobody => None,
    }
}

/// Answer to a request to the supervisor on a port.
enum Answer {
    Told(String),
    /// A supervisor that does not answer.
    Silent(Holder),
    /// None is there, or no longer.
    Nobody,
}

/// Asks the supervisor at this port. One that is just beginning or ending has no socket and is waited for.
fn ask(paths: &Paths, port: u16, question: &SupervisorRequest) -> Answer {
    let path = socket::path(&reservation::folder(paths, port));
    let since = Instant::now();
    loop {
        let error = match socket::ask(&path, question) {
            Ok(answer) => return Answer::Told(answer),
            Err(error) => error,
        };
        let Some(holder) = port_holder::of(paths, port) else {
            return Answer::Nobody;
        };
        // Nothing came in time, or so many wait for it already that no more are taken in.
        let silent = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
        if silent || since.elapsed() > SETTLED {
            return Answer::Silent(holder);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads the answer of a supervisor.
fn known(paths: &Paths, port: u16, answer: &str) -> Running {
    if let Ok(SupervisorMessage::Status(status)) = serde_json::from_str(answer)
        && status.protocol == PROTOCOL
    {
        return Running::Known(status);
    }
    let value: Value = serde_json::from_str(answer).unwrap_or_default();
    Running::Foreign {
        port,
        version: value["version"].as_str().unwrap_or("unknown").to_owned(),
        used: !value["sessions"].as_array().is_some_and(Vec::is_empty),
        record: reservation::read(paths, port),
    }
}

/// Engine that a session asks for.
#[derive(Debug, Clone)]
pub struct EngineQuery<'a> {
    pub source: &'a Source,
    pub profile: EngineProfile,
    /// Whether the model thinks. Not asked for means that it does not.
    pub thinking: bool,
    /// The engine's program.
    pub engine: &'a Path,
    /// As asked for; what was not takes any.
    pub asked: Asked,
    /// As asked for; None takes any.
    pub port: Option<u16>,
}

impl EngineQuery<'_> {
    /// Whether this engine will do.
    pub fn is(&self, status: &Status) -> bool {
        network::is_shared(status.network)
            && status.source == *self.source
            && status.profile == self.profile
            && status.thinking == self.thinking
            && status.engine == self.engine
            && self.fits(status)
    }

    fn fits(&self, status: &Status) -> bool {
        self.asked.is(status.window) && self.port.is_none_or(|port| port == status.port)
    }
}

/// Ends an engine, and returns when it is gone. `even_if_used`: also under the sessions that use it, and by force if it does not end when asked.
/// Errors: it is used, or does not end.
pub fn stop(paths: &Paths, port: u16, even_if_used: bool) -> Result<()> {
    let not_ended = || format!("the engine on port {port} was not stopped");
    let before = port_holder::of(paths, port);
    let answer = match ask(paths, port, &SupervisorRequest::Stop { even_if_used }) {
        Answer::Told(answer) => answer,
        Answer::Silent(holder) if even_if_used => return port_holder::end(paths, &holder),
        Answer::Silent(holder) => return Err(holder.silent(not_ended())),
        Answer::Nobody => {
            reservation::sweep(paths, port);
            return Ok(());
        }
    };
    if let Ok(SupervisorMessage::Refused { why }) = serde_json::from_str(&answer) {
        return Err(Error::other(not_ended()).cause(why).hint(format!(
            "close those sessions first, or stop it anyway: cclocal stop --force --port {port}"
        )));
    }
    match before {
        Some(before) if port_holder::wait_until_gone(paths, &before, GONE_DEADLINE) => Ok(()),
        Some(before) if even_if_used => port_holder::end(paths, &before),
        Some(before) => Err(stuck(&before)),
        None => wait_until_gone(paths, port),
    }
}

/// Waits for the end of an engine that is ending. Errors: it does not end.
pub fn wait_until_gone(paths: &Paths, port: u16) -> Result<()> {
    match port_holder::of(paths, port) {
        Some(before) if !port_holder::wait_until_gone(paths, &before, GONE_DEADLINE) => {
            Err(stuck(&before))
        }
        _ => Ok(()),
    }
}

fn stuck(before: &Holder) -> Error {
    before
        .silent(format!("the engine on port {} does not end", before.port))
        .cause(format!(
            "{} is still there after {} s",
            before.words(),
            GONE_DEADLINE.as_secs()
        ))
}

/// Whether it can be used: one that is ending cannot.
pub fn is_usable(status: &Status) -> bool {
    status.phase != PhaseName::Ending
}
