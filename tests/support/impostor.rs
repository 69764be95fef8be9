//! Somebody who takes the place of an engine, and writes down what it is sent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers on an engine's socket, as healthy as any, until it is asked what it got.
pub struct Impostor {
    over: Arc<AtomicBool>,
    listening: JoinHandle<Vec<u8>>,
}

impl Impostor {
    /// Takes this path, and answers whatever is asked with 200 and this body.
    pub fn on(socket: &Path, body: &str) -> Self {
        let listener = UnixListener::bind(socket).expect("the path is free");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        // Its path is removed by others, so nobody could wake it.
        listener.set_nonblocking(true).expect("set");
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let listening = std::thread::spawn(move || {
            let mut got = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).expect("set");
                let mut bytes = [0; 64 * 1024];
                let read = stream.read(&mut bytes).unwrap_or(0);
                got.extend_from_slice(&bytes[..read]);
                let _ = stream.write_all(answer.as_bytes());
            }
            got
        });
        Self { over, listening }
    }

    /// Ends it. All that it was sent.
    pub fn got(self) -> String {
        self.over.store(true, Ordering::Relaxed);
        String::from_utf8_lossy(&self.listening.join().expect("joined")).into_owned()
    }
}

/// Whether somebody could listen on 127.0.0.1 at this port, whatever options help.
pub fn can_be_taken(port: u16) -> bool {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    [false, true].into_iter().any(|shared| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("set");
        sockopt::set_socket_reuseport(&socket, shared).expect("set");
        bind(&socket, &address).is_ok() && listen(&socket, 1).is_ok()
    })
}
