//! The supervisor's one task: it owns the engine and decides; connections, timers, signals and the engine's process send it events.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{self, Message, Teller};
use super::memory_watch::MemoryWatch;
use super::process::{Begun, engine_log};
use super::protocol::{
    Ask, Failure, Farewell, Granted, PROTOCOL, PhaseName, Progress, Say, Status, Tell,
};
use super::record::Reservation;
use super::spec::Spec;
use super::startup::Startup;
use super::state::{self, Action, Event, Phase, State};
use super::watcher::{EngineMemory, Noticed, Watched};
use crate::engine::server::{self, Launch, Server};
use crate::engine::{death, log};
use crate::env_vars;
use crate::error::{Context, Error, Exit, Result};
use crate::files;
use crate::gateway::access::{Access, Caller};
use crate::gateway::figures::Figures;
use crate::gateway::{self, Engine, wire};
use crate::host::Host;
use crate::machine::gpu_limit::{self, Asking, Found, Raised};
use crate::machine::port;
use crate::paths::Paths;
use crate::process::signals::Signals;
use crate::secret::Secret;

/// How often a starting engine is looked at, and all are told where it is.
const TICK: Duration = Duration::from_millis(250);

/// How long an engine that has served nobody may take to end.
const SHORT_GRACE: Duration = Duration::from_secs(2);

/// How long Claude Code may take to end that lost its session.
const CLIENT_GRACE: Duration = Duration::from_secs(3);

/// How long the last words to sessions may take.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);

/// A session that uses the engine.
struct Lease {
    pid: i32,
    /// How long the engine is kept if the session vanishes, and was the last.
    linger: Duration,
    /// Claude Code's process and group.
    client: Option<(i32, i32)>,
    tell: Teller,
    /// Whether it knows that the engine is ready.
    told_ready: bool,
    /// How many restarts there had been when it came.
    restarts_before: u64,
    /// The window that it was told, in tokens.
    window: u64,
}

/// The one task that owns everything.
pub(super) struct Owner<'a> {
    host: &'a Host,
    paths: &'a Paths,
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
    /// When a ready engine died, of late.
    deaths: VecDeque<Instant>,
    restarts: u64,
    /// Why the last engine died.
    failure: Option<Error>,

    leases: BTreeMap<u64, Lease>,
    /// Sessions that wait for our end.
    departing: Vec<Teller>,
    inbox: mpsc::UnboundedReceiver<Message>,
    connections: JoinSet<()>,
    accepting: JoinHandle<()>,

    access: Access,
    figures: Figures,
    tell_gateway: watch::Sender<Engine>,
    window: watch::Sender<u64>,
    memory: Option<EngineMemory>,
    /// Ends with the engine that it watches.
    watcher: Option<AbortOnDropHandle<()>>,
    to_notice: mpsc::UnboundedSender<Noticed>,
    noticed: mpsc::UnboundedReceiver<Noticed>,
    gateway: JoinHandle<Result<()>>,
    gateway_stop: CancellationToken,
    /// It has ended, and must not be waited for again.
    gateway_ended: bool,

    pause_over: Option<tokio::time::Instant>,
    linger_over: Option<tokio::time::Instant>,
    grace_over: Option<tokio::time::Instant>,
    signals: Signals,
    /// The raised GPU limit, if there is one: should every session be killed, it is put back here, where that takes no password.
    limit: Option<Raised>,
    done: bool,
}

/// What the owner waits for.
enum Woken {
    Message(Message),
    Healthy,
    Gone,
    /// The gateway has ended by itself.
    GatewayGone(Error),
    Noticed(Noticed),
    Tick,
    PauseOver,
    LingerOver,
    GraceOver,
    Signal(Signal),
}

impl<'a> Owner<'a> {
    pub fn new(host: &'a Host, paths: &'a Paths, begun: Begun) -> Result<Self> {
        let Begun {
            spec,
            reservation,
            gateway,
            socket,
            key,
            stall_limit,
        } = begun;
        let failed = |what: &str| format!("the supervisor cannot start: {what}");
        let signals = Signals::listen()?;
        let socket = UnixListener::from_std(socket).context(Exit::Other, failed("its socket"))?;
        let listener = tokio::net::TcpListener::from_std(gateway)
            .context(Exit::Other, failed("the gateway's port"))?;
        let (to_owner, inbox) = mpsc::unbounded_channel();
        let access = Access::new(&key);
        let figures = Figures::new();
        let (tell_gateway, engine) = watch::channel(Engine::Starting);
        let (window, narrowed) = watch::channel(spec.context_window);
        let (to_notice, noticed) = mpsc::unbounded_channel();
        let gateway_stop = CancellationToken::new();
        let settings = gateway::Settings {
            served: wire::Served {
                name: spec.model.served_name.clone(),
                output_tokens: spec.output_tokens,
                tool_call_parser: spec.model.tool_call_parser.clone(),
            },
            engine,
            window: narrowed,
            window_holds_reply: true,
            access: access.clone(),
            figures: figures.clone(),
            limits: gateway::Limits::default(),
            exclusive: true,
            fronts: (spec.env.get(env_vars::KEPT_PREFIX))
                .map(|folder| Path::new(folder).join(gateway::FRONTS)),
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
        let engine_key = Secret::random()
            .map_err(|error| Error::other("there are no random numbers").cause(error))?;
        Ok(Self {
            host,
            paths,
            spec,
            started: Instant::now(),
            reservation,
            state: State::new(),
            engine: None,
            startup: None,
            stall_limit,
            engine_key,
            took: String::new(),
            deaths: VecDeque::new(),
            restarts: 0,
            failure: None,
            leases: BTreeMap::new(),
            departing: Vec::new(),
            inbox,
            connections: JoinSet::new(),
            accepting: tokio::spawn(accept(socket, to_owner)),
            access,
            figures,
            tell_gateway,
            window,
            memory: None,
            watcher: None,
            to_notice,
            noticed,
            gateway,
            gateway_stop,
            gateway_ended: false,
            pause_over: None,
            linger_over: Some(tokio::time::Instant::now() + state::UNCLAIMED),
            grace_over: None,
            signals,
            limit,
            done: false,
        })
    }

    /// Until the engine is gone and nothing is left to do.
    pub async fn run(&mut self) {
        while !self.done {
            let woken = self.wait().await;
            match woken {
                Woken::Message(message) => self.hear(message).await,
                Woken::Healthy => self.healthy(),
                Woken::Gone => self.gone().await,
                Woken::GatewayGone(error) => {
                    self.gateway_ended = true;
                    self.tell_all(&Tell::Failed(Failure::from(&error)));
                    self.on(Event::Stop);
                }
                Woken::Noticed(noticed) => self.notice(noticed),
                Woken::Tick => self.look().await,
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
            // In this order: who comes while the last leaves is heard first.
            biased;
            Some(message) = self.inbox.recv() => Woken::Message(message),
            woken = engine => woken,
            ended = &mut self.gateway, if !self.gateway_ended => Woken::GatewayGone(
                match ended {
                    Ok(Err(error)) => error,
                    _ => Error::other("the gateway ended by itself"),
                },
            ),
            signal = self.signals.next() => Woken::Signal(signal),
            Some(noticed) = self.noticed.recv() => Woken::Noticed(noticed),
            () = at(self.grace_over) => Woken::GraceOver,
            () = at(self.pause_over) => Woken::PauseOver,
            () = at(self.linger_over) => Woken::LingerOver,
            () = tokio::time::sleep(TICK), if starting => Woken::Tick,
        }
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Came { id, ask, tell } => match ask {
                Ask::Status => {
                    tell.tell(Tell::Status(Box::new(self.status().await)));
                }
                Ask::Stop { even_if_used } => self.asked_to_stop(even_if_used, tell),
                Ask::Lease {
                    protocol,
                    pid,
                    linger,
                } => self.lease(id, protocol, pid, linger, tell),
            },
            Message::Said { id, say } => self.said(id, say),
            Message::Gone { id } => {
                if let Some(lease) = self.leases.remove(&id) {
                    // It never said goodbye: it was killed.
                    tracing::info!(pid = lease.pid, "a session vanished");
                    self.access.revoke(id);
                    self.figures.forget(Caller::Lease(id));
                    // Its settings hold its token, which is worth nothing any more, and belong to nobody.
                    let _ = std::fs::remove_dir_all(self.paths.session(lease.pid));
                    if let Some((pid, group)) = lease.client {
                        self.connections.spawn(end_client(pid, group));
                    }
                    self.returned(lease.linger);
                }
            }
        }
    }

    fn lease(&mut self, id: u64, protocol: u32, pid: i32, linger: Duration, tell: Teller) {
        if protocol != PROTOCOL {
            let why = format!(
                "it is version {} and speaks protocol {PROTOCOL}, not {protocol}",
                env!("CARGO_PKG_VERSION")
            );
            tell.tell(Tell::Refused { why });
            return;
        }
        if self.state.on(Event::Taken).1.contains(&Action::Refuse) {
            tell.tell(Tell::Refused {
                why: "it is ending".into(),
            });
            return;
        }
        let token = match self.access.grant(id) {
            Ok(token) => token,
            Err(error) => {
                let why = format!("there are no random numbers: {error}");
                tell.tell(Tell::Refused { why });
                return;
            }
        };
        let window = *self.window.borrow();
        tell.tell(Tell::Granted(Granted {
            port: self.reservation.port,
            token: token.expose().to_owned(),
            served_name: self.spec.model.served_name.clone(),
            name: self.spec.model.name.clone(),
            typed: self.spec.model.typed.clone(),
            context_window: window,
            output_tokens: self.spec.output_tokens,
            version: env!("CARGO_PKG_VERSION").into(),
        }));
        self.linger_over = None;
        self.leases.insert(
            id,
            Lease {
                pid,
                linger,
                client: None,
                tell,
                told_ready: false,
                restarts_before: self.restarts,
                window,
            },
        );
        self.on(Event::Taken);
        self.tell_progress();
    }

    fn said(&mut self, id: u64, say: Say) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        match say {
            Say::Client { pid, group } => lease.client = Some((pid, group)),
            Say::ClientEnded => lease.client = None,
            Say::Leave { linger } => {
                let Some(lease) = self.leases.remove(&id) else {
                    return;
                };
                self.access.revoke(id);
                let figures = self.figures.summary(Caller::Lease(id));
                self.figures.forget(Caller::Lease(id));
                self.returned(linger);
                let ending = matches!(self.state.phase, Phase::Ending | Phase::Ended);
                let lingers = (self.linger_over.is_some() && self.leases.is_empty() && !ending)
                    .then_some(linger);
                let window = *self.window.borrow();
                lease.tell.tell(Tell::Farewell(Farewell {
                    narrowed: (window < lease.window).then_some(window),
                    figures,
                    restarts: self.restarts - lease.restarts_before,
                    sessions: self.leases.len(),
                    lingers,
                }));
                if ending {
                    self.departing.push(lease.tell);
                }
            }
        }
    }

    fn returned(&mut self, linger: Duration) {
        self.on(Event::Returned { linger });
    }

    fn asked_to_stop(&mut self, even_if_used: bool, tell: Teller) {
        if !even_if_used && !self.leases.is_empty() {
            tell.tell(Tell::Refused {
                why: match self.leases.len() {
                    1 => "a session uses it".into(),
                    more => format!("{more} sessions use it"),
                },
            });
            return;
        }
        self.on(Event::Stop);
        tell.tell(Tell::Ending);
        // Its connection ends when we do: that is how it knows that all is gone.
        self.departing.push(tell);
    }

    fn healthy(&mut self) {
        self.took =
            (self.startup.take()).map_or_else(String::new, |startup| startup.took(Instant::now()));
        if let Some(engine) = &self.engine {
            let _ = self.tell_gateway.send(Engine::Ready {
                base_url: format!("http://127.0.0.1:{}", engine.port()),
                key: self.spec.takes_key.then(|| self.engine_key.clone()),
            });
        }
        tracing::info!(took = self.took, "ready");
        self.watch_memory();
        self.on(Event::Healthy);
    }

    /// Has the memory of the engine that is ready now watched, if there is a limit to it.
    fn watch_memory(&mut self) {
        let (Some(limit), Some(engine)) = (self.spec.memory_limit, &self.engine) else {
            return;
        };
        self.memory = Some(EngineMemory {
            limit,
            ..EngineMemory::default()
        });
        let watched = Watched {
            base_url: format!("http://127.0.0.1:{}", engine.port()),
            key: self.spec.takes_key.then(|| self.engine_key.clone()),
            watch: MemoryWatch::new(limit, self.spec.context_window, self.spec.output_tokens),
            figures: self.figures.clone(),
            tell: self.to_notice.clone(),
        };
        self.watcher = Some(AbortOnDropHandle::new(tokio::spawn(watched.run())));
    }

    fn notice(&mut self, noticed: Noticed) {
        let Some(memory) = &mut self.memory else {
            // Of an engine that has gone meanwhile.
            return;
        };
        match noticed {
            Noticed::Sample(sample) => {
                memory.held = sample.held;
                memory.peak = memory.peak.max(sample.peak);
                memory.dropped = sample.dropped;
            }
            Noticed::Cleared => {
                memory.cleared += 1;
                tracing::warn!(
                    held = memory.held,
                    limit = memory.limit,
                    "memory runs short: the prefix cache was cleared"
                );
            }
            Noticed::Narrowed(window) => {
                let before = self.window.send_replace(window);
                memory.narrowed_from.get_or_insert(before);
                tracing::warn!(
                    held = memory.held,
                    limit = memory.limit,
                    window,
                    before,
                    "memory runs short: the window is narrower"
                );
            }
        }
    }

    /// A new engine begins anew, with a window that is not narrowed.
    fn unwatch_memory(&mut self) {
        self.watcher = None;
        self.memory = None;
        while self.noticed.try_recv().is_ok() {}
        self.window.send_replace(self.spec.context_window);
    }

    async fn gone(&mut self) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        let end = engine.ended().await;
        self.startup = None;
        self.grace_over = None;
        let _ = self.tell_gateway.send(Engine::Starting);
        let was_ready = self.state.phase == Phase::Ready;
        let again = self.state.phase == (Phase::Starting { before: true });
        if was_ready || again {
            self.deaths.push_back(Instant::now());
        }
        while self
            .deaths
            .front()
            .is_some_and(|at| at.elapsed() > state::DEATHS_WITHIN)
        {
            self.deaths.pop_front();
        }
        if !matches!(self.state.phase, Phase::Ending) {
            let tail = log::tail(engine.log());
            let mut error = engine.explain(end);
            if self.deaths.len() > state::RESTARTS {
                error.message = format!(
                    "the engine died {} times within {} minutes",
                    self.deaths.len(),
                    state::DEATHS_WITHIN.as_secs() / 60
                );
            }
            tracing::warn!(?end, cause = error.cause, "the engine has gone");
            if (was_ready || again) && death::is_out_of_memory(end, &tail) {
                self.spec.make_safer();
                tracing::warn!(
                    window = self.spec.context_window,
                    "out of memory: the next one gets less to do"
                );
            }
            self.failure = Some(error);
        }
        self.unwatch_memory();
        self.on(Event::Gone {
            deaths: self.deaths.len(),
        });
    }

    /// Looks at a starting engine.
    async fn look(&mut self) {
        let (Some(startup), Some(engine)) = (&mut self.startup, &self.engine) else {
            return;
        };
        if let Err(error) = startup.look(Instant::now(), engine, self.host).await {
            let words = death::last_words(engine.log());
            self.failure = Some(error.detail(words));
            self.on(Event::Stalled);
            return;
        }
        self.tell_progress();
    }

    fn progress(&self) -> Option<Progress> {
        Some(self.startup.as_ref()?.progress(Instant::now()))
    }

    fn tell_progress(&mut self) {
        if let Some(progress) = self.progress() {
            self.tell_all(&Tell::Progress(progress));
        }
    }

    fn tell_all(&self, tell: &Tell) {
        for lease in self.leases.values() {
            lease.tell.tell(tell.clone());
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
                let took = self.took.clone();
                for lease in self.leases.values_mut().filter(|lease| !lease.told_ready) {
                    lease.told_ready = true;
                    lease.tell.tell(Tell::Ready { took: took.clone() });
                }
            }
            Action::SayRestarting => {
                self.restarts += 1;
                let why = (self.failure.as_ref())
                    .and_then(|error| error.cause.clone())
                    .unwrap_or_default();
                for lease in self.leases.values_mut() {
                    lease.told_ready = false;
                    lease.tell.tell(Tell::Restarting { why: why.clone() });
                }
            }
            Action::SayFailed => {
                let error = self
                    .failure
                    .clone()
                    .unwrap_or_else(|| Error::new(Exit::Engine, "the engine has ended"));
                let _ = self.tell_gateway.send(Engine::Gone(error.message.clone()));
                self.tell_all(&Tell::Failed(Failure::from(&error)));
            }
            Action::SayEnding => self.tell_all(&Tell::Ending),
            Action::Pause(pause) => self.pause_over = Some(tokio::time::Instant::now() + pause),
            Action::Linger(linger) => {
                self.linger_over = Some(tokio::time::Instant::now() + linger);
            }
            Action::Exit => self.done = true,
        }
    }

    /// Starts the engine. One that cannot even be started is a failure like any other.
    fn start_engine(&mut self) {
        match self.launch() {
            Ok(server) => self.engine = Some(server),
            Err(error) => {
                self.failure = Some(error);
                self.startup = None;
                self.on(Event::Gone { deaths: usize::MAX });
            }
        }
    }

    fn launch(&mut self) -> Result<Server> {
        let folder = self.paths.data.join("empty");
        files::private_folder(&folder).context(
            Exit::Other,
            format!("{} cannot be made", self.host.tilde(&folder)),
        )?;
        let mut env = env_vars::engine_env(self.host);
        if self.spec.complete {
            // The token is for downloads, and there is nothing left to download.
            env.retain(|name, _| !name.to_str().is_some_and(env_vars::is_hub_token));
        }
        env.extend(
            (self.spec.env.iter())
                .map(|(name, value)| (OsString::from(name), OsString::from(value))),
        );
        if let Some(limit) = self.spec.memory_limit {
            env.insert(env_vars::MEMORY_LIMIT.into(), limit.to_string().into());
        }
        let port = port::any_free().context(Exit::Other, "no port is free")?;
        let log = (self.spec.log.clone())
            .unwrap_or_else(|| engine_log(self.paths, self.reservation.port));
        self.startup = Some(Startup::new(
            &self.paths.hub,
            &self.spec,
            self.stall_limit,
            Instant::now(),
        ));
        Server::start(Launch {
            executable: &self.spec.engine,
            argv: &self.spec.argv_on(port),
            env,
            key: self.spec.takes_key.then_some(&self.engine_key),
            folder: &folder,
            log,
            port,
            served_name: self.spec.model.served_name.clone(),
        })
    }

    fn end_engine(&mut self, before: Phase) {
        self.startup = None;
        self.linger_over = None;
        // The gateway lets go of the engine first: while it streams, an engine does not end.
        let gone = "the engine was ended".to_owned();
        if !matches!(*self.tell_gateway.borrow(), Engine::Gone(_)) {
            let _ = self.tell_gateway.send(Engine::Gone(gone));
        }
        match &mut self.engine {
            Some(engine) => {
                engine.ask_to_end();
                let grace = match before {
                    Phase::Ready => server::GRACE,
                    _ => SHORT_GRACE,
                };
                self.grace_over = Some(tokio::time::Instant::now() + grace);
            }
            None => self.on(Event::Gone { deaths: 0 }),
        }
    }

    async fn status(&self) -> Status {
        let phase = match self.state.phase {
            Phase::Starting { before: true } | Phase::Waiting => PhaseName::Restarting,
            Phase::Unclaimed | Phase::Starting { before: false } => match self.progress() {
                Some(Progress::Downloading { .. }) => PhaseName::Downloading,
                _ => PhaseName::Loading,
            },
            Phase::Ready => PhaseName::Ready,
            Phase::Ending | Phase::Ended => PhaseName::Ending,
        };
        let resident = match &self.engine {
            Some(engine) => engine.pulse().await.map(|(kib, _)| kib << 10),
            None => None,
        };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL,
            pid: std::process::id(),
            port: self.reservation.port,
            phase,
            name: self.spec.model.name.clone(),
            typed: self.spec.model.typed.clone(),
            served_name: self.spec.model.served_name.clone(),
            source: self.spec.model.source.clone(),
            profile: self.spec.model.engine_profile,
            engine: self.spec.engine.script.clone(),
            keeps_prefix: self.spec.env.contains_key(env_vars::KEPT_PREFIX),
            context_window: *self.window.borrow(),
            output_tokens: self.spec.output_tokens,
            weights: self.spec.weights,
            claim: self.spec.claim,
            resident,
            memory: self.memory,
            engine_pid: self.engine.as_ref().map(Server::pid),
            sessions: self.leases.values().map(|lease| lease.pid).collect(),
            up: self.started.elapsed().as_secs(),
            ends_in: self.linger_over.map(|at| {
                at.saturating_duration_since(tokio::time::Instant::now())
                    .as_secs()
            }),
            busy: self.figures.active() + self.figures.queued(),
            restarts: self.restarts,
            figures: self.figures.total(),
            log: (self.spec.log.clone())
                .unwrap_or_else(|| engine_log(self.paths, self.reservation.port)),
        }
    }

    /// Lets go of everything. Sessions that wait for our end see it when the process ends.
    pub async fn end(mut self) {
        self.gateway_stop.cancel();
        let told: Vec<Teller> = std::mem::take(&mut self.leases)
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
            limit.put_back(self.host, Asking::No);
        }
        tracing::info!("ended");
        // Last, so that whoever sees the connections closed finds the port free and nothing of ours left.
        drop(self.reservation);
        finish(self.departing).await;
        self.accepting.abort();
    }
}

/// Closes connections once what was said is on its way.
async fn finish(told: Vec<Teller>) {
    let all = async {
        for teller in told {
            teller.finish().await;
        }
    };
    let _ = tokio::time::timeout(FAREWELL_DEADLINE, all).await;
}

/// Takes connections for as long as somebody listens to them.
async fn accept(socket: UnixListener, to: mpsc::UnboundedSender<Message>) {
    let mut connections = JoinSet::new();
    let mut id = 0;
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => {
                    id += 1;
                    connections.spawn(connection::run(id, stream, to.clone()));
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

/// Ends a Claude Code whose session was killed: without a session nobody tells it anything any more.
async fn end_client(pid: i32, group: i32) {
    let pid = Pid::from_raw(pid);
    // In another group it is another process: the number has been given away.
    let is_there = || nix::unistd::getpgid(Some(pid)) == Ok(Pid::from_raw(group));
    for (signal, patience) in [
        (Signal::SIGTERM, CLIENT_GRACE),
        (Signal::SIGKILL, Duration::ZERO),
    ] {
        if !is_there() {
            return;
        }
        let _ = nix::sys::signal::kill(pid, signal);
        // One that is stopped cannot hear until it is continued.
        let _ = nix::sys::signal::kill(pid, Signal::SIGCONT);
        let until = Instant::now() + patience;
        while is_there() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
