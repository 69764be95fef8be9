//! The end of a session: what it came to, and what becomes of the engine.

use std::time::Duration;

use crate::app::App;
use crate::gateway::metrics::Summary;
use crate::supervisor::protocol::Farewell;
use crate::supervisor::{Lease, port_holder, registry, reservation};
use crate::sys::process::signals::Signals;
use crate::ui;

/// How long the engine is kept after its last session, where nothing else is asked for.
pub const LINGER: Duration = Duration::from_secs(300);

/// How long an end may take before it is said that it is waited for.
const SILENT: Duration = Duration::from_secs(1);

/// How long a supervisor may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(5);

/// Leaves the engine: it is kept for this long if nobody else uses it. If it is being ended, waits for that; a second signal does not wait, and a
/// supervisor that does not answer is not waited for for long.
pub async fn leave(app: &App, lease: &mut Lease, signals: &mut Signals, linger: Duration) {
    let (name, port) = (lease.granted.name.clone(), lease.granted.port);
    let farewell = tokio::select! {
        farewell = lease.leave(linger) => farewell,
        () = tokio::time::sleep(FAREWELL) => return left_behind(app, port),
        _ = signals.next() => return left_behind(app, port),
    };
    let Some(farewell) = farewell else {
        reservation::sweep_after(&app.paths, lease.granted.port);
        return;
    };
    for line in lines(&name, &farewell) {
        app.ui.say(&line);
    }
    if farewell.lingers.is_some() || farewell.sessions > 0 {
        return;
    }
    wait_until_gone(app, lease, signals).await;
}

/// Waits for the supervisor's end; not if a signal comes, and not for ever.
pub async fn wait_until_gone(app: &App, lease: &mut Lease, signals: &mut Signals) {
    let port = lease.granted.port;
    let mut progress = None;
    let silent = tokio::time::sleep(SILENT);
    let over = tokio::time::sleep(registry::GONE_DEADLINE);
    tokio::pin!(silent, over);
    loop {
        tokio::select! {
            // It can be called again.
            () = lease.gone() => break,
            _ = signals.next() => return,
            () = &mut over => {
                drop(progress);
                return left_behind(app, port);
            }
            () = &mut silent, if progress.is_none() => {
                progress = Some(app.ui.progress("stopping the engine"));
            }
        }
    }
    drop(progress);
    // It may have been killed at this.
    reservation::sweep_after(&app.paths, port);
}

/// Says that the supervisor is left as it is.
fn left_behind(app: &App, port: u16) {
    if let Some(holder) = port_holder::of(&app.paths, port) {
        app.ui.notice(&format!(
            "the supervisor of {} does not answer and was left as it is; {}",
            holder.words(),
            holder.hint()
        ));
    }
}

/// The lines that the person sees.
fn lines(name: &str, farewell: &Farewell) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(figures(&farewell.figures, farewell.restarts));
    if let Some(window) = farewell.narrowed {
        lines.push(format!(
            "Memory ran low: the window was narrowed to {} tokens. Next time use --ctx {window}, or a smaller model.",
            ui::thousands(window)
        ));
    }
    match (farewell.lingers, farewell.sessions) {
        (Some(linger), _) => lines.push(format!(
            "{name} stays loaded for {}; `cclocal stop` unloads it now.",
            ui::roughly(linger)
        )),
        (None, 1) => lines.push(format!("{name} stays loaded: another session uses it.")),
        (None, 2..) => lines.push(format!(
            "{name} stays loaded: {} other sessions use it.",
            farewell.sessions
        )),
        (None, 0) => {}
    }
    lines
}

/// The figures in one line. None if nothing was asked of the model.
pub fn figures(summary: &Summary, restarts: u64) -> Option<String> {
    if summary.turns == 0 {
        return None;
    }
    let mut parts = vec![tokens(summary)];
    parts.extend(speed(summary));
    match restarts {
        0 => {}
        1 => parts.push("the engine was restarted once".into()),
        more => parts.push(format!("the engine was restarted {more} times")),
    }
    Some(parts.join(" · "))
}

/// Requests and their tokens.
pub fn tokens(summary: &Summary) -> String {
    let prompt = summary.input_tokens + summary.cached_tokens;
    let mut parts = vec![format!(
        "{} {}",
        ui::thousands(summary.turns),
        if summary.turns == 1 { "turn" } else { "turns" }
    )];
    if prompt > 0 {
        parts.push(format!(
            "{} tokens in, {} % cached",
            ui::thousands(prompt),
            summary.cached_tokens * 100 / prompt
        ));
    }
    parts.push(format!("{} out", ui::thousands(summary.output_tokens)));
    parts.join(" · ")
}

/// The median time to the first token, and tokens a second from then on. None: nothing was measured.
fn speed(summary: &Summary) -> Option<String> {
    let first = summary.first_token_ms.map(|milliseconds| {
        let median = ui::seconds(Duration::from_millis(milliseconds));
        format!("first token {median}")
    });
    let speed = summary
        .tokens_per_second
        .map(|speed| format!("{speed:.0} tok/s"));
    let parts: Vec<String> = first.into_iter().chain(speed).collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_came_to_is_one_line() {
        let summary = Summary {
            turns: 12,
            input_tokens: 23_900,
            cached_tokens: 160_100,
            output_tokens: 3_122,
            first_token_ms: Some(1_240),
            tokens_per_second: Some(31.4),
            ..Summary::default()
        };
        let farewell = Farewell {
            figures: summary,
            restarts: 1,
            sessions: 0,
            lingers: Some(LINGER),
            narrowed: None,
        };
        insta::assert_snapshot!(lines("Gemma-4-E4B", &farewell).join("\n"), @"
        12 turns · 184,000 tokens in, 87 % cached · 3,122 out · first token 1.2 s · 31 tok/s · the engine was restarted once
        Gemma-4-E4B stays loaded for 5 min; `cclocal stop` unloads it now.
        ");
        let silent = Farewell {
            figures: Summary::default(),
            lingers: None,
            ..farewell.clone()
        };
        assert_eq!(lines("Gemma-4-E4B", &silent), Vec::<String>::new());
        let narrowed = Farewell {
            narrowed: Some(40_960),
            ..silent.clone()
        };
        insta::assert_snapshot!(lines("Gemma-4-E4B", &narrowed).join("\n"), @"Memory ran low: the window was narrowed to 40,960 tokens. Next time use --ctx 40960, or a smaller model.");
        let shared = Farewell {
            sessions: 2,
            ..silent
        };
        insta::assert_snapshot!(lines("Gemma-4-E4B", &shared).join("\n"), @"Gemma-4-E4B stays loaded: 2 other sessions use it.");
    }
}
