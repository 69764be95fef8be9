//! Room on a disk.

use std::path::Path;

/// Bytes that this user may still write below this path, which need not exist yet. None if the system does not tell.
pub fn free(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_still_to_be_made_is_on_its_parents_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(free(&folder.path().join("a/b/c")).is_some_and(|free| free > 0));
    }
}
