//! A home, a project and two servers, with the real client started as cclocal starts it: the stage of what settings and hooks may do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cclocal::claude::command::{self as plan, Features, Inputs};
use cclocal::claude::launch::Endpoint;
use cclocal::claude::permissions::Asking;
use cclocal::claude::settings_files::{Content, SettingsFile, Source};
use cclocal::claude::{hooks_plugin, profile, settings_files};
use cclocal::memory::ContextWindow;
use cclocal::sys::environment::Environment;
use cclocal::sys::secret::Secret;
use serde_json::{Value, json};

use crate::real;
use crate::scripted_server::{Reply, Request, ScriptedServer};
use crate::support::HANG;

pub const TOKEN: &str = "token-of-this-launch";
pub const MODEL: &str = "org/local-model";
/// Stands in every hostile file and in the shell; no server may ever see it.
pub const SECRET: &str = "sk-ant-real-secret";

/// Where a settings file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    User,
    Project,
    Local,
}

pub const EVERYWHERE: [Place; 3] = [Place::User, Place::Project, Place::Local];

impl Place {
    fn file(self) -> &'static str {
        match self {
            Self::User => "home/.claude/settings.json",
            Self::Project => "project/.claude/settings.json",
            Self::Local => "project/.claude/settings.local.json",
        }
    }
}

/// How much of the plan is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// As cclocal starts it.
    Whole,
    /// Without the client's own guard, `CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST`: what the overlay does alone.
    OverlayAlone,
    /// The right variables and a fresh profile, but no overlay, no lock and no guard: shows that the case is a danger at all.
    None,
    /// As cclocal starts it on a machine with managed settings, beside which the client drops the lock.
    BesideManaged,
}

/// A home, a project and two servers: ours, and one that must receive nothing.
pub struct World {
    folder: tempfile::TempDir,
    pub ours: ScriptedServer,
    pub other: ScriptedServer,
    /// What the client asks, where something stands between it and our server.
    pub between: Option<u16>,
    pub vars: Vec<(String, String)>,
}

pub struct Outcome {
    pub success: bool,
    pub output: String,
}

impl World {
    pub fn new(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["home", "project"] {
            fs_err::create_dir(folder.path().join(name)).expect("made");
        }
        Self {
            folder,
            ours: ScriptedServer::start(script),
            other: ScriptedServer::saying("from elsewhere"),
            between: None,
            vars: Vec::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        self.write_bytes(name, self.fill(text).as_bytes());
    }

    pub fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs_err::write(path, bytes).expect("written");
    }

    /// Answers the question whether to trust the project, as a person did on a terminal.
    pub fn trust(&self) {
        let state = json!({"hasCompletedOnboarding": true, "projects": {"FOLDER/project": {"hasTrustDialogAccepted": true}}});
        self.write("profile/.claude.json", &state.to_string());
    }

    /// Puts the other server's address where a text says `OTHER`, and the folder's where it says `FOLDER`.
    pub fn fill(&self, text: &str) -> String {
        text.replace("OTHER_PORT", &self.other.port().to_string())
            .replace("OTHER", &self.other.url())
            .replace("FOLDER", &self.folder.path().display().to_string())
    }

    fn host(&self) -> Environment {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut vars = vec![
            ("PATH", path),
            ("HOME", self.path("home").display().to_string()),
            ("LANG", "C.UTF-8".into()),
        ];
        vars.extend(
            self.vars
                .iter()
                .map(|(name, value)| (name.as_str(), self.fill(value))),
        );
        let vars: Vec<(&str, &str)> = vars
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let mut host = Environment::for_tests(&self.path("home"), &vars);
        host.cwd = self.path("project");
        host
    }

    /// Starts the client as cclocal does and waits for its end.
    pub fn run(&self, client: &Path, guard: Guard, args: &[&str]) -> Outcome {
        let (host, profile_dir, settings_path) =
            (self.host(), self.path("profile"), self.path("overlay.json"));
        let mut files = settings_files::read(&host, false).expect("read");
        if guard == Guard::BesideManaged {
            files.push(SettingsFile {
                source: Source::Managed,
                path: "/etc/claude-code/managed-settings.json".into(),
                label: "/etc/claude-code/managed-settings.json".into(),
                content: Content::Settings(serde_json::Map::new()),
            });
        }
        let user_args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut plan = plan::plan(&Inputs {
            environment: &host,
            profile_dir: &profile_dir,
            settings_path: &settings_path,
            endpoint: &Endpoint {
                port: self.between.unwrap_or_else(|| self.ours.port()),
                token: Secret::new(TOKEN),
                model: MODEL.into(),
                window: ContextWindow {
                    tokens: 32_768,
                    output: 8_192,
                },
            },
            user_args: &user_args,
            unknown_options: false,
            asking: Asking::default(),
            program: None,
            own_settings: &profile::own_settings(&host, &profile_dir),
            settings_files: &files,
            features: &Features::default(),
        })
        .expect("a plan");
        assert!(!plan.notices.join("").contains(SECRET));
        profile::prepare(&host, &profile_dir).expect("prepared");
        if matches!(guard, Guard::OverlayAlone | Guard::None) {
            plan.set.remove("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST");
            plan.settings["env"]
                .as_object_mut()
                .expect("variables")
                .remove("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST");
        }
        if guard == Guard::None {
            for name in profile::PLUGIN_LISTS {
                fs_err::remove_dir(profile_dir.join(name)).expect("removed");
            }
            plan.settings = json!({});
            plan.set
                .retain(|name, _| !name.eq_ignore_ascii_case("NO_PROXY"));
        }
        if matches!(guard, Guard::None | Guard::BesideManaged) {
            let lock = plan
                .argv
                .iter()
                .position(|word| word == "--managed-settings")
                .expect("the lock");
            plan.argv.drain(lock..lock + 2);
        }
        fs_err::write(&settings_path, plan.settings.to_string()).expect("written");
        hooks_plugin::write(&hooks_plugin::folder(&settings_path), &plan.hooks).expect("written");
        let mut command = Command::new(client);
        command
            .args(&plan.argv)
            .current_dir(&host.cwd)
            .env_clear()
            .envs(&host.env);
        for name in &plan.unset {
            command.env_remove(name);
        }
        command.envs(&plan.set);
        finish(command, &self.path("output.txt"))
    }

    /// What the other server received: the first line of each request.
    pub fn stray(&self) -> Vec<String> {
        let requests = self.other.requests();
        let line = |request: &Request| format!("{} {}", request.method, request.path);
        requests.iter().map(line).collect()
    }

    pub fn case(&self, settings: &Value, place: Place) {
        self.write(place.file(), &settings.to_string());
    }

    /// Fails unless the session stayed with our server, under our name and model.
    pub fn assert_stayed(&self, outcome: &Outcome, what: &str) {
        let stray = self.stray();
        assert!(
            stray.is_empty(),
            "{what}: the other server received {stray:?}"
        );
        assert!(outcome.success, "{what}: {}", outcome.output);
        let messages = self.ours.messages();
        assert!(
            !messages.is_empty(),
            "{what}: nothing arrived: {}",
            outcome.output
        );
        for request in self.ours.requests() {
            assert!(
                !request.text().contains(SECRET),
                "{what}: a real secret was sent: {}",
                request.text()
            );
            assert_eq!(request.header("x-api-key"), None, "{what}");
            assert_eq!(request.header("x-added"), None, "{what}");
        }
        for request in messages {
            assert_eq!(
                request.header("authorization"),
                Some(format!("Bearer {TOKEN}").as_str()),
                "{what}"
            );
            assert_eq!(request.json()["model"], MODEL, "{what}");
            assert_eq!(request.json()["output_config"]["effort"], "high", "{what}");
        }
    }
}

/// Runs a command to its end; one that hangs is ended.
fn finish(mut command: Command, output: &Path) -> Outcome {
    let file = fs_err::File::create(output).expect("made").into_parts().0;
    let both = file.try_clone().expect("a second handle");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(both)
        .spawn()
        .expect("started");
    let deadline = Instant::now() + HANG;
    let success = loop {
        if let Some(status) = child.try_wait().expect("waited") {
            break status.success();
        }
        if Instant::now() > deadline {
            child.kill().expect("ended");
            child.wait().expect("waited");
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Outcome {
        success,
        output: fs_err::read_to_string(output).unwrap_or_default(),
    }
}

pub fn ok() -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    |_: &Request| Reply::Text("ok".into())
}

pub fn clients() -> [(&'static str, PathBuf); 2] {
    [("newest", real::client()), ("old", real::old_client())]
}

/// Runs every job, several at a time, and fails with all that failed.
pub fn all(jobs: Vec<Box<dyn FnOnce() + Send>>) {
    let (queue, failed) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(job) = queue.lock().expect("the queue").pop() else {
                        break;
                    };
                    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))
                    {
                        let why = panic
                            .downcast_ref::<String>()
                            .cloned()
                            .unwrap_or_else(|| "it panicked".into());
                        failed.lock().expect("the failures").push(why);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("the failures");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
