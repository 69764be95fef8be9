//! The documentation says what the code has.

use cclocal::cli::args::Cli;
use cclocal::sys::variables::OWN;
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
    let names = OWN.iter().flat_map(|(names, _)| names.split_whitespace());
    wanted.extend(names.map(str::to_owned));
    for word in wanted {
        let found = page.match_indices(&word).any(|(at, _)| {
            !page[at + word.len()..]
                .starts_with(|next: char| next.is_alphanumeric() || next == '-' || next == '_')
        });
        assert!(found, "{word} is not in docs/configuration.md");
    }
}

#[test]
fn the_tests_that_the_problems_page_names_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = include_str!("../../docs/problems.md");
    let mut named = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = quoted.split_once(".rs: ") else {
            continue;
        };
        let text = std::fs::read_to_string(root.join(format!("{file}.rs"))).expect(file);
        assert!(text.contains(&format!("fn {test}(")), "{quoted}");
        named += 1;
    }
    assert!(named > 25, "only {named} were found");
}

#[test]
fn the_words_that_the_troubleshooting_page_explains_are_ours() {
    let mut source = String::new();
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("read").flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => folders.push(entry.path()),
                false => source += &std::fs::read_to_string(entry.path()).unwrap_or_default(),
            }
        }
    }
    let page = include_str!("../../docs/troubleshooting.md");
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let words = line.split('`').nth(1).expect("the words");
        assert!(source.contains(words), "{words}");
    }
}

/// What the catalogue says of a model's turns is what the page says was measured.
#[test]
fn the_figures_of_the_catalogue_are_those_of_the_performance_page() {
    let page = include_str!("../../docs/performance.md");
    for entry in &cclocal::catalog::catalog().models {
        let turns = &entry.turns;
        let row = format!("| {} |", turns.layout);
        let row = page.lines().find(|line| line.starts_with(&row));
        let cells: Vec<&str> = row.expect("a row").split('|').map(str::trim).collect();
        let said = [cells[3], cells[4]];
        let known =
            [turns.computed, turns.with_the_scripts_flags].map(|value| format!("{value:.2}"));
        assert_eq!(said, known, "{}", entry.name);
    }
}
