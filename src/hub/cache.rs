//! The hub cache on disk: finds a model in it, its size, and whether it is complete. Reading only.
//!
//! Layout (huggingface_hub, "Manage your cache"): `models--org--name/{blobs,refs,snapshots}`; `refs/main` holds a commit,
//! `snapshots/<commit>/` holds links to blobs; a blob that is being fetched ends in `.incomplete`.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::folder::{check_files, folder_config, folder_template, is_complete};
use super::xet_store::{Entry, Store, is_real_folder};
use crate::catalog::template::Traits;
use crate::sys::files;

/// The state of a model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// Nothing of it is there.
    Missing,
    /// Some of it is there.
    Partial {
        /// Bytes on disk.
        bytes: u64,
    },
    /// All of it is there.
    Complete {
        /// Bytes on disk.
        bytes: u64,
        /// The folder with its files.
        snapshot: PathBuf,
    },
}

impl Cached {
    /// Bytes on disk, blobs counted once.
    pub fn bytes(&self) -> u64 {
        match self {
            Cached::Missing => 0,
            Cached::Partial { bytes } | Cached::Complete { bytes, .. } => *bytes,
        }
    }
}

/// The folder of a model in the cache.
pub fn model_folder(hub: &Path, id: &str) -> PathBuf {
    hub.join(format!("models--{}", id.replace('/', "--")))
}

/// The state of this model in the cache. A file that cannot be read counts as not there.
pub fn cached(hub: &Path, id: &str) -> Cached {
    let folder = model_folder(hub, id);
    if !folder.is_dir() {
        return Cached::Missing;
    }
    let blobs = Blobs::of(&folder, Store::open(hub).as_ref());
    let bytes = sum([blobs.own, blobs.shared_bytes(), blobs.external]);
    match complete_snapshot(&folder, blobs.unfinished) {
        Some(snapshot) => Cached::Complete { bytes, snapshot },
        None if bytes == 0 => Cached::Missing,
        None => Cached::Partial { bytes },
    }
}

/// The snapshot of a model that is complete.
pub(super) fn complete_snapshot(folder: &Path, unfinished: bool) -> Option<PathBuf> {
    snapshot(folder).filter(|snapshot| !unfinished && is_complete(snapshot))
}

/// The `config.json` of a model in the cache, even if the rest is still missing.
pub fn config(hub: &Path, id: &str) -> Option<Value> {
    let snapshot = snapshot(&model_folder(hub, id))?;
    folder_config(&snapshot)
}

/// Traits of the chat template of a model in the cache, if it is there.
pub fn template(hub: &Path, id: &str) -> Option<Traits> {
    folder_template(&snapshot(&model_folder(hub, id))?)
}

/// The names of the files in a model's snapshot. None: there is no snapshot, or a download is unfinished.
pub fn settled_files(hub: &Path, id: &str) -> Option<Vec<String>> {
    let folder = model_folder(hub, id);
    let snapshot = snapshot(&folder)?;
    let unfinished = Blobs::of(&folder, Store::open(hub).as_ref()).unfinished;
    (!unfinished).then(|| files::names(&snapshot))
}

/// Checks the files of a model in the cache as [`check_files`] does. Nothing of it need be there.
pub fn check_cached_files(hub: &Path, id: &str) -> std::io::Result<()> {
    let folder = model_folder(hub, id);
    match files::read(&folder.join("refs/main"), files::ONE_LINE) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(error);
        }
        _ => {}
    }
    snapshot(&folder).map_or(Ok(()), |snapshot| check_files(&snapshot))
}

/// The sizes of a model's blobs.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    /// Bytes in its own folder, finished or not.
    pub(super) own: u64,
    /// Its entries in the store that models share.
    pub(super) shared: Vec<Entry>,
    /// Bytes behind links that are not huggingface_hub's, such as to another disk. They are loaded with the model and take none of this
    /// cache's disk.
    pub(super) external: u64,
    /// True if one of them is still to be finished.
    pub(super) unfinished: bool,
}

impl Blobs {
    pub(super) fn of(folder: &Path, store: Option<&Store>) -> Self {
        let mut found = Self::default();
        let mut counted = HashSet::new();
        let mut unfinished: Vec<String> = Vec::new();
        let blobs = folder.join("blobs");
        let Ok(entries) = std::fs::read_dir(&blobs) else {
            return found;
        };
        let is_own = is_real_folder(folder) && is_real_folder(&blobs);
        for entry in entries.flatten() {
            let Ok(data) = entry.metadata() else {
                continue;
            };
            if data.is_symlink() {
                found.add_link(&entry.path(), store);
                continue;
            }
            let name = entry.file_name();
            match name.to_string_lossy().strip_suffix(".incomplete") {
                Some(start) => {
                    // Some downloaders give a file its full length first and fill it then. (512: stat(2), st_blocks.)
                    let filled = data.len().min(data.blocks().saturating_mul(512));
                    found.own = found.own.saturating_add(filled);
                    // The part before the first dot is the finished blob's name; what follows, if anything, is the attempt's.
                    unfinished.push(start.split('.').next().unwrap_or(start).to_owned());
                }
                // Two names of one file take its space once.
                None if data.nlink() < 2 || counted.insert((data.dev(), data.ino())) => {
                    found.own = found.own.saturating_add(data.len());
                }
                None => {}
            }
        }
        // What an attempt left that was killed says nothing once another attempt has finished the blob.
        found.unfinished = unfinished.iter().any(|blob| !blobs.join(blob).exists());
        if !is_own {
            let bytes = std::mem::take(&mut found.own).saturating_add(found.shared_bytes());
            found.shared.clear();
            found.external = found.external.saturating_add(bytes);
        }
        found
    }

    fn add_link(&mut self, blob: &Path, store: Option<&Store>) {
        match store.and_then(|store| store.entry(blob)) {
            Some(entry) if self.shared.contains(&entry) => {}
            Some(entry) => self.shared.push(entry),
            None => {
                let bytes = std::fs::metadata(blob).map_or(0, |data| data.len());
                self.external = self.external.saturating_add(bytes);
            }
        }
    }

    pub(super) fn shared_bytes(&self) -> u64 {
        sum(self.shared.iter().map(|entry| entry.bytes))
    }
}

/// The sum of sizes. A file may say that it is as long as it likes.
pub(super) fn sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

/// The snapshot folder that `refs/main` names.
fn snapshot(folder: &Path) -> Option<PathBuf> {
    let commit = files::read_text(&folder.join("refs/main"), files::ONE_LINE).ok()?;
    let commit = Path::new(commit.trim());
    // A name, and no way to anywhere else.
    let mut parts = commit.components();
    if !matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) {
        return None;
    }
    let snapshot = folder.join("snapshots").join(commit);
    snapshot.is_dir().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model in a cache made by hand: blobs with links from the snapshot.
    fn cache_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let hub = tempfile::tempdir().expect("a folder");
        let folder = model_folder(hub.path(), "org/name");
        let snapshot = folder.join("snapshots/abc");
        for made in [folder.join("blobs"), folder.join("refs"), snapshot.clone()] {
            fs_err::create_dir_all(made).expect("made");
        }
        fs_err::write(folder.join("refs/main"), "abc").expect("written");
        for (index, (name, text)) in files.iter().enumerate() {
            let blob = folder.join("blobs").join(format!("blob{index}"));
            fs_err::write(&blob, text).expect("written");
            std::os::unix::fs::symlink(&blob, snapshot.join(name)).expect("linked");
        }
        hub
    }

    #[test]
    fn a_whole_model_is_told_from_a_partial_one() {
        let index = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;
        let mut files = vec![
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors.index.json", index),
            ("model-1.safetensors", "12345"),
        ];
        let hub = cache_with(&files);
        assert!(matches!(
            cached(hub.path(), "org/name"),
            Cached::Partial { .. }
        ));
        files.push(("model-2.safetensors", "12345"));
        let hub = cache_with(&files);
        assert!(matches!(
            cached(hub.path(), "org/name"),
            Cached::Complete { .. }
        ));
        let incomplete = model_folder(hub.path(), "org/name").join("blobs/x.incomplete");
        fs_err::write(incomplete, "1234567").expect("written");
        let bytes = 2 + 2 + index.len() as u64 + 5 + 5 + 7;
        assert_eq!(cached(hub.path(), "org/name"), Cached::Partial { bytes });
        assert_eq!(cached(hub.path(), "org/other"), Cached::Missing);
    }

    #[test]
    fn what_a_killed_attempt_left_of_a_finished_file_does_not_matter() {
        let hub = cache_with(&[
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors", "1"),
        ]);
        let blobs = model_folder(hub.path(), "org/name").join("blobs");
        fs_err::write(blobs.join("blob2.0a1b2c3d.incomplete"), "1").expect("written");
        assert!(matches!(
            cached(hub.path(), "org/name"),
            Cached::Complete { .. }
        ));
        fs_err::write(blobs.join("blob3.0a1b2c3d.incomplete"), "1").expect("written");
        assert!(matches!(
            cached(hub.path(), "org/name"),
            Cached::Partial { .. }
        ));
    }

    #[test]
    fn a_file_that_is_only_as_long_as_it_will_be_does_not_count_as_there() {
        let hub = cache_with(&[("config.json", "{}")]);
        let path = model_folder(hub.path(), "org/name").join("blobs/x.incomplete");
        let file = fs_err::File::create(path).expect("made");
        file.set_len(1_000_000_000).expect("its length");
        assert_eq!(cached(hub.path(), "org/name"), Cached::Partial { bytes: 2 });
    }

    #[test]
    fn a_link_to_a_blob_that_is_gone_is_not_whole() {
        let hub = cache_with(&[
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors", "1"),
        ]);
        assert!(matches!(
            cached(hub.path(), "org/name"),
            Cached::Complete { .. }
        ));
        fs_err::remove_file(model_folder(hub.path(), "org/name").join("blobs/blob2"))
            .expect("removed");
        assert!(matches!(
            cached(hub.path(), "org/name"),
            Cached::Partial { .. }
        ));
    }
}
