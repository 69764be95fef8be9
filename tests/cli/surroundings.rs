//! What a session finds around it: variables, networks, ports, and words over the socket that no session of ours says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use cclocal::supervisor::protocol::PROTOCOL;
use serde_json::Value;

use crate::fakes;
use crate::support::{Ran, Stage, finish, free_port};

/// A session whose client stays until it is ended.
struct Running {
    stage: Stage,
    session: Child,
    port: String,
}

impl Running {
    fn start(mut stage: Stage, args: &[&str]) -> Self {
        fakes::staying_client(&mut stage);
        let port = free_port();
        let session = stage.start(&[args, &["--port", &port]].concat());
        stage.wait_for("client/pid");
        Self {
            stage,
            session,
            port,
        }
    }

    fn status(&self) -> Value {
        let ran = self.stage.run(&["status", "--json"]);
        let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        all[0].clone()
    }

    /// The environment of the process in this field of the status.
    fn env_of(&self, process: &str) -> BTreeMap<String, String> {
        let pid = self.status()[process].as_u64().expect("a process");
        let env = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
        String::from_utf8_lossy(&env)
            .split('\0')
            .filter_map(|set| set.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn end(self) -> Ran {
        self.stage.write("home/go-on", "yes");
        let ran = finish(self.session);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        ran
    }
}

#[test]
fn a_time_to_linger_that_nobody_lives_to_see() {
    let running = Running::start(fakes::stage(), &["--model", "../model"]);
    let socket = format!("cclocal/state/run/{}/socket", running.port);
    let endless = r#"{"secs":18446744073709551615,"nanos":999999999}"#;
    let ask = format!(r#"{{"ask":"lease","protocol":{PROTOCOL},"pid":1,"linger":{endless}}}"#);
    for farewell in ["", &format!(r#"{{"say":"leave","linger":{endless}}}"#)] {
        let mut stream = UnixStream::connect(running.stage.path(&socket)).expect("there");
        writeln!(stream, "{ask}").expect("asked");
        let mut told = BufReader::new(stream.try_clone().expect("another")).lines();
        let granted = told.next().expect("an answer").expect("read");
        assert!(granted.contains("granted"), "{granted}");
        if farewell.is_empty() {
            continue;
        }
        writeln!(stream, "{farewell}").expect("said");
        let rest: Vec<String> = told.map_while(Result::ok).collect();
        assert!(
            rest.iter().any(|line| line.contains("farewell")),
            "{rest:?}"
        );
    }
    // The last to leave has said so.
    let mut stream = UnixStream::connect(running.stage.path(&socket)).expect("there");
    writeln!(stream, "{ask}").expect("asked");
    let mut granted = String::new();
    let mut told = BufReader::new(stream.try_clone().expect("another"));
    told.read_line(&mut granted).expect("an answer");
    let Running {
        stage,
        session,
        port,
    } = running;
    stage.write("home/go-on", "yes");
    assert_eq!(finish(session).status, 0);
    drop((stream, told));
    let ran = stage.run(&["status"]);
    assert!(
        ran.stdout.contains("unloads in 2"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    let ran = stage.run(&["stop", "--port", &port]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

#[test]
fn the_hubs_folders_are_where_its_library_finds_them() {
    for (name, value, found) in [
        ("HF_HOME", "$HOME/a", "home/a/hub"),
        ("HF_HOME", "${HOME}/a", "home/a/hub"),
        ("HF_HOME", "~/a", "home/a/hub"),
        ("HF_HOME", "$HOME/$NOT_SET", "home/$NOT_SET/hub"),
        ("HF_HOME", "relative", "work/relative/hub"),
        ("HF_HOME", "", "home/.cache/huggingface/hub"),
        ("HF_HUB_CACHE", "$HOME/hub", "home/hub"),
        ("HUGGINGFACE_HUB_CACHE", "$HOME/hub", "home/hub"),
        ("XDG_CACHE_HOME", "$HOME/x", "home/x/huggingface/hub"),
    ] {
        let mut stage = fakes::stage();
        stage.set(name, value);
        let hub = stage.path(found).display().to_string();
        let ran = stage.run(&["list", "--json"]);
        let listed: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(listed["cache"], hub, "{name}={value}");
        let running = Running::start(stage, &["--model", "../model"]);
        for process in ["pid", "engine_pid"] {
            let env = running.env_of(process);
            assert_eq!(env["HF_HUB_CACHE"], hub, "{name}={value}, {process}");
            assert!(env["HF_HOME"].starts_with('/'), "{name}={value}, {process}");
        }
        running.end();
    }
}

#[test]
fn the_hubs_token_is_with_an_engine_that_downloads_and_with_nobody_else() {
    let token = "hf_a_token_of_mine";
    let mut stage = fakes::stage();
    stage
        .set("HF_TOKEN", token)
        .set("HF_ENDPOINT", "http://127.0.0.1:1");
    let running = Running::start(stage, &["--model", "../model"]);
    for process in ["pid", "engine_pid"] {
        assert!(
            !running
                .env_of(process)
                .values()
                .any(|value| value.contains(token))
        );
    }
    running.end();

    let mut stage = fakes::stage();
    stage
        .set("HF_TOKEN", token)
        .set("HF_ENDPOINT", "http://127.0.0.1:1");
    let running = Running::start(stage, &["--gemma-light"]);
    assert!(
        !running
            .env_of("pid")
            .values()
            .any(|value| value.contains(token))
    );
    assert_eq!(running.env_of("engine_pid")["HF_TOKEN"], token);
    let run = running.stage.path("cclocal/state");
    let out = Command::new("grep")
        .args(["-r", token])
        .arg(run)
        .output()
        .expect("looked");
    assert!(
        out.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    running.end();
}

/// The same command with a program before it that starts it.
fn through(stage: &Stage, before: &[&str], args: &[&str]) -> Command {
    let plain = stage.command(args);
    let mut command = Command::new(before[0]);
    command
        .args(&before[1..])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(stage.path("work"))
        .env_clear()
        .envs(stage.env())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn works(before: &[&str]) -> bool {
    Command::new(before[0])
        .args(&before[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn an_engine_in_another_network_is_not_taken_for_one_that_can_be_used() {
    let mut apart = vec!["unshare", "--net"];
    if !works(&apart) {
        apart.insert(1, "--map-root-user");
        if !works(&apart) {
            return;
        }
    }
    let running = Running::start(fakes::stage(), &["--model", "../model"]);
    let command = ["connect", "--port", &running.port];
    let ran = finish(
        through(&running.stage, &apart, &command)
            .spawn()
            .expect("started"),
    );
    assert_ne!(ran.status, 0);
    let said = running.stage.filtered(&ran.stderr);
    insta::assert_snapshot!(said.replace(&running.port, "PORT"), @"
    error: model cannot be reached from here
      cause: its gateway listens on 127.0.0.1:PORT in another container or network namespace
      hint: run this where the engine was started, or start one here: cclocal --model [STAGE]/model
    ");

    // A start has an engine of its own there.
    apart.extend(["sh", "-c", "ip link set lo up; exec \"$@\"", "sh"]);
    if works(&apart) {
        std::fs::remove_file(running.stage.path("client/pid")).expect("removed");
        let command = ["--model", "../model"];
        let other = through(&running.stage, &apart, &command)
            .spawn()
            .expect("started");
        running.stage.wait_for("client/pid");
        let url = running.stage.read("client/env");
        let url = url
            .lines()
            .find(|line| line.starts_with("ANTHROPIC_BASE_URL"))
            .expect("set");
        assert!(!url.ends_with(&format!(":{}", running.port)), "{url}");
        running.stage.write("home/go-on", "yes");
        let ran = finish(other);
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(!ran.stderr.contains("is loaded already"), "{}", ran.stderr);
    }
    running.end();
}

#[test]
fn a_port_that_needs_root_is_not_said_to_be_in_use() {
    let bounds = [
        "setpriv",
        "--bounding-set=-net_bind_service",
        "--inh-caps=-net_bind_service",
    ];
    let before: &[&str] = match nix::unistd::geteuid().is_root() {
        true if works(&bounds) => &bounds,
        true => return,
        false => &["env"],
    };
    let first: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|first| first.trim().parse().ok())
        .unwrap_or(1024);
    if first <= 80 {
        return;
    }
    let stage = fakes::stage();
    let command = ["--model", "../model", "--port", "80"];
    let ran = finish(through(&stage, before, &command).spawn().expect("started"));
    assert_eq!(ran.status, 2);
    insta::assert_snapshot!(ran.stderr, @"
    error: port 80 needs root
      cause: the system keeps the first ports, mostly up to 1023, for the administrator (Permission denied (os error 13))
      hint: take another port: --port 8000
    ");
}

#[test]
fn a_debugger_in_the_options_of_node_does_not_end_the_client() {
    let mut stage = fakes::stage();
    stage.set(
        "NODE_OPTIONS",
        "--inspect-brk=9229 --max-old-space-size=4096",
    );
    let ran = stage.run(&["--model", "../model"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let env = stage.read("client/env");
    assert!(
        env.lines()
            .any(|line| line == "NODE_OPTIONS=--max-old-space-size=4096"),
        "{env}"
    );
    let note = "note: Claude Code ends at once where NODE_OPTIONS attaches a debugger";
    assert_eq!(ran.stderr.matches(note).count(), 1, "{}", ran.stderr);
    let ran = stage.run(&["--dry-run", "--model", "../model"]);
    assert!(ran.stdout.contains(note), "{}", ran.stdout);
}
