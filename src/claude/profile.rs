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

/// What of the user's own is linked. Reading goes to the user's files; writing too, when the user asks the session for it.
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

/// The longest `.claude.json`, in bytes. It grows with the projects that were ever opened; older clients kept a history for each.
const CLIENT_STATE: u64 = 64 << 20;

/// What is read of the user's own `.claude.json`.
#[derive(Deserialize)]
struct OwnState {
    theme: Option<String>,
}

/// What we did here the last time, in `cclocal.json`, so that only that is ever undone.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// The links that we made, by name.
    links: std::collections::BTreeMap<String, PathBuf>,
    /// The settings that we wrote; what differs from them was changed in a session.
    settings: Map<String, Value>,
}

/// Makes or refreshes the profile. Safe when two launches do it at once.
pub fn prepare(host: &Environment, dir: &Path) -> Result<()> {
    refresh(host, dir).map_err(|error| crate::error::Error {
        hint: Some(format!(
            "check the folder {}; it can be deleted when no session is open",
            host.tilde(dir)
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

fn refresh(host: &Environment, dir: &Path) -> Result<()> {
    const SAYING: &str = "the profile for local sessions cannot be prepared";
    files::private_folder(dir).context(Exit::Other, SAYING)?;
    fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .context(Exit::Other, SAYING)?;
    let _lock = lock(dir).context(Exit::Other, SAYING)?;
    let mut record = read_record(dir);
    start_without_questions(host, dir).context(Exit::Other, SAYING)?;
    link(&settings_files::user_folder(host), dir, &mut record).context(Exit::Other, SAYING)?;
    settings(host, dir, &mut record).context(Exit::Other, SAYING)?;
    no_plugin_catalog(dir).context(Exit::Other, SAYING)?;
    write_json(&record_path(dir), &json!(record)).context(Exit::Other, SAYING)
}

fn lock(dir: &Path) -> std::io::Result<Lock> {
    let file = files::open_lock(&dir.join(".cclocal.lock"), 0o600)?;
    Lock::wait(file)
}

fn record_path(dir: &Path) -> PathBuf {
    dir.join("cclocal.json")
}

/// What cannot be read is as good as missing: then nothing counts as ours, and nothing is undone.
fn read_record(dir: &Path) -> Record {
    files::read(&record_path(dir), files::SETTINGS)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Without this key a fresh profile asks for a login and looks up servers before anything else. Whether to trust a folder is not
/// among what it skips: that is asked once per folder, and the answer stays here. What the client wrote is never changed otherwise.
fn start_without_questions(host: &Environment, dir: &Path) -> std::io::Result<()> {
    const KEY: &str = "hasCompletedOnboarding";
    /// Variables: older clients take them from here, before any settings.
    const ENV: &str = "env";
    let path = dir.join(".claude.json");
    let state = match files::read(&path, CLIENT_STATE) {
        Ok(bytes) => json::object(&bytes).ok().filter(|state| !state.is_empty()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut fresh = Map::from_iter([(KEY.to_owned(), json!(true))]);
            fresh.extend(own_theme(host));
            return write_new(&path, &Value::Object(fresh));
        }
        Err(error) => return Err(error),
    };
    match state {
        Some(state) if state.get(KEY) == Some(&json!(true)) && !state.contains_key(ENV) => Ok(()),
        Some(mut state) => {
            state.insert(KEY.to_owned(), json!(true));
            state.shift_remove(ENV);
            write_json(&path, &Value::Object(state))
        }
        // Cut short, by a full disk say. The client would start over with it, and ask for a login.
        _ => {
            fs_err::rename(&path, dir.join(".claude.json.broken"))?;
            write_new(&path, &json!({ KEY: true }))
        }
    }
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
fn own_theme(host: &Environment) -> Option<(String, Value)> {
    let path = settings_files::own_config_dir(host)
        .unwrap_or_else(|| host.home.clone())
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
pub fn own_settings(host: &Environment, dir: &Path) -> Map<String, Value> {
    let mut record = read_record(dir);
    merged(host, dir, &mut record).unwrap_or_default()
}

/// Writes the profile's `settings.json`. It has the rank of user settings, so the project's still stand above it.
fn settings(host: &Environment, dir: &Path, record: &mut Record) -> std::io::Result<()> {
    let merged = merged(host, dir, record)?;
    write_json(&dir.join("settings.json"), &Value::Object(merged))
}

/// The user's own settings without what a local session does not take, joined with what was changed in earlier local sessions.
fn merged(
    host: &Environment,
    dir: &Path,
    record: &mut Record,
) -> std::io::Result<Map<String, Value>> {
    let own = settings_files::read_user(host)
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

/// What is there already is not written again.
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
mod tests {
    use super::*;

    struct Profile {
        _folder: tempfile::TempDir,
        host: Environment,
        dir: PathBuf,
    }

    impl Profile {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let home = folder.path().join("home");
            fs_err::create_dir_all(home.join(".claude")).expect("made");
            Self {
                host: Environment::for_tests(&home, &[]),
                dir: folder.path().join("data/claude"),
                _folder: folder,
            }
        }

        fn own(&self, name: &str, text: &str) {
            let path = self.host.home.join(".claude").join(name);
            fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs_err::write(path, text).expect("written");
        }

        fn prepare(&self) {
            prepare(&self.host, &self.dir).expect("prepared");
        }

        fn json(&self, name: &str) -> Value {
            serde_json::from_slice(&fs_err::read(self.dir.join(name)).expect("read")).expect("json")
        }

        fn write(&self, name: &str, value: Value) {
            fs_err::write(self.dir.join(name), value.to_string()).expect("written");
        }
    }

    #[test]
    fn a_fresh_profile_is_private_and_asks_nothing() {
        let profile = Profile::new();
        fs_err::write(
            profile.host.home.join(".claude.json"),
            r#"{"theme": "light", "oauthAccount": {"x": 1}}"#,
        )
        .expect("written");
        profile.prepare();
        assert_eq!(
            profile.json(".claude.json"),
            json!({"hasCompletedOnboarding": true, "theme": "light"})
        );
        for (name, mode) in [
            ("", 0o700),
            (".claude.json", 0o600),
            ("settings.json", 0o600),
        ] {
            let found = fs_err::metadata(profile.dir.join(name))
                .expect("there")
                .permissions()
                .mode()
                & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        let own: Vec<_> = fs_err::read_dir(profile.host.home.join(".claude"))
            .expect("read")
            .collect();
        assert!(
            own.is_empty(),
            "nothing is written into the user's own folder"
        );
    }

    #[test]
    fn what_the_client_wrote_stays() {
        let profile = Profile::new();
        profile.prepare();
        let written = json!({"hasCompletedOnboarding": true, "projects": {"/p": {"hasTrustDialogAccepted": true}}});
        profile.write(".claude.json", written.clone());
        profile.prepare();
        assert_eq!(profile.json(".claude.json"), written);
        profile.write(".claude.json", json!({"projects": 1}));
        profile.prepare();
        assert_eq!(
            profile.json(".claude.json"),
            json!({"projects": 1, "hasCompletedOnboarding": true})
        );
        fs_err::write(profile.dir.join(".claude.json"), "{\"half").expect("written");
        profile.prepare();
        assert_eq!(
            profile.json(".claude.json"),
            json!({"hasCompletedOnboarding": true})
        );
        assert!(profile.dir.join(".claude.json.broken").exists());
    }

    #[test]
    fn the_users_content_is_linked_and_only_our_links_go() {
        let profile = Profile::new();
        profile.own("CLAUDE.md", "memory");
        profile.own("agents/a.md", "agent");
        profile.own(".credentials.json", "secret");
        profile.own("history.jsonl", "history");
        profile.prepare();
        assert_eq!(
            fs_err::read_to_string(profile.dir.join("CLAUDE.md")).expect("read"),
            "memory"
        );
        assert!(profile.dir.join("agents/a.md").exists());
        assert!(
            !profile.dir.join(".credentials.json").exists()
                && !profile.dir.join("history.jsonl").exists()
        );

        fs_err::remove_file(profile.host.home.join(".claude/CLAUDE.md")).expect("removed");
        fs_err::create_dir_all(profile.dir.join("skills")).expect("made");
        fs_err::os::unix::fs::symlink("/nowhere", profile.dir.join("rules")).expect("linked");
        profile.own("skills/s/SKILL.md", "skill");
        profile.own("rules/r.md", "rule");
        profile.prepare();
        assert!(!profile.dir.join("CLAUDE.md").is_symlink());
        assert!(
            !profile.dir.join("skills").is_symlink(),
            "what a session made stays"
        );
        assert_eq!(
            fs_err::read_link(profile.dir.join("rules")).expect("a link"),
            Path::new("/nowhere"),
            "not ours"
        );
        assert_eq!(
            fs_err::read_to_string(profile.host.home.join(".claude/agents/a.md")).expect("read"),
            "agent"
        );
    }

    #[test]
    fn own_settings_come_without_what_is_hostile_and_changes_of_sessions_stay() {
        let profile = Profile::new();
        profile.own("settings.json", r#"{"env": {"ANTHROPIC_BASE_URL": "http://x", "A": "1"}, "permissions": {"allow": ["Bash(ls)"]}, "model": "opus"}"#);
        profile.prepare();
        assert_eq!(
            profile.json("settings.json"),
            json!({"env": {"A": "1"}, "permissions": {"allow": ["Bash(ls)"]}})
        );
        profile.write("settings.json", json!({"env": {"A": "1", "HTTP_PROXY": "http://x"}, "permissions": {"allow": ["Bash(ls)", "Bash(make)"]}, "theme": "light"}));
        profile.own("settings.json", r#"{"env": {"A": "2"}, "permissions": {"allow": ["Bash(cat)"], "deny": ["Read(.env)"]}}"#);
        profile.prepare();
        let expected = json!({"env": {"A": "2"}, "permissions": {"allow": ["Bash(cat)", "Bash(make)"], "deny": ["Read(.env)"]}, "theme": "light"});
        assert_eq!(profile.json("settings.json"), expected);
        profile.prepare();
        assert_eq!(
            profile.json("settings.json"),
            expected,
            "a second time changes nothing"
        );
    }

    #[test]
    fn a_rehearsals_profile_is_like_the_own_one_and_trusts_its_folder() {
        let profile = Profile::new();
        profile.own("agents/a.md", "agent");
        profile.own(
            "settings.json",
            r#"{"language": "French", "permissions": {"allow": ["Bash(ls)"]}}"#,
        );
        profile.prepare();
        profile.write(
            "settings.json",
            json!({"permissions": {"allow": ["Bash(make)"]}}),
        );
        let dir = profile.dir.with_file_name("rehearsal");
        begin_rehearsal(&profile.dir, &dir, Path::new("/folder")).expect("begun");
        profile.prepare();
        prepare(&profile.host, &dir).expect("prepared");
        let other = Profile { dir, ..profile };
        assert_eq!(
            other.json("settings.json"),
            json!({"permissions": {"allow": ["Bash(make)"]}})
        );
        assert_eq!(
            other.json(".claude.json"),
            json!({"hasCompletedOnboarding": true, "projects": {"/folder": {"hasTrustDialogAccepted": true}}})
        );
        assert!(other.dir.join("agents/a.md").exists());
        assert_eq!(
            other.json("plugins/plugin-catalog-cache.json")["catalog"]["plugins"],
            json!({})
        );
    }

    #[test]
    fn two_launches_at_once_leave_a_whole_profile() {
        let profile = Profile::new();
        profile.own("CLAUDE.md", "memory");
        profile.own("settings.json", r#"{"verbose": true}"#);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| profile.prepare());
            }
        });
        assert_eq!(profile.json("settings.json"), json!({"verbose": true}));
        assert_eq!(
            profile.json(".claude.json"),
            json!({"hasCompletedOnboarding": true})
        );
        assert!(profile.dir.join("CLAUDE.md").exists());
    }
}
