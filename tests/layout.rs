//! The order of the modules: each uses those before it, and none after it, so there are no circles. Read from the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules in one row know nothing of each other.
const ORDER: &[&[&str]] = &[
    &["escape"],
    &["error"],
    &["sys"],
    &["ui"],
    &["app"],
    &["catalog"],
    &["hub"],
    &["memory"],
    &["engine", "claude"],
    &["gateway"],
    &["supervisor"],
    &["session"],
    &["settings"],
    &["demo", "doctor"],
    &["cli"],
];

#[test]
fn modules_use_only_those_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeSet::new();
    for file in sources(&root) {
        let name = file.strip_prefix(&root).expect("below").to_owned();
        let first = name.components().next().expect("a name");
        let module = first.as_os_str().to_string_lossy();
        let module = module.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let own = row(module).unwrap_or_else(|| panic!("{module} has no place in the order"));
        let text = std::fs::read_to_string(&file).expect("read");
        for used in used(&text) {
            let allowed = used == module || row(&used).is_none_or(|row| row < own);
            if !allowed {
                wrong.insert(format!("{}: {used}", name.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn row(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

/// The modules of this crate that a file names, but for its tests.
fn used(text: &str) -> BTreeSet<String> {
    let code: String = text
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    code.match_indices("crate::")
        .flat_map(|(at, path)| {
            let rest = &code[at + path.len()..];
            let group = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            match group {
                // `use crate::{a, b::c};`
                Some(group) => group.split(',').map(name).collect(),
                None => vec![name(rest)],
            }
        })
        .collect()
}

fn name(path: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    path.trim_start()
        .chars()
        .take_while(|&letter| is_part(letter))
        .collect()
}

/// All files of Rust below this folder, but for those of tests alone.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "tests" {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    found
}
