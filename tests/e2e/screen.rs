//! A real terminal, by tmux: keys in, the screen as a person sees it out.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{HANG, Stage};

/// A shell in a terminal of its own.
pub struct Screen<'a> {
    stage: &'a Stage,
    /// Its own: a server of tmux that is shutting down would take the next terminal with it.
    socket: PathBuf,
}

impl<'a> Screen<'a> {
    /// Opens a terminal of this size with an interactive shell in the work folder.
    pub fn open(stage: &'a Stage, width: u16, height: u16) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let socket = format!("tmp/tmux-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let screen = Self {
            stage,
            socket: stage.path(socket),
        };
        let size = [width.to_string(), height.to_string()];
        screen.tmux(&[
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            "bash --norc --noprofile -i",
        ]);
        screen.line("PS1='$ '; clear");
        screen.wait_for("$");
        screen
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-S"])
            .arg(&self.socket)
            .args(args)
            .current_dir(self.stage.path("work"))
            .env_clear()
            .envs(self.stage.env())
            .env("TERM", "xterm-256color")
            .output()
            .expect("tmux");
        assert!(
            output.status.success(),
            "tmux {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    /// Presses a key, by tmux's name for it: `Enter`, `C-c`, `Down`.
    pub fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]);
    }

    /// Waits until nothing has changed on the screen for a while. The client ignores keys for about a second after it has painted a
    /// question, lest somebody who is typing answers it.
    pub fn settle(&self) {
        let mut last = (self.text(), Instant::now());
        while last.1.elapsed() < Duration::from_millis(1500) {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.text();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }

    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&[
            "resize-window",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
        ]);
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until this text is on the screen.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(&format!("“{text}”"), |screen| screen.contains(text))
    }

    /// Waits until the screen is as wanted.
    pub fn wait_until(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let screen = self.text();
            if wanted(&screen) {
                return screen;
            }
            assert!(
                since.elapsed() < HANG,
                "{what} did not appear on the screen:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .arg("kill-server")
            .output();
    }
}
