//! The supervisor's process: it reads what it is to run, takes its port, says that it is there, and goes on in the background. What happens then
//! is `owner`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::actor::Actor;
use super::protocol::Failure;
use super::socket;
use super::spawn::Started;
use super::spec::Spec;
use super::startup;
use crate::app::App;
use crate::error::{Context, Exit, Result};
use crate::supervisor::reservation::{self, Reservation};
use crate::sys::log;
use crate::sys::paths::Paths;
use crate::sys::process;
use crate::sys::secret::Secret;

/// The largest specification that is read, in bytes.
const LARGEST_SPEC: u64 = 1 << 20;

/// Runs a supervisor: reads its specification from standard input, answers on standard output with one line, and goes on in the background
/// until its engine is not needed any more. Returns the status to exit with.
pub fn run(app: &App) -> u8 {
    // A session of its own: what happens to the terminal that it was started from is nothing to it.
    let _ = rustix::process::setsid();
    let ready = begin(app);
    let answer = match &ready {
        Ok(ready) => Started::Running {
            port: ready.reservation.port,
        },
        Err(error) => Started::Failed(Failure::from(error)),
    };
    let line = serde_json::to_string(&answer).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    drop(stdout);
    let ready = match ready {
        Ok(ready) => ready,
        Err(error) => return error.exit.code(),
    };
    // Whoever waits for the line's end must not wait for ours.
    if let Ok(nothing) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        let _ = rustix::stdio::dup2_stdin(&nothing);
        let _ = rustix::stdio::dup2_stdout(&nothing);
    }
    match process::runtime() {
        Ok(runtime) => {
            let status = runtime.block_on(supervise(app, ready));
            // A body that is worked on is not waited for.
            runtime.shutdown_background();
            status
        }
        Err(_) => Exit::Other.code(),
    }
}

/// Resources that the supervisor holds before it starts the engine.
pub(super) struct Resources {
    pub spec: Spec,
    pub reservation: Reservation,
    pub gateway: std::net::TcpListener,
    pub socket: std::os::unix::net::UnixListener,
    pub key: Secret,
    pub stall_limit: Duration,
}

fn begin(app: &App) -> Result<Resources> {
    let App {
        environment: host,
        paths,
        ..
    } = app;
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(LARGEST_SPEC)
        .read_to_string(&mut text)
        .context(Exit::Other, "the specification cannot be read")?;
    let spec: Spec = serde_json::from_str(&text)
        .context(Exit::Usage, "that is no specification of an engine")
        .map_err(|error| {
            error.hint("this command is run by cclocal itself; run cclocal without it")
        })?;
    let stall_limit = startup::stall_limit(host)?;
    let (reservation, gateway) = Reservation::take(host, paths, spec.port)?;
    let path = reservation.socket();
    let unusable = || format!("the socket {} cannot be used", host.tilde(&path));
    let socket = socket::prepare(&path)
        .and_then(|()| std::os::unix::net::UnixListener::bind(&path))
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .context(Exit::Other, unusable())?;
    let key = Secret::random()?;
    let served = reservation::Served {
        served_name: &spec.serve.model.served_name,
        name: &spec.serve.model.name,
        source: &spec.serve.model.source,
    };
    reservation.publish(host, &served, &key)?;
    gateway
        .set_nonblocking(true)
        .context(Exit::Other, "the gateway's port cannot be used")?;
    redirect_errors(paths, &spec, reservation.port);
    Ok(Resources {
        spec,
        reservation,
        gateway,
        socket,
        key,
        stall_limit,
    })
}

/// Logs errors of the supervisor itself.
fn redirect_errors(paths: &Paths, spec: &Spec, port: u16) {
    let path = match &spec.log {
        Some(log) => log.with_file_name("supervisor.log"),
        None => supervisor_log(paths, port),
    };
    if let Ok(file) = log::start(&path) {
        let _ = rustix::stdio::dup2_stderr(&file);
    }
}

/// The log of the supervisor on this port.
fn supervisor_log(paths: &Paths, port: u16) -> PathBuf {
    paths.state.join(match port {
        reservation::USUAL_PORT => "supervisor.log".to_owned(),
        port => format!("supervisor-{port}.log"),
    })
}

/// The log of the engine behind this port. The usual port has the usual name.
pub fn engine_log(paths: &Paths, port: u16) -> PathBuf {
    match port {
        reservation::USUAL_PORT => paths.server_log(),
        port => paths.state.join(format!("server-{port}.log")),
    }
}

async fn supervise(app: &App, begun: Resources) -> u8 {
    match Actor::new(app, begun) {
        Ok(mut owner) => {
            owner.run().await;
            owner.end().await;
            0
        }
        Err(error) => {
            eprintln!("{error}");
            error.exit.code()
        }
    }
}
