//! `cclocal setup`: the engine, and with `--client` Claude Code.

use std::path::PathBuf;

use super::args::SetupArgs;
use crate::claude;
use crate::engine::executable::Executable;
use crate::engine::flags;
use crate::engine::install::{self, Event, Status};
use crate::error::{Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::platform::Platform;
use crate::ui::{self, Ui};

pub fn run(host: &Environment, ui: &Ui, args: &SetupArgs) -> Result<()> {
    let paths = Paths::of(host);
    if args.force {
        install::remove(host, &paths)?;
    }
    match install::status(host, &paths) {
        ready @ Status::Ready(_) => ui.done(&format!("engine: {ready}")),
        status => {
            install::supported(&Platform::detect(host)?)?;
            if !args.yes && ui.interactive {
                ui.say(&ui::sentence(&match status {
                    Status::Missing => {
                        "the engine, vllm-mlx with its Python packages, takes 260 to 360 MB".into()
                    }
                    unusable => unusable.to_string(),
                }));
                let question = format!("Install it into {}?", host.tilde(&paths.engine()));
                if !ui.confirm(&question) {
                    return Err(Error::new(Exit::EngineMissing, "nothing was installed")
                        .hint("run `cclocal setup` again when you want to"));
                }
            }
            engine(host, &paths, ui)?;
        }
    }
    if args.client {
        let claude = client(host, &paths, ui, true)?;
        ui.done(&format!("Claude Code: {}", host.tilde(&claude)));
    } else if claude::find::find(host, &paths)?.is_none() {
        ui.notice("Claude Code is not installed; `cclocal setup --client` installs it with npm");
    }
    Ok(())
}

/// Installs the engine and shows how far it is.
pub fn engine(host: &Environment, paths: &Paths, ui: &Ui) -> Result<Executable> {
    install::supported(&Platform::detect(host)?)?;
    let mut progress = ui.progress("installing the engine");
    let installed = install::install(host, paths, &mut |event| match event {
        Event::Step { name } => progress.step(&name),
        Event::Line(_) | Event::Done { .. } => {}
    })?;
    // Asked now, so that the first session does not wait for it. One that does not answer is an error there.
    let _ = flags::probe(host, &paths.cache, &installed.executable);
    let took = progress.elapsed();
    drop(progress);
    ui.done(&format!(
        "engine: vllm-mlx {} installed in {}",
        installed.version,
        ui::seconds(took)
    ));
    Ok(Executable {
        script: installed.executable,
        python: installed.python,
    })
}

/// Claude Code, installed with npm on the way if the user agrees.
pub fn client(host: &Environment, paths: &Paths, ui: &Ui, yes: bool) -> Result<PathBuf> {
    if let Some(found) = claude::find::find(host, paths)? {
        return Ok(found);
    }
    let missing = claude::find::missing();
    if claude::install::npm(host).is_none() {
        return Err(missing);
    }
    if !yes {
        if !ui.interactive {
            return Err(missing);
        }
        ui.say("Claude Code is not installed. Its official installers:");
        for way in &missing.detail {
            ui.say(&format!("  {way}"));
        }
        let folder = host.tilde(&paths.client());
        if !ui.confirm(&format!(
            "Install it with npm into cclocal's own folder ({folder}) now?"
        )) {
            return Err(missing);
        }
    }
    let progress = ui.progress("installing Claude Code with npm");
    let installed = claude::install::install(host, paths)?;
    let took = progress.elapsed();
    drop(progress);
    ui.done(&format!("Claude Code installed in {}", ui::seconds(took)));
    Ok(installed)
}
