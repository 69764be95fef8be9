//! A model hub on loopback, behind `HF_ENDPOINT`: as much of the real one's HTTP as huggingface_hub needs to fetch a model, with what can
//! go wrong there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the hub behaves.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// For each file.
    pub bytes_per_second: Option<u64>,
    /// Of each file only so much comes, however often it is asked for.
    pub stall_after: Option<usize>,
    pub gated: bool,
    pub missing: bool,
    /// It does not tell how big files are.
    pub without_sizes: bool,
    /// It offers every file by Xet too.
    pub xet: bool,
}

struct Shared {
    /// With their digests, which are their etags.
    files: BTreeMap<String, (Vec<u8>, String)>,
    manner: Mutex<Manner>,
    requests: Mutex<Vec<String>>,
    closed: AtomicBool,
}

/// A running hub with one model, whatever its name. It ends when dropped.
pub struct Hub {
    shared: Arc<Shared>,
    port: u16,
}

impl Hub {
    /// Serves the files of this folder and these, which are added to it.
    pub fn of(folder: &Path, more: &[(&str, Vec<u8>)]) -> Self {
        let mut files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(folder)
            .expect("read")
            .flatten()
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, std::fs::read(entry.path()).expect("read"))
            })
            .collect();
        files.extend(
            more.iter()
                .map(|(name, bytes)| ((*name).to_owned(), bytes.clone())),
        );
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let files = files
            .into_iter()
            .map(|(name, bytes)| {
                let digest = digest(&bytes);
                (name, (bytes, digest))
            })
            .collect();
        let shared = Arc::new(Shared {
            files,
            manner: Mutex::default(),
            requests: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if server.closed.load(Ordering::SeqCst) {
                    return;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || {
                    let _ = serve(&server, stream);
                });
            }
        });
        Self { shared, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn behaves(&self, manner: Manner) {
        *self.shared.manner.lock().expect("held") = manner;
    }

    /// What was asked for so far: method, path, and the range if one was named.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("held").clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(hub: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        answer(hub, &mut stream, &head)?;
    }
}

fn answer(hub: &Shared, stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
    let mut words = head.split_whitespace();
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let range = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let start = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?;
        name.eq_ignore_ascii_case("range")
            .then(|| start.parse::<usize>().ok())?
    });
    let asked = match range {
        Some(start) => format!("{method} {path} from {start}"),
        None => format!("{method} {path}"),
    };
    hub.requests.lock().expect("held").push(asked);
    let manner = hub.manner.lock().expect("held").clone();
    if manner.missing {
        // As the real hub answers who has no token: it does not tell whether there is such a model.
        let more = "X-Error-Message: Invalid username or password.\r\n";
        return short(
            stream,
            "401 Unauthorized",
            more,
            r#"{"error":"Invalid username or password."}"#,
        );
    }
    if path.contains("/tree/") {
        let files: Vec<_> = hub
            .files
            .iter()
            .map(|(name, (bytes, digest))| {
                serde_json::json!({"type": "file", "path": name, "size": bytes.len(), "oid": digest})
            })
            .collect();
        return short(stream, "200 OK", "", &serde_json::json!(files).to_string());
    }
    if path.starts_with("/api/") {
        let siblings: Vec<_> = hub
            .files
            .iter()
            .map(|(name, (bytes, _))| {
                let size = (!manner.without_sizes).then_some(bytes.len());
                serde_json::json!({"rfilename": name, "size": size})
            })
            .collect();
        let info = serde_json::json!({
            "id": "demo/hermes-llama", "sha": COMMIT, "private": false, "gated": manner.gated,
            "tags": [], "downloads": 0, "siblings": siblings,
        });
        return short(stream, "200 OK", "", &info.to_string());
    }
    if manner.gated {
        let more = "X-Error-Code: GatedRepo\r\nX-Error-Message: Access to model demo/hermes-llama is restricted.\r\n";
        return short(
            stream,
            "401 Unauthorized",
            more,
            "Access to model demo/hermes-llama is restricted.",
        );
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((bytes, digest)) = hub.files.get(name) else {
        let more = "X-Error-Code: EntryNotFound\r\nX-Error-Message: Entry not found\r\n";
        return short(stream, "404 Not Found", more, "Entry not found");
    };
    let start = range.unwrap_or(0).min(bytes.len());
    let rest = &bytes[start..];
    let mut reply = match range {
        Some(_) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        ),
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let _ = write!(
        reply,
        "ETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n",
        digest,
        rest.len()
    );
    if manner.xet {
        let _ = write!(
            reply,
            "X-Xet-Hash: {digest}\r\nX-Xet-Refresh-Route: /api/xet-read-token\r\n"
        );
    }
    reply += "\r\n";
    stream.write_all(reply.as_bytes())?;
    if method == "HEAD" {
        return Ok(());
    }
    let limit = manner
        .stall_after
        .map_or(rest.len(), |end| end.saturating_sub(start).min(rest.len()));
    let pause = Duration::from_millis(50);
    let step = manner.bytes_per_second.map_or(rest.len(), |rate| {
        usize::try_from(rate / 20).expect("a size").max(1)
    });
    for piece in rest[..limit].chunks(step.max(1)) {
        stream.write_all(piece)?;
        if manner.bytes_per_second.is_some() {
            std::thread::sleep(pause);
        }
    }
    if limit < rest.len() {
        // Until the other side has gone.
        stream.set_read_timeout(None)?;
        let _ = stream.read(&mut [0; 1]);
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}

fn short(stream: &mut TcpStream, status: &str, more: &str, body: &str) -> std::io::Result<()> {
    let reply = format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: application/json\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(reply.as_bytes())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
