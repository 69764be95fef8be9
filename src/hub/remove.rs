//! Removes a model from the hub cache: its own folder, its locks, and the entries of the shared store that no other model needs. Nothing else
//! that links lead to.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use super::scan::Model;
use super::xet_store::Store;
use crate::sys::files::{self, Lock};

/// The parts of a model's folder in the order of their removal. An interrupted one leaves a partial model: without its reference a snapshot is
/// not found.
const ORDER: &[&str] = &["refs", "snapshots", "blobs"];

/// True if some program is downloading it now: huggingface_hub holds `flock` locks in `.locks/models--org--name/` meanwhile.
pub fn is_downloading(hub: &Path, model: &Model) -> bool {
    let Some(name) = model.folder.file_name() else {
        return false;
    };
    let locks = std::fs::read_dir(hub.join(".locks").join(name));
    locks.into_iter().flatten().flatten().any(|entry| {
        files::open(&entry.path()).is_ok_and(|file| matches!(Lock::exclusive(file), Ok(None)))
    })
}

/// Removes a model and returns the bytes that this freed. Errors: it is no folder of this cache, or a part of it cannot be removed; what was removed
/// until then is gone.
pub fn remove(hub: &Path, model: &Model) -> Result<u64> {
    let name = model.folder.file_name().and_then(|name| name.to_str());
    let (Some(name), Some(parent)) = (name, model.folder.parent()) else {
        return Err(Error::new(ErrorKind::InvalidInput, "it has no name"));
    };
    let real = std::fs::symlink_metadata(&model.folder)?.is_dir();
    if parent != hub || !name.starts_with("models--") || !real {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "it is no folder of this cache",
        ));
    }
    let mut freed = model.bytes.saturating_sub(model.shared_bytes());
    for part in ORDER {
        let path = model.folder.join(part);
        if *part == "blobs" {
            freed = freed.saturating_add(release_shared(hub, &path)?);
        }
        remove_entry(&path)?;
    }
    remove_folder(&model.folder)?;
    let locks = hub.join(".locks");
    match std::fs::symlink_metadata(&locks) {
        Ok(data) if data.is_dir() => remove_entry(&locks.join(name))?,
        // None, or a link that leads elsewhere.
        _ => {}
    }
    Ok(freed)
}

/// Releases the model's entries in the shared store and returns the bytes that this freed. One by one, so that an interrupted removal leaves
/// links to go on with.
fn release_shared(hub: &Path, blobs: &Path) -> Result<u64> {
    let (Some(store), Ok(data)) = (Store::open(hub), std::fs::symlink_metadata(blobs)) else {
        return Ok(0);
    };
    // A link that leads elsewhere: what is there is not this model's.
    if !data.is_dir() {
        return Ok(0);
    }
    let mut freed = 0_u64;
    for found in std::fs::read_dir(blobs)? {
        let blob = found?.path();
        if let Some(entry) = store.entry(&blob) {
            freed = freed.saturating_add(store.release(&blob, &entry)?);
        }
    }
    Ok(freed)
}

/// True if an engine that serves `served` uses this model's files: `served` is its id, or a folder (a path, or the bare name of a snapshot) with
/// its files.
pub fn serves(served: &str, model: &Model) -> bool {
    // The hub does not tell upper from lower case.
    if served.eq_ignore_ascii_case(&model.id) {
        return true;
    }
    let path = Path::new(served);
    if !path.is_absolute() {
        return !served.contains('/')
            && !served.starts_with('.')
            && !served.is_empty()
            && model.folder.join("snapshots").join(served).is_dir();
    }
    let Ok(own) = model.folder.canonicalize() else {
        return false;
    };
    let is_its_own = |path: &Path| {
        path.canonicalize().is_ok_and(|path| {
            path.starts_with(&own)
                || model
                    .shared
                    .iter()
                    .any(|entry| entry.path.canonicalize().is_ok_and(|entry| entry == path))
        })
    };
    let mut files = std::fs::read_dir(path).into_iter().flatten().flatten();
    is_its_own(path) || files.any(|file| is_its_own(&file.path()))
}

fn remove_folder(folder: &Path) -> Result<()> {
    for found in std::fs::read_dir(folder)? {
        remove_entry(&found?.path())?;
    }
    std::fs::remove_dir(folder)
}

/// Removes a file, a link or a folder with all in it. A link is removed, not followed (std's `remove_dir_all` follows none inside either).
fn remove_entry(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
