//! Tables of the options and commands of Claude Code: allowed in a session, or refused, and why. Source: its `--help` and its code,
//! 2.1.197 and 2.1.332. An option in no table is refused until it is known.

/// Number of words that belong to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    None,
    One,
    /// None or one.
    Maybe,
    /// Every following word that is not an option.
    Many,
}

use Values::{Many, Maybe, None, One};

/// Options that a session may have.
pub(super) const ALLOWED: &[(&str, Values)] = &[
    // How the session runs.
    ("--print", None),
    ("-p", None),
    ("--continue", None),
    ("-c", None),
    ("--resume", Maybe),
    ("-r", Maybe),
    ("--fork-session", None),
    ("--from-pr", Maybe),
    ("--session-id", One),
    ("--resume-session-at", One),
    ("--rewind-files", One),
    ("--no-session-persistence", None),
    ("--name", One),
    ("-n", One),
    ("--worktree", Maybe),
    ("-w", Maybe),
    ("--ide", None),
    ("--no-chrome", None),
    ("--init", None),
    ("--init-only", None),
    ("--maintenance", None),
    ("--autocompact", One),
    // What it takes in and puts out.
    ("--input-format", One),
    ("--output-format", One),
    ("--json-schema", One),
    ("--include-hook-events", None),
    ("--include-partial-messages", None),
    ("--replay-user-messages", None),
    ("--forward-subagent-text", None),
    ("--prompt-suggestions", Maybe),
    ("--max-turns", One),
    ("--max-budget-usd", One),
    ("--task-budget", One),
    ("--ax-screen-reader", None),
    ("--brief", None),
    ("--verbose", None),
    ("--debug", Maybe),
    ("-d", Maybe),
    ("--debug-to-stderr", None),
    ("--debug-file", One),
    ("--mcp-debug", None),
    ("--help", None),
    ("-h", None),
    ("--version", None),
    ("-v", None),
    ("-V", None),
    // What the model is told, and how hard it thinks.
    ("--system-prompt", One),
    ("--system-prompt-file", One),
    ("--append-system-prompt", One),
    ("--append-system-prompt-file", One),
    ("--append-subagent-system-prompt", One),
    ("--append-subagent-system-prompt-file", One),
    ("--plan-mode-instructions", One),
    ("--exclude-dynamic-system-prompt-sections", None),
    ("--system-prompt-snapshot", One),
    ("--effort", One),
    ("--thinking", One),
    ("--thinking-display", One),
    ("--max-thinking-tokens", One),
    ("--betas", Many),
    // What it may do.
    ("--tools", Many),
    ("--allowedTools", Many),
    ("--allowed-tools", Many),
    ("--disallowedTools", Many),
    ("--disallowed-tools", Many),
    ("--permission-mode", One),
    ("--permission-prompts", One),
    ("--permission-prompt-tool", One),
    ("--dangerously-skip-permissions", None),
    ("--allow-dangerously-skip-permissions", None),
    ("--restricted", None),
    ("--add-dir", Many),
    // What it is made of. Servers and agents that the user names are the user's.
    ("--agent", One),
    ("--agents", One),
    ("--mcp-config", Many),
    ("--strict-mcp-config", None),
    ("--plugin-dir", One),
    ("--plugin-dir-no-mcp", One),
    ("--disable-slash-commands", None),
    ("--setting-sources", One),
    ("--bare", None),
    ("--safe-mode", None),
];

/// Reason for a refusal, and the way to do it instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason {
    pub why: &'static str,
    pub instead: &'static str,
}

const ITSELF: &str = "use plain `claude` for that";
const LEFT_OUT: &str = "leave it out";
const ELSEWHERE: Reason = Reason {
    why: "the session would not stay on this machine",
    instead: ITSELF,
};
const HOST: Reason = Reason {
    why: "it is meant for programs that embed Claude Code, and could remove the settings that keep the session on this machine",
    instead: LEFT_OUT,
};
const MODEL: Reason = Reason {
    why: "the model is the one that cclocal serves",
    instead: LEFT_OUT,
};
const BACKGROUND: Reason = Reason {
    why: "the session would go on without the server, which ends with cclocal",
    instead: "leave it out, and keep the terminal open",
};
const LEAVES: &str =
    "it would start Claude Code without the settings that keep the session on this machine";

/// Options that a local session cannot have.
pub(super) const REFUSED: &[(&str, Reason)] = &[
    (
        "--settings",
        Reason {
            why: "Claude Code takes one --settings, and cclocal needs it to keep the session on this machine",
            instead: "put them into .claude/settings.local.json",
        },
    ),
    (
        "--managed-settings",
        Reason {
            why: "cclocal passes its own, which keep hooks from sending prompts elsewhere",
            instead: "put them into .claude/settings.local.json",
        },
    ),
    (
        "--project-config-root",
        Reason {
            why: "cclocal would not check the settings there, and they could send the session elsewhere",
            instead: "start cclocal in that folder, and name others with --add-dir",
        },
    ),
    (
        "--model",
        Reason {
            why: MODEL.why,
            instead: "choose it before the `--`, for example `cclocal --gemma -- …`",
        },
    ),
    ("--fallback-model", MODEL),
    ("--advisor", MODEL),
    ("--allow-other-models", MODEL),
    ("--fast-mode", MODEL),
    ("--include-unsupported-models", MODEL),
    ("--bg", BACKGROUND),
    ("--background", BACKGROUND),
    ("--agents-view-if-allowed", BACKGROUND),
    (
        "--tmux",
        Reason {
            why: LEAVES,
            instead: "start tmux first, and cclocal in it",
        },
    ),
    (
        "--desktop",
        Reason {
            why: LEAVES,
            instead: ITSELF,
        },
    ),
    (
        "--file",
        Reason {
            why: "files of that kind are fetched from Anthropic",
            instead: "copy the file here and name it in the prompt",
        },
    ),
    (
        "--plugin-url",
        Reason {
            why: "plugins are left out of local sessions",
            instead: "use `--plugin-dir` with a folder",
        },
    ),
    // Sessions elsewhere, or driven from there.
    ("--attach-serve", ELSEWHERE),
    ("--channels", ELSEWHERE),
    ("--chrome", ELSEWHERE),
    ("--client-data-url", ELSEWHERE),
    ("--cloud", ELSEWHERE),
    ("--correlation-id", ELSEWHERE),
    ("--dangerously-load-development-channels", ELSEWHERE),
    ("--deep-link-cwd-b64", ELSEWHERE),
    ("--deep-link-last-fetch", ELSEWHERE),
    ("--deep-link-origin", ELSEWHERE),
    ("--deep-link-repo", ELSEWHERE),
    ("--environment", ELSEWHERE),
    ("--forward-home-settings", ELSEWHERE),
    ("--handle-uri", ELSEWHERE),
    ("--metadata", ELSEWHERE),
    ("--on-branch", ELSEWHERE),
    ("--pool", ELSEWHERE),
    ("--profile", ELSEWHERE),
    ("--rc", ELSEWHERE),
    ("--ref", ELSEWHERE),
    ("--remote", ELSEWHERE),
    ("--remote-control", ELSEWHERE),
    ("--remote-control-session-name-prefix", ELSEWHERE),
    ("--routine", ELSEWHERE),
    ("--sdk-url", ELSEWHERE),
    ("--session-mirror", ELSEWHERE),
    ("--teleport", ELSEWHERE),
    ("--watch-artifact", ELSEWHERE),
    ("--watch-artifact-no-autoreact", ELSEWHERE),
    ("--web", ELSEWHERE),
    // Those of programs that start Claude Code.
    ("--await-claim", HOST),
    ("--await-initialize", HOST),
    ("--host-auth-is-org-sign-in", HOST),
    ("--initialize-fields", HOST),
    ("--managed-settings-in-initialize", HOST),
    ("--messaging-socket-path", HOST),
    ("--runner-declares", HOST),
];

/// Options that Claude Code looks for anywhere on its command line, behind `--` and in the place of values, too.
pub(super) const ANYWHERE: &[&str] = &["--attach-serve", "--handle-uri"];

/// Addresses of sessions on other machines, which may stand in the place of a prompt.
pub(super) const ADDRESSES: &[&str] = &["cc://", "cc+unix://"];

/// Commands of `claude` that are not a session.
pub(super) const COMMANDS: &[&str] = &[
    "agents",
    "attach",
    "auth",
    "auto-mode",
    "config",
    "critique",
    "daemon",
    "design-login",
    "doctor",
    "edit-chrome-settings",
    "edit-hook",
    "edit-memory-settings",
    "edit-permission-rules",
    "edit-sandbox-settings",
    "edit-skill-overrides",
    "environment-runner",
    "gateway",
    "import",
    "install",
    "kill",
    "logs",
    "mcp",
    "migrate-installer",
    "open",
    "plugin",
    "plugins",
    "project",
    "purge",
    "rc",
    "remote-control",
    "respawn",
    "rm",
    "sandbox",
    "self-hosted-runner",
    "server",
    "setup",
    "setup-token",
    "ssh",
    "stop",
    "subscription-switch",
    "ultrareview",
    "update",
    "upgrade",
    "workspace-trust",
    "worktree-hook",
    "xaa",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_in_two_tables() {
        let mut names: Vec<&str> = ALLOWED
            .iter()
            .map(|(name, _)| *name)
            .chain(REFUSED.iter().map(|(name, _)| *name))
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(
            ANYWHERE
                .iter()
                .all(|name| REFUSED.iter().any(|(refused, _)| refused == name))
        );
    }
}
