//! `cclocal rm`: models out of the hub cache. All is checked before anything is removed.

use super::args::RmArgs;
use super::{cache_screen, list};
use crate::app::App;
use crate::catalog::catalog;
use crate::error::{Error, Exit, Result};
use crate::escape::visible;
use crate::hub::remove;
use crate::hub::scan::{self, Model};
use crate::session::acquire;
use crate::supervisor::registry::{self, Running};
use crate::sys::paths::Paths;
use crate::ui;

/// Returns the status to exit with.
pub(super) fn run(app: &App, args: &RmArgs) -> Result<u8> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    if args.models.is_empty() {
        if ui.interactive && ui.paints_prompts() {
            return cache_screen::manage(app).map(|()| 0);
        }
        return Err(Error::usage("no model was given")
            .cause("choosing from a list needs a terminal")
            .hint("`cclocal list` shows what is there; then: cclocal rm --yes ORG/NAME"));
    }
    let models = list::models(host, paths)?;
    let chosen = select(&models, &args.models)?;
    let running = registry::running(paths);
    for model in &chosen {
        if let Some(why) = held(paths, model, &running) {
            return Err(Error::other(format!("{} was not removed", model.id))
                .cause(why.cause)
                .hint(why.hint));
        }
    }
    let total = scan::freed_bytes(&chosen, &models);
    if !args.yes {
        if !ui.interactive {
            return Err(Error::usage("nothing was removed")
                .cause("there is no terminal to ask on")
                .hint("add --yes to remove without a question"));
        }
        for model in &chosen {
            ui.say(&format!(
                "  {}  {}",
                visible(&model.id),
                ui::bytes(model.bytes)
            ));
        }
        if !ui.confirm_loss(&format!("Remove {}?", ui::bytes(total))) {
            ui.say("Nothing was removed.");
            return Ok(0);
        }
    }
    let mut freed = 0;
    for model in &chosen {
        let gone = remove_one(paths, model).map_err(|error| {
            error.hint(format!(
                "{} were freed before that; run the same command again to remove the rest",
                ui::bytes(freed)
            ))
        })?;
        freed += gone;
        let shared = match model.bytes.saturating_sub(gone) {
            0 => String::new(),
            kept => format!("; {} stay, as other models use them", ui::bytes(kept)),
        };
        ui.done(&format!(
            "removed {} ({}{shared})",
            model.id,
            ui::bytes(gone)
        ));
    }
    if chosen.len() > 1 {
        ui.say(&format!("Freed {}.", ui::bytes(freed)));
    }
    Ok(0)
}

/// Removes a model that was checked. Returns the bytes that this freed.
pub(super) fn remove_one(paths: &Paths, model: &Model) -> Result<u64> {
    let freed = remove::remove(&paths.hub, model).map_err(|error| {
        Error::new(
            Exit::Other,
            format!("{} could not be removed completely", model.id),
        )
        .because(error)
    })?;
    // The links to its text part lead nowhere now.
    if let Some(name) = model.folder.file_name() {
        let _ = fs_err::remove_dir_all(paths.text_models().join(name));
        // What an engine kept of its own computing serves nobody else.
        let _ = fs_err::remove_dir_all(paths.kept_prefixes().join(name));
    }
    Ok(freed)
}

/// Why a model is not to be removed now, and what to do about it.
pub(super) struct Held {
    pub cause: String,
    pub hint: String,
}

/// Whether something speaks against removing it.
pub(super) fn held(paths: &Paths, model: &Model, running: &[Running]) -> Option<Held> {
    if let Some(link) = &model.link {
        return Some(Held {
            cause: format!("it is a link to {}", link.display()),
            hint: format!(
                "remove it by hand if you want to: rm {}",
                model.folder.display()
            ),
        });
    }
    if let Some(user) = list::user(model, running) {
        let (cause, idle) = match user {
            Running::Known(status) => (
                format!("it is loaded: {}", acquire::words(status)),
                status.is_idle(),
            ),
            Running::Foreign { version, used, .. } => (
                format!("it is loaded by another version of cclocal ({version})"),
                !used,
            ),
            Running::Silent(holder) => {
                return Some(Held {
                    cause: match holder.record {
                        Some(_) => format!(
                            "it is loaded: the supervisor of {} does not answer",
                            holder.words()
                        ),
                        None => format!(
                            "it may be loaded: the supervisor of {} does not answer",
                            holder.words()
                        ),
                    },
                    hint: holder.hint(),
                });
            }
        };
        return Some(Held {
            cause,
            hint: match idle {
                true => format!("unload it first: cclocal stop --port {}", user.port()),
                false => "close that session first".into(),
            },
        });
    }
    remove::is_downloading(&paths.hub, model).then(|| Held {
        cause: "a program is downloading it".into(),
        hint: "wait for that download, or stop it".into(),
    })
}

/// The models of these names. A name that is not there is an error.
fn select<'a>(models: &'a [Model], names: &[String]) -> Result<Vec<&'a Model>> {
    let mut chosen: Vec<&Model> = Vec::new();
    for name in names {
        let id = id(name);
        let Some(model) = models.iter().find(|model| model.id == id) else {
            let near = models
                .iter()
                .find(|model| {
                    let known = model.id.to_lowercase();
                    let asked = id.to_lowercase();
                    known.contains(&asked) || asked.contains(&known)
                })
                .map(|model| format!("did you mean {}? ", model.id))
                .unwrap_or_default();
            return Err(Error::usage(format!("{name} is not in the cache"))
                .cause("nothing was removed")
                .hint(format!("{near}`cclocal list` shows what is there")));
        };
        if !chosen.contains(&model) {
            chosen.push(model);
        }
    }
    Ok(chosen)
}

/// A hub id from what was typed: an id, a flag of the catalogue with or without its dashes, or a folder of the cache.
fn id(name: &str) -> String {
    let catalog = catalog();
    let flag = name.trim_start_matches('-');
    let flag = catalog.aliases.get(flag).map_or(flag, String::as_str);
    if let Some(entry) = catalog.models.iter().find(|entry| entry.flag == flag) {
        return entry.id.clone();
    }
    match name.strip_prefix("models--") {
        Some(rest) => rest.replace("--", "/"),
        None => name.to_owned(),
    }
}
