//! What stands before a conversation is computed before the first question is there: while the user still types it.
//!
//! Behind the gateway all sessions of one client begin with the same system prompt and the same tools. So those of a session's first request are
//! remembered in a file of ours, and when the next engine is ready and nobody asks it anything, it gets them with a question of one word. What it
//! computes then is in its prefix cache, and kept (see `engine/kept.py`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use super::messages::Underway;
use super::queue::{self, Queue};
use super::server::Gateway;
use super::upstream::{self, Failure, Patience, Target};
use super::wire;
use crate::files;

/// The file's name. It lies in the folder of what engines keep, and goes with it.
pub const FILE: &str = "fronts.json";

/// How Claude Code names itself, with its version and kind: `claude-cli/2.1.331 (external, cli)`. Source: Claude Code 2.1.331.
const CLIENT: &str = "claude-cli/";

/// In the name of a client that nobody types to (2.1.331), or in its system prompt (2.1.197, which has one name for both kinds).
const SCRIPTED: [&str; 2] = ["sdk", "Claude Agent SDK"];

/// How many are remembered: two kinds of session, of a client and of those before it.
const REMEMBERED: usize = 8;

/// The longest that is remembered, in bytes. Claude Code's own is below 20 kB; servers of tools add to it.
const LONGEST: usize = 1 << 20;

/// A system prompt and tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Front {
    system: Value,
    tools: Value,
}

impl Front {
    /// Of a body that is ready for the engine. None: it has no tools, so it is not how a session begins.
    fn of(body: &[u8]) -> Option<Self> {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        let tools = body.get_mut("tools")?.take();
        (!tools.as_array()?.is_empty()).then(|| Self {
            system: body["system"].take(),
            tools,
        })
    }

    fn question(&self, model: &str) -> Bytes {
        let mut body = json!({
            "model": model,
            "max_tokens": 1,
            "stream": true,
            "messages": [{"role": "user", "content": "hi"}],
            "tools": self.tools,
        });
        if !self.system.is_null() {
            body["system"] = self.system.clone();
        }
        body.to_string().into()
    }
}

/// One that is remembered, and by which client it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Remembered {
    client: String,
    /// Nobody types to it.
    scripted: bool,
    #[serde(flatten)]
    front: Front,
}

impl Remembered {
    fn new(client: &str, front: Front) -> Self {
        let [name, prompt] = SCRIPTED;
        Self {
            client: client.to_owned(),
            scripted: client.contains(name) || front.system.to_string().contains(prompt),
            front,
        }
    }
}

/// What is remembered, and what is computed of it now. Clones share it.
#[derive(Debug, Clone)]
pub struct Warm {
    file: Option<PathBuf>,
    state: Arc<Mutex<State>>,
    /// Who changes the file.
    writing: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whose first request was seen.
    met: BTreeSet<Caller>,
    under_way: Option<(Front, CancellationToken)>,
}

impl Warm {
    /// `file`: None remembers and computes nothing.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            state: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// A client asks: to be called before its request takes its place in the queue. What is computed for another one's question is given up for it,
    /// and what it will need itself is not.
    pub fn asked(&self, caller: Caller, client: Option<&str>, request: &wire::Request) {
        let Some(file) = &self.file else {
            return;
        };
        let mut state = self.state();
        let is_first = state.met.insert(caller);
        if !is_first && state.under_way.is_none() {
            return;
        }
        let front = Front::of(&request.body);
        if let Some((computed, cancel)) = &state.under_way
            && front.as_ref() != Some(computed)
        {
            cancel.cancel();
        }
        match (front, client) {
            // The title of a session is asked for before its first question.
            (None, _) => {
                state.met.remove(&caller);
            }
            (Some(front), Some(client)) if is_first && client.starts_with(CLIENT) => {
                let new = Remembered::new(client, front);
                let (file, writing) = (file.clone(), self.writing.clone());
                let size = request.body.len();
                tokio::task::spawn_blocking(move || {
                    let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
                    if size <= LONGEST
                        && let Err(error) = remember(&file, new)
                    {
                        tracing::debug!(%error, "the system prompt is not remembered");
                    }
                });
            }
            _ => {}
        }
    }

    /// The front to be computed and the way to the engine, if nobody asked anything yet.
    fn begin(&self, front: &Front, queue: &Queue) -> Option<(queue::Turn, CancellationToken)> {
        let mut state = self.state();
        let turn = queue.enter_if_free().filter(|_| state.met.is_empty())?;
        let cancel = CancellationToken::new();
        state.under_way = Some((front.clone(), cancel.clone()));
        Some((turn, cancel))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts it last. One that is last already is left as it is.
fn remember(file: &Path, new: Remembered) -> std::io::Result<()> {
    let mut all = remembered(file);
    if all.last() == Some(&new) {
        return Ok(());
    }
    all.retain(|old| (&old.client, old.scripted) != (&new.client, new.scripted));
    all.push(new);
    let first = all.len().saturating_sub(REMEMBERED);
    files::write_private(file, &serde_json::to_vec(&all[first..])?)
}

/// All that is remembered, the newest last. What cannot be read is none.
fn remembered(file: &Path) -> Vec<Remembered> {
    let text = fs_err::read(file).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The one that is likeliest to be needed: of the client that was used last, as people use it.
fn likeliest(file: &Path) -> Option<Front> {
    let mut all = remembered(file);
    let typed = all.iter().rposition(|old| !old.scripted);
    (!all.is_empty()).then(|| all.swap_remove(typed.unwrap_or(all.len() - 1)).front)
}

/// Once the engine is ready, has it compute what stands before the first question, unless that is there already.
pub async fn compute(gateway: Gateway) {
    let Some(file) = gateway.warm.file.clone() else {
        return;
    };
    let mut engine = gateway.engine.clone();
    let target = tokio::select! {
        () = gateway.stop.cancelled() => return,
        ready = upstream::ready(&mut engine) => match ready {
            Ok(target) => target,
            Err(_) => return,
        },
    };
    let Ok(Some(front)) = tokio::task::spawn_blocking(move || likeliest(&file)).await else {
        return;
    };
    let Some((turn, cancel)) = gateway.warm.begin(&front, &gateway.queue) else {
        return;
    };
    // Dropped in the middle, it sees to it that the engine lets go of this before a client's request comes.
    let mut underway = Underway::new(&gateway, turn);
    underway.engine_has_it(target.clone());
    let question = front.question(&gateway.served.name);
    tokio::select! {
        biased;
        () = gateway.stop.cancelled() => {}
        () = cancel.cancelled() => tracing::debug!("a client asks something else"),
        done = ask(&gateway, &target, question) => {
            tracing::debug!(?done, "what stands before the first question was computed");
            if matches!(done, Ok(()) | Err(Failure::Refused(_))) {
                underway.engine_is_free();
            }
        }
    }
    gateway.warm.state().under_way = None;
}

/// It is nobody's request: no figure counts it.
async fn ask(gateway: &Gateway, target: &Target, question: Bytes) -> Result<(), Failure> {
    let stall = gateway.limits.stall;
    let upstream = &gateway.upstream;
    let mut response = upstream
        .post(target, "/v1/messages", question, stall)
        .await?;
    let mut patience = Patience::new(stall);
    while patience.piece(&mut response).await?.is_some() {}
    Ok(())
}
