//! What large and odd bodies cost: `cargo bench --bench shapes`.
//!
//! Each shape is made in several sizes; the time to read it and make it ready for the engine has to grow with its length and no faster, and 32 MB have to
//! take less than a second. Streams of odd pieces likewise.

mod bodies;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bodies::{SHAPES, body, message, text};
use cclocal::catalog::Form;
use cclocal::gateway::anthropic::{self, Pictures, Served, Streamed};
use cclocal::gateway::{Access, Engine, Settings, serve};
use cclocal::sys::secret::Secret;
use tokio::sync::watch;

const MB: usize = 1_000_000;
const SIZES: [usize; 3] = [MB / 2, 2 * MB, 32 * MB];
/// For the largest.
const MOST: Duration = Duration::from_secs(1);
/// For the gateway's thread at one thing, while large bodies come.
const MOST_BESIDE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let only: Option<String> = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |name: &str| {
        only.as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    };
    let mut good = true;
    println!(
        "{:<34} {:>9} {:>9} {:>9}",
        "a body of (*: refused)", "0.5 MB", "2 MB", "32 MB"
    );
    for (name, shape) in SHAPES.iter().filter(|(name, _)| wanted(name)) {
        let mut line = format!("{name:<34}");
        let mut last = Duration::ZERO;
        for size in SIZES {
            let body = shape(size);
            let (took, accepted) = ready(body.as_bytes());
            let mark = if accepted { ' ' } else { '*' };
            let _ = write!(line, " {:>6} ms{mark}", took.as_millis());
            last = took;
        }
        good &= last < MOST;
        println!("{line}");
    }
    println!(
        "\n{:<34} {:>9} {:>9} {:>9}",
        "a stream of", "0.5 MB", "2 MB", "32 MB"
    );
    for (name, stream) in STREAMS.iter().filter(|(name, _)| wanted(name)) {
        let mut line = format!("{name:<34}");
        for size in SIZES {
            let took = streamed(&stream(size));
            let _ = write!(line, " {:>6} ms", took.as_millis());
            good &= took < MOST * 3;
        }
        println!("{line}");
    }
    if only.is_none() {
        good &= beside();
    }
    if good {
        return ExitCode::SUCCESS;
    }
    println!("that is beyond the bounds");
    ExitCode::FAILURE
}

/// What four large requests at once take of memory, and how long they keep the gateway's thread from all else.
fn beside() -> bool {
    let longest = Arc::new(AtomicU64::new(0));
    let gateway = gateway(longest.clone());
    println!();
    let mut good = true;
    for (name, size) in [
        ("text blocks", 5 * MB),
        ("nested to the bound", 19 * MB / 10),
        ("text blocks", 32 * MB),
        ("one text", 60 * MB),
    ] {
        let shape = SHAPES.iter().find(|(shape, _)| *shape == name);
        let body = shape.map(|(_, shape)| shape(size)).unwrap_or_default();
        let before = memory("VmRSS:");
        // From here on it is the highest since.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        longest.store(0, Ordering::SeqCst);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| ask(gateway, &body));
            }
        });
        let took = begun.elapsed();
        let held = before
            .zip(memory("VmHWM:"))
            .map_or_else(String::new, |(before, most)| {
                format!(
                    " · {} MB of memory at most",
                    most.saturating_sub(before) / 1000
                )
            });
        let longest = Duration::from_nanos(longest.load(Ordering::SeqCst));
        println!(
            "four at once of {} MB, {name}: {took:.1?}{held} · the gateway's thread at one thing for {longest:.1?} at most",
            size as f64 / 1e6
        );
        good &= longest < MOST_BESIDE;
    }
    good
}

/// In kB, as the system tells it of this process.
fn memory(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Asks on a connection of its own, and waits for the end of the reply.
fn ask(port: u16, body: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer token\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body.as_bytes());
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Starts a gateway in a thread of its own, before an engine that refuses all that it has read. Returns its port. `longest`: the processor time between two
/// looks of a task beside it, the longest of them in nanoseconds.
fn gateway(longest: Arc<AtomicU64>) -> u16 {
    let engine = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base_url = format!("http://{}", engine.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in engine.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut block = vec![0; 1 << 16];
                let mut left = None;
                while let Ok(read @ 1..) = stream.read(&mut block) {
                    let left = left.get_or_insert_with(|| length(&block[..read]));
                    *left = left.saturating_sub(read);
                    if *left == 0 {
                        let _ = stream.write_all(
                            b"HTTP/1.1 400 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
                        );
                        return;
                    }
                }
            });
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // As `process::runtime` has it.
            .event_interval(8)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            tokio::spawn(async move {
                loop {
                    let begun = Clock::start();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let busy = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    longest.fetch_max(busy, Ordering::SeqCst);
                }
            });
            listener.set_nonblocking(true).expect("a listener");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let (_engine, engine) = watch::channel(Engine::Ready {
                base_url,
                key: None,
            });
            let (_window, window) = watch::channel(u64::MAX / 2);
            let access = Access::new(&Secret::new("token"));
            let settings = Settings::new(served(), engine, window, access);
            serve(listener, settings, std::future::pending())
                .await
                .expect("served");
        });
    });
    port
}

/// How long a request is, with its head.
fn length(beginning: &[u8]) -> usize {
    let text = String::from_utf8_lossy(beginning);
    let head = text.find("\r\n\r\n").map_or(text.len(), |at| at + 4);
    let body = text[..head]
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse::<usize>().ok());
    head + body.unwrap_or(0)
}

fn served() -> Served {
    Served {
        name: "served".into(),
        window: cclocal::memory::ContextWindow {
            tokens: 65_536,
            output: 8192,
        },
        form: Some(Form::Hermes),
        shows_thoughts: false,
        may_think: true,
        prose_calls: false,
        pictures: Pictures::Shown,
    }
}

/// The processor time of this thread where the system tells it, else the time that has passed.
struct Clock(Instant, Option<Duration>);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), Self::busy())
    }

    fn elapsed(&self) -> Duration {
        let busy = Self::busy().zip(self.1);
        busy.map_or_else(|| self.0.elapsed(), |(now, then)| now.saturating_sub(then))
    }

    fn busy() -> Option<Duration> {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let nanoseconds = told.split(' ').next()?.parse().ok()?;
        Some(Duration::from_nanos(nanoseconds))
    }
}

/// How long it takes, and whether it is accepted.
fn ready(body: &[u8]) -> (Duration, bool) {
    let served = served();
    let begun = Clock::start();
    let request = anthropic::messages(body, &served);
    let accepted = request.is_ok();
    drop(request);
    (begun.elapsed(), accepted)
}

/// A stream in pieces.
type Pieces = (String, usize);

type Stream = (&'static str, fn(usize) -> Pieces);

const STREAMS: &[Stream] = &[
    ("text in pieces of a byte", |size| {
        (reply(&many_deltas(size, "word ")), 1)
    }),
    ("pings before the reply", |size| {
        let pings = "event: ping\ndata: {\"type\":\"ping\"}\n\n".repeat(size / 36);
        (pings + &reply(&many_deltas(1000, "x")), 36)
    }),
    ("comments", |size| {
        (": heartbeat\n\n".repeat(size / 13) + &reply(""), 13)
    }),
    ("an opening that is one event", |size| {
        let tail = format!("\"padding\":\"{}\",", "x".repeat(size.min(15 * MB)));
        (
            reply("").replacen(
                "\"type\":\"message_start\",",
                &format!("\"type\":\"message_start\",{tail}"),
                1,
            ),
            1400,
        )
    }),
    ("ends of brackets in a call", |size| {
        let deltas = delta("<tool_call>") + &many_deltas(size, "a>");
        (reply(&deltas), 1400)
    }),
    ("beginnings of brackets", |size| {
        (reply(&many_deltas(size, "a<")), 1400)
    }),
    ("calls as text, one behind another", |size| {
        (reply(&many_deltas(size, "</tool_call><tool_call>")), 1400)
    }),
];

/// As the gateway reads it from an engine that does not hand over what the model wrote.
fn streamed((stream, size): &Pieces) -> Duration {
    let body = body(&message("user", &text("hello")));
    let request = anthropic::messages(body.as_bytes(), &served()).expect("a request");
    let mut repair = Streamed::new(&request, &served(), None);
    let begun = Clock::start();
    for piece in stream.as_bytes().chunks(*size) {
        let _ = repair.push(piece);
    }
    let _ = repair.finish();
    begun.elapsed()
}

fn reply(deltas: &str) -> String {
    let event = |name: &str, data: &str| format!("event: {name}\ndata: {data}\n\n");
    event(
        "message_start",
        r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"served","content":[],"usage":{"input_tokens":0,"output_tokens":0}}}"#,
    ) + &event(
        "content_block_start",
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    ) + deltas
        + &event(
            "content_block_stop",
            r#"{"type":"content_block_stop","index":0}"#,
        )
        + &event(
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#,
        )
        + &event("message_stop", r#"{"type":"message_stop"}"#)
}

fn delta(text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

fn many_deltas(size: usize, text: &str) -> String {
    let delta = delta(text);
    delta.repeat(size / delta.len())
}
