//! The menu: which model is wanted, where the command line names none.

use console::Style;

use super::machine_fit::MachineFit;
use super::{cache_screen, list, own_models};
use crate::app::App;
use crate::catalog::{Choice, ModelArgument, catalog};
use crate::error::{Error, Result};
use crate::escape::visible;
use crate::hub::{self, Cached};
use crate::memory::WIDE_WINDOW;
use crate::memory::budget::Memory;
use crate::memory::fit::Fit;
use crate::settings::Resolver;
use crate::ui::{self, Row};

const TITLE: &str = concat!("cclocal ", env!("CARGO_PKG_VERSION"));

const KEYS: &str = "Enter start · q quit · ↑↓ j k move";

const COLUMNS: &str = "  MODEL                   SIZE   ON DISK           CONTEXT";

/// Columns of a model's name. A longer one is cut; the line below has all of it.
const NAME: usize = 20;

/// A model to choose.
struct Offer {
    row: Row,
    choice: Choice,
}

/// Asks for a model. None: the menu was left. Without a terminal it is a usage error that names the flags.
pub(super) fn choose(app: &App, resolver: &Resolver) -> Result<Option<Choice>> {
    let App {
        environment,
        paths,
        ui,
        ..
    } = app;
    let settings = resolver.settings;
    if !ui.interactive {
        let flags: Vec<String> = (catalog().models)
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
    // The row below the models that was chosen last.
    let mut at = None;
    loop {
        let offers = offers(app, resolver, &here)?;
        let usual = resolver.default_model()?;
        let usual = usual.and_then(|model| settings.choice(environment, &model).ok());
        let usual = offers
            .iter()
            .position(|offer| usual.as_ref() == Some(&offer.choice));
        let mut rows: Vec<Row> = offers.iter().map(|offer| offer.row.clone()).collect();
        if ui.paints_prompts() {
            rows.extend(["Remove models from the cache", "List models in the cache"].map(Row::new));
        }
        let start = at.map_or(usual.unwrap_or(0), |at| offers.len() + at);
        match ui.select(&heading, &rows, start) {
            None => return Ok(None),
            Some(row) if row < offers.len() => {
                let choice = offers[row].choice.clone();
                // Its folder may be gone.
                return match settings.of_choice(&choice) {
                    Some(own) => own.choice(environment).map(Some),
                    None => Ok(Some(choice)),
                };
            }
            Some(row) => {
                at = Some(row - offers.len());
                if row == offers.len() {
                    cache_screen::manage(app)?;
                } else {
                    ui.say(&list::text_of(app, resolver, &here)?);
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

/// The models that can be started: one's own, the catalogue's, and other complete ones on this disk.
fn offers(app: &App, resolver: &Resolver, here: &MachineFit) -> Result<Vec<Offer>> {
    let paths = &app.paths;
    let own = resolver.settings.models.iter().map(|own| {
        let seen = own_models::look(app, resolver, own, here);
        let (size, on_disk) = match &seen.cached {
            Cached::Complete { bytes, .. } => (ui::bytes(*bytes), "yes".into()),
            cached => (String::new(), words(cached)),
        };
        let on_disk = match seen.choice {
            Ok(_) => on_disk,
            Err(_) => "folder is gone".into(),
        };
        let note = format!("cclocal {} · {}", own.name, own.place.words());
        Offer {
            row: row(&own.name, &size, &on_disk, seen.fit, note),
            choice: seen.choice.unwrap_or_else(|choice| choice),
        }
    });
    let catalogue = catalog().models.iter().map(|entry| {
        let cached = hub::cached(&paths.hub, &entry.id);
        let on_disk = match &cached {
            Cached::Complete { bytes, .. } => Some(*bytes),
            _ => None,
        };
        let fit = here.room(&entry.id, on_disk);
        let size = ui::bytes(on_disk.unwrap_or(entry.download_bytes()));
        let note = format!("--{} · {}", entry.flag, entry.note);
        Offer {
            row: row(&entry.name, &size, &words(&cached), fit, note),
            choice: Choice::Flag(entry.flag.clone()),
        }
    });
    let mut offers: Vec<Offer> = own.chain(catalogue).collect();
    for model in list::models(&app.environment, paths)? {
        let is_known = catalog().by_id(&model.id).is_some()
            || (resolver.settings.models.iter()).any(|own| own.place.is(&model.id));
        if is_known || !own_models::is_usable(paths, &model) {
            continue;
        }
        let name = model.id.rsplit('/').next().unwrap_or(&model.id);
        let fit = list::room(&model, here);
        let size = ui::bytes(model.loaded_bytes());
        let note = format!("--model {}", visible(&model.id));
        offers.push(Offer {
            row: row(&visible(name), &size, "yes", fit, note),
            choice: Choice::Argument(ModelArgument::Hub(model.id.clone())),
        });
    }
    Ok(offers)
}

fn row(name: &str, size: &str, on_disk: &str, fit: Fit, note: String) -> Row {
    let name = console::pad_str(name, NAME, console::Alignment::Left, Some("…")).into_owned();
    Row {
        text: format!("{name} {size:>7}   {on_disk:<17} "),
        remark: context(fit),
        remark_style: context_style(fit),
        note,
        held: false,
    }
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
