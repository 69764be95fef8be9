//! What the gateway costs, against the engine asked directly, in one run: `cargo bench --bench gateway`.
//!
//! The engine is a thread that answers at once, so all that is measured is the way. Two figures have a bound that fails the run: what is added to
//! the first piece of an answer (under 1 ms), and events per second on one core (at least 50,000).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cclocal::catalog::Form;
use cclocal::gateway::anthropic::Served;
use cclocal::gateway::{Access, Engine, Settings, serve};
use cclocal::sys::secret::Secret;
use serde_json::json;
use tokio::sync::{oneshot, watch};

const REQUESTS: usize = 400;
const EVENTS: usize = 200_000;
const MOST_ADDED: Duration = Duration::from_millis(1);
const FEWEST_EVENTS: f64 = 50_000.0;

fn main() -> ExitCode {
    let engine = fake_engine();
    let gateway = Gateway::start(engine);
    let mut good = true;

    // The real client's first request is about 26 KB, and one in a full window of 65,536 tokens about 250 KB.
    for size in [26_000, 250_000] {
        let mut direct = Vec::new();
        let mut through = Vec::new();
        let (mut one, mut other) = (Client::new(engine), Client::new(gateway.port));
        for n in 0..REQUESTS + 20 {
            let (a, b) = (one.first_byte(size), other.first_byte(size));
            // The first ones make the connections.
            if n >= 20 {
                direct.push(a);
                through.push(b);
            }
        }
        direct.sort_unstable();
        through.sort_unstable();
        let middle = REQUESTS / 2;
        let added = through[middle].saturating_sub(direct[middle]);
        println!(
            "first piece, request of {} KB: direct {:?}, gateway {:?}, added {:?} (medians of {REQUESTS}); slowest of 20: direct {:?}, gateway {:?}",
            size / 1000,
            direct[middle],
            through[middle],
            added,
            direct[REQUESTS * 19 / 20],
            through[REQUESTS * 19 / 20],
        );
        good &= size > 100_000 || added < MOST_ADDED;
    }

    let direct = Client::new(engine).events();
    let through = Client::new(gateway.port).events();
    println!(
        "events by the clock: direct {:.0}/s, gateway {:.0}/s",
        per_second(direct),
        per_second(through)
    );
    let before = gateway.stop();
    if let Some(busy) = before {
        // All requests together, those above included, so the true figure is a little higher.
        println!(
            "events per second of the gateway's own processor time: {:.0}",
            per_second(busy)
        );
        good &= per_second(busy) >= FEWEST_EVENTS;
    } else {
        good &= per_second(through) >= FEWEST_EVENTS;
    }
    if good {
        return ExitCode::SUCCESS;
    }
    println!("that is beyond the bounds");
    ExitCode::FAILURE
}

fn per_second(time: Duration) -> f64 {
    EVENTS as f64 / time.as_secs_f64()
}

/// The gateway in a thread of its own.
struct Gateway {
    port: u16,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Option<Duration>>,
}

impl Gateway {
    fn start(engine: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("a listener");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let served = Served {
                    name: "served".into(),
                    window: cclocal::memory::ContextWindow {
                        tokens: 65_536,
                        output: 8192,
                    },
                    form: Some(Form::Hermes),
                    shows_thoughts: false,
                    pictures: Default::default(),
                    may_think: true,
                    prose_calls: false,
                };
                let (_engine, engine) = watch::channel(Engine::Ready {
                    base_url: format!("http://127.0.0.1:{engine}"),
                    key: None,
                });
                let (_window, window) = watch::channel(1_000_000);
                let access = Access::new(&Secret::new("token"));
                let settings = Settings::new(served, engine, window, access);
                let stop = async {
                    let _ = stopped.await;
                };
                serve(listener, settings, stop).await.expect("served");
            });
            processor_time()
        });
        Self { port, stop, thread }
    }

    /// How much processor time it took, where the system tells.
    fn stop(self) -> Option<Duration> {
        self.stop.send(()).expect("it listens");
        self.thread.join().expect("no panic")
    }
}

#[cfg(target_os = "linux")]
fn processor_time() -> Option<Duration> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    let microseconds = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64)
        .sum();
    Some(Duration::from_micros(microseconds))
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}

/// A client that does as little as possible.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("set");
        Self {
            stream: BufReader::with_capacity(256 << 10, stream),
        }
    }

    fn ask(&mut self, said: &str) {
        let body = json!({"model": "m", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": said}]}).to_string();
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer token\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .expect("sent");
    }

    /// How long it takes from the request to the first piece of the text.
    fn first_byte(&mut self, size: usize) -> Duration {
        let said = format!("few {}", "x".repeat(size));
        let asked = Instant::now();
        self.ask(&said);
        self.until(b"content_block_delta");
        let taken = asked.elapsed();
        self.until(b"message_stop");
        self.until(b"\r\n0\r\n\r\n");
        taken
    }

    /// How long a long answer takes.
    fn events(&mut self) -> Duration {
        let asked = Instant::now();
        self.ask("many");
        self.until(b"event: message_stop");
        asked.elapsed()
    }

    /// Reads to the end of the first occurrence of these words.
    fn until(&mut self, words: &[u8]) {
        // Words may be cut by what was read: so much of the end is kept.
        let mut kept = Vec::new();
        loop {
            let read = self.stream.fill_buf().expect("an answer");
            assert!(!read.is_empty(), "it ended");
            let length = read.len();
            let before = kept.len();
            kept.extend_from_slice(read);
            let found = kept.windows(words.len()).position(|window| window == words);
            if let Some(at) = found {
                self.stream.consume(at + words.len() - before);
                return;
            }
            self.stream.consume(length);
            kept.drain(..kept.len().saturating_sub(words.len() - 1));
        }
    }
}

/// An engine that answers at once: with few events, or with many, each in a chunk of its own as the real one sends them.
fn fake_engine() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let few = answer(3);
    let many = answer(EVENTS);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let (few, many) = (few.clone(), many.clone());
            std::thread::spawn(move || {
                stream.set_nodelay(true).expect("set");
                let mut stream = BufReader::with_capacity(1 << 20, stream);
                while let Some(long) = read_request(&mut stream) {
                    let answer = if long { &many } else { &few };
                    if stream.get_mut().write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn answer(events: usize) -> Vec<u8> {
    let chunk = |name: &str, data: serde_json::Value| {
        let event = format!("event: {name}\ndata: {data}\n\n");
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    let mut answer = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    answer += &chunk(
        "message_start",
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "served",
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0}}}),
    );
    answer += &chunk(
        "content_block_start",
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    );
    let delta = chunk(
        "content_block_delta",
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " token"}}),
    );
    answer += &delta.repeat(events);
    answer += &chunk(
        "content_block_stop",
        json!({"type": "content_block_stop", "index": 0}),
    );
    answer += &chunk(
        "message_delta",
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": events}}),
    );
    answer += &chunk("message_stop", json!({"type": "message_stop"}));
    answer += "0\r\n\r\n";
    answer.into_bytes()
}

/// Reads a request and says whether a long answer is asked for. None at the end of the connection.
fn read_request(stream: &mut BufReader<TcpStream>) -> Option<bool> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    // At the end of the body, whatever order its fields are in.
    Some(body.windows(6).any(|window| window == b"\"many\""))
}
