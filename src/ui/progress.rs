//! A line that shows that something is going on: painted over on a terminal, and off one a plain line now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::escape::visible;

/// How often a line is printed where lines cannot be painted over.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A step that is going on.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: Plain,
    started: Instant,
}

/// The lines of a step where they cannot be painted over: not each that is shown. Pure; the clock is passed in.
#[derive(Debug, Default)]
struct Plain {
    printed: Option<(Instant, String)>,
}

impl Plain {
    /// Whether this line is to be printed now.
    fn shows(&mut self, now: Instant, line: &str) -> bool {
        let due = self
            .printed
            .as_ref()
            .is_none_or(|(at, _)| now.duration_since(*at) >= PLAIN_INTERVAL);
        if due {
            self.printed = Some((now, line.to_owned()));
        }
        due
    }

    /// Begins another step, unless it is the line that was printed last.
    fn step(&mut self, message: &str) {
        if self
            .printed
            .as_ref()
            .is_some_and(|(_, said)| said != message)
        {
            self.printed = None;
        }
    }
}

impl Progress {
    pub(super) fn start(animated: bool, colour: bool, message: &str) -> Self {
        let mut progress = Self {
            bar: animated.then(|| {
                let template = if colour {
                    "{spinner:.cyan} {wide_msg}"
                } else {
                    "{spinner} {wide_msg}"
                };
                let style = ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = ProgressBar::new_spinner().with_style(style);
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            }),
            plain: Plain::default(),
            started: Instant::now(),
        };
        progress.update(message);
        progress
    }

    /// Says where it is now. The time since the start is added.
    pub fn update(&mut self, message: &str) {
        let elapsed = self.started.elapsed();
        self.show(&if elapsed < Duration::from_secs(1) {
            message.to_owned()
        } else {
            format!("{message} ({} s)", elapsed.as_secs())
        });
    }

    /// Says just this.
    pub fn show(&mut self, line: &str) {
        let line = visible(line);
        match &self.bar {
            Some(bar) => bar.set_message(line.into_owned()),
            None => {
                if self.plain.shows(Instant::now(), &line) {
                    let _ = console::Term::stderr().write_line(&line);
                }
            }
        }
    }

    /// Says that something else is being done now. Where lines cannot be painted over, it is printed at once.
    pub fn step(&mut self, message: &str) {
        self.plain.step(message);
        self.update(message);
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Progress {
    /// Nothing of ours may go on painting once the terminal belongs to somebody else.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_every_few_seconds() {
        let start = Instant::now();
        let mut plain = Plain::default();
        // As a download shows it: four times a second, always another line.
        let printed: Vec<u64> = (0..=80)
            .filter(|tick| {
                let now = start + Duration::from_millis(tick * 250);
                plain.shows(now, &format!("downloading org/name: {tick} MB"))
            })
            .map(|tick| tick / 4)
            .collect();
        assert_eq!(printed, [0, 5, 10, 15, 20], "seconds");
    }

    #[test]
    fn another_step_is_said_at_once_and_the_same_is_not_repeated() {
        let now = Instant::now();
        let mut plain = Plain::default();
        let mut said = Vec::new();
        for step in ["looking for Python", "looking for Python", "fetching uv"] {
            plain.step(step);
            if plain.shows(now, step) {
                said.push(step);
            }
        }
        assert_eq!(said, ["looking for Python", "fetching uv"]);
    }
}
