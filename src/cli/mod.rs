//! The command line and its commands: each file wires one command together and decides nothing.

pub mod args;
mod cache_screen;
mod completions;
mod config;
mod config_edit;
mod connect;
mod demo;
mod doctor;
mod dry_run;
mod launch;
mod list;
mod logs;
mod machine_fit;
mod menu;
mod model_flags;
mod options;
mod own_models;
mod pull;
mod remote;
mod rm;
mod setup;
mod status;
mod status_line;
mod stop;
mod typed;
mod web_search;

use std::borrow::Cow;
use std::ffi::OsString;

use clap::Parser;

use crate::app::App;
use crate::claude::permissions;
use crate::error::Error;
use crate::escape::visible_lines;
use crate::settings::Resolver;
use crate::supervisor::live_line;
use crate::sys::environment::Environment;
use crate::sys::network;
use args::{Cli, CliCommand, LaunchArgs};

/// Runs the program and returns its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Run each second: before anything else is made.
    if let Some((name, rest)) = arguments.get(1..).and_then(<[_]>::split_first)
        && name == live_line::COMMAND
    {
        return status_line::run(rest);
    }
    // Without one a command that needs it says so.
    let environment = Environment::real().ok();
    let names_model = |word: &str| {
        (environment.as_ref()).is_some_and(|environment| options::names_model(environment, word))
    };
    let arguments = typed::arranged(arguments, names_model);
    let mut cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(error) = typed::unknown(&error, &arguments, environment.as_ref()) {
                return report(&error);
            }
            // clap's own words, with its own statuses: 2 for a wrong command line, 0 for --help and --version.
            print(&error);
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    if let Some(CliCommand::Server(args)) = &mut cli.command {
        // `cclocal server --gemma` is `cclocal --gemma --server`.
        args.server = true;
    }
    if let Some(CliCommand::ReadPdf) = &cli.command {
        return crate::gateway::read_pdf();
    }
    if let Some(CliCommand::AllowTool { note }) = &cli.command {
        return permissions::run_hook(note);
    }
    network::choose_tls();
    let mut host = match Environment::real() {
        Ok(host) => host,
        Err(error) => return report(&error),
    };
    let flags = options::flags(&cli);
    let prepared = options::settings(&host, &cli).and_then(|settings| {
        options::fill_remote(&settings, &mut cli)?;
        let searches = web_search::asked(&mut host, &settings, &flags)?;
        Ok((settings, searches))
    });
    let app = App::new(host);
    let (settings, searches) = match &prepared {
        Ok((settings, searches)) => (settings, searches.as_ref()),
        Err(error) => {
            app.ui.error(error);
            return error.exit.code();
        }
    };
    let resolver = Resolver {
        environment: &app.environment,
        settings,
        flags: &flags,
        model: None,
    };
    let launch = |args: &LaunchArgs| {
        if args.dry_run {
            dry_run::run(&app, args, &resolver, searches).map(|()| 0)
        } else {
            launch::run(&app, args, &resolver, searches)
        }
    };
    let result = match &cli.command {
        Some(CliCommand::Setup(args)) => setup::run(&app, args).map(|()| 0),
        Some(CliCommand::Completions { shell }) => {
            app.ui.data(&completions::script(*shell));
            Ok(0)
        }
        Some(CliCommand::Man) => {
            app.ui.data(&completions::manual());
            Ok(0)
        }
        Some(CliCommand::Demo(args)) => demo::run(&app, args),
        Some(CliCommand::Doctor(args)) => Ok(doctor::run(&app, args)),
        Some(CliCommand::Server(args)) => launch(args),
        Some(CliCommand::Connect(args)) => connect::run(&app, args, &resolver, searches),
        Some(CliCommand::Pull(args)) => pull::run(&app, args, &resolver),
        Some(CliCommand::Config(args)) => config::run(&app, args).map(|()| 0),
        Some(CliCommand::List(args)) => list::run(&app, args, &resolver).map(|()| 0),
        Some(CliCommand::Rm(args)) => rm::run(&app, args),
        Some(CliCommand::Status(args)) => status::run(&app, args).map(|()| 0),
        Some(CliCommand::Stop(args)) => stop::run(&app, args).map(|()| 0),
        Some(CliCommand::Logs(args)) => logs::run(&app, args).map(|()| 0),
        Some(CliCommand::Supervisor) => {
            return crate::supervisor::process::run(&app);
        }
        Some(CliCommand::ReadPdf | CliCommand::AllowTool { .. }) | None => {
            match &cli.remote.connect {
                Some(url) => remote::run(&app, url, &cli.remote, &cli.launch, searches),
                None => launch(&cli.launch),
            }
        }
    };
    result.unwrap_or_else(|error| {
        app.ui.error(&error);
        error.exit.code()
    })
}

/// Diagnostics for developers: `CCLOCAL_LOG=debug` (or another level) prints them to standard error, which of a supervisor is its log; that one
/// says what matters without being asked. Never prompts, replies or keys.
pub fn start_logging() {
    let set = std::env::var_os("CCLOCAL_LOG").and_then(|level| level.into_string().ok());
    let in_background = std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "supervisor");
    let level = match (set, in_background) {
        (Some(level), _) => level,
        (None, true) => "info".into(),
        (None, false) => return,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!(
            "cclocal={level}"
        )))
        .with_ansi(false)
        // A line that cannot be written (a full disk) is lost; complaining about it would end the program.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
}

/// Prints what clap says. What was typed may be a name with escapes in it: then it comes without colours.
fn print(error: &clap::Error) {
    let plain = error.to_string();
    match visible_lines(&plain) {
        Cow::Borrowed(_) => drop(error.print()),
        Cow::Owned(shown) => eprint!("{shown}"),
    }
}

fn report(error: &Error) -> u8 {
    eprintln!("{error}");
    error.exit.code()
}
