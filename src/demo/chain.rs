//! The demo's run: every link of the real chain, one after the other, each with its time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::model;
use crate::app::App;
use crate::catalog::{EngineProfile, Model, Source};
use crate::claude::features;
use crate::claude::foreground::{self, Foreground};
use crate::claude::launch::{self, Output, Places, UserArgs};
use crate::claude::permissions::Asking;
use crate::engine::executable::Executable;
use crate::error::{Context, Error, Exit, Result};
use crate::hub;
use crate::memory::{Asked, WIDE_WINDOW};
use crate::session::launch_plan::{Measured, Probing};
use crate::session::request::Request;
use crate::session::session_dir::SessionDir;
use crate::session::wait_ready::{self, WaitOutcome};
use crate::session::{self, release};
use crate::supervisor::protocol::SessionMessage;
use crate::supervisor::spec::Port;
use crate::supervisor::{Lease, spawn};
use crate::sys::files;
use crate::sys::port;
use crate::sys::process::Ended;
use crate::sys::process::signals::{self, Signals};
use crate::ui;

/// Text of the file that the demo writes.
const TEXT: &str = "hello world\n";
const FILE: &str = "hello.txt";
const PROMPT: &str = "Create hello.txt with the text hello world.";

/// How long Claude Code may take for two turns on a model that answers at once.
const CLIENT_DEADLINE: Duration = Duration::from_secs(180);

/// Engine, client and folder of the demo.
pub struct Demo<'a> {
    pub app: &'a App,
    pub engine: &'a Executable,
    pub claude: &'a Path,
    /// The folder for the model, the file and the logs. The caller removes it.
    pub scratch: &'a Path,
}

impl Demo<'_> {
    /// Runs the chain. The status to exit with: 0, or 128 + n for a signal.
    pub async fn run(&self, signals: &mut Signals) -> Result<u8> {
        let work = self.scratch.join("work");
        let file = work.join(FILE);
        fs_err::create_dir_all(&work)
            .context(Exit::Other, "the demo's folder cannot be created")?;

        let started = Instant::now();
        let model_folder = self.scratch.join("model");
        link(
            "writing the model",
            model::write(&model_folder, &file.display().to_string(), TEXT),
        )?;
        self.step("model: written from code", started);

        let port = link("starting the engine", self.start(&model_folder))?;
        let taken = Lease::take(&self.app.paths, port, Duration::ZERO, None).await?;
        let mut lease = taken.ok_or_else(|| {
            Error::new(Exit::Engine, "the demo failed while starting the engine")
                .cause("its supervisor stopped at once")
                .hint("run it again")
        })?;
        let followed = wait_ready::until_ready(self.app, &mut lease, signals).await;
        match link("starting the engine", followed)? {
            WaitOutcome::Ready { took } => self.app.ui.done(&format!(
                "engine: serving the model on 127.0.0.1:{port} ({took})"
            )),
            WaitOutcome::Interrupted(signal) => {
                release::leave(self.app, &mut lease, signals, Duration::ZERO).await;
                return Ok(signals::status(signal));
            }
        }
        let result = self.client(&mut lease, &work, signals).await;
        lease.leave(Duration::ZERO).await;
        lease.gone().await;
        if let Some(signal) = link("running Claude Code", result)? {
            return Ok(signals::status(signal));
        }
        let started = Instant::now();
        link("checking the file", check(&file))?;
        self.step(
            &format!("disk: {FILE} is there, with the right text"),
            started,
        );
        Ok(0)
    }

    /// Starts the engine's supervisor and returns the gateway's port.
    fn start(&self, model_folder: &Path) -> Result<u16> {
        let free = port::any_free().context(Exit::Other, "no port is free")?;
        let request = Request {
            model: demo_model(model_folder),
            port: Some(free),
            asked: Asked {
                window: Some(WIDE_WINDOW),
                output: None,
            },
            forget_prefix: true,
            vision: false,
            think: false,
        };
        let engine = Some(self.engine);
        let measured = Measured::of(self.app, request, engine, |_| None)?;
        let plan = measured.plan(self.app, engine, Probing::Ask)?;
        let mut spec = plan.spec(self.engine, Port::Exactly(free));
        spec.log = Some(self.scratch.join("server.log"));
        spawn::start(&self.app.environment, &spec)
    }

    /// Claude Code's two turns. Some signal if one came first.
    async fn client(
        &self,
        lease: &mut Lease,
        work: &Path,
        signals: &mut Signals,
    ) -> Result<Option<Signal>> {
        let said = self.scratch.join("claude.out");
        let complained = self.scratch.join("claude.err");
        let create = |path: &PathBuf| {
            std::fs::File::create(path).context(Exit::Other, "the demo's folder cannot be written")
        };
        let folder = SessionDir::make(&self.app.paths)?;
        let settings = folder.settings();
        let args = ["-p", PROMPT].map(OsString::from);
        let App {
            environment, paths, ..
        } = self.app;
        let profile_dir = paths.claude_profile();
        let features = features::probe(environment, &paths.cache, &profile_dir, self.claude)?;
        let user = UserArgs {
            args: &args,
            pass_unknown: false,
            asking: Asking::default(),
        };
        let endpoint = lease.granted.endpoint();
        let plan = launch::plan(self.app, &endpoint, user, &settings, &features)?;
        let places = Places {
            profile_dir: &profile_dir,
            settings: &settings,
            folder: work,
        };
        let output = Output::Files(create(&said)?, create(&complained)?);
        let mut command = launch::command(environment, self.claude, &plan, places, output)?;
        let started = Instant::now();
        let progress = self.app.ui.progress("Claude Code is working");
        let mut claude = Foreground::start(&mut command).context(
            Exit::ClaudeMissing,
            format!("{} cannot be started", self.claude.display()),
        )?;
        lease
            .say(&SessionMessage::Client {
                pid: claude.pid(),
                group: nix::unistd::getpgrp().as_raw(),
            })
            .await;
        let ended = tokio::select! {
            ended = claude.ended() => ended,
            error = failure(lease) => {
                claude.stop(Signal::SIGTERM, foreground::GRACE).await;
                return Err(error);
            }
            signal = signals.next() => {
                claude.stop(Signal::SIGTERM, foreground::GRACE).await;
                return Ok(Some(signal));
            }
            () = tokio::time::sleep(CLIENT_DEADLINE) => {
                claude.stop(Signal::SIGTERM, foreground::GRACE).await;
                return Err(Error::other("Claude Code did not finish")
                    .cause(format!("it was still running after {} s", CLIENT_DEADLINE.as_secs()))
                    .hint("run it again with --keep and read the logs in the folder it names"));
            }
        };
        drop(progress);
        lease.say(&SessionMessage::ClientEnded).await;
        let answer = files::read_text(&said, files::OWN_RECORD).unwrap_or_default();
        let complaint = files::read_text(&complained, files::OWN_RECORD).unwrap_or_default();
        let lines = answer
            .lines()
            .chain(complaint.lines())
            .map(str::to_owned)
            .collect();
        if ended != Ended::Code(0) {
            return Err(Error::other("Claude Code ended with an error")
                .cause(format!("its status was {}", ended.shell_status()))
                .detail(lines)
                .hint("run `claude --version` to check that it works by itself"));
        }
        if !answer.contains(model::CLOSING) {
            return Err(Error::other(
                "Claude Code did not pass the tool's result back to the model",
            )
            .cause("its answer is not the model's last sentence")
            .detail(lines)
            .hint(
                "please report this with the lines above: the client or the engine has changed",
            ));
        }
        self.step(
            &format!(
                "Claude Code: called the Write tool and answered “{}”",
                answer.trim()
            ),
            started,
        );
        Ok(None)
    }

    fn step(&self, what: &str, started: Instant) {
        self.app
            .ui
            .done(&format!("{what} {}", time(started.elapsed())));
    }
}

/// Waits until the engine is of no use any more.
async fn failure(lease: &mut Lease) -> Error {
    loop {
        let tell = lease.told().await;
        if let Some(error) = session::over(tell) {
            return error;
        }
    }
}

fn time(took: Duration) -> String {
    format!("({})", ui::seconds(took))
}

/// The demo model, as the catalogue would describe it.
fn demo_model(folder: &Path) -> Model {
    let mut chat_template_kwargs = serde_json::Map::new();
    chat_template_kwargs.insert("enable_thinking".into(), json!(false));
    Model {
        name: "the demo model".into(),
        source: Source::Folder(folder.to_path_buf()),
        served_name: "cclocal-demo".into(),
        typed: "demo".into(),
        form: None,
        form_is_stated: false,
        template: None,
        may_think: false,
        thinking: false,
        prose_calls: false,
        chat_template_kwargs,
        engine_profile: EngineProfile::Batched,
        download_bytes: None,
        note: None,
    }
    .with_template(hub::folder_template(folder))
}

fn check(file: &Path) -> Result<()> {
    let found = files::read_text(file, files::OWN_RECORD).map_err(|error| {
        Error::other("the file was not written")
            .because(error)
            .hint("the tool call did not reach Claude Code as one; run it again with --keep and read server.log")
    })?;
    if found == TEXT {
        return Ok(());
    }
    Err(Error::other("the file has the wrong text")
        .cause(format!("it holds {found:?} instead of {TEXT:?}"))
        .hint("please report this: the tool call was changed on the way"))
}

/// Says which link of the chain failed.
fn link<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|mut error| {
        error.message = format!("the demo failed while {name}: {}", error.message);
        error
    })
}
