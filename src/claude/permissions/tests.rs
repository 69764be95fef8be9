//! Permissions, case by case.

use super::*;
use crate::claude::settings_files::Content;

const LOCAL: Asking = Asking {
    asks: false,
    chosen: false,
};
const REMOTE: Asking = Asking {
    asks: true,
    chosen: false,
};
const ASK: Asking = Asking {
    asks: true,
    chosen: true,
};
const NO_ASK: Asking = Asking {
    asks: false,
    chosen: true,
};

struct Case {
    asking: Asking,
    args: &'static str,
    terminal: bool,
    own: Value,
    project: Value,
    hooks: bool,
}

impl Case {
    fn new(asking: Asking, args: &'static str) -> Self {
        Self {
            asking,
            args,
            terminal: true,
            own: json!({}),
            project: json!({}),
            hooks: true,
        }
    }

    fn permissions(&self) -> Permissions {
        let args: Vec<OsString> = self.args.split_whitespace().map(OsString::from).collect();
        let object = |value: &Value| value.as_object().cloned().expect("an object");
        let project = SettingsFile {
            source: Source::Project,
            path: "p".into(),
            label: "p".into(),
            content: Content::Settings(object(&self.project)),
        };
        Permissions::of(&Inputs {
            asking: self.asking,
            user_args: &args,
            terminal: self.terminal,
            own_settings: &object(&self.own),
            files: &[project],
            hooks: self.hooks,
            hook: Some((Path::new("/opt/my apps/cclocal"), Path::new("/run/asked"))),
        })
    }

    /// The arguments, and how they are to be read.
    fn words(&self) -> String {
        let permissions = self.permissions();
        let mut words: Vec<String> = permissions
            .argv
            .iter()
            .map(|word| word.to_string_lossy().replace(TOOLS, "ALL"))
            .collect();
        words.extend(permissions.hook.map(|_| "+ hook".to_owned()));
        words.extend(permissions.unasked.then(|| "+ unasked".to_owned()));
        words.extend(permissions.notice.map(|_| "+ notice".to_owned()));
        words.join(" ")
    }
}

fn words(asking: Asking, args: &'static str) -> String {
    Case::new(asking, args).words()
}

#[test]
fn a_local_session_runs_tools_unasked_in_a_mode_of_its_own() {
    let unasked =
        "--tools=ALL --allowedTools=Read,Glob,Grep --permission-mode=acceptEdits + hook + unasked";
    assert_eq!(words(LOCAL, ""), unasked);
    assert_eq!(words(NO_ASK, "--continue hello"), unasked);
    let printed = "--tools=ALL --allowedTools=ALL --permission-mode=default + unasked";
    assert_eq!(words(LOCAL, "-p hi"), printed);
    assert_eq!(words(LOCAL, "-cp hi"), printed);
    assert_eq!(words(NO_ASK, "--print hi"), printed);
    let piped = Case {
        terminal: false,
        ..Case::new(LOCAL, "hi")
    };
    assert_eq!(piped.words(), printed);
}

#[test]
fn a_session_that_asks_has_read_only_tools_allowed() {
    let asks = "--tools=ALL --allowedTools=Read,Glob,Grep --permission-mode=default";
    assert_eq!(words(ASK, ""), asks);
    assert_eq!(words(REMOTE, "hello"), asks);
    let printed = format!("{asks} + notice");
    assert_eq!(words(ASK, "-p hi"), printed);
    assert_eq!(words(REMOTE, "--print hi"), printed);
}

#[test]
fn a_choice_after_the_dashes_is_the_users() {
    let mode = "--tools=ALL --allowedTools=Read,Glob,Grep";
    for asking in [LOCAL, NO_ASK, ASK, REMOTE] {
        assert_eq!(words(asking, "--permission-mode default"), mode);
        assert_eq!(words(asking, "--permission-mode=plan -p hi"), mode);
        assert_eq!(words(asking, "--dangerously-skip-permissions"), mode);
        // A list of theirs replaces ours.
        for list in [
            "--allowedTools Read",
            "--allowed-tools=Bash(ls)",
            "-p hi --allowedTools Edit",
        ] {
            assert_eq!(words(asking, list), "--tools=ALL");
        }
    }
    // The client's own rules still take tools away.
    assert!(words(LOCAL, "--disallowedTools Bash").contains("+ hook"));
    assert!(words(LOCAL, "-p hi --tools Read").starts_with("--allowedTools=ALL"));
    assert!(words(LOCAL, "--tools Read,Grep").starts_with("--allowedTools=Read,Glob,Grep "));
}

#[test]
fn a_mode_in_settings_stands_unless_asking_was_chosen() {
    let with = |asking, mode: &str| {
        let settings = json!({"permissions": {"defaultMode": mode}});
        let own = Case {
            own: settings.clone(),
            ..Case::new(asking, "")
        };
        let project = Case {
            project: settings,
            ..Case::new(asking, "")
        };
        assert_eq!(own.words(), project.words(), "{mode}");
        own.words()
    };
    let theirs = "--tools=ALL --allowedTools=Read,Glob,Grep";
    assert_eq!(with(LOCAL, "plan"), theirs);
    assert_eq!(with(LOCAL, "default"), theirs);
    assert_eq!(with(REMOTE, "acceptEdits"), theirs);
    assert_eq!(with(ASK, "acceptEdits"), words(ASK, ""));
    assert_eq!(with(NO_ASK, "plan"), words(NO_ASK, ""));
    // Auto mode is off here.
    assert_eq!(with(LOCAL, "auto"), words(LOCAL, ""));
}

#[test]
fn without_hooks_tools_ask_and_that_is_said() {
    let asks = "--tools=ALL --allowedTools=Read,Glob,Grep --permission-mode=default";
    let without = |asking, args| Case {
        hooks: false,
        ..Case::new(asking, args)
    };
    assert_eq!(without(LOCAL, "").words(), format!("{asks} + notice"));
    assert_eq!(words(LOCAL, "--bare"), format!("{asks} + notice"));
    assert_eq!(without(ASK, "").words(), asks);
    assert_eq!(without(LOCAL, "-p hi").words(), words(LOCAL, "-p hi"));
    let off = json!({"disableAllHooks": true});
    assert!(has_no_hooks(off.as_object().expect("an object"), &[]));
    assert!(!has_no_hooks(&Map::new(), &[]));
}

#[test]
fn the_mode_is_the_clients_not_the_models() {
    let of = |call: Value| mode(call.to_string().as_bytes());
    let call = json!({"tool_input": {"permission_mode": "acceptEdits"}, "permission_mode": "plan"});
    assert_eq!(of(call).as_deref(), Some("plan"));
    assert_eq!(
        of(json!({"tool_input": {"permission_mode": "acceptEdits"}})),
        None
    );
    assert_eq!(of(json!({"permission_mode": 1})), None);
    assert_eq!(mode(b"acceptEdits"), None);
}

#[test]
fn the_hook_is_quoted_and_for_our_tools_alone() {
    let permissions = Case::new(LOCAL, "").permissions();
    assert_eq!(
        permissions.hook,
        Some(json!({
            "matcher": "Bash|Read|Edit|Write|Glob|Grep|WebSearch|WebFetch",
            "hooks": [{
                "type": "command",
                "command": "'/opt/my apps/cclocal' allow-tool /run/asked",
                "timeout": 30
            }]
        }))
    );
}
