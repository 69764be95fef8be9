//! The private profile that Claude Code runs with in a local session, `CLAUDE_CONFIG_DIR`. It starts without a login, and holds the
//! history of local sessions. The user's own content is linked into it; their login, history and plugins are not.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::settings_files::{self, SettingsFile};
use super::{json, merge};
use crate::claude::setting_keys;
use crate::error::{Context, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files::{self, Lock};

/// Files and folders of the user's own that are linked. Reading goes to the user's files; writing too, when the user asks the session for it.
const LINKED: &[&str] = &[
    "CLAUDE.md",
    "agents",
    "commands",
    "keybindings.json",
    "output-styles",
    "rules",
    "skills",
    "themes",
];

/// The client's lists of marketplaces and plugins, in whose places the profile has folders.
pub const PLUGIN_LISTS: [&str; 2] = [
    "plugins/known_marketplaces.json",
    "plugins/installed_plugins.json",
];

/// The longest `.claude.json`, in bytes. It grows with the projects that were ever opened; older clients kept a history for each.
const CLIENT_STATE: u64 = 64 << 20;

/// The part of the user's own `.claude.json` that is read.
#[derive(Deserialize)]
struct OwnState {
    theme: Option<String>,
}

/// Our own changes to the profile, in `cclocal.json`, so that only those are ever undone.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// The links that we made, by name.
    links: std::collections::BTreeMap<String, PathBuf>,
    /// The settings that we wrote; what differs from them was changed in a session.
    settings: Map<String, Value>,
    /// Notes that were shown and are not shown again, by name.
    shown: std::collections::BTreeSet<String>,
}

/// Whether a note is to be shown: true once for each profile and name. `dir` is a profile that was prepared.
pub fn is_first(dir: &Path, note: &str) -> bool {
    let first = || -> std::io::Result<bool> {
        let _lock = lock(dir)?;
        let mut record = read_record(dir);
        let first = record.shown.insert(note.to_owned());
        if first {
            write_json(&record_path(dir), &json!(record))?;
        }
        Ok(first)
    };
    // Shown twice is better than not at all.
    first().unwrap_or(true)
}

/// Makes or refreshes the profile. Safe when two launches do it at once.
pub fn prepare(environment: &Environment, dir: &Path) -> Result<()> {
    refresh(environment, dir).map_err(|error| crate::error::Error {
        hint: Some(format!(
            "check the folder {}; it can be deleted when no session is open",
            environment.tilde(dir)
        )),
        ..error
    })
}

/// Begins a profile like `own`, the one for local sessions, for a rehearsal in `folder`: with the same settings, and the folder trusted, as nobody is
/// there to be asked. [`prepare`] makes the rest of it.
pub fn begin_rehearsal(own: &Path, dir: &Path, folder: &Path) -> Result<()> {
    const SAYING: &str = "the profile for a rehearsal cannot be prepared";
    files::private_folder(dir).context(Exit::Other, SAYING)?;
    for (from, to) in [
        (own.join("settings.json"), dir.join("settings.json")),
        (record_path(own), record_path(dir)),
    ] {
        let bytes = files::read(&from, files::SETTINGS).context(Exit::Other, SAYING)?;
        files::write_private(&to, &bytes).context(Exit::Other, SAYING)?;
    }
    let folder = folder.to_string_lossy();
    let state = json!({
        "hasCompletedOnboarding": true,
        "projects": {folder: {"hasTrustDialogAccepted": true}},
    });
    write_json(&dir.join(".claude.json"), &state).context(Exit::Other, SAYING)
}

fn refresh(environment: &Environment, dir: &Path) -> Result<()> {
    const SAYING: &str = "the profile for local sessions cannot be prepared";
    files::private_folder(dir).context(Exit::Other, SAYING)?;
    fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .context(Exit::Other, SAYING)?;
    let _lock = lock(dir).context(Exit::Other, SAYING)?;
    let mut record = read_record(dir);
    start_without_questions(environment, dir).context(Exit::Other, SAYING)?;
    link(&settings_files::user_folder(environment), dir, &mut record)
        .context(Exit::Other, SAYING)?;
    settings(environment, dir, &mut record).context(Exit::Other, SAYING)?;
    no_plugin_catalog(dir).context(Exit::Other, SAYING)?;
    no_installed_plugins(dir).context(Exit::Other, SAYING)?;
    write_json(&record_path(dir), &json!(record)).context(Exit::Other, SAYING)
}

fn lock(dir: &Path) -> std::io::Result<Lock> {
    let file = files::open_lock(&dir.join(".cclocal.lock"), 0o600)?;
    Lock::wait(file)
}

fn record_path(dir: &Path) -> PathBuf {
    dir.join("cclocal.json")
}

/// Reads the record. One that cannot be read counts as missing: then nothing counts as ours, and nothing is undone.
fn read_record(dir: &Path) -> Record {
    files::read(&record_path(dir), files::SETTINGS)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Prepares the client's own state, `.claude.json`.
///
/// Without the key a fresh profile asks for a login and looks up servers before anything else. Whether to trust a folder is asked once
/// per folder, and the answer stays here. What the client wrote is not changed otherwise, but for what no session may have.
fn start_without_questions(environment: &Environment, dir: &Path) -> std::io::Result<()> {
    const KEY: &str = "hasCompletedOnboarding";
    /// Variables, which older clients take from here before any settings, and a key of a login, which they send.
    const NEVER: [&str; 2] = ["env", "primaryApiKey"];
    // An older place of the same. A client that finds it reads no other, so a session could leave variables in it for the next.
    set_aside(&dir.join(".config.json"))?;
    let path = dir.join(".claude.json");
    let state = match files::read(&path, CLIENT_STATE) {
        Ok(bytes) => json::object(&bytes).ok().filter(|state| !state.is_empty()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut fresh = Map::from_iter([(KEY.to_owned(), json!(true))]);
            fresh.extend(own_theme(environment));
            return write_new(&path, &Value::Object(fresh));
        }
        Err(error) => return Err(error),
    };
    let Some(mut state) = state else {
        // Cut short, by a full disk say. The client would start over with it, and ask for a login.
        fs_err::rename(&path, dir.join(".claude.json.broken"))?;
        return write_new(&path, &json!({ KEY: true }));
    };
    let onboarded = state.insert(KEY.to_owned(), json!(true)) == Some(json!(true));
    let removed = NEVER
        .iter()
        .filter(|key| state.shift_remove(**key).is_some())
        .count();
    if onboarded && removed == 0 {
        return Ok(());
    }
    write_json(&path, &Value::Object(state))
}

/// Renames what a session left in a place where nothing may be.
fn set_aside(path: &Path) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unused");
    match fs_err::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A folder is renamed over no other.
        Err(_) if path.is_dir() => Ok(()),
        renamed => renamed,
    }
}

/// Puts folders in the places of [`PLUGIN_LISTS`], so that no plugin of a marketplace is installed or loaded.
///
/// 2.1.197 does not take that from `--managed-settings` (see `hooks::lock`), and settings that come to be known after the start, such
/// as those of a worktree or of an added folder, could name one.
fn no_installed_plugins(dir: &Path) -> std::io::Result<()> {
    for name in PLUGIN_LISTS {
        let path = dir.join(name);
        if !path.is_dir() {
            set_aside(&path)?;
            fs_err::create_dir_all(&path)?;
        }
    }
    Ok(())
}

/// `/plugin` fetches a catalogue, whatever is switched off, unless it has one that is not a day old. So it has one, which is empty and
/// never ages.
fn no_plugin_catalog(dir: &Path) -> std::io::Result<()> {
    const DAY: &str = "2999-01-01T00:00:00.000Z";
    let catalog = json!({
        "version": 1,
        "fetchedAt": DAY,
        "catalog": {
            "generated_at": DAY,
            "marketplace_sha": "",
            "models": [],
            "plugins": {}
        }
    });
    write_json(&dir.join("plugins/plugin-catalog-cache.json"), &catalog)
}

/// The colours that the user chose, so that they are not asked again. Older clients keep them in `.claude.json`.
fn own_theme(environment: &Environment) -> Option<(String, Value)> {
    let path = settings_files::own_config_dir(environment)
        .unwrap_or_else(|| environment.home.clone())
        .join(".claude.json");
    let state: OwnState = serde_json::from_slice(&files::read(&path, CLIENT_STATE).ok()?).ok()?;
    Some(("theme".to_owned(), json!(state.theme?)))
}

/// Links the user's own content, and takes away the links of ours that lead nowhere now.
fn link(own: &Path, dir: &Path, record: &mut Record) -> std::io::Result<()> {
    for name in LINKED {
        let (target, place) = (own.join(name), dir.join(name));
        let there = match fs_err::read_link(&place) {
            Ok(there) => Some(there),
            // A file or folder that a session made here is left alone.
            Err(_) if place.exists() => {
                record.links.remove(*name);
                continue;
            }
            Err(_) => None,
        };
        let ours = there.is_none() || record.links.get(*name) == there.as_ref();
        if target.exists() {
            if there.as_ref() != Some(&target) && ours {
                symlink(&target, &place)?;
            }
            if ours || there.as_ref() == Some(&target) {
                record.links.insert((*name).to_owned(), target);
            }
        } else if ours {
            if there.is_some() {
                fs_err::remove_file(&place)?;
            }
            record.links.remove(*name);
        }
    }
    Ok(())
}

/// Makes or replaces a link in one step.
fn symlink(target: &Path, place: &Path) -> std::io::Result<()> {
    let mut fresh = place.as_os_str().to_owned();
    fresh.push(format!(".new-{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    if fresh.is_symlink() {
        fs_err::remove_file(&fresh)?;
    }
    fs_err::os::unix::fs::symlink(target, &fresh)?;
    fs_err::rename(&fresh, place)
}

/// The settings that local sessions run with: those of [`merged`], or none where they cannot be read.
pub fn own_settings(environment: &Environment, dir: &Path) -> Map<String, Value> {
    let mut record = read_record(dir);
    merged(environment, dir, &mut record).unwrap_or_default()
}

/// Writes the profile's `settings.json`. It has the rank of user settings, so the project's still stand above it.
fn settings(environment: &Environment, dir: &Path, record: &mut Record) -> std::io::Result<()> {
    let merged = merged(environment, dir, record)?;
    write_json(&dir.join("settings.json"), &Value::Object(merged))
}

/// The user's own settings without what a local session does not take, joined with what was changed in earlier local sessions.
fn merged(
    environment: &Environment,
    dir: &Path,
    record: &mut Record,
) -> std::io::Result<Map<String, Value>> {
    let own = settings_files::read_user(environment)
        .as_ref()
        .and_then(SettingsFile::settings)
        .map(setting_keys::sanitized)
        .unwrap_or_default();
    let (mine, base) = match files::read(&dir.join("settings.json"), files::SETTINGS) {
        // What a session wrote is checked as well: it too may name another server by now.
        Ok(bytes) => {
            let mine = json::object(&bytes).map(|mine| setting_keys::sanitized(&mine));
            (
                mine.unwrap_or_default(),
                std::mem::take(&mut record.settings),
            )
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (Map::new(), Map::new()),
        Err(error) => return Err(error),
    };
    let merged = merge::three_way(&base, &mine, &own);
    record.settings = own;
    Ok(merged)
}

/// Writes JSON, unless the same is there already.
fn write_json(path: &Path, value: &Value) -> std::io::Result<()> {
    let text = format!("{value:#}\n");
    if files::read(path, text.len() as u64).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    files::write_private(path, text.as_bytes())
}

/// Writes a file that is not there. One that appeared meanwhile stays: the client wrote it.
fn write_new(path: &Path, value: &Value) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(format!("{value:#}\n").as_bytes())?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(error.error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
