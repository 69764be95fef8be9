//! `cclocal [MODEL]`: a session.

use super::args::LaunchArgs;
use super::setup;
use crate::engine::executable::{self, Executable, Found};
use crate::error::{Context, Error, Exit, Result};
use crate::host::Host;
use crate::machine::platform::Platform;
use crate::paths::Paths;
use crate::session::prepare::{self, Probing, Programs, Request};
use crate::session::signals::Signals;
use crate::ui::{self, Ui};

pub fn run(host: &Host, ui: &Ui, args: &LaunchArgs) -> Result<u8> {
    let request = request(host, args)?;
    let paths = Paths::of(host);
    let platform = Platform::detect(host)?;
    let engine = engine(host, &paths, ui, args.yes)?;
    let claude = setup::client(host, &paths, ui, false)?;
    let programs = Programs {
        engine: Some(&engine),
        claude: Some(&claude),
    };
    let prepared = prepare::prepare(host, &paths, &platform, request, &programs, Probing::Ask)?;
    for notice in &prepared.notices {
        ui.notice(notice);
    }
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        crate::session::run(host, &paths, ui, &prepared, &engine, &claude, &mut signals).await
    })
}

/// What the command line asks for.
pub fn request(host: &Host, args: &LaunchArgs) -> Result<Request> {
    let paths = Paths::of(host);
    let choice = args.model.choice(host)?;
    Ok(Request {
        model: prepare::model(&paths, choice.as_ref())?,
        port: args.port,
        context_window: args.ctx,
        output_tokens: args.out_tokens,
        claude_args: args.claude_args.clone(),
    })
}

/// The engine, installed on the way if the user agrees.
pub fn engine(host: &Host, paths: &Paths, ui: &Ui, yes: bool) -> Result<Executable> {
    let why = match executable::find(host, paths)? {
        Found::Ready(engine) => return Ok(engine),
        Found::Absent(why) => why,
    };
    if !yes {
        if ui.interactive {
            ui.say(&ui::sentence(&why));
        }
        if !ui.confirm("Install it (vllm-mlx, 260 to 360 MB) into cclocal's own folder now?") {
            return Err(Error::new(Exit::EngineMissing, why)
                .hint("run `cclocal setup`; it changes nothing outside cclocal's own folder"));
        }
    }
    setup::engine(host, paths, ui)
}

/// One thread is enough: everything here waits.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(Exit::Other, "the asynchronous runtime cannot be started")
}
