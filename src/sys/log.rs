//! Logs of programs that we start. The engine's holds the start of what users ask (it prints previews), so they are private data: 0600 in a 0700
//! folder.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::files;

/// How much of the end of a log is read to find out what went wrong, in bytes.
const TAIL_BYTES: u64 = 64 * 1024;

/// How much of the beginning is read, in bytes: all that an engine writes until it is ready, long downloads included.
const HEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Starts a new log and keeps the previous one beside it as `<name>.1`.
pub fn start(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        files::private_folder(folder)?;
    }
    match fs_err::rename(path, previous(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Path of the previous log.
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// The end of a log as lines, without colour codes and without the parts of progress bars that were painted over.
pub fn tail(path: &Path) -> Vec<String> {
    lines(path, |length| length.saturating_sub(TAIL_BYTES), TAIL_BYTES)
}

/// The beginning of a log, in the same way.
pub fn head(path: &Path) -> Vec<String> {
    lines(path, |_| 0, HEAD_BYTES)
}

/// At most so many bytes, from where `start` says for a log of this length.
fn lines(path: &Path, start: impl Fn(u64) -> u64, bytes: u64) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = files::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start(length)))?;
        let mut read = Vec::new();
        file.take(bytes).read_to_end(&mut read)?;
        Ok(read)
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(|line| {
            line.rsplit('\r')
                .find(|part| !part.is_empty())
                .unwrap_or_default()
        })
        .map(|line| console::strip_ansi_codes(line).trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_previous_log_is_kept_and_both_are_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/server.log");
        for text in ["first", "second", "third"] {
            writeln!(start(&path).expect("started"), "{text}").expect("written");
        }
        assert_eq!(tail(&path), ["third"]);
        assert_eq!(tail(&previous(&path)), ["second"]);
        let mode =
            |path: &Path| fs_err::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&previous(&path))), (0o600, 0o600));
        assert_eq!(mode(&folder.path().join("state")), 0o700);
    }

    #[test]
    fn the_tail_is_what_a_person_would_have_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server.log");
        fs_err::write(
            &path,
            "\u{1b}[31mred\u{1b}[0m\n\n10%\r50%\r100%\n\u{ff}last",
        )
        .expect("written");
        assert_eq!(tail(&path), ["red", "100%", "\u{ff}last"]);
        assert_eq!(head(&path), tail(&path));
        assert_eq!(tail(&folder.path().join("none")), Vec::<String>::new());
    }
}
