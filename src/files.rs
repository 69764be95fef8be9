//! Writing files so that a crash leaves the old one or the new one, and nobody else can read them.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Makes a folder, and those above it that are missing, for this user alone (0700). One that exists is left as it is.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Makes a folder for this user alone (0700), also of one that exists. Errors: it is a link, or somebody else's.
pub fn own_folder(path: &Path) -> std::io::Result<()> {
    private_folder(path)?;
    if owned(path)? & 0o777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Errors: it is no folder, a link, somebody else's, or one that others may write to.
pub fn check_own_folder(path: &Path) -> std::io::Result<()> {
    match owned(path)? & 0o022 {
        0 => Ok(()),
        _ => Err(refused(path, "others may write to it")),
    }
}

/// The mode of a folder that is this user's own.
fn owned(path: &Path) -> std::io::Result<u32> {
    let data = std::fs::symlink_metadata(path)?;
    match data.is_dir() && data.uid() == nix::unistd::getuid().as_raw() {
        true => Ok(data.mode()),
        false => Err(refused(path, "it is not a folder of this user's")),
    }
}

fn refused(path: &Path, why: &str) -> std::io::Error {
    let words = format!("{}: {why}", path.display());
    std::io::Error::new(std::io::ErrorKind::PermissionDenied, words)
}

/// Replaces a file in one step, for this user alone (0600). Makes its folder if needed.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The names of the files in a folder, links followed. None of one that cannot be read.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| fs_err::metadata(entry.path()).is_ok_and(|data| data.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn a_folder_is_ours_alone_or_is_not_used() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("one/two");
        own_folder(&folder).expect("made");
        for mode in [0o777, 0o770, 0o702] {
            std::fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("set");
            check_own_folder(&folder).expect_err("others may write to it");
            own_folder(&folder).expect("taken back");
            check_own_folder(&folder).expect("ours");
            let data = std::fs::metadata(&folder).expect("there");
            assert_eq!(data.permissions().mode() & 0o777, 0o700);
        }
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).expect("linked");
        let file = scratch.path().join("file");
        std::fs::write(&file, "").expect("written");
        for other in [&link, &file] {
            own_folder(other).expect_err("no folder");
            check_own_folder(other).expect_err("no folder");
        }
        // Only root can give a folder away.
        if nix::unistd::geteuid().is_root() {
            nix::unistd::chown(&folder, Some(12_345.into()), None).expect("given");
            own_folder(&folder).expect_err("somebody else's");
            check_own_folder(&folder).expect_err("somebody else's");
        }
    }
}
