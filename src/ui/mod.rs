//! Everything that a person sees. It goes to standard error; standard output carries data alone.

mod progress;
mod prompts;

use std::time::Duration;

use console::{Style, Term};
use indicatif::HumanCount;

use crate::error::Error;
use crate::escape::{visible, visible_json, visible_lines};
use crate::sys::environment::Environment;

pub use progress::Progress;
pub use prompts::Row;

/// How we talk to the person at the terminal.
#[derive(Debug, Clone)]
pub struct Ui {
    colour: bool,
    /// Questions may be asked: there is a terminal to answer on.
    pub interactive: bool,
    /// Lines may be painted over.
    pub animated: bool,
}

impl Ui {
    pub fn of(host: &Environment) -> Self {
        let dumb = host.var("TERM").is_none_or(|term| term == "dumb");
        Self {
            // https://no-color.org: set and not empty.
            colour: host.stderr_tty && !dumb && host.var("NO_COLOR").is_none(),
            interactive: host.stdin_tty && host.stderr_tty,
            animated: host.stderr_tty && !dumb,
        }
    }

    /// A line for people.
    pub fn say(&self, line: &str) {
        self.paint(&visible_lines(line));
    }

    /// A line of ours, with its colours in it. Whatever comes from elsewhere must have been made visible.
    fn paint(&self, line: &str) {
        let _ = Term::stderr().write_line(line);
    }

    /// Text for standard output.
    pub fn data(&self, text: &str) {
        self.bytes(visible_lines(text).as_bytes());
    }

    /// JSON for standard output.
    pub fn json(&self, value: &serde_json::Value) {
        let text = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
        self.bytes(visible_json(&text).as_bytes());
    }

    /// Standard output as it is. A reader that went away is no error.
    pub fn bytes(&self, bytes: &[u8]) {
        use std::io::Write;
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Something done.
    pub fn done(&self, line: &str) {
        let mark = self.style(Style::new().green()).apply_to("✓");
        self.paint(&format!("{mark} {}", visible(line)));
    }

    /// Something to know that stops nothing.
    pub fn notice(&self, line: &str) {
        let mark = self.style(Style::new().yellow()).apply_to("note:");
        self.paint(&format!("{mark} {}", visible(line)));
    }

    /// Prints an error: what went wrong, why, and what to do.
    pub fn error(&self, error: &Error) {
        let red = self.style(Style::new().red().bold());
        let bold = self.style(Style::new().bold());
        let dim = self.style(Style::new().dim());
        let message = visible(&error.message);
        self.paint(&format!("{} {message}", red.apply_to("error:")));
        if let Some(cause) = &error.cause {
            self.paint(&format!("  {} {}", bold.apply_to("cause:"), visible(cause)));
        }
        for line in &error.detail {
            let line = format!("| {}", visible(line));
            self.paint(&format!("  {}", dim.apply_to(line)));
        }
        if let Some(hint) = &error.hint {
            self.paint(&format!("  {} {}", bold.apply_to("hint:"), visible(hint)));
        }
    }

    /// A line that shows that something is going on. Ends when dropped.
    pub fn progress(&self, message: &str) -> Progress {
        Progress::start(self.animated, self.colour, message)
    }

    /// The columns that a line about progress may take.
    pub fn columns(&self) -> usize {
        if !self.animated {
            return 120;
        }
        // The spinner and its space come first.
        usize::from(Term::stderr().size().1).saturating_sub(2)
    }

    /// Whether colours are wanted, and the terminal has them.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// A style, plain where colours are off.
    pub fn style(&self, style: Style) -> Style {
        style.force_styling(self.colour).for_stderr()
    }
}

/// Makes a sentence of words: a capital letter and a full stop.
pub fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}

/// Size of memory for people, in GB of 2³⁰ bytes or MB of 2²⁰, as the system shows it: a 24 GB Mac reads 24.0 GB.
pub fn memory(bytes: u64) -> String {
    const MB: f64 = (1 << 20) as f64;
    match bytes as f64 / MB {
        mb if mb < 999.5 => format!("{mb:.0} MB"),
        mb => format!("{:.1} GB", mb / 1_024.0),
    }
}

/// Size of files and downloads for people, in GB of 10⁹ bytes or MB of 10⁶, as Finder and the hub show it.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s => format!("{} min {} s", s as u64 / 60, s as u64 % 60),
    }
}

/// A duration that is only estimated: `40 s`, `3 min`, `1 h 20 min`.
pub fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5_400 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Tokens in units of 1,024: `61k`.
pub fn kilo(tokens: u64) -> String {
    format!("{}k", tokens / 1_024)
}

/// A number with its thousands set apart: `65,536`.
pub fn thousands(number: u64) -> String {
    HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [thousands(999), thousands(1000), thousands(1_234_567)],
            ["999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [bytes(2_100), bytes(2_100_000), bytes(16_240_000_000)],
            ["2 kB", "2 MB", "16.2 GB"]
        );
        assert_eq!(
            [memory(450 << 20), memory(24 << 30), memory(16_240_000_000)],
            ["450 MB", "24.0 GB", "15.1 GB"]
        );
        assert_eq!(
            [430, 12_400, 185_000].map(|ms| seconds(Duration::from_millis(ms))),
            ["0.4 s", "12 s", "3 min 5 s"]
        );
        assert_eq!(
            [40, 170, 4_800, 6_000].map(|s| roughly(Duration::from_secs(s))),
            ["40 s", "3 min", "80 min", "1 h 40 min"]
        );
    }
}
