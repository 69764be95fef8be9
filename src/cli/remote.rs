//! `cclocal --connect URL`: Claude Code on an engine that somebody else runs.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args::{LaunchArgs, RemoteArgs};
use super::{dry_run, launch, options, setup, web_search};
use crate::app::App;
use crate::claude;
use crate::claude::command::ClaudePlan;
use crate::claude::launch::{Endpoint, UserArgs, assumed_features};
use crate::error::Result;
use crate::escape::visible;
use crate::gateway::web_search::Backend;
use crate::memory::{ContextWindow, NARROW_WINDOW};
use crate::session::remote::address::Address;
use crate::session::remote::{self, RemoteEngine, token, window};
use crate::session::session_dir::SessionDir;
use crate::session::{Session, ask_features};
use crate::sys::process::signals::Signals;
use crate::sys::secret::Secret;
use crate::ui;

/// Returns the status to exit with.
pub(super) fn run(
    app: &App,
    url: &str,
    args: &RemoteArgs,
    launch: &LaunchArgs,
    searches: Option<&Backend>,
) -> Result<u8> {
    let address = Address::parse(url, args.insecure)?;
    // From here on nothing has it: what is started gets its environment from the host.
    let mut environment = app.environment.clone();
    let token = args
        .token_env
        .as_deref()
        .map(|variable| token::take(&mut environment, variable))
        .transpose()?;
    let app = &App::new(environment);
    let remote = RemoteEngine {
        address: &address,
        token: token.as_ref(),
        model: launch.model.named(),
        asked: launch::asked(launch),
        parallel: args.parallel,
        patience: args
            .wait
            .map(|minutes| Duration::from_secs(60 * u64::from(minutes))),
        web_search: searches,
        typed: typed(url, args, launch, searches),
    };
    if launch.dry_run {
        return show(app, args, launch, &remote).map(|()| 0);
    }
    let claude = setup::client(app, false)?;
    let session = Session {
        app,
        claude: &claude,
        asked: &ask_features(app, &claude),
        user: user(launch),
    };
    // What Claude Code may not be given is refused before anything is sent.
    let window = remote.asked.or(NARROW_WINDOW);
    plan(app, &remote, window, launch, Some(&claude))?;
    app.ui.notice(&address.notice());
    if let Some(backend) = searches {
        app.ui.notice(&backend.notice());
    }
    crate::session::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        remote::run(&session, &remote, &mut signals).await
    })
}

/// The arguments for Claude Code. Tools ask, unless that is chosen otherwise: somebody else runs the engine.
fn user(launch: &LaunchArgs) -> UserArgs<'_> {
    launch::user(launch, options::asking(launch.asking.given(), true))
}

/// Plans Claude Code's run, as far as it is known before the engine was asked. `claude`: its program, if it is installed.
fn plan(
    app: &App,
    remote: &RemoteEngine,
    window: ContextWindow,
    launch: &LaunchArgs,
    claude: Option<&Path>,
) -> Result<ClaudePlan> {
    let endpoint = Endpoint {
        port: 0,
        token: Secret::new("<token>"),
        model: remote
            .model
            .unwrap_or("<the only one that it serves>")
            .to_owned(),
        window,
    };
    let features = assumed_features(&app.paths, claude);
    let settings = SessionDir::planned_settings(&app.paths);
    claude::launch::plan(app, &endpoint, user(launch), &settings, &features)
}

/// The command line without the arguments for Claude Code and the program's name.
fn typed(url: &str, args: &RemoteArgs, launch: &LaunchArgs, searches: Option<&Backend>) -> String {
    let mut words = vec!["--connect".to_owned(), url.to_owned()];
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([flag.to_owned(), value]);
        }
    };
    add("--token-env", args.token_env.clone());
    add("--model", launch.model.named().map(str::to_owned));
    let asked = launch::asked(launch);
    add("--ctx", asked.window.map(|tokens| tokens.to_string()));
    add(
        "--out-tokens",
        launch.out_tokens.map(|tokens| tokens.to_string()),
    );
    add("--parallel", args.parallel.map(|most| most.to_string()));
    add("--wait", args.wait.map(|minutes| minutes.to_string()));
    add(
        "--web-search",
        searches.and_then(Backend::word).map(str::to_owned),
    );
    if args.insecure {
        words.push("--insecure".into());
    }
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// `--dry-run`: nothing is started, written or sent, so the engine is not asked either.
fn show(app: &App, args: &RemoteArgs, launch: &LaunchArgs, remote: &RemoteEngine) -> Result<()> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    // Whether it fits is checked, and what there is for replies; the engine tells the window itself.
    let window = ContextWindow {
        output: window::fit(None, remote.asked)?.window.output,
        ..remote.asked.or(NARROW_WINDOW)
    };
    let program = claude::find::find(host, paths)?;
    let plan = plan(app, remote, window, launch, program.as_deref())?;
    let mut notices = vec![
        remote.address.notice(),
        "port 0 stands for any free port".to_owned(),
        "the engine was not asked: a real run uses the model and the window that it reports"
            .to_owned(),
    ];
    notices.extend(remote.web_search.map(Backend::notice));
    notices.extend(plan.notices.iter().cloned());
    if program.is_none() {
        notices.push("Claude Code is not installed: a real run would stop there".into());
    }
    let program = program.map_or_else(|| "claude".into(), |claude| claude.display().to_string());
    let report = json!({
        "engine": {
            "url": remote.address.base_url(),
            "model": remote.model,
            "key": args.token_env.as_ref().map(|_| "from the variable of --token-env"),
        },
        "claude": dry_run::claude(&plan, &program),
        "context_window": remote.asked.window,
        "output_tokens": remote.asked.output,
        "parallel": remote.parallel,
        "web_search": web_search::report(remote.web_search),
        "notices": notices,
    });
    if launch.json {
        ui.json(&report);
        return Ok(());
    }
    let text = {
        let mut out = String::new();
        let model = remote.model.unwrap_or("the only one that it serves");
        let _ = writeln!(
            out,
            "engine   {} (not run by cclocal)",
            remote.address.base_url()
        );
        let _ = writeln!(out, "model    {model}");
        let _ = match remote.asked.window {
            Some(tokens) => writeln!(
                out,
                "window   {} tokens: as you set it",
                ui::thousands(tokens)
            ),
            None => writeln!(out, "window   as the engine reports"),
        };
        dry_run::part(&mut out, &report, "claude");
        dry_run::rest_of_claude(&mut out, host, &plan, &report);
        for notice in &notices {
            let _ = writeln!(out, "\nnote: {}", visible(notice));
        }
        out
    };
    ui.data(&text);
    Ok(())
}
