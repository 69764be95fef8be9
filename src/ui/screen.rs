//! The whole terminal, for a while: keys come in one by one, and what was there before is back afterwards, however it ends.

use std::io::{Write, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, event, execute, queue, style, terminal};
use nix::sys::signal::Signal;

use crate::error::{Context, Exit, Result};
use crate::sys::syscalls::{self, Caught};

/// How often signals are looked for.
const POLL: Duration = Duration::from_millis(50);

/// Whether the terminal is ours at the moment.
static OPEN: AtomicBool = AtomicBool::new(false);

/// A key, as far as our screens know keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Char(char),
}

/// What can happen while a screen is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Key(Key),
    /// It has another size, or was covered: draw it again.
    Redraw,
    /// Somebody wants us to end. Ctrl-C and Ctrl-\ are these signals too.
    Signal(Signal),
}

/// The terminal in raw mode, on its alternate screen. Dropping it puts everything back.
pub struct Screen {
    caught: Caught,
}

impl Screen {
    /// Takes the terminal. Only where there is one.
    pub fn open() -> Result<Self> {
        panics_give_the_terminal_back();
        let screen = Self {
            caught: syscalls::catch(),
        };
        enter().context(Exit::Other, "the terminal cannot be used for a menu")?;
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        (usize::from(columns), usize::from(rows))
    }

    /// Paints these lines from the top. They have to fit; what is too much is left out.
    pub fn draw(&self, lines: &[String]) {
        let (columns, rows) = self.size();
        let mut out = Vec::new();
        let _ = queue!(out, terminal::BeginSynchronizedUpdate);
        for (row, line) in (0u16..).zip(lines.iter().take(rows)) {
            let line = console::truncate_str(line, columns, "…");
            let _ = queue!(
                out,
                cursor::MoveTo(0, row),
                style::Print(line),
                terminal::Clear(terminal::ClearType::UntilNewLine)
            );
        }
        if lines.len() < rows {
            let below = u16::try_from(lines.len()).unwrap_or(u16::MAX);
            let _ = queue!(
                out,
                cursor::MoveTo(0, below),
                terminal::Clear(terminal::ClearType::FromCursorDown)
            );
        }
        let _ = queue!(out, terminal::EndSynchronizedUpdate);
        let _ = stderr().write_all(&out).and_then(|()| stderr().flush());
    }

    /// Waits for something to happen.
    pub fn input(&mut self) -> Result<Input> {
        loop {
            if let Some(signal) = self.caught.signal() {
                return Ok(Input::Signal(signal));
            }
            let event = match event::poll(POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let event = event.context(Exit::Other, "the terminal cannot be read")?;
            match meaning(event) {
                Meaning::Input(input) => return Ok(input),
                Meaning::Stop => {
                    self.stop();
                    return Ok(Input::Redraw);
                }
                Meaning::Nothing => {}
            }
        }
    }

    /// Ctrl-Z: the shell gets its terminal as it was, and `fg` brings the screen back.
    fn stop(&self) {
        leave();
        let _ = nix::sys::signal::raise(Signal::SIGTSTP);
        let _ = enter();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

enum Meaning {
    Input(Input),
    /// Ctrl-Z.
    Stop,
    Nothing,
}

fn meaning(event: Event) -> Meaning {
    let key = match event {
        Event::Resize(..) => return Meaning::Input(Input::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return Meaning::Nothing,
    };
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        // In raw mode the terminal makes no signals of these.
        return match key.code {
            KeyCode::Char('c') => Meaning::Input(Input::Signal(Signal::SIGINT)),
            KeyCode::Char('\\' | '4') => Meaning::Input(Input::Signal(Signal::SIGQUIT)),
            KeyCode::Char('z') => Meaning::Stop,
            _ => Meaning::Nothing,
        };
    }
    let key = match key.code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Char(character) => Key::Char(character),
        _ => return Meaning::Nothing,
    };
    Meaning::Input(Input::Key(key))
}

fn enter() -> std::io::Result<()> {
    terminal::enable_raw_mode()?;
    OPEN.store(true, Ordering::SeqCst);
    execute!(stderr(), terminal::EnterAlternateScreen, cursor::Hide)
}

fn leave() {
    if OPEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stderr(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// A panic's words would be lost on the alternate screen, and are unreadable in raw mode.
fn panics_give_the_terminal_back() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
    });
}
