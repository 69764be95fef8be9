//! All models of the hub cache, with their real sizes.

use std::collections::HashSet;
use std::fs::FileType;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cache::{Blobs, is_real_folder, sum, whole};
use super::xet_store::{Entry, Store};

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// `org/name`, or a bare name for the oldest models.
    pub id: String,
    pub folder: PathBuf,
    /// Bytes on disk, every file counted once, those in the store that models share included.
    pub bytes: u64,
    /// What of it is in that store, where other models may need it too.
    pub stored: Vec<Entry>,
    /// Bytes that it has outside of the cache, where links lead that are not huggingface_hub's. They are not in `bytes`.
    pub elsewhere: u64,
    /// Nothing of it is missing.
    pub complete: bool,
    /// Where it leads, if the folder is a symbolic link.
    pub link: Option<PathBuf>,
}

impl Model {
    /// Bytes of it in the store that models share.
    pub fn stored_bytes(&self) -> u64 {
        sum(self.stored.iter().map(|entry| entry.bytes))
    }

    /// Bytes of it wherever they are: what is loaded when it is served.
    pub fn whole(&self) -> u64 {
        self.bytes.saturating_add(self.elsewhere)
    }
}

/// Bytes of these models together: what they share is there once.
pub fn total<'a>(models: impl IntoIterator<Item = &'a Model>) -> u64 {
    let mut counted = HashSet::new();
    let mut bytes = 0;
    for model in models {
        bytes = sum([bytes, model.bytes.saturating_sub(model.stored_bytes())]);
        for entry in &model.stored {
            if counted.insert(&entry.path) {
                bytes = sum([bytes, entry.bytes]);
            }
        }
    }
    bytes
}

/// Bytes that go with these models, out of all: what others share with them stays.
pub fn freed(chosen: &[&Model], all: &[Model]) -> u64 {
    let rest = all.iter().filter(|model| !chosen.contains(model));
    total(all).saturating_sub(total(rest))
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
    let store = Store::of(hub);
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

/// None for what is no folder.
fn model(id: &str, folder: &Path, kind: FileType, store: Option<&Store>) -> Option<Model> {
    if !kind.is_dir() && !kind.is_symlink() {
        return None;
    }
    let blobs = Blobs::of(folder, store);
    Some(Model {
        id: id.to_owned(),
        bytes: sum([blobs.own, blobs.stored_bytes(), copies(folder)]),
        elsewhere: blobs.elsewhere,
        complete: whole(folder, blobs.unfinished).is_some(),
        link: match kind.is_symlink() {
            true => std::fs::read_link(folder).ok(),
            false => None,
        },
        stored: blobs.stored,
        folder: folder.to_owned(),
    })
}

/// Bytes of files that stand in snapshots themselves, where other programs put copies instead of links. No link is followed.
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
