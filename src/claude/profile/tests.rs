//! The profile after launches, and after what sessions did to it.

use super::*;
use crate::sys::paths::Paths;

struct Profile {
    _folder: tempfile::TempDir,
    environment: Environment,
    dir: PathBuf,
}

impl Profile {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("home");
        fs_err::create_dir_all(home.join(".claude")).expect("made");
        Self {
            environment: Environment::for_tests(&home, &[]),
            dir: folder.path().join("data/claude"),
            _folder: folder,
        }
    }

    fn own(&self, name: &str, text: &str) {
        let path = self.environment.home.join(".claude").join(name);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs_err::write(path, text).expect("written");
    }

    fn prepare(&self) {
        prepare(&self.environment, &self.dir).expect("prepared");
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
        profile.environment.home.join(".claude.json"),
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
    let own: Vec<_> = fs_err::read_dir(profile.environment.home.join(".claude"))
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
fn a_session_leaves_no_key_no_variables_and_no_plugins_to_the_next() {
    let profile = Profile::new();
    profile.prepare();
    let left = json!({"hasCompletedOnboarding": true, "env": {"HTTP_PROXY": "http://x"}, "primaryApiKey": "sk", "numStartups": 1});
    profile.write(".claude.json", left.clone());
    profile.write(".config.json", left);
    for name in PLUGIN_LISTS {
        fs_err::remove_dir(profile.dir.join(name)).expect("it was a folder");
        profile.write(name, json!({"m": {}}));
    }
    for _ in 0..2 {
        profile.prepare();
        assert_eq!(
            profile.json(".claude.json"),
            json!({"hasCompletedOnboarding": true, "numStartups": 1})
        );
        assert!(!profile.dir.join(".config.json").exists());
        for name in PLUGIN_LISTS {
            assert!(profile.dir.join(name).is_dir(), "{name}");
            assert_eq!(profile.json(&format!("{name}.unused")), json!({"m": {}}));
        }
    }
}

#[test]
fn the_profile_itself_is_no_configuration_of_the_users() {
    let profile = Profile::new();
    profile.own("CLAUDE.md", "memory");
    let dir = Paths::of(&profile.environment).claude_profile();
    prepare(&profile.environment, &dir).expect("prepared");
    // As a session within a session has it, on a system where folders lie behind links.
    let link = profile.environment.home.join("link");
    fs_err::os::unix::fs::symlink(&dir, &link).expect("linked");
    let vars = [("CLAUDE_CONFIG_DIR", &*link.display().to_string())];
    let inner = Environment::for_tests(&profile.environment.home, &vars);
    prepare(&inner, &dir).expect("prepared");
    let memory = fs_err::read_to_string(dir.join("CLAUDE.md")).expect("read");
    assert_eq!(memory, "memory");
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

    fs_err::remove_file(profile.environment.home.join(".claude/CLAUDE.md")).expect("removed");
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
        fs_err::read_to_string(profile.environment.home.join(".claude/agents/a.md")).expect("read"),
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
    profile.own(
        "settings.json",
        r#"{"env": {"A": "2"}, "permissions": {"allow": ["Bash(cat)"], "deny": ["Read(.env)"]}}"#,
    );
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
    prepare(&profile.environment, &dir).expect("prepared");
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
