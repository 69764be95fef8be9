//! Nothing outlives what it belongs to: each of the four processes is killed in each phase with each signal, with the GPU limit raised. What
//! then becomes of the session is the table of `docs/reliability.md`, which is written by this test (`CCLOCAL_BLESS=1`) and held against it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fakes;
use crate::support::free_port;
use crate::support::terminal::Terminal;

const SIGNALS: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGKILL,
];

/// When the signal comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Download,
    Load,
    Ready,
    Request,
    Shutdown,
}

/// Which process it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Session,
    Supervisor,
    Engine,
    Client,
}

impl Phase {
    const ALL: [Phase; 5] = [
        Phase::Download,
        Phase::Load,
        Phase::Ready,
        Phase::Request,
        Phase::Shutdown,
    ];

    fn words(self) -> &'static str {
        match self {
            Phase::Download => "the model is downloaded",
            Phase::Load => "the model is loaded",
            Phase::Ready => "Claude Code waits for its user",
            Phase::Request => "the model answers",
            Phase::Shutdown => "the engine is ending, after Claude Code",
        }
    }

    fn victims(self) -> &'static [Victim] {
        use Victim::*;
        match self {
            Phase::Ready | Phase::Request => &[Session, Supervisor, Engine, Client],
            Phase::Download | Phase::Load | Phase::Shutdown => &[Session, Supervisor, Engine],
        }
    }
}

impl Victim {
    fn words(self) -> &'static str {
        match self {
            Victim::Session => "session",
            Victim::Supervisor => "supervisor",
            Victim::Engine => "engine",
            Victim::Client => "Claude Code",
        }
    }
}

#[test]
fn nothing_is_left_whoever_is_killed_whenever_and_however() {
    let mut cells = Vec::new();
    for phase in Phase::ALL {
        for victim in phase.victims() {
            for signal in SIGNALS {
                cells.push((phase, *victim, signal));
            }
        }
    }
    let waiting = Mutex::new(cells);
    let outcomes = Mutex::new(BTreeMap::new());
    // They wait more than they work.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((phase, victim, signal)) = next(&waiting) {
                    let outcome = cell(phase, victim, signal);
                    outcomes
                        .lock()
                        .expect("no other has failed")
                        .insert((phase, victim, signal as i32), outcome);
                }
            });
        }
    });
    hold_page(&table(&outcomes.into_inner().expect("all are done")));
}

fn next<T>(waiting: &Mutex<Vec<T>>) -> Option<T> {
    waiting.lock().expect("no other has failed").pop()
}

/// Brings everything into this phase, kills, and sees that nothing is left. Returns what became of the session.
fn cell(phase: Phase, victim: Victim, signal: Signal) -> String {
    let name = format!("{phase:?}, {victim:?}, {signal}");
    let mut stage = fakes::stage();
    // A small Mac with a limit in which no model fits, so that it is raised for any.
    fakes::mac(&mut stage, 4);
    stage.write("wired", "100\n");
    stage.write("sudo", "yes");
    let hub = Hub::start();
    stage.set("HF_ENDPOINT", hub.url());
    let port = free_port();
    let model = match phase {
        Phase::Download => "org/name",
        _ => "../model",
    };
    match phase {
        Phase::Download | Phase::Load => {
            stage.write("engine/slow", "yes");
        }
        Phase::Ready => fakes::staying_client(&mut stage),
        Phase::Request => fakes::asking_client(&mut stage),
        Phase::Shutdown => {
            stage.write("engine/stubborn", "yes");
            fakes::client(&mut stage, "");
        }
    }
    let mut terminal = Terminal::run(&stage, &["--model", model, "--port", &port], 80, 30);
    terminal.wait_for("Quit");
    terminal.keys("\r");
    let engine = pid(&stage.wait_for("engine/pid"));
    let record = stage.wait_for(&format!("cclocal/state/run/{port}/record.json"));
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    let supervisor = i32::try_from(record["pid"].as_i64().expect("a pid")).expect("small");
    match phase {
        Phase::Download => {
            terminal.wait_for("downloading");
        }
        Phase::Load => {
            terminal.wait_for("loading");
        }
        Phase::Ready => {
            stage.wait_for("client/pid");
        }
        Phase::Request => wait_until(&name, || stage.read("client/stream").contains("word")),
        Phase::Shutdown => {
            // The engine was asked to end, and does not.
            wait_until(&name, || {
                let run = stage.path(format!("cclocal/state/run/session-{}", terminal.pid()));
                !run.exists() && !stage.read("client/pid").is_empty()
            });
        }
    }
    assert_eq!(stage.read("wired").trim(), "1024", "{name}: it was raised");
    let target = match victim {
        Victim::Session => i32::try_from(terminal.pid()).expect("a pid"),
        Victim::Supervisor => supervisor,
        Victim::Engine => engine,
        Victim::Client => pid(&stage.wait_for("client/pid")),
    };
    // Those that are in the middle of ending may have ended.
    let sent = kill(Pid::from_raw(target), signal);
    assert!(sent.is_ok() || phase == Phase::Shutdown, "{name}: {sent:?}");

    let restarted = victim == Victim::Engine && matches!(phase, Phase::Ready | Phase::Request);
    let ignored = victim == Victim::Session
        && matches!(phase, Phase::Ready | Phase::Request)
        && matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
    if restarted {
        // Another engine serves, and the session goes on.
        wait_until(&name, || {
            let now = stage.read("engine/pid");
            !now.is_empty() && pid(&now) != engine
        });
    }
    if restarted || ignored {
        let client = pid(&stage.read("client/pid"));
        assert!(
            kill(Pid::from_raw(client), None).is_ok(),
            "{name}: the client is gone"
        );
        stage.write("engine/finish", "yes");
        stage.write("home/go-on", "yes");
    }
    let status = terminal.end();
    let said = terminal.text();
    stage.assert_nothing_left();
    let run = stage.path("cclocal/state/run");
    let left: Vec<_> = std::fs::read_dir(&run)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{name}: {left:?}: {said}");
    let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}"));
    assert!(listener.is_ok(), "{name}: the port is not free");
    assert_eq!(
        stage.read("wired").trim(),
        "100",
        "{name}: the limit was not put back: {said}\n{}",
        stage.read(&format!("cclocal/state/supervisor-{port}.log"))
    );
    assert!(!stage.path("cclocal/state/gpu-limit.json").exists());
    if status != 1009 {
        terminal.assert_as_it_was();
    }
    match (restarted, ignored, status) {
        (true, _, 0) => "goes on, with a new engine".into(),
        (_, true, 0) => "goes on: it is the terminal's key".into(),
        (_, _, 1009) => "is gone".into(),
        (_, _, 0) => "ends".into(),
        (_, _, 14) => "ends, 14: says why".into(),
        (_, _, status) => format!("ends, {status}"),
    }
}

fn pid(text: &str) -> i32 {
    text.trim().parse().expect("a pid")
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !done() {
        assert!(since.elapsed() < crate::support::HANG, "{what}: it hangs");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A hub that says how big any model is, and has none of its files.
struct Hub(std::net::SocketAddr);

impl Hub {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap_or(0);
                if read == 0 {
                    break;
                }
                let known = String::from_utf8_lossy(&request[..read]).contains("/api/models/");
                let (status, body) = match known {
                    true => (
                        "200 OK",
                        r#"{"siblings":[{"rfilename":"model.safetensors","size":10000000},{"rfilename":"tokenizer_config.json","size":0}]}"#,
                    ),
                    false => ("404 Not Found", "{}"),
                };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self(address)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

impl Drop for Hub {
    /// A connection without a request ends it.
    fn drop(&mut self) {
        let _ = std::net::TcpStream::connect(self.0);
    }
}

fn table(outcomes: &BTreeMap<(Phase, Victim, i32), String>) -> String {
    let mut text = String::new();
    for phase in Phase::ALL {
        text += &format!("\n### While {}\n\n| killed |", phase.words());
        for signal in SIGNALS {
            text += &format!(" {} |", signal.as_str().trim_start_matches("SIG"));
        }
        text += "\n| --- |";
        text += &" --- |".repeat(SIGNALS.len());
        text += "\n";
        for victim in phase.victims() {
            text += &format!("| {} |", victim.words());
            for signal in SIGNALS {
                text += &format!(" {} |", outcomes[&(phase, *victim, signal as i32)]);
            }
            text += "\n";
        }
    }
    text
}

const BEGIN: &str = "<!-- begin: written by tests/cli/reliability.rs -->\n";
const END: &str = "\n<!-- end -->";

/// The page holds this table, or is made to.
fn hold_page(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("its begin");
    let (there, after) = rest.split_once(END).expect("its end");
    if std::env::var_os("CCLOCAL_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("written");
        return;
    }
    assert_eq!(there, table, "run this test with CCLOCAL_BLESS=1");
}
