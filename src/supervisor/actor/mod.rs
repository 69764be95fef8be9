//! The supervisor's one task: it owns the engine and decides; connections, timers, signals and the engine's process send it events.
//!
//! Here: what it waits for, and what follows from what the state machine says. The rest, by what it is about:
//!
//! - `engine`: the engine's process;
//! - `sessions`: leases, and what sessions are told;
//! - `memory`: the memory of the engine that runs, and the window that follows;
//! - `status`: what is said to whoever asks.

mod engine;
mod memory;
mod sessions;
mod status;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::memory::Memory;
use super::spec::Spec;
use super::startup::Startup;
use crate::app::App;
use crate::catalog::Form;
use crate::engine::server::Server;
use crate::error::{Context, Error, Exit, Result};
use crate::gateway::auth::Access;
use crate::gateway::metrics::Metrics;
use crate::gateway::{self, Engine, anthropic};
use crate::memory::gpu_limit::{self, Asking, Found, Raised};
use crate::supervisor::actor::sessions::{CLIENT_GRACE, Lease};
use crate::supervisor::connection::{self, Message, MessageSender};
use crate::supervisor::memory_sampler::MemoryEvent;
use crate::supervisor::process::{Resources, engine_log};
use crate::supervisor::progress_sampler::EngineProgress;
use crate::supervisor::protocol::{Failure, SupervisorMessage};
use crate::supervisor::reservation::Reservation;
use crate::supervisor::state::{self, Action, Event, Phase, State};
use crate::sys::process::signals::Signals;
use crate::sys::secret::Secret;

/// How often a starting engine is looked at, and all are told where it is.
const TICK: Duration = Duration::from_millis(250);

/// How long the last words to sessions may take.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// Actor that owns the engine, its sessions and all timers.
pub(super) struct Actor<'a> {
    app: &'a App,
    spec: Spec,
    started: Instant,
    reservation: Reservation,
    state: State,

    engine: Option<Server>,
    startup: Option<Startup>,
    stall_limit: Duration,
    engine_key: Secret,
    /// How long the last start took, in words.
    took: String,
    /// Missing abilities of the engine that was ready last.
    lacking: Vec<String>,
    /// When a ready engine died, of late.
    deaths: VecDeque<Instant>,
    restarts: u64,
    /// Why the last engine died.
    failure: Option<Error>,

    leases: BTreeMap<u64, Lease>,
    /// Sessions that wait for our end.
    departing: Vec<MessageSender>,
    inbox: mpsc::UnboundedReceiver<Message>,
    connections: JoinSet<()>,
    accepting: JoinHandle<()>,

    access: Access,
    figures: Metrics,
    tell_gateway: watch::Sender<Engine>,
    /// The form of the model's tool calls, if it was found after the start.
    form: Arc<OnceLock<Form>>,
    memory: Memory,
    progress: EngineProgress,
    /// The gateway's listening socket, as sessions are handed it.
    handed: Arc<std::net::TcpListener>,
    gateway: JoinHandle<Result<()>>,
    gateway_stop: CancellationToken,
    /// It has ended, and must not be waited for again.
    gateway_ended: bool,

    pause_over: Option<tokio::time::Instant>,
    linger_over: Option<tokio::time::Instant>,
    grace_over: Option<tokio::time::Instant>,
    /// When a starting engine is looked at next.
    look_at: tokio::time::Instant,
    signals: Signals,
    /// The raised GPU limit, if there is one: should every session be killed, it is put back here, where that takes no password.
    limit: Option<Raised>,
    done: bool,
}

/// Event that the actor waits for.
enum Woken {
    Message(Message),
    Healthy,
    Gone,
    /// The gateway has ended by itself.
    GatewayGone(Error),
    MemoryEvent(MemoryEvent),
    Tick,
    PauseOver,
    LingerOver,
    GraceOver,
    Signal(Signal),
}

impl<'a> Actor<'a> {
    pub(super) fn new(app: &'a App, begun: Resources) -> Result<Self> {
        let App {
            environment: host,
            paths,
            ..
        } = app;
        let Resources {
            spec,
            reservation,
            gateway,
            socket,
            key,
            stall_limit,
        } = begun;
        let failed = |what: &str| format!("the supervisor cannot start: {what}");
        let handed = Arc::new(
            gateway
                .try_clone()
                .context(Exit::Other, failed("the gateway's port"))?,
        );
        let signals = Signals::listen()?;
        let socket = UnixListener::from_std(socket).context(Exit::Other, failed("its socket"))?;
        let listener = tokio::net::TcpListener::from_std(gateway)
            .context(Exit::Other, failed("the gateway's port"))?;
        let (to_owner, inbox) = mpsc::unbounded_channel();
        let access = Access::new(&key);
        let figures = Metrics::new();
        let (tell_gateway, engine) = watch::channel(Engine::Starting);
        let memory = Memory::new(spec.serve.window.tokens);
        let gateway_stop = CancellationToken::new();
        let form = Arc::default();
        let log = (spec.log.clone()).unwrap_or_else(|| engine_log(paths, reservation.port));
        let settings = gateway::Settings {
            served: anthropic::Served {
                name: spec.serve.model.served_name.clone(),
                window: spec.serve.window,
                form: spec.serve.model.form,
                shows_thoughts: spec.serve.model.thinking,
                may_think: spec.serve.model.may_think,
                prose_calls: spec.serve.model.prose_calls,
                pictures: spec.pictures(&paths.hub),
            },
            form: Arc::clone(&form),
            engine,
            socket: Some(reservation.engine_socket()),
            window: memory.follow_window(),
            access: access.clone(),
            metrics: figures.clone(),
            limits: gateway::Limits::default(),
            exclusive: true,
            outages: None,
            parallel: 1,
            prompt_prefixes: (spec.serve.prefix_folder())
                .map(|folder| folder.join(gateway::PROMPT_PREFIXES_FILE)),
            pdf_reader: std::env::current_exe().ok(),
            log: Some(log),
        };
        let gateway = tokio::spawn(gateway::serve(
            listener,
            settings,
            gateway_stop.clone().cancelled_owned(),
        ));
        let limit = match gpu_limit::find(host, paths) {
            Ok(Found::Shared(raised)) => Some(raised),
            _ => None,
        };
        let engine_key = Secret::random()?;
        Ok(Self {
            app,
            spec,
            started: Instant::now(),
            reservation,
            state: State::new(),
            engine: None,
            startup: None,
            stall_limit,
            engine_key,
            took: String::new(),
            lacking: Vec::new(),
            deaths: VecDeque::new(),
            restarts: 0,
            failure: None,
            leases: BTreeMap::new(),
            departing: Vec::new(),
            inbox,
            connections: JoinSet::new(),
            accepting: tokio::spawn(accept(socket, Arc::downgrade(&handed), to_owner)),
            access,
            figures,
            tell_gateway,
            form,
            memory,
            progress: EngineProgress::default(),
            handed,
            gateway,
            gateway_stop,
            gateway_ended: false,
            pause_over: None,
            linger_over: Some(tokio::time::Instant::now() + state::UNCLAIMED),
            grace_over: None,
            look_at: tokio::time::Instant::now(),
            signals,
            limit,
            done: false,
        })
    }

    /// Until the engine is gone and nothing is left to do.
    pub(super) async fn run(&mut self) {
        while !self.done {
            let woken = self.wait().await;
            match woken {
                Woken::Message(message) => self.hear(message),
                Woken::Healthy => self.healthy(),
                Woken::Gone => self.gone().await,
                Woken::GatewayGone(error) => {
                    self.gateway_ended = true;
                    self.tell_all(&SupervisorMessage::Failed(Failure::from(&error)));
                    self.on(Event::Stop);
                }
                Woken::MemoryEvent(noticed) => self.memory.notice(noticed),
                Woken::Tick => {
                    self.look().await;
                    self.look_at = tokio::time::Instant::now() + TICK;
                }
                Woken::PauseOver => {
                    self.pause_over = None;
                    self.on(Event::PauseOver);
                }
                Woken::LingerOver => {
                    self.linger_over = None;
                    self.on(Event::LingerOver);
                }
                Woken::GraceOver => {
                    self.grace_over = None;
                    if let Some(engine) = &mut self.engine {
                        engine.kill();
                    }
                }
                Woken::Signal(signal) => {
                    tracing::info!(?signal, "signal");
                    self.on(Event::Stop);
                }
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let starting = matches!(self.state.phase, Phase::Starting { .. });
        let engine = async {
            match &mut self.engine {
                Some(engine) if starting => match engine.ready().await {
                    Ok(()) => Woken::Healthy,
                    Err(_) => Woken::Gone,
                },
                Some(engine) => {
                    engine.ended().await;
                    Woken::Gone
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order: nothing that is asked, however often, keeps it from what has to be done, and who comes while the last leaves is heard
            // before the time is over.
            biased;
            signal = self.signals.next() => Woken::Signal(signal),
            woken = engine => woken,
            ended = &mut self.gateway, if !self.gateway_ended => Woken::GatewayGone(
                match ended {
                    Ok(Err(error)) => error,
                    _ => Error::other("the gateway ended by itself"),
                },
            ),
            () = at(self.grace_over) => Woken::GraceOver,
            () = tokio::time::sleep_until(self.look_at), if starting => Woken::Tick,
            Some(message) = self.inbox.recv() => Woken::Message(message),
            Some(noticed) = self.memory.next() => Woken::MemoryEvent(noticed),
            () = at(self.pause_over) => Woken::PauseOver,
            () = at(self.linger_over) => Woken::LingerOver,
        }
    }

    fn on(&mut self, event: Event) {
        let before = self.state;
        let (state, actions) = self.state.on(event);
        tracing::debug!(?before, ?event, ?state, ?actions, "supervisor");
        self.state = state;
        for action in actions {
            self.act(action, before.phase);
        }
    }

    fn act(&mut self, action: Action, before: Phase) {
        match action {
            // Those that come too late are told so before they are counted.
            Action::Refuse => {}
            Action::StartEngine => self.start_engine(),
            Action::EndEngine => self.end_engine(before),
            Action::SayReady => {
                let ready = SupervisorMessage::Ready {
                    took: self.took.clone(),
                    lacking: self.lacking.clone(),
                };
                for lease in self.leases.values_mut().filter(|lease| !lease.told_ready) {
                    lease.told_ready = true;
                    lease.tell.tell(ready.clone());
                }
            }
            Action::SayRestarting => {
                self.restarts += 1;
                let why = (self.failure.as_ref())
                    .and_then(|error| error.cause.clone())
                    .unwrap_or_default();
                for lease in self.leases.values_mut() {
                    lease.told_ready = false;
                    lease
                        .tell
                        .tell(SupervisorMessage::Restarting { why: why.clone() });
                }
            }
            Action::SayFailed => {
                let error = self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Error::new(Exit::Engine, "the engine has ended"));
                let _ = self.tell_gateway.send(Engine::Gone(error.message.clone()));
                self.tell_all(&SupervisorMessage::Failed(Failure::from(&error)));
            }
            Action::SayEnding => self.tell_all(&SupervisorMessage::Ending),
            Action::Pause(pause) => self.pause_over = Some(tokio::time::Instant::now() + pause),
            Action::Linger(linger) => {
                let until = tokio::time::Instant::now().checked_add(linger);
                self.linger_over = until;
            }
            Action::Exit => self.done = true,
        }
    }

    /// Lets go of everything. Sessions that wait for our end see it when the process ends.
    pub(super) async fn end(mut self) {
        self.gateway_stop.cancel();
        let told: Vec<MessageSender> = std::mem::take(&mut self.leases)
            .into_values()
            .map(|lease| lease.tell)
            .collect();
        finish(told).await;
        if !self.gateway_ended {
            let _ = tokio::time::timeout(FAREWELL_DEADLINE, &mut self.gateway).await;
        }
        let clients = async { while self.connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(CLIENT_GRACE + FAREWELL_DEADLINE, clients).await;
        if let Some(limit) = self.limit.take() {
            limit.put_back(&self.app.environment, Asking::No);
        }
        tracing::info!("ended");
        // Last, so that whoever sees the connections closed finds the port free and nothing of ours left.
        drop(self.handed);
        drop(self.reservation);
        finish(self.departing).await;
        self.accepting.abort();
    }
}

/// Closes connections once what was said is on its way.
async fn finish(told: Vec<MessageSender>) {
    let all = async {
        for teller in told {
            teller.finish().await;
        }
    };
    let _ = tokio::time::timeout(FAREWELL_DEADLINE, all).await;
}

/// Takes connections for as long as somebody listens to them.
async fn accept(
    socket: UnixListener,
    gateway: Weak<std::net::TcpListener>,
    to: mpsc::UnboundedSender<Message>,
) {
    let mut connections = JoinSet::new();
    let mut id = 0;
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => {
                    id += 1;
                    connections.spawn(connection::run(id, stream, gateway.clone(), to.clone()));
                }
                // Too many open files, for instance: it may be better in a moment.
                Err(_) => tokio::time::sleep(TICK).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
