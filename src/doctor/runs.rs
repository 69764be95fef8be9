//! Running engines, leftovers of killed processes, ports, and our folders.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{Finding, Level};
use crate::app::App;
use crate::supervisor::port_holder;
use crate::supervisor::registry::{self, Running};
use crate::supervisor::reservation::{self, USUAL_PORT};
use crate::sys::paths::Paths;
use crate::sys::port as ports;

/// The usual port, as a session would find it.
enum UsualPort {
    Free,
    /// An engine that cclocal runs.
    Ours,
    /// Another program, if it can be told, and the port that is taken instead.
    Taken {
        by: Option<String>,
        instead: Option<u16>,
    },
}

pub(super) fn port(app: &App) -> Vec<Finding> {
    let found = if port_holder::of(&app.paths, USUAL_PORT).is_some() {
        UsualPort::Ours
    } else if ports::is_free(USUAL_PORT) {
        UsualPort::Free
    } else {
        let holder = ports::holder(&app.environment, USUAL_PORT);
        UsualPort::Taken {
            by: holder.map(|holder| format!("{} (process {})", holder.name, holder.pid)),
            instead: ports::free_above(USUAL_PORT),
        }
    };
    vec![of_port(found)]
}

fn of_port(found: UsualPort) -> Finding {
    const CHECK: &str = "port";
    match found {
        UsualPort::Free => Finding::ok(CHECK, format!("{USUAL_PORT} is free")),
        UsualPort::Ours => Finding::ok(CHECK, format!("{USUAL_PORT} is an engine's of cclocal")),
        UsualPort::Taken { by, instead } => {
            let by = by.unwrap_or_else(|| "a program of another user".into());
            let said = format!("{USUAL_PORT} is taken by {by}");
            match instead {
                Some(port) => Finding::ok(CHECK, format!("{said}; sessions take {port}")),
                None => Finding::fail(
                    CHECK,
                    format!("{said}, and the next hundred are taken as well"),
                )
                .next("name a free port with --port"),
            }
        }
    }
}

/// Whether cclocal runs an engine.
pub(super) fn an_engine_runs(app: &App) -> bool {
    let mut ports = reservation::ports(&app.paths).into_iter();
    ports.any(|port| port_holder::of(&app.paths, port).is_some())
}

/// Whether cclocal runs an engine or a session.
pub(super) fn anything_runs(app: &App) -> bool {
    an_engine_runs(app) || session_folders(&app.paths).iter().any(|(_, lives)| *lives)
}

/// Names of the folders of sessions, and whether each session lives.
fn session_folders(paths: &Paths) -> Vec<(String, bool)> {
    let entries = std::fs::read_dir(paths.run());
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (what, pid) = name.split_once('-')?;
            let pid = pid
                .parse()
                .ok()
                .filter(|_| matches!(what, "session" | "rehearsal"))?;
            let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)
                == Err(nix::errno::Errno::ESRCH);
            Some((name, !gone))
        })
        .collect()
}

pub(super) fn running(app: &App) -> Vec<Finding> {
    let paths = &app.paths;
    let left = |port: &u16| port_holder::of(paths, *port).is_none();
    let left: Vec<u16> = reservation::ports(paths).into_iter().filter(left).collect();
    let dead = session_folders(paths)
        .iter()
        .filter(|(_, lives)| !lives)
        .count();
    of_runs(&registry::running(paths), &left, dead)
}

/// `left`: ports with a folder and no supervisor. `dead`: folders of sessions that are gone.
fn of_runs(running: &[Running], left: &[u16], dead: usize) -> Vec<Finding> {
    const CHECK: &str = "running";
    let mut known = Vec::new();
    let mut found = Vec::new();
    for engine in running {
        match engine {
            Running::Known(status) => known.push(format!(
                "{}, {}, on port {}",
                status.name,
                status.phase.word(),
                status.port
            )),
            Running::Foreign { port, version, .. } => found.push(
                Finding::warn(
                    CHECK,
                    format!("an engine of cclocal {version} on port {port}"),
                )
                .next(format!("cclocal stop --port {port}")),
            ),
            Running::Silent(holder) => found.push(
                Finding::fail(CHECK, format!("{} does not answer", holder.words()))
                    .next(holder.hint()),
            ),
        }
    }
    found.extend(left.iter().map(|port| {
        Finding::ok(
            CHECK,
            format!(
                "files of an engine on port {port} that was killed; the next one there removes them"
            ),
        )
    }));
    if dead > 0 {
        let said =
            format!("files of sessions that were killed: {dead}; the next session removes them");
        found.push(Finding::ok(CHECK, said));
    }
    match known.is_empty() {
        false => found.insert(0, Finding::ok(CHECK, known.join("; "))),
        true if found.is_empty() => found.push(Finding::ok(CHECK, "no engine")),
        true => {}
    }
    found
}

/// One of cclocal's folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Folder {
    is_folder: bool,
    owner: u32,
    mode: u32,
    writable: bool,
}

pub(super) fn folders(app: &App) -> Vec<Finding> {
    let paths = &app.paths;
    let own = nix::unistd::getuid().as_raw();
    let run = paths.run();
    let profile = paths.claude_profile();
    let all = [
        &paths.config,
        &paths.data,
        &paths.state,
        &paths.cache,
        &run,
        &profile,
    ];
    let bad: Vec<Finding> = all
        .into_iter()
        .filter_map(|path| {
            let finding = of_folder(&app.environment.tilde(path), look(path), own)?;
            // Settings that a person wrote are no secret.
            (path != &paths.config || finding.level == Level::Fail).then_some(finding)
        })
        .collect();
    if !bad.is_empty() {
        return bad;
    }
    vec![Finding::ok("folders", "those of cclocal are yours alone")]
}

/// None: it is not there. Errors: the system does not say.
fn look(path: &Path) -> Result<Option<Folder>, std::io::Error> {
    match std::fs::metadata(path) {
        Ok(data) => Ok(Some(Folder {
            is_folder: data.is_dir(),
            owner: data.uid(),
            mode: data.permissions().mode() & 0o777,
            writable: nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok(),
        })),
        // A file in the place of a parent folder is reported for the parent.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// None: it is well, or not made yet.
fn of_folder(
    name: &str,
    folder: Result<Option<Folder>, std::io::Error>,
    own: u32,
) -> Option<Finding> {
    const CHECK: &str = "folders";
    let quoted = shlex::try_quote(name).map_or_else(
        |_| name.to_owned(),
        |name| match name.strip_prefix("'~/") {
            // A tilde is none in quotes.
            Some(rest) => format!("~/'{rest}"),
            None => name.into_owned(),
        },
    );
    let folder = match folder {
        Ok(folder) => folder?,
        Err(error) => {
            return Some(
                Finding::fail(CHECK, format!("{name} cannot be looked at: {error}"))
                    .next("make sure that you may open the folders above it"),
            );
        }
    };
    let level_and_words = if !folder.is_folder {
        (
            Level::Fail,
            "is not a folder",
            format!("move it away: mv {quoted} {quoted}.old"),
        )
    } else if folder.owner != own {
        (
            Level::Fail,
            "belongs to another user",
            format!("sudo chown -R \"$USER\" {quoted}"),
        )
    } else if !folder.writable {
        (
            Level::Fail,
            "cannot be written",
            format!("chmod u+rwx {quoted}"),
        )
    } else if folder.mode & 0o022 != 0 {
        (
            Level::Fail,
            "can be changed by others",
            format!("chmod 700 {quoted}"),
        )
    } else if folder.mode & 0o077 != 0 {
        (
            Level::Warn,
            "can be read by others",
            format!("chmod 700 {quoted}"),
        )
    } else {
        return None;
    };
    let (level, words, next) = level_and_words;
    Some(Finding::new(CHECK, level, format!("{name} {words}")).next(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::port_holder::Holder;

    #[test]
    fn a_taken_port_is_no_trouble_while_another_is_free() {
        let taken = |instead| {
            let by = Some("python3 (process 12)".into());
            of_port(UsualPort::Taken { by, instead })
        };
        assert_eq!(
            taken(Some(8001)),
            Finding::ok(
                "port",
                "8000 is taken by python3 (process 12); sessions take 8001"
            )
        );
        assert_eq!(taken(None).level, Level::Fail);
        assert_eq!(
            of_port(UsualPort::Free),
            Finding::ok("port", "8000 is free")
        );
        assert_eq!(of_port(UsualPort::Ours).level, Level::Ok);
    }

    #[test]
    fn what_was_left_is_told_from_what_runs() {
        assert_eq!(of_runs(&[], &[], 0), [Finding::ok("running", "no engine")]);
        let silent = Running::Silent(Holder {
            port: 8001,
            pid: Some(7),
            record: None,
        });
        let foreign = Running::Foreign {
            port: 8002,
            version: "0.0.9".into(),
            used: false,
            record: None,
        };
        let found = of_runs(&[silent, foreign], &[8003], 2);
        let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fail, Level::Warn, Level::Ok, Level::Ok]);
        assert!(found[2].message.contains("8003"), "{found:?}");
    }

    #[test]
    fn a_folder_is_ours_alone_or_it_is_said() {
        let folder = |is_folder, owner, mode, writable| {
            of_folder(
                "~/x y",
                Ok(Some(Folder {
                    is_folder,
                    owner,
                    mode,
                    writable,
                })),
                1_000,
            )
        };
        assert_eq!(folder(true, 1_000, 0o700, true), None);
        assert_eq!(of_folder("~/x", Ok(None), 1_000), None);
        let level = |found: Option<Finding>| found.expect("a finding").level;
        assert_eq!(level(folder(true, 1_000, 0o755, true)), Level::Warn);
        assert_eq!(level(folder(true, 1_000, 0o770, true)), Level::Fail);
        assert_eq!(level(folder(true, 0, 0o700, true)), Level::Fail);
        assert_eq!(level(folder(true, 1_000, 0o500, false)), Level::Fail);
        assert_eq!(level(folder(false, 1_000, 0o600, true)), Level::Fail);
        let readable = folder(true, 1_000, 0o755, true).expect("a finding");
        assert_eq!(readable.next.as_deref(), Some("chmod 700 ~/'x y'"));
        let denied = Err(ErrorKind::PermissionDenied.into());
        assert_eq!(level(of_folder("~/x", denied, 1_000)), Level::Fail);
    }
}
