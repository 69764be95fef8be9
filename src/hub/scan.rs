//! Lists the models of the hub cache with their sizes on disk.

use std::collections::HashSet;
use std::fs::FileType;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cache::{Blobs, complete_snapshot, sum};
use super::xet_store::{Entry, Store, is_real_folder};

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// `org/name`, or a bare name for the oldest models.
    pub id: String,
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// Bytes in the cache, every file counted once, those in the shared store included.
    pub bytes: u64,
    /// Its entries in the shared store, which other models may need too.
    pub shared: Vec<Entry>,
    /// Bytes outside the cache, behind links that are not huggingface_hub's. They are not in `bytes`.
    pub external: u64,
    /// True if nothing is missing.
    pub complete: bool,
    /// The target, if the folder is a symbolic link.
    pub link: Option<PathBuf>,
}

impl Model {
    /// Bytes in the shared store.
    pub fn shared_bytes(&self) -> u64 {
        sum(self.shared.iter().map(|entry| entry.bytes))
    }

    /// Bytes that are loaded when it is served, wherever they are.
    pub fn loaded_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.external)
    }
}

/// Bytes of these models together. Shared entries count once.
pub fn total_bytes<'a>(models: impl IntoIterator<Item = &'a Model>) -> u64 {
    let mut counted = HashSet::new();
    let mut bytes = 0;
    for model in models {
        bytes = sum([bytes, model.bytes.saturating_sub(model.shared_bytes())]);
        for entry in &model.shared {
            if counted.insert(&entry.path) {
                bytes = sum([bytes, entry.bytes]);
            }
        }
    }
    bytes
}

/// Bytes that removing the chosen models would free. Entries that others share stay.
pub fn freed_bytes(chosen: &[&Model], all: &[Model]) -> u64 {
    let rest = all.iter().filter(|model| !chosen.contains(model));
    total_bytes(all).saturating_sub(total_bytes(rest))
}

/// The models of a cache, the biggest first. A cache that does not exist has none. Errors: the folder cannot be read.
pub fn scan(hub: &Path) -> std::io::Result<Vec<Model>> {
    let entries = match std::fs::read_dir(hub) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // Not datasets--, not spaces--, not .locks.
        if let Some(name) = name.to_str().and_then(|name| name.strip_prefix("models--")) {
            // The directory itself tells the kind, without a call for each.
            found.push((name.replace("--", "/"), entry.path(), entry.file_type()?));
        }
    }
    let store = Store::open(hub);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = found.len().div_ceil(workers).max(1);
    let mut models: Vec<Model> = std::thread::scope(|scope| {
        let threads: Vec<_> = found
            .chunks(share)
            .map(|share| {
                let store = store.as_ref();
                scope.spawn(move || {
                    let models = share.iter();
                    models
                        .filter_map(|(id, folder, kind)| model(id, folder, *kind, store))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    });
    models.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
    Ok(models)
}

/// Looks at one model. None: it is not a folder.
fn model(id: &str, folder: &Path, kind: FileType, store: Option<&Store>) -> Option<Model> {
    if !kind.is_dir() && !kind.is_symlink() {
        return None;
    }
    let blobs = Blobs::of(folder, store);
    Some(Model {
        id: id.to_owned(),
        bytes: sum([blobs.own, blobs.shared_bytes(), copies(folder)]),
        external: blobs.external,
        complete: complete_snapshot(folder, blobs.unfinished).is_some(),
        link: match kind.is_symlink() {
            true => std::fs::read_link(folder).ok(),
            false => None,
        },
        shared: blobs.shared,
        folder: folder.to_owned(),
    })
}

/// Bytes of regular files in snapshots, where other programs put copies instead of links. No link is followed.
fn copies(folder: &Path) -> u64 {
    let snapshots = folder.join("snapshots");
    if !is_real_folder(folder) || !is_real_folder(&snapshots) {
        return 0;
    }
    let mut bytes = 0;
    let mut counted = HashSet::new();
    let mut folders = vec![snapshots];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // Links, which are nearly all there is, cost no call of their own.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    if let Ok(data) = entry.metadata()
                        && (data.nlink() < 2 || counted.insert((data.dev(), data.ino())))
                    {
                        bytes = sum([bytes, data.len()]);
                    }
                }
                _ => {}
            }
        }
    }
    bytes
}
