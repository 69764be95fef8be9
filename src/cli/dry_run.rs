//! `--dry-run`: what would be run, and why. Starts nothing and writes nothing.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::args::LaunchArgs;
use super::launch::user;
use super::{options, web_search};
use crate::app::App;
use crate::catalog::Source;
use crate::claude;
use crate::claude::command::ClaudePlan;
use crate::claude::launch::{Endpoint, assumed_features};
use crate::engine::env;
use crate::engine::executable::{self, Found};
use crate::error::Result;
use crate::escape::visible;
use crate::gateway::web_search::Backend;
use crate::hub::Cached;
use crate::memory::chart;
use crate::memory::preflight::{Checking, Choices, Limit};
use crate::session::launch_plan::{LaunchPlan, Measured, Probing};
use crate::session::session_dir::SessionDir;
use crate::session::window::{self, Alternative};
use crate::settings::Resolver;
use crate::supervisor::registry::{self, Running};
use crate::supervisor::reservation::USUAL_PORT;
use crate::sys::environment::Environment;
use crate::sys::secret::Secret;
use crate::ui;

pub(super) fn run(
    app: &App,
    args: &LaunchArgs,
    resolver: &Resolver,
    searches: Option<&Backend>,
) -> Result<()> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let choice = options::choice(resolver, args)?;
    let options = options::of_choice(resolver, choice.as_ref())?;
    let request = super::launch::request(app, &options, choice.as_ref())?;
    let os = app.os()?;
    let mut missing = Vec::new();
    let engine = match executable::find(host, paths)? {
        Found::Ready(engine) => Some(engine),
        Found::Absent(why) => {
            missing.push(format!("{why}: a real run would offer to install it"));
            None
        }
    };
    let claude = claude::find::find(host, paths)?;
    if claude.is_none() {
        missing.push("Claude Code is not installed: a real run would stop there".into());
    }
    // Nothing is started and nobody is asked: neither the engine's Python for Metal's figure, nor the hub.
    let measured = Measured::of(app, request.clone(), None, |_| None)?;
    let option = Limit::find(host, os, measured.memory.machine);
    let choices = Choices::of(&measured.memory, option);
    let checking = options.checking;
    let asked = (choices.as_ref()).and_then(|choices| would_ask(choices, checking));
    let refusal = choices
        .as_ref()
        .and_then(|choices| choices.now.as_ref().err());
    let refused = refusal.map(|refusal| {
        let instead = Alternative::of(&measured.memory, option);
        (
            window::refused(&request.model.name, refusal, instead),
            instead,
        )
    });
    let mut launch = measured.plan(app, engine.as_ref(), Probing::Assume)?;
    let endpoint = Endpoint {
        port: options.port.unwrap_or(USUAL_PORT),
        token: Secret::random()?,
        model: launch.serve.model.served_name.clone(),
        window: launch.serve.window,
    };
    let features = assumed_features(paths, claude.as_deref());
    let settings = SessionDir::planned_settings(paths);
    let user = user(args, options::asking(options.ask, false));
    let plan = claude::launch::plan(app, &endpoint, user, &settings, &features)?;
    launch.notices.extend(searches.map(Backend::notice));
    launch.notices.extend(plan.notices.iter().cloned());
    let said = checking == Checking::Never || asked.is_some();
    launch.notices.extend(asked);
    if let Some((error, _)) = refused.as_ref().filter(|_| !said) {
        launch.notices.push(match &error.hint {
            Some(hint) => format!("a real run would be refused: {}; {hint}", error.message),
            None => format!("a real run would be refused: {}", error.message),
        });
    }
    let wanted = request.wanted((engine.as_ref()).map_or(Path::new(""), |engine| &engine.script));
    for running in registry::running(paths) {
        match running {
            Running::Known(status) if wanted.is(&status) => launch.notices.push(format!(
                "this model is loaded already: a real run would use it, on port {}",
                status.port
            )),
            Running::Silent(holder) => launch.notices.push(format!(
                "a real run would be refused: the supervisor of {} does not answer; {}",
                holder.words(),
                holder.hint()
            )),
            _ => {}
        }
    }
    launch.notices.extend(missing);
    let engine = engine.map_or_else(
        || "vllm-mlx".into(),
        |engine| engine.script.display().to_string(),
    );
    let claude = claude.map_or_else(|| "claude".into(), |claude| claude.display().to_string());
    let planned = Planned {
        choices: choices.as_ref(),
        instead: refused.map(|(_, instead)| instead),
    };
    let mut report = report(host, &launch, &planned, &plan, &engine, &claude);
    report["web_search"] = web_search::report(searches);
    if args.json {
        ui.json(&report);
    } else {
        ui.data(&text(host, &launch, &plan, &report));
    }
    Ok(())
}

/// Note that a run on a terminal would ask about the GPU limit. None: it would not.
fn would_ask(choices: &Choices, checking: Checking) -> Option<String> {
    let raise = choices.raise.as_ref()?;
    let otherwise = match choices.now {
        Ok(_) => "",
        Err(_) => "; without a terminal it is refused",
    };
    choices.are_asked(checking).then(|| {
        format!(
            "on a terminal, a real run asks whether to raise the GPU limit, for a window of {} tokens{otherwise}",
            ui::thousands(raise.plan.window.tokens)
        )
    })
}

/// The memory plan, or the refusal, and the choices.
struct Planned<'a> {
    choices: Option<&'a Choices>,
    instead: Option<Alternative>,
}

impl Planned<'_> {
    fn plan(&self) -> Value {
        match self.choices.map(|choices| &choices.now) {
            None => Value::Null,
            Some(Ok(plan)) => json!(plan),
            Some(Err(refusal)) => json!({
                "refused": refusal,
                "instead": self.instead.and_then(|instead| instead.model).map(|(flag, window)| {
                    json!({ "flag": format!("--{flag}"), "context_window": window })
                }),
            }),
        }
    }

    fn raised(&self) -> Value {
        match self.choices.and_then(|choices| choices.raise.as_ref()) {
            Some(raise) => {
                json!({ "from_mib": raise.from, "to_mib": raise.to, "plan": raise.plan })
            }
            None => Value::Null,
        }
    }

    fn smaller(&self) -> Value {
        json!(self.choices.and_then(|choices| choices.smaller.as_ref()))
    }
}

fn report(
    host: &Environment,
    launch: &LaunchPlan,
    planned: &Planned,
    plan: &ClaudePlan,
    engine: &str,
    claude: &str,
) -> Value {
    let command = launch.serve.command(0);
    let mut engine_argv = vec![engine.to_owned()];
    engine_argv.extend(command.argv);
    let inherited: Vec<String> = env::inherited(host)
        .keys()
        .map(|name: &std::ffi::OsString| OsStr::to_string_lossy(name).into_owned())
        .collect();
    json!({
        "model": {
            "name": launch.serve.model.name,
            "served_name": launch.serve.model.served_name,
            "source": launch.serve.model.source,
            "cached": match &launch.cached {
                Cached::Missing => "missing",
                Cached::Partial { .. } => "partial",
                Cached::Complete { .. } => "complete",
            },
            "bytes_on_disk": launch.cached.bytes(),
            "tool_call_form": launch.serve.model.form,
            "thinking": launch.serve.model.thinking,
            "engine_profile": launch.serve.model.engine_profile,
            "note": launch.serve.model.note,
        },
        "engine": {
            "argv": engine_argv,
            "env": command.env,
            "inherited": inherited,
            "key": if launch.serve.takes_key() { "given inside the process, not on the command line" } else { "none" },
        },
        "claude": self::claude(plan, claude),
        "memory": launch.memory,
        "memory_plan": planned.plan(),
        "memory_raised": planned.raised(),
        "memory_smaller": planned.smaller(),
        "notices": launch.notices,
    })
}

/// Command, environment and settings of Claude Code, without keys.
pub(super) fn claude(plan: &ClaudePlan, program: &str) -> Value {
    let plan = plan.redacted();
    let mut argv = vec![program.to_owned()];
    argv.extend(
        plan.argv
            .iter()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    json!({
        "argv": argv,
        "env": plan.set,
        "unset": plan.unset,
        "settings": plan.settings,
    })
}

fn text(host: &Environment, launch: &LaunchPlan, plan: &ClaudePlan, report: &Value) -> String {
    let mut out = String::new();
    let model = &launch.serve.model;
    let source = match &model.source {
        Source::Hub(id) => id.clone(),
        Source::Folder(path) => host.tilde(path),
    };
    let cached = match &launch.cached {
        Cached::Missing => match model.download_bytes {
            Some(bytes) => format!(
                "not on this disk; the first run downloads about {}",
                ui::bytes(bytes)
            ),
            None => "not on this disk; the first run downloads it".into(),
        },
        Cached::Partial { bytes } => format!(
            "{} on this disk; the first run downloads the rest",
            ui::bytes(*bytes)
        ),
        Cached::Complete { bytes, .. } => format!("{} on this disk, complete", ui::bytes(*bytes)),
    };
    let _ = writeln!(out, "model    {} ({source})", visible(&model.name));
    let _ = writeln!(out, "         {cached}");
    if let Some(note) = &model.note {
        let _ = writeln!(out, "         {note}");
    }
    let _ = writeln!(
        out,
        "served   {}\n         tool calls in {}; {}",
        model.engine_profile.words(),
        match model.form {
            Some(form) => format!("the {} format", form.name()),
            None => "an unknown format, read as <tool_call> tags".into(),
        },
        match model.thinking {
            true => "it thinks before it answers",
            false => "thinking is off",
        }
    );
    if let Some(machine) = &launch.memory.machine {
        let _ = writeln!(
            out,
            "memory   {} for the model ({}), of {} RAM",
            ui::memory(machine.budget),
            machine.budget_source.words(),
            ui::memory(machine.ram)
        );
    }
    let _ = writeln!(
        out,
        "window   {} tokens: {}",
        ui::thousands(launch.serve.window.tokens),
        launch.memory.why
    );
    let picture = chart::of(&model.name, &launch.memory);
    if !picture.is_empty() {
        let _ = writeln!(out, "\n{}", picture.join("\n"));
    }
    part(&mut out, report, "engine");
    part(&mut out, report, "claude");
    rest_of_claude(&mut out, host, plan, report);
    for notice in &launch.notices {
        let _ = writeln!(out, "\nnote: {}", visible(notice));
    }
    out
}

/// The command and the environment of one of the programs.
pub(super) fn part(out: &mut String, report: &Value, part: &str) {
    let words = report[part]["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|word| shlex::try_quote(word).unwrap_or(word.into()).into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let _ = writeln!(out, "\n{part}\n  {words}");
    for (name, value) in report[part]["env"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "  {name}={}",
            shlex::try_quote(value).unwrap_or(value.into())
        );
    }
}

/// The variables of the shell that Claude Code does not get, and its settings.
pub(super) fn rest_of_claude(
    out: &mut String,
    host: &Environment,
    plan: &ClaudePlan,
    report: &Value,
) {
    // All names are in the JSON; a person wants to know what of theirs is held back.
    let held_back: Vec<&str> = (plan.unset.iter().map(String::as_str))
        .filter(|name| host.env.contains_key(OsStr::new(name)))
        .collect();
    if !held_back.is_empty() {
        let _ = writeln!(out, "  not passed on: {}", held_back.join(" "));
    }
    let _ = writeln!(out, "  settings: {}", report["claude"]["settings"]);
}
