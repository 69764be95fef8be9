//! `cclocal connect`: Claude Code in this terminal, on an engine that runs already.

use super::args::ConnectArgs;
use super::{launch, setup, web_search};
use crate::claude::features::Asked;
use crate::error::{Error, Exit, Result};
use crate::gateway::web_search::Backend;
use crate::session::{self, Session, connect, release};
use crate::supervisor::Lease;
use crate::sys::environment::Environment;
use crate::sys::paths::Paths;
use crate::sys::platform::Platform;
use crate::sys::process::signals::Signals;
use crate::ui::Ui;

pub fn run(
    host: &Environment,
    ui: &Ui,
    args: &ConnectArgs,
    searches: Option<&Backend>,
) -> Result<u8> {
    if args.url.is_some() {
        return Err(Error::usage("`cclocal connect` takes no URL")
            .cause("it is for an engine of cclocal on this machine")
            .hint("for any other engine: cclocal --connect URL"));
    }
    let paths = Paths::of(host);
    let found = connect::find(&paths, args.port)?;
    let claude = setup::client(host, &paths, ui, false)?;
    let linger = launch::linger(host, args.linger)?;
    let linger = linger.map_or(release::LINGER, std::time::Duration::from_secs);
    let session = Session {
        host,
        paths: &paths,
        ui,
        os: Platform::detect(host)?.os,
        claude: &claude,
        asked: &Asked::begin(host, &paths.cache, &paths.claude_profile(), &claude),
        args: &args.claude_args,
        unknown_options: args.pass_unknown,
    };
    if let Some(backend) = searches {
        ui.notice(&backend.notice());
    }
    launch::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let wanted = web_search::wanted(searches, false);
        match Lease::take(&paths, found.port, linger, wanted).await? {
            Some(lease) => {
                web_search::say_if_refused(ui, &lease, searches);
                session::run(&session, lease, linger, &mut signals).await
            }
            None => Err(Error::new(
                Exit::Engine,
                format!("the engine on port {} is just ending", found.port),
            )
            .hint(format!("start it anew: cclocal {}", found.typed))),
        }
    })
}
