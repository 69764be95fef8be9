//! Removing a model from the hub cache: its own folder and its locks, and nothing that links lead to.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::scan::Model;

/// What the removal goes through in this order, so that one that is interrupted leaves what shows as partial: without its reference a
/// snapshot is not found.
const ORDER: &[&str] = &["refs", "snapshots", "blobs"];

/// Whether some program is downloading it at this moment: huggingface_hub holds `flock` locks in `.locks/models--org--name/` meanwhile.
pub fn is_downloading(hub: &Path, model: &Model) -> bool {
    let Some(name) = model.folder.file_name() else {
        return false;
    };
    let locks = std::fs::read_dir(hub.join(".locks").join(name));
    locks.into_iter().flatten().flatten().any(|entry| {
        File::open(entry.path()).is_ok_and(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    })
}

/// Removes it. Errors: it is no folder of this cache, or a part of it cannot be removed; what was removed until then is gone.
pub fn remove(hub: &Path, model: &Model) -> Result<()> {
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
    for part in ORDER {
        entry(&model.folder.join(part))?;
    }
    tree(&model.folder)?;
    let locks = hub.join(".locks");
    match std::fs::symlink_metadata(&locks) {
        Ok(data) if data.is_dir() => entry(&locks.join(name)),
        // None, or a link that leads elsewhere.
        _ => Ok(()),
    }
}

/// Whether files of it are in the store that models share (huggingface_hub 2.4): removing its folder would free nothing of them.
pub fn is_shared(model: &Model) -> bool {
    let blobs = std::fs::read_dir(model.folder.join("blobs"));
    blobs
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
}

fn tree(folder: &Path) -> Result<()> {
    for found in std::fs::read_dir(folder)? {
        entry(&found?.path())?;
    }
    std::fs::remove_dir(folder)
}

/// A file, a link or a folder with all in it. A link is removed, not followed (std's `remove_dir_all` follows none inside either).
fn entry(path: &Path) -> Result<()> {
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
