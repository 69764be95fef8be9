//! `cclocal [MODEL]`: a session.

use nix::sys::signal::Signal;

use super::args::{LaunchArgs, Window};
use super::{menu, options, setup, web_search};
use crate::app::App;
use crate::claude::launch::{self as claude_launch, Endpoint, UserArgs, assumed_features};
use crate::claude::permissions;
use crate::engine::executable::{self, Executable, Found};
use crate::error::{Error, Exit, Result};
use crate::gateway::web_search::Backend;
use crate::memory::gpu_limit::{Asking, Raised};
use crate::memory::{Asked, WIDE_WINDOW};
use crate::session::acquire::{self, Acquire, Acquired};
use crate::session::request::{self, Request};
use crate::session::session_dir::SessionDir;
use crate::session::{self, Session, ask_features, preflight};
use crate::settings::{Options, Resolver};
use crate::supervisor::Lease;
use crate::supervisor::registry;
use crate::supervisor::reservation::USUAL_PORT;
use crate::sys::paths::Paths;
use crate::sys::process::signals::{self, Signals};
use crate::sys::secret::Secret;
use crate::ui::{self, Ui};

/// How often it is tried to get hold of an engine that is shutting down.
const TRIES: usize = 3;

pub(super) fn run(
    app: &App,
    args: &LaunchArgs,
    resolver: &Resolver,
    searches: Option<&Backend>,
) -> Result<u8> {
    let ui = &app.ui;
    // A variable that is wrong is said before anybody is asked.
    resolver.options()?;
    let choice = match options::choice(resolver, args)? {
        Some(choice) => choice,
        None => match menu::choose(app, resolver)? {
            Some(choice) => choice,
            None => return Ok(0),
        },
    };
    let options = options::of_choice(resolver, Some(&choice))?;
    let request = request(app, &options, Some(&choice))?;
    let mut limit = preflight::take_over_limit(app)?;
    let launch = Launch {
        app,
        args,
        request: &request,
        options: &options,
        searches,
    };
    let mut status = launch.with_limit(&mut limit);
    if let Some(raised) = limit {
        // Else the question after a password would come without a reason.
        if let (Err(error), true) = (&status, ui.interactive) {
            ui.error(error);
            status = Ok(error.exit.code());
        }
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
        preflight::put_back(app, raised, asking);
    }
    status
}

struct Launch<'a> {
    app: &'a App,
    args: &'a LaunchArgs,
    request: &'a Request,
    options: &'a Options,
    /// The service that searches the web, if one was named.
    searches: Option<&'a Backend>,
}

impl Launch<'_> {
    /// The session. The limit of GPU memory is left as it is then.
    fn with_limit(&self, limit: &mut Option<Raised>) -> Result<u8> {
        let &Launch {
            app,
            args,
            request,
            options,
            searches,
        } = self;
        let App { paths, ui, .. } = app;
        let asking = options::asking(options.ask, false);
        let engine = engine(app, args.yes)?;
        if request.forget_prefix {
            forget_prefixes(paths)?;
            say_who_keeps(paths, ui);
        }
        let claude = match args.server {
            true => None,
            false => Some(setup::client(app, false)?),
        };
        // It answers while the engine is looked at and loads.
        let asked = (claude.as_ref()).map(|claude| ask_features(app, claude));
        if let Some(claude) = &claude {
            // What Claude Code may not be given is refused before anything is started for it.
            let endpoint = Endpoint {
                port: USUAL_PORT,
                token: Secret::new(""),
                model: request.model.served_name.clone(),
                window: request.asked.or(WIDE_WINDOW),
            };
            let features = assumed_features(paths, Some(claude));
            let settings = SessionDir::planned_settings(paths);
            let user = user(args, asking);
            claude_launch::plan(app, &endpoint, user, &settings, &features)?;
        }
        if let Some(backend) = searches {
            ui.notice(&backend.notice());
        }
        let acquire = Acquire {
            app,
            request,
            engine: &engine,
            checking: options.checking,
        };
        let runtime = session::runtime()?;
        // One that begins to end just now is gone in a moment, and then a new one is started.
        for _ in 0..TRIES {
            let port = match acquire::acquire(&acquire, limit)? {
                Acquired::Port(port) => port,
                Acquired::Left(status) => return Ok(status),
            };
            let linger = acquire::linger(options.linger, limit.as_ref());
            let status = runtime.block_on(async {
                let mut signals = Signals::listen()?;
                let signals = &mut signals;
                let wanted = web_search::wanted(searches, args.server);
                let Some(lease) = Lease::take(paths, port, linger, wanted).await? else {
                    return Ok(None);
                };
                web_search::say_if_refused(ui, &lease, searches);
                let (Some(claude), Some(asked)) = (&claude, &asked) else {
                    let word = searches.and_then(Backend::word);
                    return session::serve(app, lease, word, signals).await.map(Some);
                };
                let session = Session {
                    app,
                    claude,
                    asked,
                    user: user(args, asking),
                };
                session::run(&session, lease, linger, signals)
                    .await
                    .map(Some)
            })?;
            if let Some(status) = status {
                return Ok(status);
            }
        }
        Err(Error::new(
            Exit::Engine,
            "the engine's supervisor ends right after it starts",
        )
        .hint("read supervisor.log in cclocal's state folder"))
    }
}

/// The request of a session with these options. Without a choice: the default model.
pub(super) fn request(
    app: &App,
    options: &Options,
    choice: Option<&crate::catalog::Choice>,
) -> Result<Request> {
    let model = request::model(&app.paths, choice)?;
    let request = Request {
        model: model.clone(),
        port: options.port,
        asked: options.asked,
        forget_prefix: options.forget_prefix,
        vision: options.vision,
        think: options.think,
    };
    Ok(request.with_model(model))
}

/// The window and the replies that the command line asks for, of an engine that others run.
pub(super) fn asked(args: &LaunchArgs) -> Asked {
    Asked {
        window: args.ctx.and_then(Window::tokens),
        output: args.out_tokens,
    }
}

/// The arguments of the command line for Claude Code.
pub(super) fn user(args: &LaunchArgs, asking: permissions::Asking) -> UserArgs<'_> {
    UserArgs {
        args: &args.claude_args,
        pass_unknown: args.pass_unknown,
        asking,
    }
}

/// Removes the stored prompt prefixes.
fn forget_prefixes(paths: &Paths) -> Result<()> {
    match fs_err::remove_dir_all(paths.kept_prefixes()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
            Exit::Other,
            "the stored system prompts could not be removed",
        )
        .because(error)
        .hint(format!(
            "remove it by hand: rm -r {}",
            paths.kept_prefixes().display()
        ))),
        _ => Ok(()),
    }
}

/// Names the running engines that go on storing prefixes, as they were started.
fn say_who_keeps(paths: &Paths, ui: &Ui) {
    for status in registry::statuses(paths) {
        if status.keeps_prefix && registry::is_usable(&status) {
            ui.notice(&format!(
                "{} was started without --forget-prefix and goes on storing system prompts; to unload it: cclocal stop --port {}",
                acquire::words(&status),
                status.port
            ));
        }
    }
}

/// The engine, installed on the way if the user agrees.
pub(super) fn engine(app: &App, yes: bool) -> Result<Executable> {
    let ui = &app.ui;
    let why = match executable::find(&app.environment, &app.paths)? {
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
    setup::engine(app)
}
