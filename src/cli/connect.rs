//! `cclocal connect`: Claude Code in this terminal, on an engine that runs already.

use super::args::ConnectArgs;
use super::{options, setup, web_search};
use crate::app::App;
use crate::claude::launch::UserArgs;
use crate::error::{Error, Exit, Result};
use crate::gateway::web_search::Backend;
use crate::session::{self, Session, acquire, ask_features, release};
use crate::settings::Resolver;
use crate::supervisor::Lease;
use crate::sys::process::signals::Signals;

pub(super) fn run(
    app: &App,
    args: &ConnectArgs,
    resolver: &Resolver,
    searches: Option<&Backend>,
) -> Result<u8> {
    if args.url.is_some() {
        return Err(Error::usage("`cclocal connect` takes no URL")
            .cause("it connects to an engine that cclocal runs on this machine")
            .hint("for any other engine: cclocal --connect URL"));
    }
    let found = acquire::find_running(&app.paths, args.port)?;
    let claude = setup::client(app, false)?;
    let linger = resolver.linger()?;
    let linger = linger.map_or(release::LINGER, std::time::Duration::from_secs);
    let session = Session {
        app,
        claude: &claude,
        asked: &ask_features(app, &claude),
        user: UserArgs {
            args: &args.claude_args,
            pass_unknown: args.pass_unknown,
            asking: options::asking(resolver.ask()?, false),
        },
    };
    if let Some(backend) = searches {
        app.ui.notice(&backend.notice());
    }
    session::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let wanted = web_search::wanted(searches, false);
        match Lease::take(&app.paths, found.port, linger, wanted).await? {
            Some(lease) => {
                web_search::say_if_refused(&app.ui, &lease, searches);
                session::run(&session, lease, linger, &mut signals).await
            }
            None => Err(Error::new(
                Exit::Engine,
                format!("the engine on port {} is shutting down", found.port),
            )
            .hint(format!("start it again: cclocal {}", found.typed))),
        }
    })
}
