//! `--dry-run`: what would be run, and why. Starts nothing and writes nothing.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::args::LaunchArgs;
use super::launch;
use crate::catalog::Source;
use crate::claude;
use crate::engine::executable::{self, Found};
use crate::env_vars;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::hub::Cached;
use crate::machine::platform::Platform;
use crate::memory::Fit;
use crate::memory::preflight::Checking;
use crate::paths::Paths;
use crate::plan::claude::ClaudePlan;
use crate::secret::Secret;
use crate::session::folder::Folder;
use crate::session::prepare::{self, Client, Prepared, Probing};
use crate::supervisor::find::{self, Wanted};
use crate::supervisor::record::USUAL_PORT;
use crate::ui::{self, Ui};

pub fn run(host: &Host, ui: &Ui, args: &LaunchArgs) -> Result<()> {
    let choice = args.model.choice(host)?;
    let request = launch::request(host, args, choice.as_ref())?;
    let paths = Paths::of(host);
    let platform = Platform::detect(host)?;
    let mut missing = Vec::new();
    let engine = match executable::find(host, &paths)? {
        Found::Ready(engine) => Some(engine),
        Found::Absent(why) => {
            missing.push(format!("{why}: a launch would offer to install it"));
            None
        }
    };
    let claude = claude::find::find(host, &paths)?;
    if claude.is_none() {
        missing.push("Claude Code is not installed: a launch would stop there".into());
    }
    // Nothing is started and nobody is asked: neither the engine's Python for Metal's figure, nor the hub.
    let mut measured = prepare::measure(host, &paths, &platform, &request, None, |_| None);
    measured.memory.settle(request.longest_reply());
    let tight = launch::checking(host, args) != Checking::Never
        && matches!(measured.memory.fit(), Fit::Tight(_));
    let mut prepared = prepare::prepare(
        host,
        &paths,
        &request,
        measured,
        engine.as_ref(),
        Probing::Assume,
    )?;
    let settings = Folder::planned_settings(&paths);
    let client = Client {
        args: &args.claude_args,
        settings: &settings,
        port: args.port.unwrap_or(USUAL_PORT),
        token: Secret::random()
            .map_err(|error| Error::other("there are no random numbers").cause(error))?,
        model: &prepared.model.served_name,
        context_window: prepared.memory.context_window,
        output_tokens: prepared.output_tokens,
    };
    let features = prepare::assumed_features(&paths, claude.as_deref());
    let plan = prepare::plan_client(host, &paths, platform.os, &client, &features)?;
    prepared.notices.extend(plan.notices.iter().cloned());
    if tight {
        prepared.notices.push(
            "memory is tight: on a terminal a launch asks what to do; off one it shrinks the window".into(),
        );
    }
    let wanted = Wanted {
        source: &request.model.source,
        profile: request.model.engine_profile,
        engine: engine
            .as_ref()
            .map_or(Path::new(""), |engine| &engine.script),
        context_window: request.context_window,
        output_tokens: request.output_tokens,
        port: request.port,
    };
    let running = find::statuses(&paths);
    if let Some(status) = running.iter().find(|status| wanted.is(status)) {
        prepared.notices.push(format!(
            "an engine for it runs already: a launch would use it on port {}",
            status.port
        ));
    }
    prepared.notices.extend(missing);
    let engine = engine.map_or_else(
        || "vllm-mlx".into(),
        |engine| engine.script.display().to_string(),
    );
    let claude = claude.map_or_else(|| "claude".into(), |claude| claude.display().to_string());
    let report = report(host, &prepared, &plan, &engine, &claude);
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        text(host, &prepared, &plan, &report)
    };
    ui.data(&text);
    Ok(())
}

fn report(
    host: &Host,
    prepared: &Prepared,
    plan: &ClaudePlan,
    engine: &str,
    claude: &str,
) -> Value {
    let mut engine_argv = vec![engine.to_owned()];
    engine_argv.extend(prepared.engine.argv.iter().cloned());
    let inherited: Vec<String> = env_vars::engine_env(host)
        .keys()
        .map(|name: &std::ffi::OsString| OsStr::to_string_lossy(name).into_owned())
        .collect();
    json!({
        "model": {
            "name": prepared.model.name,
            "served_name": prepared.model.served_name,
            "source": prepared.model.source,
            "cached": match &prepared.cached {
                Cached::Missing => "missing",
                Cached::Partial { .. } => "partial",
                Cached::Complete { .. } => "complete",
            },
            "bytes_on_disk": prepared.cached.bytes(),
            "tool_call_parser": prepared.model.tool_call_parser,
            "engine_profile": prepared.model.engine_profile,
            "note": prepared.model.note,
        },
        "engine": {
            "argv": engine_argv,
            "env": prepared.engine.env,
            "inherited": inherited,
            "key": if prepared.engine.takes_key { "given inside the process, not on the command line" } else { "none" },
        },
        "claude": self::claude(plan, claude),
        "memory": prepared.memory,
        "memory_plan": match prepared.memory.planned() {
            None => Value::Null,
            Some(Ok(plan)) => json!(plan),
            Some(Err(refusal)) => json!({ "refused": refusal }),
        },
        "notices": prepared.notices,
    })
}

/// What Claude Code would be started with. What is shown has no key in it.
pub fn claude(plan: &ClaudePlan, program: &str) -> Value {
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

fn text(host: &Host, prepared: &Prepared, plan: &ClaudePlan, report: &Value) -> String {
    let mut out = String::new();
    let model = &prepared.model;
    let source = match &model.source {
        Source::Hub(id) => id.clone(),
        Source::Folder(path) => host.tilde(path),
    };
    let cached = match &prepared.cached {
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
    let _ = writeln!(out, "model    {} ({source})", model.name);
    let _ = writeln!(out, "         {cached}");
    if let Some(note) = &model.note {
        let _ = writeln!(out, "         {note}");
    }
    let _ = writeln!(
        out,
        "served   {}; tool calls by the parser {}",
        model.engine_profile.words(),
        model.tool_call_parser
    );
    if let Some(machine) = &prepared.memory.machine {
        let _ = writeln!(
            out,
            "memory   {} for the model ({}), of {} RAM",
            ui::bytes(machine.budget),
            machine.budget_source.words(),
            ui::bytes(machine.ram)
        );
    }
    let _ = writeln!(
        out,
        "window   {} tokens: {}",
        ui::thousands(prepared.memory.context_window),
        prepared.memory.why
    );
    part(&mut out, report, "engine");
    part(&mut out, report, "claude");
    rest_of_claude(&mut out, host, plan, report);
    for notice in &prepared.notices {
        let _ = writeln!(out, "\nnote: {notice}");
    }
    out
}

/// The command and the environment of one of the programs.
pub fn part(out: &mut String, report: &Value, part: &str) {
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

/// What of the shell's environment Claude Code does not get, and its settings.
pub fn rest_of_claude(out: &mut String, host: &Host, plan: &ClaudePlan, report: &Value) {
    // All names are in the JSON; a person wants to know what of theirs is held back.
    let held_back: Vec<&str> = (plan.unset.iter().map(String::as_str))
        .filter(|name| host.env.contains_key(OsStr::new(name)))
        .collect();
    if !held_back.is_empty() {
        let _ = writeln!(out, "  not passed on: {}", held_back.join(" "));
    }
    let _ = writeln!(out, "  settings: {}", report["claude"]["settings"]);
}
