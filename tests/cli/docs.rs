//! The documentation says what the code has.

use std::path::{Path, PathBuf};

use cclocal::cli::args::Cli;
use cclocal::settings::file::RESERVED;
use cclocal::settings::key::{KEYS, MODEL_KEYS, REMOTE_KEYS};
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
    let keys = KEYS.iter().chain(MODEL_KEYS).chain(REMOTE_KEYS);
    wanted.extend(keys.map(|key| format!("`{}`", key.name)));
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
fn no_model_can_have_the_name_of_a_command() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(RESERVED.contains(&name), "{name} is not in RESERVED");
    }
}

#[test]
fn the_tests_that_the_problems_page_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
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

/// The pages at the top, in `docs/` and below, with the folder that their links start from.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.into(), root.join("docs"), root.join("docs/decisions")];
    let files = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("read").flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages: Vec<_> = files
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("read")))
        .collect();
    assert!(pages.len() > 15, "only {} were found", pages.len());
    pages
}

#[test]
fn the_source_files_that_pages_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for (page, text) in pages() {
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_source = [".rs", ".py", ".sh", ".lock", ".in"]
                .iter()
                .any(|ending| quoted.ends_with(ending));
            if !is_source || !quoted.contains('/') || quoted.contains([' ', '*', '~']) {
                continue;
            }
            // A file that is to be made has its name in capitals.
            let is_placeholder = quoted
                .rsplit(['/', '.'])
                .nth(1)
                .is_some_and(|name| name.chars().all(|letter| letter.is_ascii_uppercase()));
            let exists = ["", "src"]
                .iter()
                .any(|folder| root.join(folder).join(quoted).exists());
            assert!(exists || is_placeholder, "{}: {quoted}", page.display());
            named += 1;
        }
    }
    assert!(named > 100, "only {named} were found");
}

#[test]
fn the_links_between_pages_lead_somewhere() {
    let mut links = 0;
    for (page, text) in pages() {
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().expect("the target");
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                _ => page.parent().expect("a folder").join(file),
            };
            assert!(path.exists(), "{}: {target}", page.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&path).expect("read");
                let found = text.lines().any(|line| {
                    line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading
                });
                assert!(found, "{}: {target}", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 30, "only {links} were found");
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
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
