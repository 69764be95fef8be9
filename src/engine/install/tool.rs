//! Runs `uv`, `python` and `pip` while something is installed: their output line by line, never silent for ever, and gone when we are gone.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Event, failure};
use crate::engine::env;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;

/// How long a tool may say nothing. One large package on a slow connection is one silent step to pip.
const SILENCE: Duration = Duration::from_secs(600);
/// Lines kept for the error message and for finding out what went wrong.
const KEPT: usize = 200;

/// Starts the tool as `$@`, in our process group, with a watcher that ends the whole group when our end of standard input is closed:
/// by us, or by the system when we are gone, however that happened.
const LEASH: &str = r#"
exec 3<&0 2>&1
"$@" </dev/null 3<&- &
tool=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$tool"
status=$?
kill -KILL "$watcher" 2>/dev/null
exit "$status"
"#;

/// What tools need to run: surroundings, a log, and somebody to tell.
pub struct Tools<'a> {
    env: BTreeMap<OsString, OsString>,
    cwd: &'a Path,
    log: File,
    on_event: &'a mut dyn FnMut(Event),
}

impl<'a> Tools<'a> {
    pub fn new(
        host: &Environment,
        cwd: &'a Path,
        log: File,
        on_event: &'a mut dyn FnMut(Event),
    ) -> Self {
        Self {
            env: environment(host),
            cwd,
            log,
            on_event,
        }
    }

    /// What is being done now.
    pub fn step(&mut self, name: impl Into<String>) {
        let name = name.into();
        self.write_log(&format!("== {name}"));
        (self.on_event)(Event::Step { name });
    }

    /// Sets a variable for the tools, unless the user did.
    pub fn default_var(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.entry(name.into()).or_insert(value.into());
    }

    /// The environment that the tools get.
    pub fn env(&self) -> &BTreeMap<OsString, OsString> {
        &self.env
    }

    pub fn say(&mut self, line: &str) {
        self.write_log(line);
        (self.on_event)(Event::Line(line.to_owned()));
    }

    /// Runs a tool to its end. Failing is an error that says `what` was tried, why it failed as far as that can be told, and the last lines.
    pub fn run(&mut self, what: &str, program: &Path, args: &[&OsStr]) -> Result<Vec<String>> {
        self.run_within(what, program, args, SILENCE)
    }

    fn run_within(
        &mut self,
        what: &str,
        program: &Path,
        args: &[&OsStr],
        silence: Duration,
    ) -> Result<Vec<String>> {
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        self.write_log(&format!("$ {} {}", program.display(), words.join(" ")));
        let mut child = Command::new("/bin/sh")
            .args(["-c", LEASH, "sh"])
            .arg(program)
            .args(args)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context(
                Exit::EngineMissing,
                format!("{what} failed: /bin/sh cannot be started"),
            )?;
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let leash = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output)
                    .split(b'\n')
                    .map_while(std::io::Result::ok)
                {
                    // A progress bar's line is redrawn by returning to its start: only what it ended as counts.
                    let text = String::from_utf8_lossy(&line)
                        .trim_end()
                        .rsplit('\r')
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                    if sender.send(text).is_err() {
                        break;
                    }
                }
            });
        } else {
            drop(sender);
        }
        let mut kept: Vec<String> = Vec::new();
        let silent = loop {
            match lines.recv_timeout(silence) {
                Ok(line) => {
                    self.say(&line);
                    if kept.len() == KEPT {
                        kept.remove(0);
                    }
                    kept.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        if silent {
            // The child is not collected yet, so the group's number is still its own.
            let _ = killpg(group, Signal::SIGKILL);
        }
        let status = child
            .wait()
            .context(Exit::EngineMissing, format!("{what} failed"))?;
        drop(leash);
        self.write_log(&format!("-- {status}"));
        if silent {
            return Err(Error::new(Exit::EngineMissing, format!("{what} failed"))
                .cause(format!(
                    "it said nothing for {} minutes and was ended",
                    silence.as_secs().div_ceil(60)
                ))
                .hint("look at your connection, then run `cclocal setup` again"));
        }
        if status.success() {
            Ok(kept)
        } else {
            Err(failure::explain(what, &status.to_string(), &kept))
        }
    }

    fn write_log(&mut self, line: &str) {
        // A log that cannot be written must not stop an installation.
        let _ = writeln!(self.log, "{line}");
    }
}

/// What may be passed on of pip's and uv's own settings: where packages come from, and how they are fetched. What would change what is
/// installed or where (`PIP_TARGET`, `PIP_USER`, `UV_PYTHON`, `UV_EXCLUDE_NEWER`, …) is not.
const SETTINGS: &[&str] = &[
    "NETRC",
    "SSL_CLIENT_CERT",
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_KEYRING_PROVIDER",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_HTTP_TIMEOUT",
    "UV_REQUEST_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_OFFLINE",
    "UV_CACHE_DIR",
    "UV_NO_CACHE",
    "UV_LINK_MODE",
    "UV_CONFIG_FILE",
    "UV_NO_CONFIG",
    "UV_PYTHON_INSTALL_DIR",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_PYTHON_DOWNLOADS",
    "UV_PYTHON_CACHE_DIR",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_INSTALLS",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_TRUSTED_HOST",
    "PIP_PROXY",
    "PIP_TIMEOUT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_CACHE_DIR",
    "PIP_NO_CACHE_DIR",
    "PIP_CONFIG_FILE",
    "PIP_KEYRING_PROVIDER",
];

fn environment(host: &Environment) -> BTreeMap<OsString, OsString> {
    let mut env = env::inherited(host);
    env.retain(|name, _| {
        name.to_str()
            .is_some_and(|name| !env::is_hub_token(name) && !name.starts_with("LD_"))
    });
    for (name, value) in &host.env {
        let passed = name.to_str().is_some_and(|name| {
            SETTINGS.contains(&name)
                // A named index's credentials.
                || name.starts_with("UV_INDEX_") && (name.ends_with("_USERNAME") || name.ends_with("_PASSWORD"))
        });
        if passed {
            env.insert(name.clone(), value.clone());
        }
    }
    // uv doesn't read pip's settings, but who has set up a mirror for pip means it for everything. Hashes are checked either way.
    let own = [
        "UV_INDEX",
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "UV_NO_INDEX",
    ]
    .iter()
    .any(|name| env.contains_key(OsStr::new(name)));
    if !own {
        for (pip, uv) in [
            ("PIP_INDEX_URL", "UV_INDEX_URL"),
            ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
            ("PIP_CERT", "SSL_CERT_FILE"),
        ] {
            if let Some(value) = env.get(OsStr::new(pip)).cloned() {
                env.entry(uv.into()).or_insert(value);
            }
        }
    }
    env.insert("PYTHONNOUSERSITE".into(), "1".into());
    env.insert("PYTHONUNBUFFERED".into(), "1".into());
    env.insert("NO_COLOR".into(), "1".into());
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn with_tools<T>(run: impl FnOnce(&mut Tools<'_>) -> T) -> T {
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a log");
        let host = Environment::for_tests(folder.path(), &[("PATH", "/usr/bin:/bin")]);
        let mut ignore = |_: Event| {};
        run(&mut Tools::new(&host, folder.path(), log, &mut ignore))
    }

    fn sh(tools: &mut Tools<'_>, script: &str, silence: Duration) -> Result<Vec<String>> {
        tools.run_within(
            "the test",
            Path::new("/bin/sh"),
            &["-c".as_ref(), script.as_ref()],
            silence,
        )
    }

    #[test]
    fn output_of_both_kinds_is_kept_and_the_status_counts() {
        with_tools(|tools| {
            let silence = Duration::from_secs(20);
            assert_eq!(
                sh(tools, "echo a; echo b >&2", silence).expect("done"),
                ["a", "b"]
            );
            let error = sh(tools, "echo 'some words'; exit 3", silence).expect_err("failed");
            assert_eq!(error.exit, Exit::EngineMissing);
            assert_eq!(error.detail, ["some words"]);
        });
    }

    #[test]
    fn a_silent_tool_is_ended_with_its_children() {
        let started = Instant::now();
        let error =
            with_tools(|tools| sh(tools, "sleep 1000 & sleep 1000", Duration::from_millis(300)))
                .expect_err("ended");
        insta::assert_snapshot!(error, @"
        error: the test failed
          cause: it said nothing for 0 minutes and was ended
          hint: look at your connection, then run `cclocal setup` again
        ");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn secrets_and_other_environments_stay_outside() {
        let host = Environment::for_tests(
            Path::new("/home/u"),
            &[
                ("PATH", "/bin"),
                ("PYTHONPATH", "/x"),
                ("VIRTUAL_ENV", "/x"),
                ("PIP_TARGET", "/x"),
                ("PIP_USER", "1"),
                ("UV_PYTHON", "3.9"),
                ("ANTHROPIC_API_KEY", "sk"),
                ("HF_TOKEN", "hf"),
                ("PIP_INDEX_URL", "https://mirror/simple"),
                ("HTTPS_PROXY", "http://proxy"),
            ],
        );
        let env = environment(&host);
        let names: Vec<_> = env
            .keys()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            names,
            [
                "HF_HOME",
                "HF_HUB_CACHE",
                "HTTPS_PROXY",
                "NO_COLOR",
                "PATH",
                "PIP_INDEX_URL",
                "PYTHONNOUSERSITE",
                "PYTHONUNBUFFERED",
                "UV_INDEX_URL"
            ]
        );
        assert_eq!(env[OsStr::new("UV_INDEX_URL")], "https://mirror/simple");
    }
}
