//! A terminal of a real size: keys go in, and what a person would see is read off.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::termios::{Termios, tcgetattr};
use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use super::{HANG, Stage};

/// The binary on a terminal of its own.
pub struct Terminal {
    pty: Pty,
    child: Child,
    output: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    raw: Vec<u8>,
    modes: Termios,
}

impl Terminal {
    /// Runs the binary with these arguments on a terminal of this many columns and rows.
    pub fn run(stage: &Stage, args: &[&str], columns: u16, rows: u16) -> Self {
        let mut words = vec![env!("CARGO_BIN_EXE_cclocal")];
        words.extend(args);
        Self::of(stage, &words, columns, rows)
    }

    /// Runs any program.
    pub fn of(stage: &Stage, words: &[&str], columns: u16, rows: u16) -> Self {
        let (pty, pts) = open().expect("a terminal");
        pty.resize(Size::new(rows, columns)).expect("its size");
        let modes = tcgetattr(&pty).expect("its modes");
        let term = stage.env().get("TERM").cloned();
        let child = Command::new(words[0])
            .args(&words[1..])
            .current_dir(stage.path("work"))
            .env_clear()
            .envs(stage.env())
            .env("TERM", term.unwrap_or("xterm-256color".into()))
            .spawn(pts)
            .expect("started");
        let (sender, output) = channel();
        let mut reader = std::fs::File::from(pty.as_fd().try_clone_to_owned().expect("its output"));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the last program on it is an error here.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            pty,
            child,
            output,
            parser: vt100::Parser::new(cells(rows), cells(columns), 0),
            raw: Vec::new(),
            modes,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types these characters, control characters among them.
    pub fn keys(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).expect("typed");
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.parser
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        self.pty.resize(Size::new(rows, columns)).expect("resized");
    }

    /// What is on the screen now, without the spaces at the ends of lines.
    pub fn text(&self) -> String {
        let contents = self.parser.screen().contents();
        contents
            .lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect::<String>()
            .trim_end()
            .to_owned()
    }

    /// All that was printed so far, as it was printed.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// Whether a full-screen program has it at the moment.
    pub fn is_covered(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// Waits until this text is on the screen, and returns the screen.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_until(&format!("“{text}”"), |screen| screen.contains(text))
    }

    /// Waits until the screen is as wanted.
    pub fn wait_until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let screen = self.text();
            if wanted(&screen) {
                return screen;
            }
            let left = HANG.saturating_sub(since.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(error) => panic!(
                    "{what} did not appear ({error}):\n{}\n{}",
                    self.text(),
                    self.raw()
                ),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend(bytes);
        self.parser.process(bytes);
    }

    /// Waits for the end. The status is 1000 + n for a signal n.
    pub fn end(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let since = Instant::now();
        let status = loop {
            match self.output.recv_timeout(Duration::from_millis(10)) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            if let Some(status) = self.child.try_wait().expect("waited") {
                break status;
            }
            assert!(since.elapsed() < HANG, "it hangs:\n{}", self.text());
        };
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
            self.take(&bytes);
        }
        status
            .code()
            .unwrap_or_else(|| 1000 + status.signal().unwrap_or_default())
    }

    /// That the terminal is as it was before: its modes, the main screen, the cursor in sight.
    pub fn assert_as_it_was(&self) {
        assert_eq!(tcgetattr(&self.pty).expect("its modes"), self.modes);
        assert!(!self.is_covered(), "still on the alternate screen");
        assert!(!self.parser.screen().hide_cursor(), "the cursor is hidden");
    }
}

fn cells(number: u16) -> std::num::NonZero<u16> {
    std::num::NonZero::new(number).expect("a size")
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
