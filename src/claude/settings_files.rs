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

/// Owner of a settings file. Later ones stand above earlier ones.
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

/// Content of a settings file.
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

/// A settings file that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingsFile {
    pub source: Source,
    pub path: PathBuf,
    /// The path as people write it.
    pub label: String,
    pub content: Content,
}

impl SettingsFile {
    /// The settings, if they can be read.
    pub fn settings(&self) -> Option<&Map<String, Value>> {
        match &self.content {
            Content::Settings(settings) => Some(settings),
            Content::Malformed(_) | Content::Closed(_) | Content::Unreadable(_) => None,
        }
    }
}

/// Reads every settings file that there is. Errors: managed MCP servers, which the client does not run together with ours.
pub fn read(environment: &Environment, macos: bool) -> Result<Vec<SettingsFile>> {
    read_under(environment, macos, Path::new("/"))
}

/// The user's own settings file, None if there is none.
pub fn read_user(environment: &Environment) -> Option<SettingsFile> {
    read_file(
        environment,
        Source::User,
        user_folder(environment).join("settings.json"),
    )
}

/// [`read`] with another root for the managed files.
fn read_under(environment: &Environment, macos: bool, root: &Path) -> Result<Vec<SettingsFile>> {
    let mut files: Vec<SettingsFile> = read_user(environment).into_iter().collect();
    let mut add = |source, path: PathBuf| files.extend(read_file(environment, source, path));
    for folder in project_folders(environment) {
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
        for path in managed_preferences(environment, root) {
            files.push(read_preferences(environment, path));
        }
    }
    let servers = managed.join("managed-mcp.json");
    if servers.exists() {
        return Err(Error::other("MCP servers are managed on this machine")
            .cause(format!("{} is there: Claude Code then ignores cclocal's own list of servers, which is empty", servers.display()))
            .hint("ask your administrator to remove it on this machine, or use plain `claude`"));
    }
    Ok(files)
}

/// Folder of the user's own settings: `CLAUDE_CONFIG_DIR` or `~/.claude`. Our own profile is not theirs: a cclocal that is started from
/// within a local session inherits it.
pub fn user_folder(environment: &Environment) -> PathBuf {
    own_config_dir(environment).unwrap_or_else(|| environment.home.join(".claude"))
}

/// The user's `CLAUDE_CONFIG_DIR`, if they have one.
pub fn own_config_dir(environment: &Environment) -> Option<PathBuf> {
    let profile = Paths::of(environment).claude_profile();
    environment
        .var("CLAUDE_CONFIG_DIR")
        .map(|folder| environment.resolve(folder))
        .filter(|folder| !is_same_folder(folder, &profile))
}

/// Whether two paths lead to one folder.
fn is_same_folder(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs_err::canonicalize(path).ok();
    one == other || (real(one).is_some() && real(one) == real(other))
}

/// The folders whose `.claude` the client reads: the working directory and the top of its repository; local settings in a worktree are
/// those of the main one. The client looks for some files in some of them only; reading all is the safe side.
fn project_folders(environment: &Environment) -> Vec<PathBuf> {
    let mut folders = vec![environment.cwd.clone()];
    if let Some(top) = environment
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

fn read_file(environment: &Environment, source: Source, path: PathBuf) -> Option<SettingsFile> {
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
        label: label(environment, &path),
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

fn label(environment: &Environment, path: &Path) -> String {
    match path.strip_prefix(&environment.cwd) {
        Ok(inside) => inside.display().to_string(),
        Err(_) => environment.tilde(path),
    }
}

/// Settings that a device management puts on a Mac.
fn managed_preferences(environment: &Environment, root: &Path) -> Vec<PathBuf> {
    const NAME: &str = "com.anthropic.claudecode.plist";
    let folder = root.join("Library/Managed Preferences");
    let mut paths = vec![folder.join(NAME)];
    if let Some(user) = environment.var("USER") {
        paths.push(folder.join(user).join(NAME));
    }
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// `plutil` is part of macOS. Such a file may be binary, so nothing else reads it.
fn read_preferences(environment: &Environment, path: PathBuf) -> SettingsFile {
    let plutil = environment
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
        label: label(environment, &path),
        path,
        content,
    }
}

#[cfg(test)]
mod tests;
