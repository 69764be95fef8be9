//! `cclocal setup`: the engine, and with `--client` Claude Code.

use std::path::PathBuf;

use super::args::SetupArgs;
use crate::app::App;
use crate::claude;
use crate::engine::executable::Executable;
use crate::engine::flags;
use crate::engine::install::{self, Status};
use crate::error::{Error, Exit, Result};
use crate::ui;

pub(super) fn run(app: &App, args: &SetupArgs) -> Result<()> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    if args.force {
        install::remove(paths)?;
    }
    match install::status(paths) {
        ready @ Status::Ready(_) => ui.done(&format!("engine: {ready}")),
        status => {
            install::supported(app.platform()?)?;
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
            engine(app)?;
        }
    }
    if args.client {
        let claude = client(app, true)?;
        ui.done(&format!("Claude Code: {}", host.tilde(&claude)));
    } else if claude::find::find(host, paths)?.is_none() {
        ui.notice("Claude Code is not installed; `cclocal setup --client` installs it with npm");
    }
    Ok(())
}

/// Installs the engine and shows how far it is.
pub(super) fn engine(app: &App) -> Result<Executable> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    install::supported(app.platform()?)?;
    let mut progress = ui.progress("installing the engine");
    let installed = install::install(app, &mut |step| progress.step(step))?;
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
pub(super) fn client(app: &App, yes: bool) -> Result<PathBuf> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
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
