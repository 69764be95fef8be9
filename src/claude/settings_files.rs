//! Reads the settings files that Claude Code would read: the user's, the project's, the local ones and the managed ones.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value};

use super::json;
use crate::error::{Error, Result};
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::process;

/// Whose file it is. Later ones stand above earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `~/.claude/settings.json`.
    User,
    /// `.claude/settings.json`, shared by those who work on the project.
    Project,
    /// `.claude/settings.local.json`, of this user in this project.
    Local,
    /// The administrator's: nothing stands above it.
    Managed,
}

/// What a settings file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Settings(Map<String, Value>),
    /// Not a JSON object, to the client neither, which ignores such a file. And why.
    Malformed(String),
    /// Not open to this user, so not to the client either. And why.
    Closed(String),
    /// No file of settings, as far as we look: a device, or too long, say. The client may read it. And why.
    Unreadable(String),
}

/// One settings file that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingsFile {
    pub source: Source,
    pub path: PathBuf,
    /// The path as people write it.
    pub label: String,
    pub content: Content,
}

impl SettingsFile {
    /// What it sets, if it can be read.
    pub fn settings(&self) -> Option<&Map<String, Value>> {
        match &self.content {
            Content::Settings(settings) => Some(settings),
            Content::Malformed(_) | Content::Closed(_) | Content::Unreadable(_) => None,
        }
    }
}

/// Reads every settings file that there is. Errors: managed MCP servers, which the client does not run together with ours.
pub fn read(host: &Environment, macos: bool) -> Result<Vec<SettingsFile>> {
    read_under(host, macos, Path::new("/"))
}

/// The user's own settings file, None if there is none.
pub fn read_user(host: &Environment) -> Option<SettingsFile> {
    read_file(host, Source::User, user_folder(host).join("settings.json"))
}

/// [`read`] with another root for the managed files.
fn read_under(host: &Environment, macos: bool, root: &Path) -> Result<Vec<SettingsFile>> {
    let mut files: Vec<SettingsFile> = read_user(host).into_iter().collect();
    let mut add = |source, path: PathBuf| files.extend(read_file(host, source, path));
    for folder in project_folders(host) {
        add(Source::Project, folder.join(".claude/settings.json"));
        add(Source::Local, folder.join(".claude/settings.local.json"));
    }
    let managed = root.join(if macos {
        "Library/Application Support/ClaudeCode"
    } else {
        "etc/claude-code"
    });
    add(Source::Managed, managed.join("managed-settings.json"));
    for path in drop_ins(&managed.join("managed-settings.d")) {
        add(Source::Managed, path);
    }
    if macos {
        for path in managed_preferences(host, root) {
            files.push(read_preferences(host, path));
        }
    }
    let servers = managed.join("managed-mcp.json");
    if servers.exists() {
        return Err(Error::other("MCP servers are managed on this machine")
            .cause(format!("{} is there: Claude Code then takes no other list of servers, and a local session needs an empty one", servers.display()))
            .hint("ask your administrator to take it out for this machine, or use `claude` itself"));
    }
    Ok(files)
}

/// Where the user's own settings are: `CLAUDE_CONFIG_DIR` or `~/.claude`. Our own profile is not theirs: a cclocal that is started from
/// within a local session inherits it.
pub fn user_folder(host: &Environment) -> PathBuf {
    own_config_dir(host).unwrap_or_else(|| host.home.join(".claude"))
}

/// The user's `CLAUDE_CONFIG_DIR`, if they have one.
pub fn own_config_dir(host: &Environment) -> Option<PathBuf> {
    host.var("CLAUDE_CONFIG_DIR")
        .map(|folder| host.resolve(folder))
        .filter(|folder| *folder != Paths::of(host).claude_profile())
}

/// The folders whose `.claude` the client reads: the working directory and the top of its repository; local settings in a worktree are
/// those of the main one. The client looks for some files in some of them only; reading all is the safe side.
fn project_folders(host: &Environment) -> Vec<PathBuf> {
    let mut folders = vec![host.cwd.clone()];
    if let Some(top) = host
        .cwd
        .ancestors()
        .find(|folder| folder.join(".git").exists())
    {
        let main = main_worktree(&top.join(".git"));
        for folder in [Some(top.to_path_buf()), main].into_iter().flatten() {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

/// In a worktree `.git` is a file that says `gitdir: MAIN/.git/worktrees/NAME`.
fn main_worktree(git: &Path) -> Option<PathBuf> {
    let text = crate::sys::files::read_text(git, crate::sys::files::ONE_LINE).ok()?;
    let folder = git
        .parent()?
        .join(text.trim().strip_prefix("gitdir:")?.trim());
    let worktrees = folder.parent()?;
    if worktrees.file_name()? != "worktrees" {
        return None;
    }
    worktrees.parent()?.parent().map(Path::to_path_buf)
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    paths
}

fn read_file(host: &Environment, source: Source, path: PathBuf) -> Option<SettingsFile> {
    let content = match crate::sys::files::read(&path, crate::sys::files::SETTINGS) {
        Ok(bytes) => parse(&bytes),
        // A missing folder, or a file in a folder's place, is a settings file that does not exist.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return None;
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::IsADirectory
            ) =>
        {
            Content::Closed(error.kind().to_string())
        }
        Err(error) => Content::Unreadable(error.kind().to_string()),
    };
    Some(SettingsFile {
        source,
        label: label(host, &path),
        path,
        content,
    })
}

fn parse(bytes: &[u8]) -> Content {
    match json::object(bytes) {
        Ok(settings) => Content::Settings(settings),
        Err(why) => Content::Malformed(why),
    }
}

fn label(host: &Environment, path: &Path) -> String {
    match path.strip_prefix(&host.cwd) {
        Ok(inside) => inside.display().to_string(),
        Err(_) => host.tilde(path),
    }
}

/// Settings that a device management puts on a Mac.
fn managed_preferences(host: &Environment, root: &Path) -> Vec<PathBuf> {
    const NAME: &str = "com.anthropic.claudecode.plist";
    let folder = root.join("Library/Managed Preferences");
    let mut paths = vec![folder.join(NAME)];
    if let Some(user) = host.var("USER") {
        paths.push(folder.join(user).join(NAME));
    }
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// `plutil` is part of macOS. Such a file may be binary, so nothing else reads it.
fn read_preferences(host: &Environment, path: PathBuf) -> SettingsFile {
    let plutil = host
        .which("plutil")
        .unwrap_or_else(|| "/usr/bin/plutil".into());
    let mut command = Command::new(plutil);
    command.args(["-convert", "json", "-o", "-"]).arg(&path);
    let content = match process::run(&mut command, Duration::from_secs(5)) {
        Ok(finished) if finished.success => parse(finished.stdout.as_bytes()),
        Ok(finished) => Content::Unreadable(format!(
            "plutil: {}",
            finished.stderr.lines().next().unwrap_or("it failed")
        )),
        Err(error) => Content::Unreadable(format!("plutil: {error}")),
    };
    SettingsFile {
        source: Source::Managed,
        label: label(host, &path),
        path,
        content,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs_err::write(path, text).expect("written");
    }

    fn found(host: &Environment, macos: bool, root: &Path) -> Vec<(Source, String, bool)> {
        let files = read_under(host, macos, root).expect("read");
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
        let mut host = Environment::for_tests(&home, &[]);

        host.cwd = project.join("src");
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
        assert_eq!(found(&host, false, &root), expected);
        host.cwd = home.join("w");
        assert_eq!(found(&host, false, &root), expected);

        write(root.join("etc/claude-code/managed-mcp.json"), "{}");
        let error = read_under(&host, false, &root).expect_err("refused");
        let said = error
            .to_string()
            .replace(&root.display().to_string(), "[ROOT]");
        insta::assert_snapshot!(said, @"
        error: MCP servers are managed on this machine
          cause: [ROOT]/etc/claude-code/managed-mcp.json is there: Claude Code then takes no other list of servers, and a local session needs an empty one
          hint: ask your administrator to take it out for this machine, or use `claude` itself
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
        let host = Environment::for_tests(&home, &[("PATH", &bin.display().to_string())]);
        let files = read_under(&host, true, &root).expect("read");
        assert_eq!(files.len(), 1);
        assert!(
            files[0]
                .settings()
                .is_some_and(|settings| settings.contains_key("apiKeyHelper"))
        );
        assert!(read_under(&host, false, &root).expect("read").is_empty());

        write(bin.join("plutil"), "#!/bin/sh\nexit 1\n");
        assert!(matches!(
            read_under(&host, true, &root).expect("read")[0].content,
            Content::Unreadable(_)
        ));
    }

    #[test]
    fn what_is_no_file_may_hold_anything_and_what_is_closed_is_closed_to_the_client() {
        let folder = tempfile::tempdir().expect("a folder");
        let host = Environment::for_tests(folder.path(), &[]);
        let content = |place: &str| {
            let file = read_file(&host, Source::Project, folder.path().join(place));
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
        let host = Environment::for_tests(folder.path(), &[("CLAUDE_CONFIG_DIR", "~/mine")]);
        assert_eq!(
            found(&host, false, Path::new("/nowhere")),
            [(Source::User, "mine/settings.json".to_owned(), true)]
        );
    }
}
