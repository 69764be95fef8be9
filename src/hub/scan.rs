//! All models of the hub cache, with their real sizes.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// `org/name`, or a bare name for the oldest models.
    pub id: String,
    pub folder: PathBuf,
    /// Bytes on disk, every file counted once.
    pub bytes: u64,
    /// Nothing of it is missing.
    pub complete: bool,
    /// Where it leads, if the folder is a symbolic link.
    pub link: Option<PathBuf>,
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
            found.push((name.replace("--", "/"), entry.path()));
        }
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = found.len().div_ceil(workers).max(1);
    let mut models: Vec<Model> = std::thread::scope(|scope| {
        let threads: Vec<_> = found
            .chunks(share)
            .map(|share| scope.spawn(|| share.iter().filter_map(model).collect::<Vec<_>>()))
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
fn model((id, folder): &(String, PathBuf)) -> Option<Model> {
    if !folder.is_dir() && !folder.is_symlink() {
        return None;
    }
    let (blobs, unfinished) = super::blobs(folder);
    Some(Model {
        id: id.clone(),
        bytes: blobs + copies(&folder.join("snapshots")),
        complete: super::whole(folder, unfinished).is_some(),
        link: std::fs::read_link(folder).ok(),
        folder: folder.clone(),
    })
}

/// Bytes of files that stand in snapshots themselves, where other programs put copies instead of links.
fn copies(snapshots: &Path) -> u64 {
    let mut bytes = 0;
    let mut counted = HashSet::new();
    let mut folders = vec![snapshots.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // The directory itself tells the kind, so links, which are nearly all there is, cost no call of their own.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    if let Ok(data) = entry.metadata()
                        && (data.nlink() < 2 || counted.insert((data.dev(), data.ino())))
                    {
                        bytes += data.len();
                    }
                }
                _ => {}
            }
        }
    }
    bytes
}
