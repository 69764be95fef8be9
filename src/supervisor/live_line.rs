//! An engine's activity at this moment, in one line. Pure.

use std::time::Duration;

use serde::Deserialize;

use super::progress::Activity;
use super::protocol::{Live, PhaseName, Progress};
use crate::ui;

/// The hidden command that prints the line.
pub const COMMAND: &str = "status-line";

/// Claude Code's input to a status line, as far as it is read: the tokens of the conversation. Source: Claude Code 2.1.197 and 2.1.332.
#[derive(Debug, Default, Deserialize)]
pub struct Told {
    context_window: Option<Tokens>,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    #[serde(default)]
    total_input_tokens: u64,
    #[serde(default)]
    total_output_tokens: u64,
}

impl Told {
    /// The tokens of the conversation after its last turn. None: there was none yet.
    fn used(&self) -> Option<u64> {
        let tokens = self.context_window.as_ref()?;
        Some(tokens.total_input_tokens + tokens.total_output_tokens).filter(|used| *used > 0)
    }
}

/// The status line of a session: model, window, what is done, share of the cache.
pub fn line(live: &Live, told: &Told) -> String {
    let window = match told.used() {
        Some(used) => format!("{} of {}", tokens(used), tokens(live.window)),
        None => format!("window {}", tokens(live.window)),
    };
    let mut parts = vec![live.name.clone(), window];
    parts.push(match live.phase {
        PhaseName::Ready => words(&live.activity),
        PhaseName::Restarting => "the engine ended and is started again".into(),
        PhaseName::Ending => "the engine is unloaded".into(),
        PhaseName::Downloading | PhaseName::Loading => starting(live.progress.as_ref()),
    });
    if let Some(percent) = live.cached_percent {
        parts.push(format!("{percent} % cached"));
    }
    if let Some(before) = live.narrowed_from {
        parts.push(format!("memory ran low: window was {}", tokens(before)));
    }
    parts.join(" · ")
}

fn starting(progress: Option<&Progress>) -> String {
    match progress {
        Some(Progress::Loading { seconds }) => {
            format!("loading for {}", time(*seconds))
        }
        Some(Progress::Downloading { .. }) => "downloading".into(),
        None => "starting".into(),
    }
}

/// The activity, in words.
pub fn words(activity: &Activity) -> String {
    match activity {
        Activity::Idle => "ready".into(),
        Activity::Waiting { ahead: 0, seconds } => format!("waiting for {}", time(*seconds)),
        Activity::Waiting { ahead: 1, .. } => "waiting behind another terminal, 1 turn".into(),
        Activity::Waiting { ahead, .. } => {
            format!("waiting behind another terminal, {ahead} turns")
        }
        Activity::Reading {
            read: Some(read),
            tokens: Some(all),
            seconds_left: Some(left),
            ..
        } => format!(
            "reading {} of {}, {} left",
            tokens(*read),
            tokens(*all),
            time(*left)
        ),
        Activity::Reading {
            read: Some(read),
            tokens: Some(all),
            seconds,
            ..
        } => format!(
            "reading {} of {} for {}",
            tokens(*read),
            tokens(*all),
            time(*seconds)
        ),
        Activity::Reading { seconds, .. } => format!("reading for {}", time(*seconds)),
        Activity::Writing {
            tokens_per_second: Some(speed),
            ..
        } => format!("writing, {speed:.0} tok/s"),
        Activity::Writing { seconds, .. } => format!("writing for {}", time(*seconds)),
    }
}

fn tokens(number: u64) -> String {
    match number {
        0..1_024 => number.to_string(),
        _ => ui::kilo(number),
    }
}

fn time(seconds: u64) -> String {
    ui::roughly(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(activity: Activity) -> Live {
        Live {
            name: "Gemma-4-E4B".into(),
            phase: PhaseName::Ready,
            progress: None,
            window: 65_536,
            narrowed_from: None,
            cached_percent: None,
            activity,
        }
    }

    const READING: Activity = Activity::Reading {
        seconds: 30,
        read: Some(62_500),
        tokens: Some(86_100),
        cached: Some(20_000),
        seconds_left: Some(40),
    };

    #[test]
    fn each_state_has_its_line() {
        let none = Told::default();
        let used: Told = serde_json::from_str(
            r#"{"model": {"id": "x"}, "context_window": {"total_input_tokens": 22000, "total_output_tokens": 700, "used_percentage": 3}}"#,
        )
        .expect("read");
        let mut lines = vec![
            line(&live(Activity::Idle), &none),
            line(&live(READING), &used),
        ];
        for activity in [
            Activity::Waiting {
                ahead: 0,
                seconds: 3,
            },
            Activity::Waiting {
                ahead: 1,
                seconds: 3,
            },
            Activity::Waiting {
                ahead: 2,
                seconds: 3,
            },
            Activity::Reading {
                seconds: 4,
                read: Some(900),
                tokens: Some(3_000),
                cached: Some(0),
                seconds_left: None,
            },
            Activity::Reading {
                seconds: 4,
                read: None,
                tokens: None,
                cached: None,
                seconds_left: None,
            },
            Activity::Writing {
                seconds: 5,
                tokens: Some(190),
                tokens_per_second: Some(38.2),
            },
            Activity::Writing {
                seconds: 5,
                tokens: None,
                tokens_per_second: None,
            },
        ] {
            lines.push(words(&activity));
        }
        let narrowed = Live {
            phase: PhaseName::Restarting,
            narrowed_from: Some(131_072),
            cached_percent: Some(97),
            ..live(Activity::Idle)
        };
        lines.push(line(&narrowed, &used));
        let loading = Live {
            phase: PhaseName::Loading,
            progress: Some(Progress::Loading { seconds: 12 }),
            ..live(Activity::Idle)
        };
        lines.push(line(&loading, &none));
        insta::assert_snapshot!(lines.join("\n"), @"
        Gemma-4-E4B · window 64k · ready
        Gemma-4-E4B · 22k of 64k · reading 61k of 84k, 40 s left
        waiting for 3 s
        waiting behind another terminal, 1 turn
        waiting behind another terminal, 2 turns
        reading 900 of 2k for 4 s
        reading for 4 s
        writing, 38 tok/s
        writing for 5 s
        Gemma-4-E4B · 22k of 64k · the engine ended and is started again · 97 % cached · memory ran low: window was 128k
        Gemma-4-E4B · window 64k · loading for 12 s
        ");
    }
}
