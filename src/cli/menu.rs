//! The menu: which model is wanted, where the command line names none.

use super::cache_screen;
use super::here::Here;
use crate::catalog::{Choice, catalog};
use crate::error::{Error, Result};
use crate::hub::{self, Cached};
use crate::memory::budget::Memory;
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::process::signals;
use crate::ui::menu::{Action, Menu, Row};
use crate::ui::screen::{Input, Screen};
use crate::ui::{self, Ui};

/// What came of the menu.
pub enum Chosen {
    Model(Choice),
    /// It was left. The status to exit with.
    Nothing(u8),
}

/// Shows the menu. Without a terminal it is a usage error that names the flags.
pub fn choose(host: &Environment, paths: &Paths, ui: &Ui) -> Result<Chosen> {
    if !ui.interactive {
        let flags: Vec<String> = catalog()
            .models
            .iter()
            .map(|entry| format!("--{}", entry.flag))
            .collect();
        return Err(Error::usage("no model is named")
            .cause("the menu of models needs a terminal")
            .hint(format!("name one: {} or --model ID", flags.join(", "))));
    }
    let here = Here::find(host, paths);
    if !ui.animated {
        return plainly(paths, ui, &here);
    }
    let mut menu = Menu::new(rows(paths, &here), words(here.memory));
    let mut screen = Screen::open()?;
    loop {
        let (width, height) = screen.size();
        screen.draw(&menu.lines(ui, width, height));
        match screen.input()? {
            Input::Redraw => {}
            Input::Signal(signal) => return Ok(Chosen::Nothing(signals::status(signal))),
            Input::Key(key) => {
                let signal = match menu.key(key, height) {
                    Action::Nothing => None,
                    Action::Start(row) => return Ok(Chosen::Model(choice(row))),
                    Action::Quit => return Ok(Chosen::Nothing(0)),
                    Action::List => cache_screen::read(&mut screen, host, paths, ui)?,
                    Action::Manage => {
                        let signal = cache_screen::manage(&mut screen, host, paths, ui)?;
                        menu.refresh(rows(paths, &here));
                        signal
                    }
                };
                if let Some(signal) = signal {
                    return Ok(Chosen::Nothing(signals::status(signal)));
                }
            }
        }
    }
}

/// The menu for terminals that cannot be painted on: a list and a question.
fn plainly(paths: &Paths, ui: &Ui, here: &Here) -> Result<Chosen> {
    let rows = rows(paths, here);
    for line in Menu::new(rows.clone(), words(here.memory)).plain() {
        ui.say(&line);
    }
    loop {
        let question = format!("Model [1-{}/q] (Enter = 1)", rows.len());
        let Some(typed) = ui.ask(&question) else {
            return Ok(Chosen::Nothing(0));
        };
        match typed.as_str() {
            "" => return Ok(Chosen::Model(choice(0))),
            "q" => return Ok(Chosen::Nothing(0)),
            typed => match typed.parse::<usize>() {
                Ok(number) if (1..=rows.len()).contains(&number) => {
                    return Ok(Chosen::Model(choice(number - 1)));
                }
                _ => ui.say("Please answer with a number of the list."),
            },
        }
    }
}

fn choice(row: usize) -> Choice {
    Choice::Flag(catalog().models[row].flag.clone())
}

fn words(machine: Option<Memory>) -> String {
    match machine {
        Some(memory) => format!(
            "{} for a model ({})",
            ui::bytes(memory.budget),
            memory.budget_source.words()
        ),
        None => "this machine's memory is unknown".into(),
    }
}

fn rows(paths: &Paths, here: &Here) -> Vec<Row> {
    catalog()
        .models
        .iter()
        .map(|entry| {
            let cached = hub::cached(&paths.hub, &entry.id);
            let on_disk = match &cached {
                Cached::Complete { bytes, .. } => Some(*bytes),
                _ => None,
            };
            Row {
                name: entry.name.clone(),
                flag: entry.flag.clone(),
                size: on_disk.unwrap_or(entry.download_bytes()),
                cached,
                room: here.room(&entry.id, on_disk),
                note: entry.note.clone(),
            }
        })
        .collect()
}
