//! The documentation says what the code has.

use cclocal::cli::args::Cli;
use cclocal::env_vars::{ALL, Reader};
use clap::CommandFactory;

#[test]
fn every_option_command_and_variable_is_documented() {
    let page = include_str!("../../docs/configuration.md");
    let mut wanted: Vec<String> = Vec::new();
    let command = Cli::command();
    let commands = std::iter::once(&command).chain(command.get_subcommands());
    for command in commands {
        wanted.push(command.get_name().to_owned());
        let options = command.get_arguments().filter_map(clap::Arg::get_long);
        wanted.extend(options.map(|option| format!("--{option}")));
    }
    let variables = ALL.iter().filter(|row| row.reader == Reader::Cclocal);
    wanted.extend(
        variables
            .flat_map(|row| row.names)
            .map(|name| (*name).to_owned()),
    );
    for word in wanted {
        let found = page.match_indices(&word).any(|(at, _)| {
            !page[at + word.len()..]
                .starts_with(|next: char| next.is_alphanumeric() || next == '-' || next == '_')
        });
        assert!(found, "{word} is not in docs/configuration.md");
    }
}
