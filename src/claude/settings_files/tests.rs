//! The files that are found, and what they hold.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn write(path: PathBuf, text: &str) {
    fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs_err::write(path, text).expect("written");
}

fn found(environment: &Environment, macos: bool, root: &Path) -> Vec<(Source, String, bool)> {
    let files = read_under(environment, macos, root).expect("read");
    files
        .into_iter()
        .map(|file| (file.source, file.label.clone(), file.settings().is_some()))
        .collect()
}

#[test]
fn files_are_found_where_the_client_finds_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let (home, root) = (folder.path().join("home"), folder.path().join("root"));
    let project = home.join("project");
    fs_err::create_dir_all(project.join(".git/worktrees/w")).expect("made");
    write(home.join(".claude/settings.json"), "{}");
    write(project.join(".claude/settings.json"), "{");
    write(project.join(".claude/settings.local.json"), "{\"a\": 1}");
    write(
        home.join("w/.git"),
        &format!("gitdir: {}\n", project.join(".git/worktrees/w").display()),
    );
    write(root.join("etc/claude-code/managed-settings.json"), "[]");
    write(
        root.join("etc/claude-code/managed-settings.d/20.json"),
        "{}",
    );
    write(
        root.join("etc/claude-code/managed-settings.d/readme.txt"),
        "{}",
    );
    let mut environment = Environment::for_tests(&home, &[]);

    environment.cwd = project.join("src");
    let managed = |name: &str| {
        root.join("etc/claude-code")
            .join(name)
            .display()
            .to_string()
    };
    let expected = [
        (Source::User, "~/.claude/settings.json".to_owned(), true),
        (
            Source::Project,
            "~/project/.claude/settings.json".to_owned(),
            false,
        ),
        (
            Source::Local,
            "~/project/.claude/settings.local.json".to_owned(),
            true,
        ),
        (Source::Managed, managed("managed-settings.json"), false),
        (Source::Managed, managed("managed-settings.d/20.json"), true),
    ];
    assert_eq!(found(&environment, false, &root), expected);
    environment.cwd = home.join("w");
    assert_eq!(found(&environment, false, &root), expected);

    write(root.join("etc/claude-code/managed-mcp.json"), "{}");
    let error = read_under(&environment, false, &root).expect_err("refused");
    let said = error
        .to_string()
        .replace(&root.display().to_string(), "[ROOT]");
    insta::assert_snapshot!(said, @"
    error: MCP servers are managed on this machine
      cause: [ROOT]/etc/claude-code/managed-mcp.json is there: Claude Code then ignores cclocal's own list of servers, which is empty
      hint: ask your administrator to remove it on this machine, or use plain `claude`
    ");
}

#[test]
fn a_macs_managed_preferences_are_read_with_plutil() {
    let folder = tempfile::tempdir().expect("a folder");
    let (home, root, bin) = (
        folder.path().join("home"),
        folder.path().join("root"),
        folder.path().join("bin"),
    );
    fs_err::create_dir_all(&home).expect("made");
    write(
        root.join("Library/Managed Preferences/com.anthropic.claudecode.plist"),
        "bplist",
    );
    write(
        bin.join("plutil"),
        "#!/bin/sh\necho '{\"apiKeyHelper\": \"x\"}'\n",
    );
    fs_err::set_permissions(bin.join("plutil"), std::fs::Permissions::from_mode(0o755))
        .expect("executable");
    let environment = Environment::for_tests(&home, &[("PATH", &bin.display().to_string())]);
    let files = read_under(&environment, true, &root).expect("read");
    assert_eq!(files.len(), 1);
    assert!(
        files[0]
            .settings()
            .is_some_and(|settings| settings.contains_key("apiKeyHelper"))
    );
    assert!(
        read_under(&environment, false, &root)
            .expect("read")
            .is_empty()
    );

    write(bin.join("plutil"), "#!/bin/sh\nexit 1\n");
    assert!(matches!(
        read_under(&environment, true, &root).expect("read")[0].content,
        Content::Unreadable(_)
    ));
}

#[test]
fn what_is_no_file_may_hold_anything_and_what_is_closed_is_closed_to_the_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = Environment::for_tests(folder.path(), &[]);
    let content = |place: &str| {
        let file = read_file(&environment, Source::Project, folder.path().join(place));
        file.map(|file| file.content)
    };
    let settings = |text: &str| json::object(text.as_bytes()).expect("settings");
    write(
        folder.path().join("odd"),
        "{\"a\": \"\\ud800\", \"b\": 1e999}",
    );
    assert_eq!(
        content("odd"),
        Some(Content::Settings(settings(
            "{\"a\": \"\u{fffd}\", \"b\": 1e400}"
        )))
    );
    write(folder.path().join("broken"), "{");
    assert!(matches!(content("broken"), Some(Content::Malformed(_))));
    assert_eq!(content("none"), None);
    assert_eq!(content("broken/none"), None);
    assert!(matches!(content("."), Some(Content::Closed(_))));
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zeros")).expect("linked");
    write(folder.path().join("long"), &" ".repeat(5 << 20));
    for place in ["pipe", "zeros", "long"] {
        assert!(
            matches!(content(place), Some(Content::Unreadable(_))),
            "{place}"
        );
    }
}

#[test]
fn another_configuration_folder_is_the_users_own() {
    let folder = tempfile::tempdir().expect("a folder");
    write(
        folder.path().join("mine/settings.json"),
        "\u{feff}{\"model\": \"opus\"}",
    );
    let environment = Environment::for_tests(folder.path(), &[("CLAUDE_CONFIG_DIR", "~/mine")]);
    assert_eq!(
        found(&environment, false, Path::new("/nowhere")),
        [(Source::User, "mine/settings.json".to_owned(), true)]
    );
}
