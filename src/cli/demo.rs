//! `cclocal demo`: the whole chain on the built-in model.

use std::path::Path;
use std::time::Instant;

use super::args::DemoArgs;
use super::{launch, setup};
use crate::app::App;
use crate::demo::chain::Demo;
use crate::error::{Context, Exit, Result};
use crate::sys::process::signals::Signals;
use crate::ui;

pub(super) fn run(app: &App, args: &DemoArgs) -> Result<u8> {
    let ui = &app.ui;
    ui.say("A tiny built-in model, the real engine, the real Claude Code, a real file.");
    let started = Instant::now();
    let engine = launch::engine(app, args.yes)?;
    found(app, "engine", &engine.script, started);
    let started = Instant::now();
    let claude = setup::client(app, args.yes)?;
    found(app, "client", &claude, started);
    let folder = tempfile::Builder::new()
        .prefix("cclocal-demo-")
        .tempdir()
        .context(Exit::Other, "the demo's folder cannot be created")?;
    // On macOS the temporary folder is behind a link, and Claude Code and the model have to mean the same path.
    let scratch = fs_err::canonicalize(folder.path())
        .context(Exit::Other, "the demo's folder cannot be found")?;
    let demo = Demo {
        app,
        engine: &engine,
        claude: &claude,
        scratch: &scratch,
    };
    let status = crate::session::runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        demo.run(&mut signals).await
    });
    if args.keep {
        let kept = folder.keep();
        ui.say(&format!("The demo's folder: {}", kept.display()));
    }
    if matches!(status, Ok(0)) {
        ui.say("It works: the local model called a tool, and Claude Code wrote the file.");
        ui.say(&format!(
            "Next: {} --gemma-light",
            app.environment.this_program()
        ));
    }
    status
}

fn found(app: &App, what: &str, program: &Path, started: Instant) {
    app.ui.done(&format!(
        "{what}: {} ({})",
        app.environment.tilde(program),
        ui::seconds(started.elapsed())
    ));
}
