//! `cclocal [MODEL]`: a session.

use nix::sys::signal::Signal;

use super::args::LaunchArgs;
use super::{menu, setup};
use crate::engine::executable::{self, Executable, Found};
use crate::error::{Context, Error, Exit, Result};
use crate::host::Host;
use crate::hub::remote;
use crate::machine::gpu_limit::{Asking, Raised};
use crate::machine::platform::Platform;
use crate::memory::preflight::Checking;
use crate::paths::Paths;
use crate::session::preflight::{self, Check};
use crate::session::prepare::{self, Probing, Programs, Request};
use crate::session::signals::{self, Signals};
use crate::ui::{self, Ui};

pub fn run(host: &Host, ui: &Ui, args: &LaunchArgs) -> Result<u8> {
    let paths = Paths::of(host);
    let choice = match args.model.choice(host)? {
        Some(choice) => choice,
        None => match menu::choose(host, &paths, ui)? {
            menu::Chosen::Model(choice) => choice,
            menu::Chosen::Nothing(status) => return Ok(status),
        },
    };
    let request = request(host, args, Some(&choice))?;
    let platform = Platform::detect(host)?;
    let mut limit = preflight::take_over_limit(host, &paths, platform.os, ui)?;
    let status = with_limit(host, &paths, ui, args, &platform, request, &mut limit);
    if let Some(raised) = limit {
        // Whoever ended us with a signal does not wait for a password.
        let hurried = [Signal::SIGTERM, Signal::SIGHUP].iter().any(|signal| {
            status
                .as_ref()
                .is_ok_and(|status| *status == signals::status(*signal))
        });
        let asking = if ui.interactive && !hurried {
            Asking::Allowed
        } else {
            Asking::No
        };
        preflight::put_back(host, ui, raised, asking);
    }
    status
}

/// The session. The limit of GPU memory is left as it is then.
fn with_limit(
    host: &Host,
    paths: &Paths,
    ui: &Ui,
    args: &LaunchArgs,
    platform: &Platform,
    mut request: Request,
    limit: &mut Option<Raised>,
) -> Result<u8> {
    let engine = engine(host, paths, ui, args.yes)?;
    let claude = match args.server {
        true => None,
        false => Some(setup::client(host, paths, ui, false)?),
    };
    let name = request.model.name.clone();
    prepare::learn(paths, &mut request, |id| {
        let _progress = ui.progress(&format!("asking the hub what {name} is"));
        runtime().ok()?.block_on(remote::config(host, id))
    });
    let ask_hub = |id: &str| {
        let _progress = ui.progress(&format!("asking the hub how big {name} is"));
        runtime().ok()?.block_on(remote::size(host, id))
    };
    let mut measured = prepare::measure(host, paths, platform, &request, Some(&engine), ask_hub);
    prepare::check_disk(host, paths, &name, &measured)?;
    let check = Check {
        host,
        paths,
        ui,
        os: platform.os,
        name: &name,
        checking: checking(host, args),
        output_tokens: request.output_tokens,
    };
    if let Some(signal) = preflight::check(&check, &mut measured.memory, limit)? {
        return Ok(signals::status(signal));
    }
    let programs = Programs {
        engine: Some(&engine),
        claude: claude.as_ref(),
    };
    let prepared = prepare::prepare(
        host,
        paths,
        platform,
        request,
        measured,
        &programs,
        Probing::Ask,
    )?;
    for notice in &prepared.notices {
        ui.notice(notice);
    }
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let signals = &mut signals;
        match &claude {
            Some(claude) => {
                crate::session::run(host, paths, ui, &prepared, &engine, claude, signals).await
            }
            None => crate::session::serve(host, paths, ui, &prepared, &engine, signals).await,
        }
    })
}

/// What the command line asks for. Without a choice: the default model.
pub fn request(
    host: &Host,
    args: &LaunchArgs,
    choice: Option<&crate::catalog::Choice>,
) -> Result<Request> {
    let paths = Paths::of(host);
    Ok(Request {
        model: prepare::model(&paths, choice)?,
        port: args.port,
        context_window: args.ctx,
        output_tokens: args.out_tokens,
        claude_args: args.claude_args.clone(),
    })
}

/// Whether memory is checked: by the flags, else by the variables that say the same.
pub fn checking(host: &Host, args: &LaunchArgs) -> Checking {
    match (args.safe, args.no_mem_check) {
        (true, _) => Checking::Always,
        (_, true) => Checking::Never,
        _ if host.switch("CCLOCAL_FORCE_MEMCHECK") => Checking::Always,
        _ if host.switch("CCLOCAL_NO_MEMCHECK") => Checking::Never,
        _ => Checking::WhenTight,
    }
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
