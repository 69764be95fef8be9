//! How sessions begin: the system prompts and tools that clients sent, remembered in a file of ours.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sys::files;

/// The file's name. It lies in the folder of what engines keep, and goes with it.
pub const FILE: &str = "fronts.json";

/// How Claude Code names itself, with its version and kind: `claude-cli/2.1.331 (external, cli)`. Source: Claude Code 2.1.331.
pub(super) const CLIENT: &str = "claude-cli/";

/// In the name of a client that nobody types to (2.1.331), or in its system prompt (2.1.197, which has one name for both kinds).
const SCRIPTED: [&str; 2] = ["sdk", "Claude Agent SDK"];

/// How many are remembered: two kinds of session, of a client and of those before it.
const REMEMBERED: usize = 8;

/// The longest that is remembered, in bytes. Claude Code's own is below 20 kB; servers of tools add to it.
const LONGEST: usize = 1 << 20;

/// The longest file that is read, in bytes: as many as are remembered, and a little for what names them.
const LONGEST_FILE: u64 = (REMEMBERED as u64 * LONGEST as u64) + files::OWN_RECORD;

/// A system prompt and tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PromptPrefix {
    pub system: Value,
    pub tools: Value,
}

impl PromptPrefix {
    /// Of a body that is ready for the engine. None: it has no tools, so it is not how a session begins.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        let tools = body.get_mut("tools")?.take();
        (!tools.as_array()?.is_empty()).then(|| Self {
            system: body["system"].take(),
            tools,
        })
    }
}

/// One that is remembered, and by which client it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Remembered {
    client: String,
    /// Nobody types to it.
    scripted: bool,
    #[serde(flatten)]
    prefix: PromptPrefix,
}

impl Remembered {
    fn new(client: &str, prefix: PromptPrefix) -> Self {
        let [name, prompt] = SCRIPTED;
        Self {
            client: client.to_owned(),
            scripted: client.contains(name) || prefix.system.to_string().contains(prompt),
            prefix,
        }
    }
}

/// The file. Clones share it; all of it blocks.
#[derive(Debug, Clone)]
pub(super) struct PromptPrefixes {
    file: PathBuf,
    /// Who changes the file.
    writing: Arc<Mutex<()>>,
}

impl PromptPrefixes {
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            writing: Arc::default(),
        }
    }

    /// Puts it last, in the place of what this client sent before. One that is last already is left as it is, and one that is too long is not
    /// remembered.
    pub(super) fn remember(&self, client: &str, prefix: PromptPrefix) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.put_last(Remembered::new(client, prefix)) {
            tracing::debug!(%error, "the system prompt is not remembered");
        }
    }

    fn put_last(&self, new: Remembered) -> std::io::Result<()> {
        let mut all = self.all();
        if all.last() == Some(&new) || serde_json::to_vec(&new)?.len() > LONGEST {
            return Ok(());
        }
        all.retain(|old| (&old.client, old.scripted) != (&new.client, new.scripted));
        all.push(new);
        let first = all.len().saturating_sub(REMEMBERED);
        files::write_private(&self.file, &serde_json::to_vec(&all[first..])?)
    }

    /// The one that is likeliest to be needed: of the client that was used last, as people use it.
    pub(super) fn likeliest(&self) -> Option<PromptPrefix> {
        let mut all = self.all();
        let typed = all.iter().rposition(|old| !old.scripted);
        (!all.is_empty()).then(|| all.swap_remove(typed.unwrap_or(all.len() - 1)).prefix)
    }

    /// All that is remembered, the newest last. What cannot be read is none.
    fn all(&self) -> Vec<Remembered> {
        let text = files::read(&self.file, LONGEST_FILE).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}
