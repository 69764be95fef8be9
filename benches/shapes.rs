//! What large and odd bodies cost: `cargo bench --bench shapes`.
//!
//! Each shape is made in several sizes; the time to read it and make it ready for the engine has to grow with its length and no faster, and 32 MB have to
//! take less than a second. Streams of odd pieces likewise.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cclocal::catalog::Form;
use cclocal::gateway::wire::{self, Pictures, Served, Streamed};
use cclocal::gateway::{Access, Engine, Settings, serve};
use cclocal::secret::Secret;
use tokio::sync::watch;

const MB: usize = 1_000_000;
const SIZES: [usize; 3] = [MB, 4 * MB, 32 * MB];
/// For the largest.
const MOST: Duration = Duration::from_secs(1);
/// For others, while large bodies come and are worked on.
const MOST_BESIDE: Duration = Duration::from_millis(50);

type Shape = (&'static str, fn(usize) -> String);

const SHAPES: &[Shape] = &[
    ("one text", |size| {
        body(&message("user", &text(&"word ".repeat(size / 5))))
    }),
    ("text blocks", |size| {
        body(&message(
            "user",
            &many(size, |n| text(&format!("block {n}"))),
        ))
    }),
    ("messages", |size| {
        body(&many(size, |n| {
            let role = if n % 2 == 0 { "user" } else { "assistant" };
            message(role, &text("a line of the conversation"))
        }))
    }),
    ("user's messages as strings", |size| {
        body(&many(size, |n| {
            format!(r#"{{"role":"user","content":"line {n}"}}"#)
        }))
    }),
    ("system reminders", |size| {
        body(&many(size, |n| match n {
            0 => message("user", &text("hello")),
            n => format!(r#"{{"role":"system","content":"mind {n}"}}"#),
        }))
    }),
    ("reminders behind a result", |size| {
        let results = message("user", &result("a", "done"));
        let mind = many(size, |n| {
            message(
                "user",
                &text(&format!(
                    "<system-reminder>\\nmind {n}\\n</system-reminder>"
                )),
            )
        });
        body(&format!("{},{results},{mind}", call("a")))
    }),
    ("results in one message", |size| {
        body(&message(
            "user",
            &many(size, |n| result(&n.to_string(), "done")),
        ))
    }),
    ("calls and results, turn by turn", |size| {
        body(&many(size, |n| {
            let id = n.to_string();
            format!(
                "{},{}",
                call(&id),
                message("user", &result(&id, &format!("done {n}")))
            )
        }))
    }),
    ("the same call in each turn", |size| {
        body(&many(size, |n| {
            let id = n.to_string();
            format!("{},{}", call(&id), message("user", &result(&id, "done")))
        }))
    }),
    ("tools", |size| {
        let tools = many(size, |n| {
            format!(
                r#"{{"name":"tool_{n}","description":"does","input_schema":{{"type":"object","properties":{{"a":{{"type":"string"}}}}}}}}"#
            )
        });
        with(&format!(r#""tools":[{tools}]"#))
    }),
    ("tools with odd names", |size| {
        let tools = many(size, |n| {
            format!(r#"{{"name":"tool.{n}","input_schema":{{}}}}"#)
        });
        with(&format!(r#""tools":[{tools}]"#))
    }),
    ("system blocks", |size| {
        with(&format!(
            r#""system":[{}]"#,
            many(size, |n| text(&format!("rule {n}")))
        ))
    }),
    ("one system prompt of sections", |size| {
        let sections = "# Memory\\n\\nYou have a memory at `/x`.\\n\\n".repeat(size / 42);
        with(&format!(r#""system":"{sections}""#))
    }),
    ("pictures", |size| {
        let picture = BASE64_STANDARD.encode(png());
        body(&message("user", &many(size, |_| picture_block(&picture))))
    }),
    ("one picture", |size| {
        let mut bytes = png();
        bytes.resize(size / 4 * 3, 0);
        body(&message(
            "user",
            &picture_block(&BASE64_STANDARD.encode(bytes)),
        ))
    }),
    ("documents inside of documents", |size| {
        let mut block = text(&"word ".repeat(size / 5));
        for _ in 0..80 {
            block = format!(
                r#"{{"type":"document","source":{{"type":"content","content":[{block}]}}}}"#
            );
        }
        body(&message("user", &block))
    }),
    ("nested to the bound", |size| {
        let levels = 240;
        let nested = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let input = many(size, |_| nested.clone());
        body(&message(
            "assistant",
            &format!(r#"{{"type":"tool_use","id":"a","name":"A","input":{{"a":[{input}]}}}}"#),
        ))
    }),
    ("small values", |size| {
        body(&message(
            "assistant",
            &format!(
                r#"{{"type":"tool_use","id":"a","name":"A","input":{{"a":[{}]}}}}"#,
                many(size, |_| "1".into())
            ),
        ))
    }),
    ("fields of one object", |size| {
        body(&message(
            "assistant",
            &format!(
                r#"{{"type":"tool_use","id":"a","name":"A","input":{{{}}}}}"#,
                many(size, |n| format!(r#""field {n}":1"#))
            ),
        ))
    }),
    ("halves of characters", |size| {
        body(&message("user", &text(&r"\ud83d".repeat(size / 6))))
    }),
    ("backslashes", |size| {
        body(&message("user", &text(&r"\\".repeat(size / 2))))
    }),
    ("stop sequences", |size| {
        with(&format!(
            r#""stop_sequences":[{}]"#,
            many(size, |n| format!(r#""stop {n}""#))
        ))
    }),
    ("ends of reminders in a result", |size| {
        let ends = "</system-reminder>".repeat(size / 18);
        body(&format!(
            "{},{}",
            call("a"),
            message("user", &result("a", &ends))
        ))
    }),
];

fn main() -> ExitCode {
    let only: Option<String> = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |name: &str| {
        only.as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    };
    let mut good = true;
    println!(
        "{:<34} {:>9} {:>9} {:>9}",
        "a body of", "1 MB", "4 MB", "32 MB"
    );
    for (name, shape) in SHAPES.iter().filter(|(name, _)| wanted(name)) {
        let mut line = format!("{name:<34}");
        let mut last = Duration::ZERO;
        let mut said = "";
        for size in SIZES {
            let body = shape(size);
            let (took, accepted) = ready(body.as_bytes());
            let _ = write!(line, " {:>6} ms", took.as_millis());
            last = took;
            if !accepted {
                said = "  (refused)";
            }
        }
        good &= last < MOST;
        println!("{line}{said}");
    }
    println!(
        "\n{:<34} {:>9} {:>9} {:>9}",
        "a stream of", "1 MB", "4 MB", "32 MB"
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

/// What four large requests at once take of memory, and how long others are kept waiting meanwhile.
fn beside() -> bool {
    let gateway = gateway();
    println!();
    let mut good = true;
    for (name, size) in [("text blocks", 32 * MB), ("one text", 60 * MB)] {
        let shape = SHAPES.iter().find(|(shape, _)| *shape == name);
        let body = shape.map(|(_, shape)| shape(size)).unwrap_or_default();
        let before = memory("VmRSS:");
        // From here on it is the highest since.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let answered = AtomicUsize::new(0);
        let mut slowest = Duration::ZERO;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let head = format!(
                        "POST /v1/messages HTTP/1.1\r\ncontent-length: {}\r\n",
                        body.len()
                    );
                    let _ = ask(gateway, &head, &body);
                    answered.fetch_add(1, Ordering::SeqCst);
                });
            }
            while answered.load(Ordering::SeqCst) < 4 {
                let asked = Instant::now();
                let reply = ask(gateway, "GET /health HTTP/1.1\r\n", "");
                assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
                slowest = slowest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let took = begun.elapsed();
        let held = before
            .zip(memory("VmHWM:"))
            .map_or_else(String::new, |(before, most)| {
                format!(
                    ", {} MB of memory at most",
                    (most.saturating_sub(before)) / 1000
                )
            });
        println!(
            "four requests at once of {} MB, {name}: {took:.1?} in all{held}; the slowest answer to others meanwhile {slowest:.1?}",
            size / MB
        );
        good &= slowest < MOST_BESIDE;
    }
    good
}

/// In kB, as the system tells it of this process.
fn memory(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Asks on a connection of its own, and returns the reply.
fn ask(port: u16, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let rest = "host: localhost\r\nauthorization: Bearer token\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(format!("{head}{rest}").as_bytes());
    let _ = stream.write_all(body.as_bytes());
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

/// Starts a gateway in a thread of its own, before an engine that reads nothing and refuses all. Returns its port.
fn gateway() -> u16 {
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
            .build()
            .expect("a runtime");
        runtime.block_on(async {
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
        output_tokens: 8192,
        form: Some(Form::Hermes),
        shows_thoughts: false,
        may_think: true,
        prose_calls: false,
        pictures: Pictures::Shown,
    }
}

/// How long it takes, and whether it is accepted.
fn ready(body: &[u8]) -> (Duration, bool) {
    let served = served();
    let begun = Instant::now();
    let request = wire::messages(body, &served);
    let accepted = request.is_ok();
    drop(request);
    (begun.elapsed(), accepted)
}

/// A stream in pieces.
type Pieces = (String, usize);

const STREAMS: &[(&str, fn(usize) -> Pieces)] = &[
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
    let request = wire::messages(body.as_bytes(), &served()).expect("a request");
    let mut repair = Streamed::new(&request, &served(), None);
    let begun = Instant::now();
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

/// Items until they are of this size, with commas.
fn many(size: usize, item: impl Fn(usize) -> String) -> String {
    let mut all = String::with_capacity(size + 1000);
    for n in 0.. {
        if all.len() >= size {
            break;
        }
        if n > 0 {
            all.push(',');
        }
        all += &item(n);
    }
    all
}

fn body(messages: &str) -> String {
    format!(r#"{{"model":"m","max_tokens":100,"stream":true,"messages":[{messages}]}}"#)
}

fn with(fields: &str) -> String {
    let message = message("user", &text("hello"));
    format!(r#"{{"model":"m","max_tokens":100,"stream":true,"messages":[{message}],{fields}}}"#)
}

fn message(role: &str, blocks: &str) -> String {
    format!(r#"{{"role":"{role}","content":[{blocks}]}}"#)
}

fn text(text: &str) -> String {
    format!(r#"{{"type":"text","text":"{text}"}}"#)
}

fn call(id: &str) -> String {
    message(
        "assistant",
        &format!(r#"{{"type":"tool_use","id":"{id}","name":"Read","input":{{"file_path":"/a"}}}}"#),
    )
}

fn result(id: &str, content: &str) -> String {
    format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":"{content}"}}"#)
}

fn picture_block(base64: &str) -> String {
    format!(
        r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{base64}"}}}}"#
    )
}

/// One grey pixel.
fn png() -> Vec<u8> {
    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
    BASE64_STANDARD.decode(PNG).expect("base64")
}
