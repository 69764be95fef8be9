//! `cclocal config`: the settings, their values, and where each comes from.

use serde_json::{Value as Json, json};

use super::args::{ConfigArgs, ConfigCommand};
use super::config_edit;
use crate::app::App;
use crate::error::{Error, Result};
use crate::escape::visible;
use crate::settings::file::{self, Place, Remote};
use crate::settings::key::{self, Group, KEYS, Key};
use crate::settings::{Flags, Origin, OwnModel, Resolved, Resolver, Settings};

pub(super) fn run(app: &App, args: &ConfigArgs) -> Result<()> {
    match &args.command {
        None => show(app, args.json),
        Some(ConfigCommand::Get { key }) => get(app, key),
        Some(ConfigCommand::Set { key, value }) => config_edit::set(app, key, value),
        Some(ConfigCommand::Unset { key }) => config_edit::unset(app, key),
        Some(ConfigCommand::Edit) => config_edit::edit(app),
        Some(ConfigCommand::Path) => {
            let path = file::path(&app.paths);
            app.ui.data(&format!("{}\n", path.display()));
            Ok(())
        }
    }
}

fn show(app: &App, as_json: bool) -> Result<()> {
    let settings = Settings::load(&app.environment, &app.paths)?;
    let flags = Flags::default();
    let resolver = Resolver {
        environment: &app.environment,
        settings: &settings,
        flags: &flags,
        model: None,
    };
    let path = file::path(&app.paths);
    if as_json {
        app.ui.json(&json!({
            "file": path,
            "file_exists": path.exists(),
            "settings": json_of(&resolver, KEYS.iter())?,
            "models": models_json(&resolver)?,
            "remotes": remotes_json(&settings),
        }));
        return Ok(());
    }
    let mut text = String::from("SETTING        VALUE                             FROM\n");
    for key in KEYS {
        let resolved = resolver.resolve(key)?;
        let (value, from) = (words(key, &resolved), resolved.origin.words());
        text += &row(key.name, &value, &from);
    }
    for own in &settings.models {
        text += &format!("\n[models.{}]\n", own.name);
        for (name, value) in place(own) {
            text += &row(name, &value, "file");
        }
        for (name, set) in &own.values {
            text += &row(
                name,
                &set.value.words(),
                &format!("file, line {}", set.line),
            );
        }
    }
    let there = if path.exists() {
        ""
    } else {
        " (not there yet)"
    };
    for remote in &settings.remotes {
        text += &format!("\n[remotes.{}]\n", remote.name);
        text += &row("url", &remote.url, "file");
        for (name, set) in &remote.values {
            text += &row(
                name,
                &set.value.words(),
                &format!("file, line {}", set.line),
            );
        }
    }
    text += &format!("\nfile: {}{there}\n", app.environment.tilde(&path));
    app.ui.data(&text);
    Ok(())
}

/// A line of the table. A value that is wider than its column moves the last one, so that nothing is cut.
fn row(name: &str, value: &str, from: &str) -> String {
    format!("{name:<14} {:<33} {from}\n", visible(value))
}

fn words(key: &Key, resolved: &Resolved) -> String {
    match &resolved.value {
        Some(value) => value.words(),
        None => key.default.into(),
    }
}

impl Origin {
    fn words(&self) -> String {
        match self {
            Self::Flag => "flag".into(),
            Self::Variable(name) => (*name).into(),
            Self::Model { line } | Self::File { line } => format!("file, line {line}"),
            Self::Default => "default".into(),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Flag => json!({ "source": "flag" }),
            Self::Variable(name) => json!({ "source": "variable", "variable": name }),
            Self::Model { line } => json!({ "source": "model", "line": line }),
            Self::File { line } => json!({ "source": "file", "line": line }),
            Self::Default => json!({ "source": "default" }),
        }
    }
}

/// Keys of a model's table that say which it is.
fn place(own: &OwnModel) -> Vec<(&'static str, String)> {
    let mut said = vec![match &own.place {
        Place::Id(id) => ("id", id.clone()),
        Place::Folder(folder) => ("folder", folder.clone()),
    }];
    said.extend(own.form.map(|form| ("parser", form.word().to_owned())));
    said
}

fn json_of<'k>(resolver: &Resolver, keys: impl Iterator<Item = &'k Key>) -> Result<Json> {
    let mut all = serde_json::Map::new();
    for key in keys {
        let resolved = resolver.resolve(key)?;
        let mut entry = resolved.origin.json();
        entry["value"] = resolved.value.map_or(Json::Null, |value| value.json());
        all.insert(key.name.into(), entry);
    }
    Ok(all.into())
}

fn models_json(resolver: &Resolver) -> Result<Json> {
    let mut all = serde_json::Map::new();
    for own in &resolver.settings.models {
        let keys = KEYS.iter().filter(|key| key.per_model);
        let mut entry = json!({ "settings": json_of(&resolver.for_model(Some(own)), keys)? });
        for (name, value) in place(own) {
            entry[name] = value.into();
        }
        all.insert(own.name.clone(), entry);
    }
    Ok(all.into())
}

fn remotes_json(settings: &Settings) -> Json {
    let of = |remote: &Remote| {
        let mut entry = json!({ "url": remote.url });
        for (name, set) in &remote.values {
            entry[*name] = set.value.json();
        }
        (remote.name.clone(), entry)
    };
    Json::Object(settings.remotes.iter().map(of).collect())
}

/// Prints the value of one key that counts. One that depends on the machine is printed as its default in words.
fn get(app: &App, typed: &str) -> Result<()> {
    let settings = Settings::load(&app.environment, &app.paths)?;
    let value = match Group::of_path(typed) {
        Some((group, rest)) => of_table(app, &settings, group, typed, rest)?,
        None => {
            let key = key::at_top(typed).ok_or_else(|| unknown(typed))?;
            resolved(app, &settings, None, key)?
        }
    };
    app.ui.data(&format!("{value}\n"));
    Ok(())
}

fn resolved(app: &App, settings: &Settings, model: Option<&OwnModel>, key: &Key) -> Result<String> {
    let flags = Flags::default();
    let resolver = Resolver {
        environment: &app.environment,
        settings,
        flags: &flags,
        model,
    };
    Ok(words(key, &resolver.resolve(key)?))
}

fn of_table(
    app: &App,
    settings: &Settings,
    group: Group,
    typed: &str,
    rest: &str,
) -> Result<String> {
    let (name, word) = rest.rsplit_once('.').ok_or_else(|| unknown(typed))?;
    let key = group.key(word).ok_or_else(|| unknown(typed))?;
    let missing = || {
        let one = group.one();
        Error::usage(format!("there is no {one} `{name}` in the settings file"))
            .hint("to see what is there: cclocal config")
    };
    match group {
        Group::Models => {
            let own = settings.model(name).ok_or_else(missing)?;
            match place(own).into_iter().find(|(word, _)| *word == key.name) {
                Some((_, value)) => Ok(value),
                None if key::at_top(word).is_none() => Ok(key.default.into()),
                None => resolved(app, settings, Some(own), key),
            }
        }
        Group::Remotes => {
            let remote = settings.remote(name).ok_or_else(missing)?;
            let url = (word == "url").then(|| remote.url.clone());
            Ok(url
                .or_else(|| remote.word(word))
                .unwrap_or_else(|| key.default.into()))
        }
    }
}

/// A key with a value that it can have, as in the file.
pub(super) fn example(key: &Key) -> String {
    let value = match key.name {
        "model" => "gemma-light",
        "ctx" => "64k",
        "out-tokens" => "8k",
        "port" => "8000",
        _ => key.default,
    };
    match key.kind.typed(value) {
        Ok((_, written)) => format!("{} = {written}", key.name),
        Err(_) => format!("{} =", key.name),
    }
}

/// The error for a key that does not exist.
pub(super) fn unknown(typed: &str) -> Error {
    let error = Error::usage(format!("there is no setting `{typed}`"));
    let (prefix, word) = typed
        .rsplit_once('.')
        .map_or(("", typed), |(prefix, word)| (prefix, word));
    let near = match Group::of_path(typed) {
        None => key::nearest(word, KEYS.iter().map(|key| key.name)),
        Some((group, _)) => key::nearest(word, group.keys().into_iter().map(|key| key.name)),
    };
    match (near, prefix) {
        (Some(near), "") => error.hint(format!("perhaps `{near}`; all of them: cclocal config")),
        (Some(near), prefix) => error.hint(format!(
            "perhaps `{prefix}.{near}`; all of them: cclocal config"
        )),
        (None, _) => {
            error.hint("all of them: cclocal config; in a table: models.NAME.KEY, remotes.NAME.KEY")
        }
    }
}
