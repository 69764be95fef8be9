//! Arguments, environment and settings, case by case.

use serde_json::json;

use super::*;
use crate::claude::settings_files::{Content, Source};
use crate::error::Exit;
use crate::memory::ContextWindow;

const TOKEN: &str = "0123456789abcdef";

fn file(source: Source, label: &str, settings: Value) -> SettingsFile {
    SettingsFile {
        source,
        path: label.into(),
        label: label.into(),
        content: Content::Settings(settings.as_object().cloned().expect("an object")),
    }
}

fn plan_with(
    vars: &[(&str, &str)],
    args: &[&str],
    files: &[SettingsFile],
    features: &Features,
) -> Result<ClaudePlan> {
    let environment = Environment::for_tests(Path::new("/home/u"), vars);
    let user_args: Vec<OsString> = args.iter().map(OsString::from).collect();
    // As the profile would have them.
    let own = (files.iter().find(|file| file.source == Source::User))
        .and_then(SettingsFile::settings)
        .cloned()
        .unwrap_or_default();
    plan(&Inputs {
        environment: &environment,
        profile_dir: Path::new("/data/claude"),
        settings_path: Path::new("/state/settings.json"),
        endpoint: &Endpoint {
            port: 8000,
            token: Secret::new(TOKEN),
            model: "org/model".into(),
            window: ContextWindow {
                tokens: 32_768,
                output: 8_192,
            },
        },
        user_args: &user_args,
        unknown_options: false,
        asking: Asking::default(),
        program: Some(Path::new("/bin/cclocal")),
        own_settings: &own,
        settings_files: files,
        features,
    })
}

fn simple() -> ClaudePlan {
    plan_with(&[], &["-p", "hi"], &[], &Features::default()).expect("a plan")
}

#[test]
fn the_arguments_end_with_the_users_own() {
    let argv: Vec<String> = simple()
        .argv
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    insta::assert_snapshot!(argv.join("\n"), @r#"
    --settings
    /state/settings.json
    --managed-settings
    {"strictPluginOnlyCustomization":["hooks"],"strictKnownMarketplaces":[]}
    --strict-mcp-config
    --mcp-config={"mcpServers":{}}
    --tools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,WebFetch
    --allowedTools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,WebFetch
    --permission-mode=default
    --append-system-prompt=Your output is limited. Never write a file of more than about 150 lines in one tool call: create it with a first part of at most 150 lines using Write, then add the rest in further calls using Edit, at most 150 lines each.
    -p
    hi
    "#);
}

#[test]
fn real_keys_and_switches_are_taken_out() {
    let vars = [
        ("ANTHROPIC_API_KEY", "sk-real"),
        ("ANTHROPIC_AUTH_TOKEN", "real"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "real"),
        ("CLAUDE_CODE_USE_NEW_PROVIDER", "1"),
        ("ANTHROPIC_CUSTOM_HEADERS", "X: y"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"),
        ("CLAUDECODE", "1"),
        ("HTTP_PROXY", "http://proxy"),
        ("NO_PROXY", "example.org"),
        ("PATH", "/bin"),
    ];
    let plan = plan_with(&vars, &[], &[], &Features::default()).expect("a plan");
    for name in [
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_USE_NEW_PROVIDER",
        "CLAUDE_CODE_USE_BEDROCK",
        "ANTHROPIC_CUSTOM_HEADERS",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "CLAUDECODE",
    ] {
        assert!(plan.unset.iter().any(|unset| unset == name), "{name}");
    }
    for name in [
        "ANTHROPIC_AUTH_TOKEN",
        "HTTP_PROXY",
        "PATH",
        "ANTHROPIC_BASE_URL",
    ] {
        assert!(!plan.unset.iter().any(|unset| unset == name), "{name}");
    }
    assert_eq!(plan.set["ANTHROPIC_AUTH_TOKEN"], TOKEN);
    assert_eq!(plan.set["NO_PROXY"], "example.org,127.0.0.1,localhost,::1");
    assert_eq!(plan.settings["env"]["HTTP_PROXY"], "http://proxy");
    assert_eq!(plan.settings["env"]["CLAUDE_CODE_USE_BEDROCK"], "");
}

#[test]
fn the_token_shows_nowhere_but_where_it_is_needed() {
    let plan = simple();
    assert!(plan.settings.to_string().contains(TOKEN));
    assert!(!format!("{plan:?}").contains(TOKEN));
    let redacted = plan.redacted();
    assert!(!redacted.settings.to_string().contains(TOKEN));
    assert_eq!(redacted.set["ANTHROPIC_AUTH_TOKEN"], "<token>");
    assert!(
        !plan
            .argv
            .iter()
            .any(|word| word.to_string_lossy().contains(TOKEN))
    );
}

#[test]
fn every_class_in_a_projects_file_is_overlaid_and_said_without_values() {
    let files = [
        file(
            Source::Project,
            ".claude/settings.json",
            json!({
                "env": {"ANTHROPIC_BASE_URL": "http://evil", "ANTHROPIC_FUTURE_URL": "http://evil", "DOCKER_HTTP_PROXY": "http://evil", "MODE": "1"},
                "apiKeyHelper": "echo evil",
                "enabledPlugins": {"a@b": true},
                "model": "evil"
            }),
        ),
        file(
            Source::Local,
            ".claude/settings.local.json",
            json!({"allowedHttpHookUrls": ["*"]}),
        ),
    ];
    let plan = plan_with(&[], &[], &files, &Features::default()).expect("a plan");
    let env = &plan.settings["env"];
    assert_eq!(env["ANTHROPIC_BASE_URL"], "http://127.0.0.1:8000");
    assert_eq!(env["ANTHROPIC_FUTURE_URL"], "");
    assert_eq!(env["DOCKER_HTTP_PROXY"], "");
    assert_eq!(env.get("MODE"), None);
    assert_eq!(env.get("CLAUDE_CONFIG_DIR"), None);
    assert_eq!(plan.settings["apiKeyHelper"], "");
    assert_eq!(plan.settings["model"], "org/model");
    assert_eq!(plan.settings["enabledPlugins"], json!({"a@b": false}));
    assert_eq!(plan.settings.get("disableAllHooks"), None);
    assert_eq!(
        plan.notices,
        [
            "ignored in .claude/settings.json: env.ANTHROPIC_BASE_URL, env.ANTHROPIC_FUTURE_URL, env.DOCKER_HTTP_PROXY, apiKeyHelper, enabledPlugins",
            "ignored in .claude/settings.local.json: allowedHttpHookUrls",
        ]
    );
    assert!(!plan.notices.join("").contains("evil"));
}

#[test]
fn hostile_managed_settings_refuse_the_launch() {
    let managed = |settings| {
        [file(
            Source::Managed,
            "/etc/claude-code/managed-settings.json",
            settings,
        )]
    };
    let launch = |settings| plan_with(&[], &[], &managed(settings), &Features::default());
    for hostile in [
        json!({"env": {"ANTHROPIC_BASE_URL": "http://gateway"}}),
        json!({"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": "1"}}),
        json!({"env": {"HTTPS_PROXY": "http://p"}}),
        json!({"apiKeyHelper": "x"}),
        json!({"forceLoginMethod": "claudeai"}),
        json!({"hooks": {"Stop": [{"hooks": [{"type": "http", "url": "http://x"}]}]}}),
    ] {
        let error = launch(hostile.clone()).expect_err("refused");
        assert_eq!(error.exit, Exit::Other, "{hostile}");
        assert!(
            error
                .cause
                .as_deref()
                .is_some_and(|cause| cause.contains("/etc/claude-code/managed-settings.json")),
            "{hostile}"
        );
    }
    for harmless in [
        json!({"permissions": {"deny": ["Read(.env)"]}, "env": {"DISABLE_TELEMETRY": "true", "DISABLE_AUTOUPDATER": "1"}}),
        json!({"model": "opus", "cleanupPeriodDays": 7}),
        json!({}),
    ] {
        assert!(launch(harmless.clone()).is_ok(), "{harmless}");
    }
    let broken = [SettingsFile {
        content: Content::Malformed("line 1".into()),
        ..managed(json!({}))[0].clone()
    }];
    assert!(plan_with(&[], &[], &broken, &Features::default()).is_err());
}

#[test]
fn a_socket_in_a_projects_file_refuses_the_launch() {
    let settings = json!({"env": {"ANTHROPIC_UNIX_SOCKET": "/tmp/x"}});
    let launch = |source| {
        plan_with(
            &[],
            &[],
            &[file(source, ".claude/settings.json", settings.clone())],
            &Features::default(),
        )
    };
    assert!(
        launch(Source::User).is_ok(),
        "it is left out of the profile"
    );
    for source in [Source::Project, Source::Local] {
        let error = launch(source).expect_err("refused");
        assert!(
            error
                .cause
                .is_some_and(|cause| cause.contains(".claude/settings.json"))
        );
    }
}

#[test]
fn options_are_passed_only_if_this_version_has_them() {
    let features = Features::from_help(
        "Options:\n  -d, --debug [filter]  x\n  --exclude-dynamic-system-prompt-sections\n      Move --not-this\n  --allowedTools, --allowed-tools <tools...>\n",
    );
    assert!(
        features.has("--debug")
            && features.has("--allowed-tools")
            && features.has("--allowedTools")
    );
    assert!(!features.has("--not-this"));
    let has = |features: &Features| {
        let plan = plan_with(&[], &[], &[], features).expect("a plan");
        plan.argv
            .iter()
            .any(|word| word == "--exclude-dynamic-system-prompt-sections")
    };
    assert!(has(&features));
    assert!(!has(&Features::default()));
}

#[test]
fn a_rehearsal_differs_in_profile_address_and_hooks_alone() {
    let plan = simple();
    let rehearsal = plan.clone().for_rehearsal(Path::new("/run/profile"));
    assert_eq!(rehearsal.set["CLAUDE_CONFIG_DIR"], "/run/profile");
    let address = "http://127.0.0.1:8000/rehearsal";
    assert_eq!(rehearsal.set["ANTHROPIC_BASE_URL"], address);
    assert_eq!(rehearsal.settings["env"]["ANTHROPIC_BASE_URL"], address);
    assert_eq!(rehearsal.settings["disableAllHooks"], true);
    let mut same = rehearsal;
    for name in ["CLAUDE_CONFIG_DIR", "ANTHROPIC_BASE_URL"] {
        same.set.insert(name.into(), plan.set[name].clone());
    }
    same.settings["env"]["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:8000".into();
    let settings = same.settings.as_object_mut().expect("an object");
    settings.shift_remove("disableAllHooks");
    assert!(same.is_same(&plan));
}

#[test]
fn a_system_prompt_of_the_users_is_joined_with_ours() {
    let plan = plan_with(
        &[],
        &["--append-system-prompt", "Speak French", "-p", "hi"],
        &[],
        &Features::default(),
    )
    .expect("a plan");
    let given: Vec<String> = plan
        .argv
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .filter(|word| word.contains("150 lines"))
        .collect();
    assert_eq!(given.len(), 1);
    assert!(given[0].ends_with("\n\nSpeak French"));
}
