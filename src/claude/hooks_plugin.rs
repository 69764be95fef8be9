//! The plugin that brings the hooks of a session to Claude Code. Hooks of settings files are shut out (`plan::hooks`), as those files can
//! change at any time; the ones that were there at the start, and stay on this machine, are handed over in a folder of the session.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::sys::files;

/// The plugin's name, which Claude Code shows in its list of plugins.
const NAME: &str = "cclocal-hooks";

/// Where the plugin of a session is, beside its settings.
pub fn folder(settings: &Path) -> PathBuf {
    settings.with_file_name("hooks")
}

/// Writes the plugin for these hooks, lists of groups by event. None: what an earlier call wrote is removed.
pub fn write(folder: &Path, hooks: &Map<String, Value>) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if hooks.is_empty() {
        return Ok(());
    }
    // One file for each event: a client that does not know an event drops that file alone.
    let mut names = Vec::new();
    for (at, (event, groups)) in hooks.iter().enumerate() {
        let name = format!("./hooks/{at}.json");
        let content = json!({"hooks": {event: groups}});
        files::write_private(&folder.join(&name), content.to_string().as_bytes())?;
        names.push(name);
    }
    let manifest = json!({
        "name": NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "description": "The hooks of your settings files, as they were when this session began",
        "hooks": names
    });
    let path = folder.join(".claude-plugin/plugin.json");
    files::write_private(&path, manifest.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_file_and_none_is_left_of_before() {
        let session = tempfile::tempdir().expect("a folder");
        let folder = folder(&session.path().join("settings.json"));
        let hooks = |value: Value| value.as_object().cloned().expect("an object");
        let group = json!([{"hooks": [{"type": "command", "command": "true"}]}]);
        write(&folder, &hooks(json!({"Stop": group, "../x": group}))).expect("written");
        write(&folder, &hooks(json!({"Stop": group}))).expect("written");
        let read = |name: &str| -> Value {
            let bytes = fs_err::read(folder.join(name)).expect("read");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        assert_eq!(
            read(".claude-plugin/plugin.json")["hooks"],
            json!(["./hooks/0.json"])
        );
        assert_eq!(read("hooks/0.json"), json!({"hooks": {"Stop": group}}));
        assert!(!folder.join("hooks/1.json").exists());
        write(&folder, &Map::new()).expect("removed");
        assert!(!folder.exists());
        write(&folder, &Map::new()).expect("nothing to do");
    }
}
