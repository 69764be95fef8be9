//! The store of files that models share, `blobs/` in the hub cache itself: finds a model's entries and releases them.
//!
//! Layout (huggingface_hub 2.4, `utils/_shared_blobs.py`): `blobs/<2 hex digits>/<64 hex digits>` are regular files, and a model's
//! own `blobs/<etag>` may be a link to one. Beside an entry stand `<entry>.refs`, the links that were made to it, one a line, which is a
//! hint and not to be trusted, and `<entry>.lock`, which is held (`flock`) while a link is made or an entry is removed.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::files::{self, Lock};

/// The file that marks the folder as the library's store, and its content for this layout. A folder that another program named `blobs` has none.
const MARKER: &str = ".huggingface-shared-blobs";
const LAYOUT: &str = "1\n";

/// The longest wait for an entry that another program holds. It does so for moments.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The mode of the library's own locks, so that other users of a cache can take them.
const LOCK_MODE: u32 = 0o666;

/// A file in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the store.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The store of a cache.
#[derive(Debug)]
pub(super) struct Store {
    hub: PathBuf,
    folder: PathBuf,
}

impl Store {
    /// The store of this cache, if it has one.
    pub(super) fn open(hub: &Path) -> Option<Self> {
        let hub = normalized(hub);
        let folder = hub.join("blobs");
        if !is_real_folder(&folder) {
            return None;
        }
        let marker = folder.join(MARKER);
        let marked =
            !marker.is_symlink() && files::read_text(&marker, files::ONE_LINE).ok()? == LAYOUT;
        marked.then_some(Self { hub, folder })
    }

    /// The entry that a model's blob links to. None: it is no link, or leads anywhere else.
    pub(super) fn entry(&self, blob: &Path) -> Option<Entry> {
        let path = self.target(blob)?;
        let data = std::fs::symlink_metadata(&path).ok()?;
        if !data.is_file() || !is_real_folder(path.parent()?) {
            return None;
        }
        Some(Entry {
            path,
            bytes: data.len(),
        })
    }

    /// The target of a link, as it is written, if it has the form of an entry's path.
    fn target(&self, blob: &Path) -> Option<PathBuf> {
        let link = std::fs::read_link(blob).ok()?;
        let target = normalized(&normalized(blob).parent()?.join(link));
        let mut names = target.strip_prefix(&self.folder).ok()?.iter();
        let (start, name) = (names.next()?.to_str()?, names.next()?.to_str()?);
        let is_entry = names.next().is_none()
            && name.len() == 64
            && name
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            && name.get(..2) == Some(start);
        is_entry.then_some(target)
    }

    /// Removes the link, and the entry if nothing else links to it. Returns the bytes that this freed. Errors: the entry is held for too long, or
    /// something cannot be removed; the link is then still there, unless it was the entry that could not be removed.
    pub(super) fn release(&self, blob: &Path, entry: &Entry) -> Result<u64> {
        // Links are made under this lock, so an entry without one now has none when it is removed.
        let _lock = lock(&entry.path)?;
        std::fs::remove_file(blob)?;
        if self.is_needed(&entry.path) {
            return Ok(0);
        }
        std::fs::remove_file(&entry.path)?;
        match std::fs::remove_file(beside(&entry.path, ".refs")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(entry.bytes),
        }
    }

    /// True if a model or data set of this cache has a link to it. A folder that cannot be read may have one.
    fn is_needed(&self, entry: &Path) -> bool {
        let leads_here = |blob: &Path| self.target(blob).as_deref() == Some(entry);
        let listed =
            files::read_text(&beside(entry, ".refs"), files::OWN_RECORD).unwrap_or_default();
        if listed.lines().any(|line| {
            let inside = Path::new(line)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            inside && leads_here(&self.hub.join(line))
        }) {
            return true;
        }
        // The list may be short of one, or gone.
        let Ok(folders) = std::fs::read_dir(&self.hub) else {
            return true;
        };
        folders.into_iter().any(|folder| {
            let Ok(folder) = folder else { return true };
            if folder.path() == self.folder {
                return false;
            }
            match std::fs::read_dir(folder.path().join("blobs")) {
                Ok(blobs) => blobs
                    .into_iter()
                    .any(|blob| blob.map_or(true, |blob| leads_here(&blob.path()))),
                Err(error) => {
                    !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
                }
            }
        })
    }
}

/// Takes the library's lock of an entry. The file stays, as it does with the library: other programs may be waiting for this very file.
fn lock(entry: &Path) -> Result<Lock> {
    let path = beside(entry, ".lock");
    let mut file = files::open_lock_itself(&path, LOCK_MODE)?;
    // What the umask took away. Not ours: then it is as its owner wants it.
    let _ = file.set_permissions(std::fs::Permissions::from_mode(LOCK_MODE));
    let since = Instant::now();
    loop {
        if let Some(lock) = Lock::exclusive(file)? {
            return Ok(lock);
        }
        if since.elapsed() >= LOCK_DEADLINE {
            return Err(Error::new(
                ErrorKind::WouldBlock,
                "another program holds a file that it shares",
            ));
        }
        std::thread::sleep(LOCK_RETRY);
        file = files::open_lock_itself(&path, LOCK_MODE)?;
    }
}

/// The path of a file beside an entry, with this ending.
fn beside(entry: &Path, ending: &str) -> PathBuf {
    let mut name = entry.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// True for a folder itself, false for a link to one.
pub(super) fn is_real_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// The path without `.` and `..`; no link is followed. The library compares paths in this way.
fn normalized(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const HASH: &str = "ab00000000000000000000000000000000000000000000000000000000000000";

    /// A cache with a store of one entry, and models that link to it.
    fn cache(models: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let hub = tempfile::tempdir().expect("a folder");
        let entry = hub.path().join("blobs/ab").join(HASH);
        fs_err::create_dir_all(entry.parent().expect("a folder")).expect("made");
        fs_err::write(hub.path().join("blobs").join(MARKER), LAYOUT).expect("written");
        fs_err::write(&entry, "12345").expect("written");
        let mut listed = String::new();
        for model in models {
            let blobs = hub.path().join(model).join("blobs");
            fs_err::create_dir_all(&blobs).expect("made");
            symlink(format!("../../blobs/ab/{HASH}"), blobs.join("etag")).expect("linked");
            listed += &format!("{model}/blobs/etag\n");
        }
        fs_err::write(beside(&entry, ".refs"), listed).expect("written");
        (hub, entry)
    }

    fn release(hub: &Path, model: &str) -> u64 {
        let store = Store::open(hub).expect("a store");
        let blob = hub.join(model).join("blobs/etag");
        let entry = store.entry(&blob).expect("an entry");
        store.release(&blob, &entry).expect("released")
    }

    #[test]
    fn an_entry_goes_with_the_last_that_needs_it() {
        let (hub, entry) = cache(&["models--a--x", "models--b--y", "datasets--c--z"]);
        assert_eq!(release(hub.path(), "models--a--x"), 0);
        assert_eq!(release(hub.path(), "datasets--c--z"), 0);
        assert!(entry.exists());
        assert_eq!(release(hub.path(), "models--b--y"), 5);
        assert!(!entry.exists() && !beside(&entry, ".refs").exists());
    }

    #[test]
    fn a_list_that_is_wrong_or_gone_is_not_believed() {
        let (hub, entry) = cache(&["models--a--x", "models--b--y"]);
        let refs = beside(&entry, ".refs");
        fs_err::write(
            &refs,
            "models--a--x/blobs/etag\n../elsewhere\n/etc/passwd\n",
        )
        .expect("written");
        assert_eq!(release(hub.path(), "models--a--x"), 0);
        fs_err::remove_file(&refs).expect("removed");
        assert!(entry.exists());
        assert_eq!(release(hub.path(), "models--b--y"), 5);
    }

    #[test]
    fn what_is_no_entry_of_a_store_is_left_alone() {
        let (hub, entry) = cache(&["models--a--x"]);
        let store = Store::open(hub.path()).expect("a store");
        let blobs = hub.path().join("models--a--x/blobs");
        let outside = tempfile::tempdir().expect("a folder");
        let strange = outside.path().join(HASH);
        fs_err::write(&strange, "mine").expect("written");
        fs_err::create_dir_all(hub.path().join("blobs/cd")).expect("made");
        for target in [
            strange.clone(),
            format!("../../blobs/cd/{HASH}").into(),
            format!("../../blobs/ab/../../{HASH}").into(),
            "../../blobs/ab/short".into(),
            "../config.json".into(),
        ] {
            let link = blobs.join("strange");
            symlink(&target, &link).expect("linked");
            assert_eq!(store.entry(&link), None, "{}", target.display());
            fs_err::remove_file(&link).expect("removed");
        }
        // Nor one behind a folder that leads elsewhere, nor a store that does, nor one that is not marked.
        let away = outside.path().join("away");
        fs_err::rename(hub.path().join("blobs/ab"), &away).expect("moved");
        symlink(&away, hub.path().join("blobs/ab")).expect("linked");
        assert_eq!(store.entry(&blobs.join("etag")), None);
        fs_err::remove_file(hub.path().join("blobs").join(MARKER)).expect("removed");
        assert!(Store::open(hub.path()).is_none());
        assert!(away.join(HASH).exists() && strange.exists() && entry.exists());
    }

    #[test]
    fn a_held_entry_is_waited_for() {
        let (hub, entry) = cache(&["models--a--x"]);
        let held = lock(&entry).expect("locked");
        let path = hub.path().to_owned();
        let releasing = std::thread::spawn(move || release(&path, "models--a--x"));
        std::thread::sleep(LOCK_RETRY * 3);
        assert!(hub.path().join("models--a--x/blobs/etag").is_symlink());
        drop(held);
        assert_eq!(releasing.join().expect("ended"), 5);
    }
}
