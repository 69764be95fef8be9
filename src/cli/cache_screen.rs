//! The cache on a screen: choose models and remove them.

use std::borrow::Cow;

use super::{list, rm};
use crate::app::App;
use crate::error::Result;
use crate::escape::visible;
use crate::hub::scan::{self, Model};
use crate::memory::fit::Fit;
use crate::supervisor::registry;
use crate::sys::paths::Paths;
use crate::ui::{self, Row, Ui};

const KEYS: &str = "Space choose · a all · Enter remove · q back · ↑↓ j k move";

/// Asks which models to remove, and removes them, until the person leaves.
pub(super) fn manage(app: &App) -> Result<()> {
    let App {
        environment,
        paths,
        ui,
        ..
    } = app;
    let mut chosen: Vec<usize> = Vec::new();
    let mut models = list::models(environment, paths)?;
    loop {
        let folder = environment.tilde(&paths.hub);
        if models.is_empty() {
            ui.say(&format!("No models in {folder}."));
            return Ok(());
        }
        let total = ui::bytes(scan::total_bytes(&models));
        let heading = [format!("{total} in {folder}"), KEYS.into()];
        let of = |rows: &[usize]| rows.iter().map(|row| &models[*row]).collect::<Vec<_>>();
        let below = |rows: &[usize]| match rows {
            [] => String::new(),
            rows => format!("{} chosen", words(&of(rows), &models)),
        };
        let Some(picked) = ui.pick(&heading, &rows(paths, ui, &models), &chosen, &below) else {
            return Ok(());
        };
        chosen = picked;
        if chosen.is_empty() {
            ui.say("Nothing is chosen. Press Space to choose a model.");
        } else if ui.confirm_loss(&format!("Remove {}?", words(&of(&chosen), &models))) {
            ui.say(&remove(paths, &of(&chosen)));
            chosen.clear();
            models = list::models(environment, paths)?;
        }
    }
}

/// Number of models and the bytes that their removal frees.
fn words(chosen: &[&Model], all: &[Model]) -> String {
    let count = match chosen.len() {
        1 => "1 model".to_owned(),
        count => format!("{count} models"),
    };
    format!("{count}, {}", ui::bytes(scan::freed_bytes(chosen, all)))
}

fn rows(paths: &Paths, ui: &Ui, models: &[Model]) -> Vec<Row> {
    let running = registry::running(paths);
    let names: Vec<_> = models.iter().map(|model| visible(&model.id)).collect();
    let widths = names.iter().map(|name| console::measure_text_width(name));
    let widest = widths.max().unwrap_or(0);
    // 40 columns are for the rest.
    let columns = ui.columns().saturating_sub(38).clamp(20, 60).min(widest);
    let row = |(model, name): (&Model, &Cow<str>)| {
        let held = rm::held(paths, model, &running).map(|held| held.cause);
        let is_held = held.is_some();
        let remark = held.unwrap_or_else(|| list::remarks(model, &running, Fit::Unknown));
        let name = console::truncate_str(name, columns, "…");
        let name = console::pad_str(&name, columns, console::Alignment::Left, None);
        Row {
            text: format!(
                "{name} {:>8}   {}",
                ui::bytes(model.bytes),
                visible(&remark)
            ),
            held: is_held,
            ..Row::default()
        }
    };
    models.iter().zip(&names).map(row).collect()
}

/// Removes the models that are not in use by now, and returns the result in words.
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
