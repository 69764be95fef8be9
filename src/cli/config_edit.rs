//! `cclocal config set`, `unset` and `edit`: the settings file, changed by a command or in an editor. What would not load is not written.

use std::path::Path;
use std::process::Command;

use super::config;
use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::settings::edit::{self, Spot};
use crate::settings::file::{self, Settings};
use crate::settings::key::{self, Group, KEYS, Key, Kind};
use crate::sys::files;
use crate::sys::process;
use crate::sys::process::signals::Signals;

/// The head of a new file. What follows it are the keys, each in a comment.
const NEW: &str = "# Settings of cclocal. What counts: a flag, else a variable, else this file.\n# To see what counts now: cclocal config\n\n";

/// Tables in a new file.
const NEW_TABLES: &str = "\n# A model of your own, for: cclocal work\n# [models.work]\n# id = \"org/name\"\n\n# An engine that others run, for: cclocal --connect team\n# [remotes.team]\n# url = \"https://llm.example\"\n# token-env = \"TEAM_KEY\"\n";

/// The model that a person named on the command line.
struct Named<'a> {
    spot: Spot<'a>,
    key: &'static Key,
}

fn named(typed: &str) -> Result<Named<'_>> {
    let spot = spot(typed);
    let key = match spot.table {
        None => key::at_top(spot.key),
        Some((group, _)) => group.key(spot.key),
    };
    Ok(Named {
        spot,
        key: key.ok_or_else(|| config::unknown(typed))?,
    })
}

/// The place that a path such as `models.NAME.KEY` or `KEY` names.
fn spot(typed: &str) -> Spot<'_> {
    let named =
        Group::of_path(typed).and_then(|(group, rest)| Some((group, rest.rsplit_once('.')?)));
    match named {
        Some((group, (name, key))) => Spot {
            table: Some((group, name)),
            key,
        },
        None => Spot {
            table: None,
            key: typed,
        },
    }
}

pub(super) fn set(app: &App, typed: &str, value: &str) -> Result<()> {
    let Named { spot, key } = named(typed)?;
    let (_, written) = key.kind.typed(value).map_err(|cause| {
        // A secret may be in it.
        let shown = match key.kind {
            Kind::Service | Kind::Url | Kind::Variable => "that".to_owned(),
            _ => format!("`{value}`"),
        };
        Error::usage(format!("`{typed}` cannot be {shown}"))
            .cause(cause)
            .hint("to see what is set: cclocal config")
    })?;
    change(app, typed, |text| edit::set(text, spot, written).map(Some))?;
    app.ui.done(&format!("{typed} = {value}"));
    say_what_goes_first(app, spot, key);
    Ok(())
}

/// Names the variable that counts more than what was set.
fn say_what_goes_first(app: &App, spot: Spot<'_>, key: &Key) {
    let set = |(variable, _): &&(&'static str, _)| app.environment.var(variable).is_some();
    if let Some((variable, _)) = key.variables.iter().find(set) {
        app.ui
            .notice(&format!("{variable} is set, and goes before the file"));
    } else if spot.table.is_none() && key.per_model {
        let settings = Settings::load(&app.environment, &app.paths).unwrap_or_default();
        let own = (settings.models.iter()).find(|own| own.values.contains_key(key.name));
        if let Some(own) = own {
            app.ui
                .notice(&format!("[models.{}] has its own {}", own.name, key.name));
        }
    }
}

pub(super) fn unset(app: &App, typed: &str) -> Result<()> {
    let is_there = match Group::of_path(typed) {
        // A name may have a point in it.
        Some((group, name)) if spot(typed).table.is_none() || named(typed).is_err() => {
            change(app, typed, |text| edit::unset_table(text, group, name))?
                // A key that is not known goes away, too.
                || change(app, typed, |text| edit::unset(text, spot(typed)))?
        }
        _ => change(app, typed, |text| edit::unset(text, spot(typed)))?,
    };
    match is_there {
        true => app.ui.done(&format!("{typed} is not set any more")),
        false => app.ui.notice(&format!("{typed} was not set in the file")),
    }
    Ok(())
}

/// Changes the file, unless the result would not load. False: there was nothing to change.
fn change(
    app: &App,
    typed: &str,
    edit: impl FnOnce(&str) -> Result<Option<String>, toml_edit::TomlError>,
) -> Result<bool> {
    let path = file::path(&app.paths);
    let shown = app.environment.tilde(&path);
    let text = file::read(&path, &shown)?.unwrap_or_default();
    // Lines may end as they do elsewhere.
    let is_foreign = text.contains("\r\n");
    let plain = if is_foreign {
        text.replace("\r\n", "\n")
    } else {
        text.clone()
    };
    let old = Settings::parse(&plain);
    let Ok(changed) = edit(&plain) else {
        // That it is no TOML was found before, with the same words as elsewhere.
        return old.map(|_| false).map_err(|fault| fault.error(&shown));
    };
    let Some(changed) = changed else {
        return Ok(false);
    };
    if let Err(fault) = Settings::parse(&changed) {
        return Err(match old {
            Ok(_) => fault.of_change(typed),
            Err(old) => old.error(&shown),
        });
    }
    let changed = if is_foreign {
        changed.replace('\n', "\r\n")
    } else {
        changed
    };
    write(&path, &shown, &changed)?;
    Ok(true)
}

fn write(path: &Path, shown: &str, text: &str) -> Result<()> {
    files::replace(path, text.as_bytes())
        .context(Exit::Other, format!("{shown} cannot be written"))
        .map_err(|error| match error.hint {
            Some(_) => error,
            None => error.hint("check that the disk has space and that you can write there"),
        })
}

/// Opens the file in the person's editor, and checks it afterwards.
pub(super) fn edit(app: &App) -> Result<()> {
    let path = file::path(&app.paths);
    let shown = app.environment.tilde(&path);
    let editor = editor(app)?;
    let template = template();
    let is_new = !path.exists() && !path.is_symlink();
    if is_new {
        write(&path, &shown, &template)?;
    }
    loop {
        run(&editor, &path)?;
        if is_new && files::read_text(&path, files::SETTINGS).is_ok_and(|text| text == template) {
            let _ = std::fs::remove_file(&path);
            app.ui.say("Nothing was set.");
            return Ok(());
        }
        match Settings::load(&app.environment, &app.paths) {
            Ok(_) => {
                app.ui.done(&format!("{shown} is fine"));
                return Ok(());
            }
            Err(error) if app.ui.interactive => {
                app.ui.error(&error);
                if !app.ui.confirm("Edit it again?") {
                    return Err(
                        Error::usage(format!("{shown} was left with a mistake in it"))
                            .cause("no session starts with it")
                            .hint("to open the file: cclocal config edit"),
                    );
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The editor, as words for a shell.
fn editor(app: &App) -> Result<String> {
    let host = &app.environment;
    let named = host.var("VISUAL").or(host.var("EDITOR"));
    match named {
        Some(editor) => Ok(editor.to_owned()),
        None if app.ui.interactive && host.which("vi").is_some() => Ok("vi".into()),
        None => Err(Error::usage("no editor is known")
            .cause("neither VISUAL nor EDITOR is set")
            .hint("such as: EDITOR=nano cclocal config edit")),
    }
}

/// Runs it as git runs one: by a shell, as there may be options in its words. Ctrl-C is the editor's.
fn run(editor: &str, path: &Path) -> Result<()> {
    let failed = || format!("the editor `{editor}` failed");
    let runtime = process::runtime().context(Exit::Other, failed())?;
    let _guard = runtime.enter();
    let _signals = Signals::listen()?;
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$@\""), editor])
        .arg(path)
        .status()
        .context(Exit::Other, failed())
        .map_err(|error| error.hint("set EDITOR to another one"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::other(failed())
            .cause(status.to_string())
            .hint("set EDITOR to another one; the file is as the editor left it")),
    }
}

/// A new file: every key in a comment, with its default.
fn template() -> String {
    let mut text = String::from(NEW);
    for key in KEYS {
        text += &format!("# {}\n", config::example(key));
    }
    text + NEW_TABLES
}
