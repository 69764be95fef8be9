//! A folder with a model's files: a snapshot in the cache, or any other. Reading only.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::catalog::template::{self, Traits};
use crate::sys::files;

/// The `config.json` of a model folder.
pub fn folder_config(folder: &Path) -> Option<Value> {
    let text = files::read(&folder.join("config.json"), files::MODEL_CONFIG).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Traits of the chat template of a model folder, if it has one.
pub fn folder_template(folder: &Path) -> Option<Traits> {
    template::read(|name| files::read_text(&folder.join(name), template::LONGEST_FILE).ok())
}

/// Bytes of a model folder outside the cache, links followed.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| fs_err::metadata(entry.path()).ok())
        .filter(|data| data.is_file())
        .fold(0, |sum, data| sum.saturating_add(data.len()))
}

/// The longest file of a model that holds no weights, in bytes. The longest tokenizers take 40 MB.
const LONGEST_TEXT: u64 = 256 << 20;

/// The endings of files that an engine reads whole, and of weights, which may have any length. No other file is read.
const TEXTS: &[&str] = &[
    ".json",
    ".jinja",
    ".txt",
    ".model",
    ".tiktoken",
    ".jsonl",
    ".py",
];
const WEIGHTS: &[&str] = &[".safetensors", ".npz"];

/// Checks the files that an engine would read. Errors: one is not a regular file or is too long, so that no engine is to be started with it.
pub fn check_files(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if !ends(TEXTS) && !ends(WEIGHTS) {
            continue;
        }
        let is_folder = || std::fs::metadata(&path).is_ok_and(|data| data.is_dir());
        let file = match files::open(&path) {
            Ok(file) => file,
            // A link without a target is still to be downloaded.
            Err(error) if error.kind() == ErrorKind::NotFound || is_folder() => continue,
            Err(error) => return Err(error),
        };
        let limit = match name.as_ref() {
            "config.json" => files::MODEL_CONFIG,
            _ if ends(TEXTS) => LONGEST_TEXT,
            _ => u64::MAX,
        };
        if file.metadata()?.len() > limit {
            return Err(files::too_long(&path, limit));
        }
    }
    Ok(())
}

/// The longest index of weights, in bytes. Those of the biggest models, of 90,000 tensors, take 9 MB.
const LONGEST_INDEX: u64 = 64 << 20;

/// The most files that an index may name. The biggest models have 200.
const MOST_FILES: usize = 4096;

/// The files that an index of weights names: `{"weight_map": {TENSOR: FILE, …}}`. The tensors are passed over as they are read.
#[derive(Deserialize)]
struct Index {
    weight_map: Files,
}

struct Files(BTreeSet<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Files;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map to names of files")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
                let mut names = BTreeSet::new();
                while let Some((_, name)) = map.next_entry::<IgnoredAny, String>()? {
                    names.insert(name);
                    if names.len() > MOST_FILES {
                        return Err(A::Error::custom("too many files"));
                    }
                }
                Ok(Files(names))
            }
        }
        from.deserialize_map(Map)
    }
}

/// True if a folder has all that serving needs: the config, a tokenizer and every weight file that the index names.
pub(super) fn is_complete(folder: &Path) -> bool {
    let has = |name: &str| fs_err::metadata(folder.join(name)).is_ok_and(|data| data.is_file());
    let tokenizer = ["tokenizer.json", "tokenizer.model", "vocab.json"]
        .iter()
        .any(|name| has(name));
    if !has("config.json") || !tokenizer {
        return false;
    }
    let index = folder.join("model.safetensors.index.json");
    let index = files::read(&index, LONGEST_INDEX)
        .ok()
        .and_then(|text| serde_json::from_slice::<Index>(&text).ok());
    match index {
        Some(index) => index.weight_map.0.iter().all(|name| has(name)),
        None => fs_err::read_dir(folder).is_ok_and(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .any(|name| name.ends_with(".safetensors") && has(&name))
        }),
    }
}
