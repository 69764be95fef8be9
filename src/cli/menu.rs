//! The menu: which model is wanted, where the command line names none.

use console::Style;

use super::machine_fit::MachineFit;
use super::{cache_screen, list};
use crate::app::App;
use crate::catalog::{Choice, catalog};
use crate::error::{Error, Result};
use crate::hub::{self, Cached};
use crate::memory::WIDE_WINDOW;
use crate::memory::budget::Memory;
use crate::memory::fit::Fit;
use crate::settings::Resolver;
use crate::supervisor::registry;
use crate::sys::paths::Paths;
use crate::ui::{self, Row};

const TITLE: &str = concat!("cclocal ", env!("CARGO_PKG_VERSION"));

const KEYS: &str = "Enter start · q quit · ↑↓ j k move";

const COLUMNS: &str = "  MODEL                   SIZE   ON DISK           CONTEXT";

/// Asks for a model. None: the menu was left. Without a terminal it is a usage error that names the flags.
pub(super) fn choose(app: &App, _resolver: &Resolver) -> Result<Option<Choice>> {
    let App {
        environment,
        paths,
        ui,
        ..
    } = app;
    let models = &catalog().models;
    if !ui.interactive {
        let flags: Vec<String> = models
            .iter()
            .map(|entry| format!("--{}", entry.flag))
            .collect();
        return Err(Error::usage("no model was given")
            .cause("the menu of models needs a terminal")
            .hint(format!(
                "choose one of them: {} or --model ID",
                flags.join(", ")
            )));
    }
    let here = MachineFit::find(environment, paths);
    let bold = ui.style(Style::new().bold());
    let dim = ui.style(Style::new().dim());
    let title = format!("{} · {}", bold.apply_to(TITLE), machine(here.memory));
    let mut heading = vec![title];
    if ui.paints_prompts() {
        heading.extend([KEYS, COLUMNS].map(|line| dim.apply_to(line).to_string()));
    }
    let mut at = 0;
    loop {
        let mut rows = rows(paths, &here);
        if ui.paints_prompts() {
            rows.extend(["Remove models from the cache", "List models in the cache"].map(Row::new));
        }
        match ui.select(&heading, &rows, at) {
            None => return Ok(None),
            Some(row) if row < models.len() => {
                return Ok(Some(Choice::Flag(models[row].flag.clone())));
            }
            Some(row) => {
                at = row;
                if row == models.len() {
                    cache_screen::manage(app)?;
                } else {
                    let models = list::models(environment, paths)?;
                    let running = registry::running(paths);
                    ui.say(&list::text(environment, paths, &models, &running, &here));
                }
            }
        }
    }
}

fn machine(memory: Option<Memory>) -> String {
    match memory {
        Some(memory) => format!(
            "{} for a model ({})",
            ui::memory(memory.budget),
            memory.budget_source.words()
        ),
        None => "this machine's memory is unknown".into(),
    }
}

fn rows(paths: &Paths, here: &MachineFit) -> Vec<Row> {
    catalog()
        .models
        .iter()
        .map(|entry| {
            let cached = hub::cached(&paths.hub, &entry.id);
            let on_disk = match &cached {
                Cached::Complete { bytes, .. } => Some(*bytes),
                _ => None,
            };
            let room = here.room(&entry.id, on_disk);
            let size = ui::bytes(on_disk.unwrap_or(entry.download_bytes()));
            Row {
                text: format!("{:<20} {size:>7}   {:<17} ", entry.name, words(&cached)),
                remark: context(room),
                remark_style: context_style(room),
                note: format!("--{} · {}", entry.flag, entry.note),
                held: false,
            }
        })
        .collect()
}

fn words(cached: &Cached) -> String {
    match cached {
        Cached::Missing => "not yet".into(),
        Cached::Partial { bytes: so_far } => format!("partly, {}", ui::bytes(*so_far)),
        Cached::Complete { .. } => "yes".into(),
    }
}

fn context(room: Fit) -> String {
    match room {
        Fit::Window { tokens, estimated } => format!("{} tokens", about(tokens, estimated)),
        Fit::Raised { tokens, estimated } => {
            format!("{}, GPU limit raised", about(tokens, estimated))
        }
        Fit::TooBig(short) => format!("too big by {}", ui::memory(short)),
        Fit::TooShort(longest) => format!("{}: too short", ui::kilo(longest)),
        Fit::Unknown => "unknown".into(),
    }
}

/// In a sign that it is estimated, so that narrow terminals show the figure.
fn about(tokens: u64, estimated: bool) -> String {
    let about = if estimated { "~" } else { "" };
    format!("{about}{}", ui::kilo(tokens))
}

fn context_style(room: Fit) -> Style {
    match room {
        Fit::Window { tokens, .. } if tokens >= WIDE_WINDOW => Style::new().green(),
        Fit::Window { .. } | Fit::Raised { .. } => Style::new().yellow(),
        Fit::TooBig(_) | Fit::TooShort(_) => Style::new().red(),
        Fit::Unknown => Style::new(),
    }
}
