//! Sessions: their leases, what they are told, and what becomes of a Claude Code whose session was killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::gateway::auth::Caller;
use crate::memory::ContextWindow;
use crate::supervisor::actor::Actor;
use crate::supervisor::connection::{Message, MessageSender};
use crate::supervisor::protocol::{
    Farewell, Granted, PROTOCOL, SessionMessage, SupervisorMessage, SupervisorRequest, WebSearch,
};
use crate::supervisor::state::{Action, Event, LONGEST_LINGER, Phase};
use crate::sys::{machine, network};

/// How long Claude Code may take to end that lost its session.
pub(super) const CLIENT_GRACE: Duration = Duration::from_secs(3);

/// A session that uses the engine.
pub(super) struct Lease {
    pub pid: i32,
    /// How long the engine is kept if the session vanishes, and was the last.
    pub linger: Duration,
    pub client: Option<Client>,
    pub tell: MessageSender,
    /// Whether it knows that the engine is ready.
    pub told_ready: bool,
    /// How many restarts there had been when it came.
    pub restarts_before: u64,
    /// The window that it was told, in tokens.
    pub window: u64,
}

impl Actor<'_> {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::Came { id, ask, tell } => match ask {
                SupervisorRequest::Status => self.tell_status(tell),
                SupervisorRequest::Live { pid } => self.tell_live(pid, &tell),
                // It is answered where it is heard.
                SupervisorRequest::Port => {}
                SupervisorRequest::Stop { even_if_used } => self.asked_to_stop(even_if_used, tell),
                SupervisorRequest::Lease {
                    protocol,
                    pid,
                    linger,
                    web_search,
                } => self.lease(id, protocol, pid, linger, web_search, tell),
            },
            Message::Said { id, say } => self.said(id, say),
            Message::Gone { id } => {
                if let Some(lease) = self.leases.remove(&id) {
                    // It never said goodbye: it was killed.
                    tracing::info!(pid = lease.pid, "a session vanished");
                    self.access.revoke(id);
                    self.figures.forget(Caller::Lease(id));
                    // Its settings hold its token, which is worth nothing any more, and belong to nobody.
                    for folder in self.app.paths.of_session(lease.pid) {
                        let _ = std::fs::remove_dir_all(folder);
                    }
                    if let Some(client) = lease.client {
                        self.connections.spawn(client.end());
                    }
                    self.returned(lease.linger);
                }
            }
        }
    }

    fn lease(
        &mut self,
        id: u64,
        protocol: u32,
        pid: i32,
        linger: Duration,
        web_search: Option<WebSearch>,
        tell: MessageSender,
    ) {
        if protocol != PROTOCOL {
            let why = format!(
                "it is version {} and speaks protocol {PROTOCOL}, not {protocol}",
                env!("CARGO_PKG_VERSION")
            );
            tell.tell(SupervisorMessage::Refused { why });
            return;
        }
        if self.state.on(Event::Taken).1.contains(&Action::Refuse) {
            tell.tell(SupervisorMessage::Refused {
                why: "it is ending".into(),
            });
            return;
        }
        let token = match self.access.grant(id) {
            Ok(token) => token,
            Err(error) => {
                let why = format!("{}: {}", error.message, error.cause.unwrap_or_default());
                tell.tell(SupervisorMessage::Refused { why });
                return;
            }
        };
        let searches = web_search.is_some();
        if let Some(WebSearch {
            backend,
            for_programs,
        }) = web_search
        {
            self.access.allow_search(id, backend, for_programs);
        }
        let window = self.memory.window();
        tell.tell(SupervisorMessage::Granted(Granted {
            port: self.reservation.port,
            token: token.expose().to_owned(),
            served_name: self.spec.serve.model.served_name.clone(),
            name: self.spec.serve.model.name.clone(),
            typed: self.spec.serve.model.typed.clone(),
            window: ContextWindow {
                tokens: window,
                ..self.spec.serve.window
            },
            version: env!("CARGO_PKG_VERSION").into(),
            fronts: self.spec.serve.prefix_folder().cloned(),
            web_search: searches,
            network: network::own(),
        }));
        self.linger_over = None;
        let linger = linger.min(LONGEST_LINGER);
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

    fn said(&mut self, id: u64, say: SessionMessage) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        match say {
            SessionMessage::Client { pid, group } => {
                lease.client = Some(Client {
                    pid,
                    group,
                    named: Instant::now(),
                });
            }
            SessionMessage::ClientEnded => lease.client = None,
            SessionMessage::Leave { linger } => {
                let linger = linger.min(LONGEST_LINGER);
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
                let window = self.memory.window();
                lease.tell.tell(SupervisorMessage::Farewell(Farewell {
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

    fn asked_to_stop(&mut self, even_if_used: bool, tell: MessageSender) {
        if !even_if_used && !self.leases.is_empty() {
            tell.tell(SupervisorMessage::Refused {
                why: match self.leases.len() {
                    1 => "a session uses it".into(),
                    more => format!("{more} sessions use it"),
                },
            });
            return;
        }
        self.on(Event::Stop);
        tell.tell(SupervisorMessage::Ending);
        // Its connection ends when we do: that is how it knows that all is gone.
        self.departing.push(tell);
    }

    pub(super) fn tell_all(&self, tell: &SupervisorMessage) {
        for lease in self.leases.values() {
            lease.tell.tell(tell.clone());
        }
    }
}

/// A session's Claude Code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pid: i32,
    group: i32,
    /// The moment at which the session named it.
    named: Instant,
}

impl Client {
    /// Whether the process that was named still runs. The number may have been given away since: to one of another group, or to one
    /// that is younger.
    fn is_there(&self) -> bool {
        /// Ages are told in whole seconds.
        const ROUNDING: Duration = Duration::from_secs(2);
        nix::unistd::getpgid(Some(Pid::from_raw(self.pid))) == Ok(Pid::from_raw(self.group))
            && machine::age(self.pid).is_none_or(|age| age + ROUNDING >= self.named.elapsed())
    }

    /// Ends it when its session was killed: without a session nobody tells it anything any more.
    async fn end(self) {
        let pid = Pid::from_raw(self.pid);
        for (signal, patience) in [
            (Signal::SIGTERM, CLIENT_GRACE),
            (Signal::SIGKILL, Duration::ZERO),
        ] {
            if !self.is_there() {
                return;
            }
            let _ = nix::sys::signal::kill(pid, signal);
            // One that is stopped cannot hear until it is continued.
            let _ = nix::sys::signal::kill(pid, Signal::SIGCONT);
            let until = Instant::now() + patience;
            while self.is_there() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{Child, Ended};

    #[tokio::test]
    async fn only_the_process_that_was_named_is_ended() {
        let mut command = std::process::Command::new("sleep");
        let mut child = Child::spawn(command.arg("1000")).expect("started");
        let client = Client {
            pid: child.pid(),
            group: nix::unistd::getpgrp().as_raw(),
            named: Instant::now(),
        };
        let others = [
            // Named before this process began, so another had the number.
            Client {
                named: Instant::now() - Duration::from_secs(60),
                ..client
            },
            Client { group: 1, ..client },
        ];
        for other in others {
            assert!(!other.is_there(), "{other:?}");
            other.end().await;
            assert!(client.is_there(), "{other:?}");
        }
        let (ended, ()) = tokio::join!(child.ended(), client.end());
        assert_eq!(ended, Ended::Signal(Signal::SIGTERM as i32));
    }
}
