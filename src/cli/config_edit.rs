//! `cclocal config set`, `unset` and `edit`: the settings file, changed by a command or in an editor. What would not load is not written.

use std::path::Path;
use std::process::Command;

use super::{config, options};
use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::settings::edit::{self, Spot};
use crate::settings::file::{self, Settings};
use crate::settings::key::{self, KEYS, Key};
use crate::sys::files;
use crate::sys::process;
use crate::sys::process::signals::Signals;

/// The head of a new file. What follows it are the keys, each in a comment.
const NEW: &str = "# Settings of cclocal. What counts: a flag, else a variable, else this file.\n# To see what counts now: cclocal config\n\n";

/// A model in a new file.
const NEW_MODEL: &str =
    "\n# A model of your own, for: cclocal work\n# [models.work]\n# id = \"org/name\"\n";

/// What a person named on the command line.
struct Named<'a> {
    spot: Spot<'a>,
    key: &'static Key,
}

fn named(typed: &str) -> Result<Named<'_>> {
    let (model, word) = match typed.strip_prefix("models.") {
        None => (None, typed),
        Some(rest) => match rest.rsplit_once('.') {
            Some((name, word)) => (Some(name), word),
            None => return Err(config::unknown(typed)),
        },
    };
    let key = match model {
        None => key::at_top(word),
        Some(_) => key::of_model(word),
    };
    Ok(Named {
        spot: Spot { model, key: word },
        key: key.ok_or_else(|| config::unknown(typed))?,
    })
}

pub(super) fn set(app: &App, typed: &str, value: &str) -> Result<()> {
    let Named { spot, key } = named(typed)?;
    let (_, written) = key.kind.typed(value).map_err(|cause| {
        // A password may be in it.
        let shown = if value.contains('@') { "that" } else { value };
        Error::usage(format!("`{typed}` cannot be `{shown}`"))
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
    } else if spot.model.is_none() && key.per_model {
        let settings = options::load(&app.environment, &app.paths).unwrap_or_default();
        let own = (settings.models.iter()).find(|own| own.values.contains_key(key.name));
        if let Some(own) = own {
            app.ui
                .notice(&format!("[models.{}] has its own {}", own.name, key.name));
        }
    }
}

pub(super) fn unset(app: &App, typed: &str) -> Result<()> {
    let is_there = match typed.strip_prefix("models.") {
        Some(name) if !is_key_of_model(name) => {
            change(app, typed, |text| edit::unset_model(text, name))?
        }
        // Also a key that is not known: that is how it goes away.
        _ => {
            let (model, key) = match typed
                .strip_prefix("models.")
                .and_then(|rest| rest.rsplit_once('.'))
            {
                Some((name, key)) => (Some(name), key),
                None => (None, typed),
            };
            change(app, typed, |text| edit::unset(text, Spot { model, key }))?
        }
    };
    match is_there {
        true => app.ui.done(&format!("{typed} is not set any more")),
        false => app.ui.notice(&format!("{typed} was not set in the file")),
    }
    Ok(())
}

/// Whether what stands behind `models.` ends in a key, so that it is not a name with a point in it.
fn is_key_of_model(rest: &str) -> bool {
    rest.rsplit_once('.')
        .is_some_and(|(_, key)| key::of_model(key).is_some())
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
    let commands = options::commands();
    // Lines may end as they do elsewhere.
    let is_foreign = text.contains("\r\n");
    let plain = if is_foreign {
        text.replace("\r\n", "\n")
    } else {
        text.clone()
    };
    let old = Settings::parse(&plain, &commands);
    let Ok(changed) = edit(&plain) else {
        // That it is no TOML was found before, with the same words as elsewhere.
        return old.map(|_| false).map_err(|fault| fault.error(&shown));
    };
    let Some(changed) = changed else {
        return Ok(false);
    };
    if let Err(fault) = Settings::parse(&changed, &commands) {
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
        match options::load(&app.environment, &app.paths) {
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
    text + NEW_MODEL
}
