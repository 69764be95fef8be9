//! The engine's process: started, looked at while it starts, and what is done when it is ready, has gone or is to go.

use std::time::{Duration, Instant};

use crate::catalog::Source;
use crate::catalog::servable::check_template;
use crate::engine::env as engine_env;
use crate::engine::server::{self, BASE_URL, Launch, Server};
use crate::engine::{exit_reason, patches};
use crate::error::Result;
use crate::gateway::Engine;
use crate::hub::{self, Cached};
use crate::supervisor::actor::Actor;
use crate::supervisor::memory_sampler::MemorySampler;
use crate::supervisor::memory_watch::MemoryWatch;
use crate::supervisor::process::engine_log;
use crate::supervisor::protocol::{Progress, SupervisorMessage};
use crate::supervisor::startup::Startup;
use crate::supervisor::state::{self, Event, Phase};
use crate::sys::log;

/// How long an engine that has served nobody may take to end.
const SHORT_GRACE: Duration = Duration::from_secs(2);

impl Actor<'_> {
    /// Starts the engine. One that cannot even be started is a failure like any other.
    pub(super) fn start_engine(&mut self) {
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
        let folder = server::empty_folder(self.app)?;
        let mut env = engine_env::inherited(&self.app.environment);
        for (name, token) in &self.spec.hub_tokens {
            env.insert(name.into(), token.expose().into());
        }
        if self.spec.serve.complete {
            // The token is for downloads, and there is nothing left to download.
            env.retain(|name, _| !name.to_str().is_some_and(engine_env::is_hub_token));
        }
        // It serves on its socket. On this port the gateway listens: one that would serve there cannot, and ends.
        let command = self.spec.serve.command(self.reservation.port);
        env.extend((command.env.into_iter()).map(|(name, value)| (name.into(), value.into())));
        if let Some(limit) = self.spec.memory_limit {
            env.insert(engine_env::MEMORY_LIMIT.into(), limit.to_string().into());
        }
        let log = (self.spec.log.clone())
            .unwrap_or_else(|| engine_log(&self.app.paths, self.reservation.port));
        self.startup = Some(Startup::new(
            &self.app.paths.hub,
            &self.spec,
            self.stall_limit,
            Instant::now(),
        ));
        Server::start(Launch {
            executable: &self.spec.engine,
            argv: &command.argv,
            env,
            key: self.spec.serve.takes_key().then_some(&self.engine_key),
            folder: &folder,
            log,
            socket: self.reservation.engine_socket(),
            served_name: self.spec.serve.model.served_name.clone(),
        })
    }

    /// Looks at a starting engine.
    pub(super) async fn look(&mut self) {
        let (Some(startup), Some(engine)) = (&mut self.startup, &self.engine) else {
            return;
        };
        if let Err(error) = startup
            .look(Instant::now(), engine, &self.app.environment)
            .await
        {
            let words = exit_reason::last_words(engine.log());
            self.failure = Some(error.detail(words));
            self.on(Event::Stalled);
            return;
        }
        self.tell_progress();
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        Some(self.startup.as_ref()?.progress(Instant::now()))
    }

    pub(super) fn tell_progress(&mut self) {
        if let Some(progress) = self.progress() {
            self.tell_all(&SupervisorMessage::Progress(progress));
        }
    }

    /// Handles the first healthy answer. A model that was just downloaded may still turn out to be unusable.
    pub(super) fn healthy(&mut self) {
        if let Err(error) = self.read_template() {
            self.failure = Some(error);
            self.on(Event::Stalled);
            return;
        }
        if let Source::Hub(id) = &self.spec.serve.model.source
            && matches!(
                hub::cached(&self.app.paths.hub, id),
                Cached::Complete { .. }
            )
        {
            self.spec.downloaded();
        }
        self.took =
            (self.startup.take()).map_or_else(String::new, |startup| startup.took(Instant::now()));
        if let Some(engine) = &self.engine {
            self.lacking = patches::lacking(engine.log());
            let _ = self.tell_gateway.send(Engine::Ready {
                base_url: BASE_URL.into(),
                key: self.spec.serve.takes_key().then(|| self.engine_key.clone()),
            });
        }
        tracing::info!(took = self.took, "ready");
        if let Some(engine) = &self.engine {
            let key = self.spec.serve.takes_key().then(|| self.engine_key.clone());
            self.progress
                .begin(engine.socket(), key, self.figures.clone());
        }
        self.watch_memory();
        self.on(Event::Healthy);
    }

    /// Reads the chat template, now that the model is on this disk, if the session could not. Errors: it has none.
    fn read_template(&mut self) -> Result<()> {
        if self.spec.serve.model.template.is_some() {
            return Ok(());
        }
        let Source::Hub(id) = &self.spec.serve.model.source else {
            return Ok(());
        };
        let template = hub::template(&self.app.paths.hub, id);
        let is_whole = matches!(
            hub::cached(&self.app.paths.hub, id),
            Cached::Complete { .. }
        );
        let config = hub::config(&self.app.paths.hub, id);
        self.spec.serve.model = self.spec.serve.model.clone().with_template(template);
        match self.spec.serve.model.form {
            Some(form) => {
                let _ = self.form.set(form);
            }
            None => tracing::warn!("unknown tool-call format"),
        }
        match is_whole {
            true => check_template(&self.spec.serve.model, config.as_ref()),
            false => Ok(()),
        }
    }

    /// Has the memory of the engine that is ready now watched, if there is a limit to it.
    fn watch_memory(&mut self) {
        let (Some(limit), Some(engine)) = (self.spec.memory_limit, &self.engine) else {
            return;
        };
        self.memory.begin(limit, |tell| MemorySampler {
            socket: engine.socket().to_owned(),
            key: self.spec.serve.takes_key().then(|| self.engine_key.clone()),
            watch: MemoryWatch::new(limit, self.spec.serve.window),
            figures: self.figures.clone(),
            tell,
        });
    }

    /// Handles the end of the engine's process.
    pub(super) async fn gone(&mut self) {
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
            if (was_ready || again) && exit_reason::is_out_of_memory(end, &tail) {
                self.spec.make_safer();
                tracing::warn!(
                    window = self.spec.serve.window.tokens,
                    "out of memory: the next one gets less to do"
                );
            }
            self.failure = Some(error);
        }
        self.progress.end();
        self.memory.end(self.spec.serve.window.tokens);
        self.on(Event::Gone {
            deaths: self.deaths.len(),
        });
    }

    /// Has it end, at once if nothing runs.
    pub(super) fn end_engine(&mut self, before: Phase) {
        self.startup = None;
        self.linger_over = None;
        // The gateway lets go of the engine first: while it streams, an engine does not end.
        let gone = "the engine was stopped".to_owned();
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
}
