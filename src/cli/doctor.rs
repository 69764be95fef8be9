//! `cclocal doctor`: looks for what is wrong.

use console::Term;
use serde_json::json;

use super::args::DoctorArgs;
use crate::app::App;
use crate::doctor::{self, Level};
use crate::error::Exit;

/// Columns of a page that goes to no terminal.
const COLUMNS: u16 = 80;

/// The exit status: 0 if nothing fails, else 1.
pub(super) fn run(app: &App, args: &DoctorArgs) -> u8 {
    let progress = (app.ui.animated).then(|| app.ui.progress("looking"));
    let findings = doctor::examine(&app.environment);
    drop(progress);
    let worst = doctor::worst(&findings);
    if args.json {
        app.ui.json(&json!({"status": worst, "checks": findings}));
    } else {
        let host = &app.environment;
        let columns = Term::stdout()
            .size_checked()
            .map_or(COLUMNS, |(_, columns)| columns);
        let colour = host.stdout_tty && app.ui.has_colour();
        let page = doctor::text(&findings, columns.into(), colour);
        app.ui.bytes(page.as_bytes());
    }
    match worst {
        Level::Ok | Level::Warn => 0,
        Level::Fail => Exit::Other.code(),
    }
}
