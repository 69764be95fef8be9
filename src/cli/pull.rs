//! `cclocal pull`: a download by itself.

use super::args::PullArgs;
use super::{launch, options};
use crate::app::App;
use crate::error::Result;
use crate::session;
use crate::settings::Resolver;
use crate::sys::process::signals::Signals;

pub(super) fn run(app: &App, args: &PullArgs, resolver: &Resolver) -> Result<u8> {
    let choice = resolver.settings.choice(&app.environment, &args.model)?;
    let options = options::of_choice(resolver, Some(&choice))?;
    let request = launch::request(app, &options, Some(&choice))?;
    let engine = launch::engine(app, args.yes)?;
    session::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        session::pull::run(app, request, &engine, &mut signals).await
    })
}
