//! `cclocal list`: the models in the hub cache.

use serde_json::{Value, json};

use super::args::ListArgs;
use super::machine_fit::MachineFit;
use super::own_models;
use crate::app::App;
use crate::catalog::catalog;
use crate::error::{Context, Exit, Result};
use crate::escape::visible;
use crate::hub::Cached;
use crate::hub::scan::{self, Model};
use crate::memory::fit::Fit;
use crate::settings::{Place, Resolver};
use crate::supervisor::registry::{self, Running};
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::ui;

pub(super) fn run(app: &App, args: &ListArgs, resolver: &Resolver) -> Result<()> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let here = MachineFit::find(host, paths);
    if args.json {
        let models = models(host, paths)?;
        let running = registry::running(paths);
        let mut report = json(paths, &models, &running, &here);
        report["own"] = own_json(app, resolver, &here);
        ui.json(&report);
    } else {
        ui.data(&text_of(app, resolver, &here)?);
    }
    Ok(())
}

/// The list for people, with one's own models below.
pub(super) fn text_of(app: &App, resolver: &Resolver, here: &MachineFit) -> Result<String> {
    let App {
        environment, paths, ..
    } = app;
    let models = models(environment, paths)?;
    let running = registry::running(paths);
    let text = text(environment, paths, &models, &running, here);
    Ok(text + &own_text(app, resolver, here))
}

/// The models of the settings file, for people. Empty: it has none.
fn own_text(app: &App, resolver: &Resolver, here: &MachineFit) -> String {
    let own = &resolver.settings.models;
    if own.is_empty() {
        return String::new();
    }
    let width = own.iter().map(|own| own.name.len()).max().unwrap_or(0);
    let mut text = String::from("\nYour own, as cclocal NAME:\n");
    for own in own {
        let seen = own_models::look(app, resolver, own, here);
        let mut said = vec![own.place.words().to_owned()];
        match (&seen.choice, &seen.cached) {
            (Err(_), _) => said.push("no model is there".into()),
            (_, Cached::Missing) => said.push("not on this disk".into()),
            (_, Cached::Partial { .. }) => said.push("partial".into()),
            (_, Cached::Complete { bytes, .. }) => said.push(ui::bytes(*bytes)),
        }
        said.extend(context(seen.fit));
        text += &format!("{:<width$}  {}\n", own.name, visible(&said.join(", ")));
    }
    text
}

fn own_json(app: &App, resolver: &Resolver, here: &MachineFit) -> Value {
    let own = resolver.settings.models.iter();
    own.map(|own| {
        let seen = own_models::look(app, resolver, own, here);
        let (id, folder) = match &own.place {
            Place::Id(id) => (Some(id), None),
            Place::Folder(folder) => (None, Some(app.environment.resolve(folder))),
        };
        json!({
            "name": own.name,
            "id": id,
            "folder": folder,
            "state": match seen.cached {
                Cached::Missing => "missing",
                Cached::Partial { .. } => "partial",
                Cached::Complete { .. } => "complete",
            },
            "context_window": seen.fit.window(),
            "context_window_raised": seen.fit.raised(),
        })
    })
    .collect()
}

/// The models in the cache.
pub(super) fn models(host: &Environment, paths: &Paths) -> Result<Vec<Model>> {
    scan::scan(&paths.hub).context(
        Exit::Other,
        format!("the model cache {} cannot be read", host.tilde(&paths.hub)),
    )
}

/// The flag that starts it, if it is one of the catalogue.
pub(super) fn flag(model: &Model) -> Option<String> {
    let entry = catalog().models.iter().find(|entry| entry.id == model.id)?;
    Some(format!("--{}", entry.flag))
}

/// The engine that is served from it, by its id or by a folder of the cache.
pub(super) fn user<'a>(model: &Model, running: &'a [Running]) -> Option<&'a Running> {
    running.iter().find(|running| running.serves(model))
}

/// The list for people.
fn text(
    host: &Environment,
    paths: &Paths,
    models: &[Model],
    running: &[Running],
    here: &MachineFit,
) -> String {
    let folder = host.tilde(&paths.hub);
    if models.is_empty() {
        return format!("No models in {folder}.\n");
    }
    let name_width = |model: &Model| console::measure_text_width(&visible(&model.id));
    let width = models.iter().map(name_width).max().unwrap_or(0);
    let mut text = String::new();
    for model in models {
        let name = visible(&model.id);
        let line = format!(
            "{}  {:>8}  {}",
            console::pad_str(&name, width, console::Alignment::Left, None),
            ui::bytes(model.bytes),
            visible(&remarks(model, running, room(model, here)))
        );
        text += line.trim_end();
        text.push('\n');
    }
    let total = scan::total_bytes(models);
    let count = match models.len() {
        1 => "1 model".to_owned(),
        count => format!("{count} models"),
    };
    text + &format!("\n{count}, {}, in {folder}\n", ui::bytes(total))
}

/// How a model fits on this machine.
pub(super) fn room(model: &Model, here: &MachineFit) -> Fit {
    here.room(&model.id, model.complete.then_some(model.loaded_bytes()))
}

/// The same in words. None: it is unknown, or the model is not complete.
fn context(room: Fit) -> Option<String> {
    match room {
        Fit::Window {
            estimated: true, ..
        }
        | Fit::Raised {
            estimated: true, ..
        }
        | Fit::Unknown => None,
        Fit::Window { tokens, .. } => Some(format!("{} tokens", ui::kilo(tokens))),
        Fit::Raised { tokens, .. } => Some(format!(
            "{} tokens with the GPU limit raised",
            ui::kilo(tokens)
        )),
        Fit::TooBig(_) => Some("too big for this machine".into()),
        Fit::TooShort(_) => Some("too short a context".into()),
    }
}

/// Remarks on a model: its window, shared files, use.
pub(super) fn remarks(model: &Model, running: &[Running], room: Fit) -> String {
    let mut said: Vec<String> = flag(model).into_iter().collect();
    said.extend(context(room));
    if !model.complete {
        said.push("partial".into());
    }
    if !model.shared.is_empty() {
        said.push(format!("{} shared", ui::bytes(model.shared_bytes())));
    }
    if model.external > 0 && model.link.is_none() {
        said.push("files outside the cache".into());
    }
    if let Some(user) = user(model, running) {
        said.push(format!("in use on port {}", user.port()));
    }
    if let Some(link) = &model.link {
        said.push(format!("link to {}", link.display()));
    }
    said.join(", ")
}

fn json(paths: &Paths, models: &[Model], running: &[Running], here: &MachineFit) -> Value {
    let listed: Vec<_> = models
        .iter()
        .map(|model| {
            json!({
                "id": model.id,
                "bytes": model.bytes,
                "shared_bytes": model.shared_bytes(),
                "state": if model.complete { "complete" } else { "partial" },
                "flag": flag(model),
                "context_window": room(model, here).window(),
                "context_window_raised": room(model, here).raised(),
                "in_use": user(model, running).map(|user| json!({ "pid": user.pid(), "port": user.port() })),
                "path": model.folder,
            })
        })
        .collect();
    json!({
        "cache": paths.hub,
        "models": listed,
        "total_bytes": scan::total_bytes(models),
    })
}
