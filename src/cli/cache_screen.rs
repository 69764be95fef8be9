//! The cache on the whole terminal: to be looked through, and to be cleared.

use std::collections::HashMap;

use nix::sys::signal::Signal;

use super::here::Here;
use super::{list, rm};
use crate::error::Result;
use crate::escape::visible;
use crate::hub::scan::{self, Model};
use crate::memory::fit::Room;
use crate::supervisor::registry;
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::process::signals;
use crate::ui::picker::{Action, Picker, Row};
use crate::ui::reader::Reader;
use crate::ui::screen::{Input, Screen};
use crate::ui::{self, Ui};

/// `cclocal rm` without names. Returns the status to exit with.
pub fn run(host: &Environment, paths: &Paths, ui: &Ui) -> Result<u8> {
    let mut screen = Screen::open()?;
    let signal = manage(&mut screen, host, paths, ui)?;
    Ok(signal.map_or(0, signals::status))
}

/// Shows the models to be chosen and removed, until it is left or a signal comes.
pub fn manage(
    screen: &mut Screen,
    host: &Environment,
    paths: &Paths,
    ui: &Ui,
) -> Result<Option<Signal>> {
    let mut models = list::models(host, paths)?;
    let mut picker = picker(host, paths, &models);
    loop {
        let (width, height) = screen.size();
        screen.draw(&picker.lines(ui, width, height));
        match screen.input()? {
            Input::Redraw => {}
            Input::Signal(signal) => return Ok(Some(signal)),
            Input::Key(key) => match picker.key(key, height) {
                Action::Nothing => {}
                Action::Back => return Ok(None),
                Action::Remove(rows) => {
                    let chosen: Vec<&Model> = rows.iter().map(|row| &models[*row]).collect();
                    let message = remove(paths, &chosen);
                    models = list::models(host, paths)?;
                    picker = self::picker(host, paths, &models);
                    picker.message = Some(message);
                }
            },
        }
    }
}

/// Shows the list, until it is left or a signal comes.
pub fn read(
    screen: &mut Screen,
    host: &Environment,
    paths: &Paths,
    ui: &Ui,
) -> Result<Option<Signal>> {
    let models = list::models(host, paths)?;
    let running = registry::running(paths);
    let here = Here::find(host, paths);
    let mut reader = Reader::new(&list::text(host, paths, &models, &running, &here));
    loop {
        let (width, height) = screen.size();
        screen.draw(&reader.lines(ui, width, height));
        match screen.input()? {
            Input::Redraw => {}
            Input::Signal(signal) => return Ok(Some(signal)),
            Input::Key(key) if reader.key(key, height) => {}
            Input::Key(_) => return Ok(None),
        }
    }
}

fn picker(host: &Environment, paths: &Paths, models: &[Model]) -> Picker {
    let running = registry::running(paths);
    let mut files = HashMap::new();
    let rows = models
        .iter()
        .map(|model| Row {
            name: visible(&model.id).into_owned(),
            bytes: model.bytes,
            shared: model
                .stored
                .iter()
                .map(|entry| {
                    let number = files.len();
                    (*files.entry(&entry.path).or_insert(number), entry.bytes)
                })
                .collect(),
            remark: visible(&list::remarks(model, &running, Room::Unknown)).into_owned(),
            held: rm::held(paths, model, &running).map(|held| visible(&held.cause).into_owned()),
        })
        .collect();
    let total = scan::total(models);
    let title = format!("{} in {}", ui::bytes(total), host.tilde(&paths.hub));
    Picker::new(title, rows)
}

/// Removes what nothing speaks against by now, and says what came of it.
fn remove(paths: &Paths, chosen: &[&Model]) -> String {
    let running = registry::running(paths);
    let mut freed = 0;
    for model in chosen {
        let removed = match rm::held(paths, model, &running) {
            Some(held) => Err(format!("{} was not removed: {}", model.id, held.cause)),
            None => rm::remove_one(paths, model)
                .map_err(|error| format!("{}: {}", error.message, error.cause.unwrap_or_default())),
        };
        match removed {
            Ok(gone) => freed += gone,
            Err(failed) => {
                return format!("Freed {}. {}.", ui::bytes(freed), visible(&failed));
            }
        }
    }
    format!("Freed {}.", ui::bytes(freed))
}
