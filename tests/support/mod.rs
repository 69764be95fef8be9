//! A scratch home with fakes in it, and the binary run there.

// Each test crate uses a part of it.
#![allow(dead_code)]

pub mod impostor;
pub mod pdf;
pub mod terminal;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far beyond what anything here takes; only a hang reaches it.
pub const HANG: Duration = Duration::from_secs(180);

/// A scratch home. When it is dropped, no process that was started in it may be left.
pub struct Stage {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Stage {
    /// A home without anything: no engine, no client.
    pub fn bare() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cclocal-test-")
            .tempdir()
            .expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let stage = Self {
            env: BTreeMap::from([
                ("HOME".into(), root.join("home").display().to_string()),
                (
                    "CCLOCAL_HOME".into(),
                    root.join("cclocal").display().to_string(),
                ),
                ("TMPDIR".into(), root.join("tmp").display().to_string()),
                (
                    "PATH".into(),
                    format!(
                        "{}:/usr/bin:/bin:/usr/sbin:/sbin",
                        root.join("bin").display()
                    ),
                ),
                ("LANG".into(), "C.UTF-8".into()),
                // Tests that are not about it end all that they start.
                ("CCLOCAL_LINGER".into(), "0".into()),
            ]),
            folder,
        };
        for name in ["home", "bin", "tmp", "work"] {
            std::fs::create_dir_all(stage.path(name)).expect("made");
        }
        stage
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder
            .path()
            .canonicalize()
            .expect("a path")
            .join(name)
    }

    /// The environment that everything runs in.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.env.insert(name.into(), value.into());
        self
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// An executable script in the first folder of PATH.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("executable");
        path
    }

    /// The binary with these arguments, in the work folder, with nothing but this stage's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cclocal"));
        command
            .args(args)
            .current_dir(self.path("work"))
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let child = self
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        Ran::of(wait(child))
    }

    /// Starts it, in a process group of its own as a shell would.
    pub fn start(&self, args: &[&str]) -> Child {
        use std::os::unix::process::CommandExt;
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("started")
    }

    /// Waits until the file is there with some text in it.
    pub fn wait_for(&self, name: &str) -> String {
        let since = Instant::now();
        loop {
            let text = self.read(name);
            if !text.is_empty() {
                return text;
            }
            assert!(since.elapsed() < HANG, "{name} did not appear");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The text with what differs from run to run replaced.
    pub fn filtered(&self, text: &str) -> String {
        let root = self.path("");
        let root = root.display().to_string();
        text.replace(root.trim_end_matches('/'), "[STAGE]")
    }

    /// Processes that were started in this stage and still run.
    pub fn survivors(&self) -> Vec<String> {
        self.running()
            .into_iter()
            .map(|(pid, said)| format!("{pid}: {said:.200}"))
            .collect()
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<i32> {
        self.running().into_iter().map(|(pid, _)| pid).collect()
    }

    /// Those that name its folder in their arguments or their environment: their ids, and what they say there.
    fn running(&self) -> Vec<(i32, String)> {
        let mark = self.path("").display().to_string();
        let mark = mark.trim_end_matches('/');
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .flatten()
            .filter_map(|process| {
                let pid: i32 = process.file_name().to_str()?.parse().ok()?;
                let own = i32::try_from(std::process::id()).expect("a pid");
                let read = |name| std::fs::read(process.path().join(name)).unwrap_or_default();
                let said = String::from_utf8_lossy(&[read("cmdline"), read("environ")].concat())
                    .into_owned();
                let zombie = String::from_utf8_lossy(&read("stat")).contains(") Z ");
                (pid != own && said.contains(mark) && !zombie).then_some((pid, said))
            })
            .collect()
    }

    /// Waits until nothing of this stage runs any more.
    pub fn assert_nothing_left(&self) {
        let since = Instant::now();
        loop {
            let survivors = self.survivors();
            if survivors.is_empty() {
                return;
            }
            assert!(since.elapsed() < HANG, "left behind: {survivors:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_left();
            return;
        }
        // What a failed test leaves in the background goes with it. All of it was started here: it has this stage's folder in its name.
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            status: output
                .status
                .code()
                .unwrap_or_else(|| 1000 + output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A port that nothing listens on, and that no other test of this process is given. It lies below those that systems give to whoever asks
/// for any (32768 and up on Linux, 49152 on macOS), so nobody gets it by chance between here and its use.
pub fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 1_000).expect("small") * 10;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port.to_string();
        }
    }
}

/// Signals one process, not its group.
pub fn signal(child: &Child, signal: Signal) {
    kill(
        Pid::from_raw(i32::try_from(child.id()).expect("a pid")),
        signal,
    )
    .expect("signalled");
}

/// The end of a started run.
pub fn finish(child: Child) -> Ran {
    Ran::of(wait(child))
}

/// Waits for the end and collects the output; a hang fails the test and takes the process with it.
fn wait(mut child: Child) -> Output {
    use std::io::Read;
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let collect = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = collect(stdout.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let stderr = collect(stderr.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waited") {
            break status;
        }
        if since.elapsed() > HANG {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "it hangs: {}",
                String::from_utf8_lossy(&stderr.join().expect("read"))
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output {
        status,
        stdout: stdout.join().expect("read"),
        stderr: stderr.join().expect("read"),
    }
}
