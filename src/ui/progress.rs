//! A line that shows that something is going on: painted over on a terminal, and off one a plain line now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where lines cannot be painted over.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A step that is going on.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    printed: Option<(Instant, String)>,
    started: Instant,
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
            printed: None,
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
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            None => {
                let due = self
                    .printed
                    .as_ref()
                    .is_none_or(|(at, _)| at.elapsed() >= PLAIN_INTERVAL);
                if due {
                    let _ = console::Term::stderr().write_line(line);
                    self.printed = Some((Instant::now(), line.to_owned()));
                }
            }
        }
    }

    /// Says that something else is being done now. Where lines cannot be painted over, it is printed at once.
    pub fn step(&mut self, message: &str) {
        if self
            .printed
            .as_ref()
            .is_some_and(|(_, said)| said != message)
        {
            self.printed = None;
        }
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
