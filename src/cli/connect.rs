//! `cclocal connect`: Claude Code on the engine of a `cclocal --server`.

use super::args::ConnectArgs;
use super::{launch, setup};
use crate::error::Result;
use crate::host::Host;
use crate::paths::Paths;
use crate::session::connect;
use crate::session::signals::Signals;
use crate::ui::Ui;

pub fn run(host: &Host, ui: &Ui, args: &ConnectArgs) -> Result<u8> {
    let paths = Paths::of(host);
    let found = connect::find(&paths, args.port)?;
    let claude = setup::client(host, &paths, ui, false)?;
    launch::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let args = &args.claude_args;
        connect::run(host, &paths, ui, &claude, found, args, &mut signals).await
    })
}
