//! Permissions of a session: the tools that run without a question, and the mode that Claude Code starts in.
//!
//! Claude Code's own auto mode cannot work here, as its check of each call runs on Anthropic's servers: `settings_overlay` turns it off.
//! A session that asks starts in the plain mode ("manual") and has read-only tools allowed. One that does not ask starts in the mode "accept
//! edits", in which our hook allows the other tools too: rules (`--allowedTools`) would hold in every mode, and after shift+tab
//! the footer would say "manual" while nothing is asked. Print mode has no footer and no shift+tab, so there rules do.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::hooks;
use super::settings_files::{SettingsFile, Source};
use super::user_args;

/// The tools of a local session. More of them would fill the window of a local model.
pub const TOOLS: &str = "Bash,Read,Edit,Write,Glob,Grep,WebSearch,WebFetch";

/// Those that only read files.
const READ_ONLY: &str = "Read,Glob,Grep";

/// The mode in which the hook allows tools, as the client names it.
const UNASKED: &str = "acceptEdits";

/// The plain mode, as both clients name it.
const PLAIN: &str = "default";

/// The hidden command that is the hook.
pub const HOOK: &str = "allow-tool";

/// The largest call that the hook reads, in bytes: a call is part of one reply.
const CALL: u64 = 16 << 20;

/// Whether tools ask before they run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asking {
    pub asks: bool,
    /// Whether that was chosen, with `--ask` or `--no-ask` say. If not, a mode in a settings file stands above it.
    pub chosen: bool,
}

/// Facts that the permissions are made from.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    pub asking: Asking,
    pub user_args: &'a [OsString],
    /// Whether Claude Code's output is a terminal. If not, it prints, as with `-p`.
    pub terminal: bool,
    pub own_settings: &'a Map<String, Value>,
    pub files: &'a [SettingsFile],
    /// Whether hooks can run.
    pub hooks: bool,
    /// Our program and the hook's note, if the program is known.
    pub hook: Option<(&'a Path, &'a Path)>,
}

/// Permissions for one start of Claude Code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    pub argv: Vec<OsString>,
    /// Group of hooks before a tool call.
    pub hook: Option<Value>,
    /// Whether tools run without a question.
    pub unasked: bool,
    pub notice: Option<&'static str>,
}

/// Said where nobody can be asked.
const PRINTS: &str = "in print mode nobody can be asked: calls that ask are refused; --no-ask runs them, and so does --allowedTools after -- for tools that you name";
const NO_HOOKS: &str =
    "hooks are off, so tools ask before they run; your permission rules can allow them";

/// Options with which Claude Code runs no hooks.
const WITHOUT_HOOKS: &[&str] = &["--bare", "--safe-mode", "--restricted"];

/// Options of the user that choose by themselves what is asked.
const CHOICES: &[&str] = &[
    "--permission-mode",
    "--dangerously-skip-permissions",
    "--permission-prompt-tool",
    "--allowedTools",
    "--allowed-tools",
];

impl Permissions {
    pub fn of(inputs: &Inputs) -> Self {
        let args = inputs.user_args;
        let mut argv: Vec<OsString> = Vec::new();
        if !user_args::has(args, "--tools") {
            argv.push(format!("--tools={TOOLS}").into());
        }
        let allow = |tools: &str| OsString::from(format!("--allowedTools={tools}"));
        if CHOICES.iter().any(|option| user_args::has(args, option)) {
            // A list of theirs is the whole list.
            let theirs = ["--allowedTools", "--allowed-tools"];
            if !theirs.iter().any(|option| user_args::has(args, option)) {
                argv.push(allow(READ_ONLY));
            }
            return Self {
                argv,
                ..Self::default()
            };
        }
        let in_settings = !inputs.asking.chosen && has_mode(inputs.own_settings, inputs.files);
        let prints = user_args::prints(args) || !inputs.terminal;
        let hooks = inputs.hooks
            && !WITHOUT_HOOKS
                .iter()
                .any(|option| user_args::has(args, option));
        let hook = inputs.hook.filter(|_| hooks);
        let unasked = !inputs.asking.asks && !in_settings && (prints || hook.is_some());
        let tools = if unasked && prints { TOOLS } else { READ_ONLY };
        argv.push(allow(tools));
        if !in_settings {
            let mode = if unasked && !prints { UNASKED } else { PLAIN };
            argv.push(format!("--permission-mode={mode}").into());
        }
        let notice = match (unasked, in_settings) {
            (true, _) | (_, true) => None,
            _ if prints => Some(PRINTS),
            _ if inputs.asking.asks => None,
            _ => Some(NO_HOOKS),
        };
        Self {
            argv,
            hook: hook.filter(|_| unasked && !prints).map(hook_group),
            unasked,
            notice,
        }
    }
}

/// Whether settings name a mode to start in, other than auto mode, which is off here.
fn has_mode(own: &Map<String, Value>, files: &[SettingsFile]) -> bool {
    let others = files
        .iter()
        .filter(|file| file.source != Source::User)
        .filter_map(SettingsFile::settings);
    std::iter::once(own)
        .chain(others)
        .filter_map(|settings| settings.get("permissions")?.get("defaultMode")?.as_str())
        .any(|mode| mode != "auto")
}

/// Whether settings turn all hooks off.
pub(super) fn has_no_hooks(own: &Map<String, Value>, files: &[SettingsFile]) -> bool {
    let files = files
        .iter()
        .filter(|file| file.source != Source::User)
        .filter_map(SettingsFile::settings);
    std::iter::once(own)
        .chain(files)
        .any(|settings| settings.get(hooks::ALL_OFF) == Some(&Value::Bool(true)))
}

fn hook_group((program, note): (&Path, &Path)) -> Value {
    let words = [program, note].map(|path| path.to_string_lossy().into_owned());
    let [program, note] = words.map(|word| quoted(&word));
    json!({
        "matcher": TOOLS.replace(',', "|"),
        "hooks": [{"type": "command", "command": format!("{program} {HOOK} {note}"), "timeout": 30}],
    })
}

fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| String::new(), |word| word.into_owned())
}

/// The hook: reads a call from standard input, and allows it in a session's first mode. Says nothing otherwise, and Claude Code's own rules decide.
///
/// `note`: a file that is made once a call was made in the plain mode. From then on nothing is allowed: in its questions the person can
/// choose to accept edits, and means edits alone.
pub fn run_hook(note: &Path) -> u8 {
    use std::io::{Read, Write};
    let mut call = Vec::new();
    if std::io::stdin().take(CALL).read_to_end(&mut call).is_err() {
        return 0;
    }
    match mode(&call).as_deref() {
        Some(UNASKED) if !note.exists() => {
            let allowed = json!({"hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": "allow",
            }});
            let _ = writeln!(std::io::stdout(), "{allowed}");
        }
        Some(PLAIN) => drop(std::fs::write(note, "")),
        _ => {}
    }
    0
}

/// The mode that a call is made in, from the hook's input. What the model wrote stands deeper in it.
fn mode(call: &[u8]) -> Option<String> {
    let call: Value = serde_json::from_slice(call).ok()?;
    Some(call.get("permission_mode")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests;
