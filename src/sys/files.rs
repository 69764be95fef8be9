//! Reading files that others could have put there, and writing files so that a crash leaves the old one or the new one, and nobody else can
//! read them.
//!
//! A name that others can write may lead to a device that never ends, a pipe that nobody writes to, or a file of a terabyte. So all that is
//! read through here is a regular file, links followed, and has a limit.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// The longest record, key or list of our own, in bytes. They take a few hundred.
pub const OWN_RECORD: u64 = 1 << 20;

/// The longest settings file, in bytes. People write some kilobytes.
pub const SETTINGS: u64 = 4 << 20;

/// The longest `config.json` of a model, in bytes. The longest list a quantization for each layer: some ten kilobytes.
pub const MODEL_CONFIG: u64 = 1 << 20;

/// The longest name, path or token that is a file of its own, in bytes: the system's own limit of a path is 4,096.
pub const ONE_LINE: u64 = 16 << 10;

/// Reads a regular file of at most `limit` bytes. Never waits for another program.
///
/// Errors: `IsADirectory` and `InvalidInput` for what is no file, `FileTooLarge`, and whatever the system says, all with the path.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(limit)).unwrap_or(0));
    // Some grow meanwhile, and those of /proc tell no length.
    if length <= limit {
        let mut limited = file.take(limit.saturating_add(1));
        limited
            .read_to_end(&mut bytes)
            .map_err(|error| named(path, error.kind(), &error))?;
    }
    if length > limit || bytes.len() as u64 > limit {
        return Err(too_long(path, limit));
    }
    Ok(bytes)
}

/// The same as text. Errors: as above, and `InvalidData` for what is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| named(path, ErrorKind::InvalidData, &error))
}

/// The first bytes of a regular file, `limit` of them if there are as many. Errors: as of [`open`].
pub fn read_start(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| named(path, error.kind(), &error))?;
    Ok(bytes)
}

/// Opens a regular file for reading, links followed. Never waits for another program. Errors: as of [`read`].
pub fn open(path: &Path) -> Result<File> {
    open_with(path, File::options().read(true), OFlag::empty())
}

/// Opens or makes a file whose lock is taken, with this mode where it is made. Errors: as of [`read`].
pub fn open_lock(path: &Path, mode: u32) -> Result<File> {
    open_lock_with(path, mode, OFlag::empty())
}

/// The same; a link is an error, not followed.
pub fn open_lock_itself(path: &Path, mode: u32) -> Result<File> {
    open_lock_with(path, mode, OFlag::O_NOFOLLOW)
}

fn open_lock_with(path: &Path, mode: u32, more: OFlag) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(mode);
    open_with(path, &mut options, more)
}

/// A lock on a whole file (`flock`). Given back when it is dropped, also while a child that is just being started has the file open, too.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits until nobody else has it.
    pub fn wait(file: File) -> Result<Self> {
        loop {
            match file.lock() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                locked => return locked.map(|()| Self(file)),
            }
        }
    }

    /// The lock for this process alone. None: another has it.
    pub fn exclusive(file: File) -> Result<Option<Self>> {
        Self::of(file.try_lock(), file)
    }

    /// The lock together with others who share it. None: another has it alone.
    pub fn shared(file: File) -> Result<Option<Self>> {
        Self::of(file.try_lock_shared(), file)
    }

    /// Shares it from now on. None: another has taken it meanwhile.
    pub fn share(self) -> Result<Option<Self>> {
        match self.0.try_lock_shared() {
            Ok(()) => Ok(Some(self)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn of(tried: std::result::Result<(), TryLockError>, file: File) -> Result<Option<Self>> {
        match tried {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Looks before it opens, as opening some devices does something, and again afterwards, as it may be another by then.
fn open_with(path: &Path, options: &mut OpenOptions, more: OFlag) -> Result<File> {
    if let Ok(data) = std::fs::metadata(path) {
        is_file(path, &data)?;
    }
    // O_NONBLOCK: or opening a pipe waits for its other end. It does nothing to regular files.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
    let file = options
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| named(path, error.kind(), &error))?;
    is_file(path, &file.metadata()?)?;
    Ok(file)
}

/// The error for a file that is longer than that.
pub fn too_long(path: &Path, limit: u64) -> Error {
    let what = format!("it is longer than {limit} bytes");
    named(path, ErrorKind::FileTooLarge, &what)
}

fn is_file(path: &Path, data: &Metadata) -> Result<()> {
    let kind = data.file_type();
    let (error, what) = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => (ErrorKind::IsADirectory, "a folder"),
        kind if kind.is_fifo() => (ErrorKind::InvalidInput, "a pipe"),
        kind if kind.is_socket() => (ErrorKind::InvalidInput, "a socket"),
        _ => (ErrorKind::InvalidInput, "a device"),
    };
    Err(named(path, error, &format!("it is {what}, not a file")))
}

fn named(path: &Path, kind: ErrorKind, what: &dyn std::fmt::Display) -> Error {
    Error::new(kind, format!("{}: {what}", path.display()))
}

/// Makes a folder, and those above it that are missing, for this user alone (0700). One that exists is left as it is.
pub fn private_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Makes a folder for this user alone (0700), also of one that exists. Errors: it is a link, or somebody else's.
pub fn own_folder(path: &Path) -> Result<()> {
    private_folder(path)?;
    if owned(path)? & 0o777 != 0o700 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Errors: it is no folder, a link, somebody else's, or one that others may write to.
pub fn check_own_folder(path: &Path) -> Result<()> {
    match owned(path)? & 0o022 {
        0 => Ok(()),
        _ => Err(named(
            path,
            ErrorKind::PermissionDenied,
            &"others may write to it",
        )),
    }
}

/// The mode of a folder that is this user's own.
fn owned(path: &Path) -> Result<u32> {
    let data = std::fs::symlink_metadata(path)?;
    match data.is_dir() && data.uid() == nix::unistd::getuid().as_raw() {
        true => Ok(data.mode()),
        false => {
            let what = "it is not a folder of this user's";
            Err(named(path, ErrorKind::PermissionDenied, &what))
        }
    }
}

/// Replaces a file in one step, for this user alone (0600). Makes its folder if needed.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
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

/// Replaces a person's own file in one step. A link stays one, and a mode stays as it is; a new file is for this user alone.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => path.to_owned(),
        Err(error) => return Err(named(path, error.kind(), &error)),
    };
    let folder = target.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let mode = std::fs::metadata(&target).map_or(0o600, |data| data.mode() & 0o777);
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.persist(&target).map_err(|error| error.error)?;
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
    use std::fs::Permissions;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

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
        symlink(&folder, &link).expect("linked");
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

    #[test]
    fn a_file_that_is_replaced_keeps_its_link_and_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs_err::write(&file, "one").expect("written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
        symlink("file", &link).expect("linked");
        replace(&link, b"two").expect("replaced");
        assert!(link.is_symlink());
        assert_eq!(fs_err::read(&file).expect("read"), b"two");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&file), 0o640);
        let new = folder.path().join("more/new");
        replace(&new, b"three").expect("made");
        assert_eq!(mode(&new), 0o600);
        symlink("nowhere", folder.path().join("broken")).expect("linked");
        replace(&folder.path().join("broken"), b"").expect_err("it leads nowhere");
    }

    fn kind_of(read: Result<Vec<u8>>) -> ErrorKind {
        read.expect_err("not read").kind()
    }

    #[test]
    fn only_files_are_read_and_only_so_much_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs_err::write(path("file"), "12345").expect("written");
        symlink(path("file"), path("link")).expect("linked");
        for name in ["file", "link"] {
            assert_eq!(read(&path(name), 5).expect("read"), b"12345");
            assert_eq!(kind_of(read(&path(name), 4)), ErrorKind::FileTooLarge);
            assert_eq!(read_start(&path(name), 4).expect("read"), b"1234");
        }
        let sparse = File::create(path("sparse")).expect("made");
        sparse.set_len(1 << 40).expect("its length");
        assert_eq!(
            kind_of(read(&path("sparse"), 1 << 30)),
            ErrorKind::FileTooLarge
        );

        let pipe = path("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let _listener = UnixListener::bind(path("socket")).expect("a socket");
        symlink("/dev/zero", path("device")).expect("linked");
        symlink(path("endless"), path("endless")).expect("linked");
        for (name, said) in [
            ("pipe", "pipe: it is a pipe, not a file"),
            ("socket", "socket: it is a socket, not a file"),
            ("device", "device: it is a device, not a file"),
            (".", "it is a folder, not a file"),
            ("endless", "endless: "),
            ("none", "none: "),
        ] {
            for error in [
                read(&path(name), 9).expect_err("not read"),
                read_start(&path(name), 9).expect_err("not read"),
                open(&path(name)).expect_err("not opened"),
            ] {
                assert!(error.to_string().contains(said), "{error}");
            }
        }
        assert_eq!(kind_of(read(&path("none"), 9)), ErrorKind::NotFound);
        for name in ["pipe", "socket", "device", ".", "endless"] {
            open_lock(&path(name), 0o600).expect_err("not opened");
        }
        open_lock(&path("new"), 0o600).expect("made");
        open_lock_itself(&path("link"), 0o600).expect_err("a link");
    }

    #[test]
    fn what_grows_while_it_is_read_is_too_long() {
        // Of no length, as the kernel tells it.
        let endless = Path::new("/proc/self/maps");
        if endless.exists() {
            assert_eq!(kind_of(read(endless, 10)), ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn text_is_utf_8() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs_err::write(&path, b"\xff").expect("written");
        let error = read_text(&path, 9).expect_err("not text");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
