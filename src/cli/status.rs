//! `cclocal status`: the loaded models.

use std::io::Write;
use std::time::Duration;

use console::Term;
use serde_json::{Value, json};

use super::args::StatusArgs;
use crate::app::App;
use crate::error::Result;
use crate::escape::{visible, visible_json, visible_lines};
use crate::gateway::cache_breaks::CacheBreaks;
use crate::session::release;
use crate::supervisor::live_line;
use crate::supervisor::protocol::Status;
use crate::supervisor::registry::{self, Running};
use crate::sys::environment::Environment;
use crate::ui;

/// How often it is shown with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(app: &App, args: &StatusArgs) -> Result<()> {
    if args.watch {
        watch(app, args.json);
        return Ok(());
    }
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let running = registry::running(paths);
    if args.json {
        ui.json(&json(&running));
    } else if running.is_empty() {
        ui.say(NONE);
    } else {
        ui.data(&page(host, &running));
    }
    Ok(())
}

const NONE: &str = "No engine is running.";

/// Until Ctrl-C, which ends it as the system does, or until nobody reads it any more.
fn watch(app: &App, as_json: bool) {
    let host = &app.environment;
    let mut shown = String::new();
    loop {
        let running = registry::running(&app.paths);
        let text = match as_json {
            true => visible_json(&format!("{}\n", json(&running))),
            false if running.is_empty() => format!("{NONE}\n"),
            false => page(host, &running),
        };
        let text = match host.stdout_tty && !as_json {
            true => painted_over(&std::mem::replace(&mut shown, text.clone()), &text),
            false => text,
        };
        let mut stdout = std::io::stdout().lock();
        if (stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()))
        .is_err()
        {
            return;
        }
        drop(stdout);
        std::thread::sleep(INTERVAL);
    }
}

/// The text in the place of the one that is shown: up by its rows, and over it.
fn painted_over(shown: &str, text: &str) -> String {
    let columns = usize::from(Term::stdout().size().1).max(1);
    let rows = |line: &str| console::measure_text_width(line).div_ceil(columns).max(1);
    let up: usize = shown.lines().map(rows).sum();
    match up {
        0 => text.to_owned(),
        up => format!("\u{1b}[{up}A\u{1b}[J{text}"),
    }
}

fn json(running: &[Running]) -> Value {
    let all = running.iter().map(|running| match running {
        Running::Known(status) => json!(status),
        Running::Foreign {
            port,
            version,
            used,
            ..
        } => json!({"port": port, "version": version, "used": used}),
        Running::Silent(holder) => json!({
            "port": holder.port,
            "pid": holder.pid,
            "phase": "silent",
            "source": holder.source(),
        }),
    });
    all.collect()
}

fn page(host: &Environment, running: &[Running]) -> String {
    let all = running.iter().map(|running| match running {
        Running::Known(status) => text(host, status),
        Running::Foreign {
            port,
            version,
            used,
            ..
        } => format!(
            "an engine of another version of cclocal ({}) on port {port}, {}\n",
            visible(version),
            if *used { "in use" } else { "not in use" }
        ),
        Running::Silent(holder) => format!(
            "{}  not answering\n  hint      {}\n",
            holder.words(),
            holder.hint()
        ),
    });
    visible_lines(&all.collect::<String>()).into_owned()
}

fn text(host: &Environment, status: &Status) -> String {
    let up = ui::roughly(Duration::from_secs(status.up));
    let mut lines = vec![format!(
        "{}  {} · port {} · up {up}",
        status.name,
        status.phase.word(),
        status.port
    )];
    let mut memory = Vec::new();
    if let Some(weights) = status.weights {
        memory.push(format!("weights {}", ui::memory(weights)));
    }
    if let Some(resident) = status.resident {
        memory.push(format!("{} resident", ui::memory(resident)));
    }
    if let Some(engine) = status.memory.filter(|engine| engine.held > 0) {
        memory.push(format!(
            "uses {} of {}, peak {}",
            ui::memory(engine.held),
            ui::memory(engine.limit),
            ui::memory(engine.peak)
        ));
    }
    memory.push(format!(
        "window {} tokens",
        ui::thousands(status.window.tokens)
    ));
    lines.push(format!("  memory    {}", memory.join(" · ")));
    lines.extend(short_of_memory(status));
    let mut sessions = match status.sessions.as_slice() {
        [] => "none".to_owned(),
        pids => {
            let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
            format!("{} (process {})", pids.len(), pids.join(", "))
        }
    };
    if let Some(seconds) = status.ends_in {
        let left = ui::roughly(Duration::from_secs(seconds));
        sessions += &format!("; unloads in {left}");
    }
    lines.push(format!("  sessions  {sessions}"));
    if status.busy > 0 {
        let now = status.now.as_ref().map(live_line::words);
        let now = now.map_or_else(String::new, |words| format!("; {words}"));
        lines.push(format!(
            "  requests  {} running or waiting{now}",
            status.busy
        ));
    }
    if status.figures.turns > 0 {
        lines.push(format!("  served    {}", release::tokens(&status.figures)));
    }
    lines.extend(cache_breaks(&status.cache_breaks));
    if let Some(milliseconds) = status.figures.first_token_ms {
        let median = ui::seconds(Duration::from_millis(milliseconds));
        let speed = (status.figures.tokens_per_second)
            .map_or_else(String::new, |speed| format!(" · {speed:.0} tok/s"));
        lines.push(format!("  speed     first token {median} (median){speed}"));
    }
    match status.restarts {
        0 => {}
        1 => lines.push("  restarts  1, after a crash".into()),
        more => lines.push(format!("  restarts  {more}, after crashes")),
    }
    for words in &status.lacking {
        lines.push(format!("  note      {words}"));
    }
    lines.push(format!("  log       {}", host.tilde(&status.log)));
    let lines: Vec<_> = lines.iter().map(|line| visible(line)).collect();
    lines.join("\n") + "\n"
}

/// Breaks of the prefix cache. None: there were none.
fn cache_breaks(breaks: &CacheBreaks) -> Option<String> {
    let last = breaks.last.as_ref()?;
    let often = match breaks.count {
        1 => "1 break".to_owned(),
        more => format!("{more} breaks, {} tokens", ui::thousands(breaks.tokens)),
    };
    let tokens = ui::thousands(last.tokens);
    Some(match &last.part {
        Some(part) => {
            format!("  cache     {often}; last: {part} changed, {tokens} tokens computed again")
        }
        None => format!(
            "  cache     {often}; last: it had the prompt no more, {tokens} tokens computed again"
        ),
    })
}

/// Steps that were taken because memory ran low. None: none.
fn short_of_memory(status: &Status) -> Option<String> {
    let memory = status.memory?;
    let mut done = Vec::new();
    match memory.dropped {
        0 => {}
        1 => done.push("1 conversation dropped from the prefix cache".into()),
        more => done.push(format!(
            "{more} conversations dropped from the prefix cache"
        )),
    }
    match memory.cleared {
        0 => {}
        1 => done.push("the prefix cache cleared".into()),
        more => done.push(format!("the prefix cache cleared {more} times")),
    }
    if let Some(before) = memory.narrowed_from {
        done.push(format!(
            "the window narrowed from {} tokens",
            ui::thousands(before)
        ));
    }
    (!done.is_empty()).then(|| format!("  low mem   {}", done.join(" · ")))
}
