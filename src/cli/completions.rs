//! `cclocal completions SHELL` and `cclocal man`: both are made from the command line's definition.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use crate::catalog::catalog;

const NAME: &str = "cclocal";

/// The script that completes commands, options and the names of the catalogue's models.
pub(super) fn script(shell: Shell) -> String {
    // To the script a model's name is a command.
    let models = catalog().models.iter().map(|model| {
        Command::new(&model.flag)
            .about(&model.name)
            .disable_help_flag(true)
    });
    let mut command = visible().subcommands(models);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of the program, with the options of a session and the commands.
pub(super) fn manual() -> String {
    let mut page = Vec::new();
    // Memory takes all that is written.
    let _ = clap_mangen::Man::new(visible()).render(&mut page);
    // The commands have no pages of their own, which are named `cclocal-status(1)`.
    let page = String::from_utf8_lossy(&page);
    let lines = page.lines().map(|line| {
        let command = line
            .strip_prefix("cclocal\\-")
            .and_then(|rest| rest.strip_suffix("(1)"));
        match command {
            Some(command) => format!("{NAME} {command}\n"),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// The command line without the commands that cclocal runs itself.
fn visible() -> Command {
    let whole = Cli::command();
    let hidden: Vec<String> = whole
        .get_subcommands()
        .filter(|command| command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    let commands: Vec<Command> = whole
        .get_subcommands()
        .filter(|command| !hidden.iter().any(|name| name == command.get_name()))
        .cloned()
        .collect();
    let arguments: Vec<clap::Arg> = whole.get_arguments().cloned().collect();
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .args(arguments)
        .subcommands(commands)
}
