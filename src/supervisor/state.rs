//! The supervisor's life as a state machine: pure, so that every pair of state and event can be tested. The engine's own process has its life
//! in `engine/lifecycle.rs`; here is what becomes of it: started, started again, kept for a while, ended.

use std::time::Duration;

/// How many deaths of a ready engine are made good within [`DEATHS_WITHIN`].
pub const RESTARTS: usize = 3;

/// Over how long deaths are counted.
pub const DEATHS_WITHIN: Duration = Duration::from_secs(600);

/// How long a supervisor waits for its first session. The session that starts it takes its lease within milliseconds, so nobody is left.
pub const UNCLAIMED: Duration = Duration::from_secs(20);

/// The longest that an engine is kept for nobody: a day. Also what a session may ask for.
pub const LONGEST_LINGER: Duration = Duration::from_secs(86_400);

/// The pause before an engine is started again, by how many have died lately: one that dies at once must not keep the machine busy.
pub fn backoff(deaths: usize) -> Duration {
    Duration::from_millis(500 << deaths.saturating_sub(1).min(4))
}

/// State of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has come yet, and nothing is started: a failure would have nobody to be told to.
    Unclaimed,
    /// The engine downloads or loads. `before`: it has been ready before, so this is a restart.
    Starting { before: bool },
    /// The engine answers.
    Ready,
    /// The engine has died and will be started again.
    Waiting,
    /// The engine is being ended, and the supervisor after it.
    Ending,
    /// The engine is gone and nothing is left to do.
    Ended,
}

/// The whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub phase: Phase,
    /// How many sessions hold a lease.
    pub leases: usize,
}

/// Event for the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A session has come.
    Taken,
    /// A session has gone, and wants the engine to be kept for this long if it was the last.
    Returned { linger: Duration },
    /// Nobody has come for as long as the engine was to be kept.
    LingerOver,
    /// The engine answers.
    Healthy,
    /// The engine is gone. `deaths`: of ready engines within [`DEATHS_WITHIN`], with this one if it was.
    Gone { deaths: usize },
    /// The engine does not get on: a download or a load without progress.
    Stalled,
    /// The pause before a restart is over.
    PauseOver,
    /// Somebody wants it to end: a signal, or `cclocal stop`.
    Stop,
}

/// Action that follows, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell the session that it cannot be served any more.
    Refuse,
    StartEngine,
    /// End the engine: ask, wait, kill.
    EndEngine,
    /// Tell all that it is ready.
    SayReady,
    /// Tell all that the engine died and is starting again.
    SayRestarting,
    /// Tell all why it is over.
    SayFailed,
    /// Tell all that it is being ended.
    SayEnding,
    /// Wait before the engine is started again.
    Pause(Duration),
    /// Wait for another session.
    Linger(Duration),
    /// End the supervisor.
    Exit,
}

impl State {
    /// A supervisor that waits for its first session.
    pub fn new() -> Self {
        Self {
            phase: Phase::Unclaimed,
            leases: 0,
        }
    }

    /// The next state, and what to do on the way.
    pub fn on(self, event: Event) -> (State, Vec<Action>) {
        use {Action as A, Event as E, Phase as P};
        let Self { phase, leases } = self;
        let to = |phase| State { phase, leases };
        match (phase, event) {
            // Sessions come and go in any phase; what they mean depends on it.
            (P::Ending | P::Ended, E::Taken) => (self, vec![A::Refuse]),
            (_, E::Taken) => {
                let (phase, actions) = match phase {
                    P::Unclaimed => (P::Starting { before: false }, vec![A::StartEngine]),
                    P::Ready => (phase, vec![A::SayReady]),
                    _ => (phase, vec![]),
                };
                let leases = leases + 1;
                (State { phase, leases }, actions)
            }
            (_, E::Returned { linger }) => State {
                phase,
                leases: leases.saturating_sub(1),
            }
            .left(linger),

            (P::Ending | P::Ended, E::LingerOver) => (self, vec![]),
            // Somebody has come since.
            (_, E::LingerOver) if leases > 0 => (self, vec![]),
            (P::Starting { .. } | P::Ready, E::LingerOver) => {
                (to(P::Ending), vec![A::SayEnding, A::EndEngine])
            }
            (P::Unclaimed | P::Waiting, E::LingerOver) => (to(P::Ended), vec![A::Exit]),

            (P::Starting { .. }, E::Healthy) => (to(P::Ready), vec![A::SayReady]),
            (P::Unclaimed | P::Ready | P::Waiting | P::Ending | P::Ended, E::Healthy) => {
                (self, vec![])
            }

            // One that never answered would fail again, for the same reason.
            (P::Starting { before: false }, E::Gone { .. }) => {
                (to(P::Ended), vec![A::SayFailed, A::Exit])
            }
            // Nobody needs another.
            (P::Ready, E::Gone { .. }) if leases == 0 => (to(P::Ended), vec![A::Exit]),
            (P::Starting { before: true } | P::Ready, E::Gone { deaths }) => {
                if deaths > RESTARTS {
                    (to(P::Ended), vec![A::SayFailed, A::Exit])
                } else {
                    (
                        to(P::Waiting),
                        vec![A::SayRestarting, A::Pause(backoff(deaths))],
                    )
                }
            }
            (P::Ending, E::Gone { .. }) => (to(P::Ended), vec![A::Exit]),
            (P::Unclaimed | P::Waiting | P::Ended, E::Gone { .. }) => (self, vec![]),

            (P::Starting { .. }, E::Stalled) => (to(P::Ending), vec![A::SayFailed, A::EndEngine]),
            (P::Unclaimed | P::Ready | P::Waiting | P::Ending | P::Ended, E::Stalled) => {
                (self, vec![])
            }

            (P::Waiting, E::PauseOver) => (to(P::Starting { before: true }), vec![A::StartEngine]),
            (P::Unclaimed | P::Starting { .. } | P::Ready | P::Ending | P::Ended, E::PauseOver) => {
                (self, vec![])
            }

            (P::Starting { .. } | P::Ready, E::Stop) => {
                (to(P::Ending), vec![A::SayEnding, A::EndEngine])
            }
            (P::Unclaimed | P::Waiting, E::Stop) => (to(P::Ended), vec![A::SayEnding, A::Exit]),
            (P::Ending | P::Ended, E::Stop) => (self, vec![]),
        }
    }

    /// A session has gone.
    fn left(self, linger: Duration) -> (State, Vec<Action>) {
        use {Action as A, Phase as P};
        if self.leases > 0 {
            return (self, vec![]);
        }
        let to = |phase| State { phase, ..self };
        match self.phase {
            P::Ready if linger > Duration::ZERO => (self, vec![A::Linger(linger)]),
            // Nobody waits any more for what is being loaded, and an engine that died need not come back.
            P::Ready | P::Starting { .. } => (to(P::Ending), vec![A::EndEngine]),
            P::Waiting => (to(P::Ended), vec![A::Exit]),
            P::Unclaimed | P::Ending | P::Ended => (self, vec![]),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn every_pair_of_state_and_event() {
        let linger = Duration::from_secs(300);
        let phases = [
            Phase::Unclaimed,
            Phase::Starting { before: false },
            Phase::Starting { before: true },
            Phase::Ready,
            Phase::Waiting,
            Phase::Ending,
            Phase::Ended,
        ];
        let events = [
            Event::Taken,
            Event::Returned { linger },
            Event::Returned {
                linger: Duration::ZERO,
            },
            Event::LingerOver,
            Event::Healthy,
            Event::Gone { deaths: 1 },
            Event::Gone {
                deaths: RESTARTS + 1,
            },
            Event::Stalled,
            Event::PauseOver,
            Event::Stop,
        ];
        let mut table = String::new();
        for phase in phases {
            for leases in [0, 1, 2] {
                for event in events {
                    let state = State { phase, leases };
                    let (next, actions) = state.on(event);
                    if next != state || !actions.is_empty() {
                        let _ = writeln!(
                            table,
                            "{phase:?} {leases} + {event:?} = {:?} {} {actions:?}",
                            next.phase, next.leases
                        );
                    }
                }
            }
        }
        insta::assert_snapshot!(table, @"
        Unclaimed 0 + Taken = Starting { before: false } 1 [StartEngine]
        Unclaimed 0 + LingerOver = Ended 0 [Exit]
        Unclaimed 0 + Stop = Ended 0 [SayEnding, Exit]
        Unclaimed 1 + Taken = Starting { before: false } 2 [StartEngine]
        Unclaimed 1 + Returned { linger: 300s } = Unclaimed 0 []
        Unclaimed 1 + Returned { linger: 0ns } = Unclaimed 0 []
        Unclaimed 1 + Stop = Ended 1 [SayEnding, Exit]
        Unclaimed 2 + Taken = Starting { before: false } 3 [StartEngine]
        Unclaimed 2 + Returned { linger: 300s } = Unclaimed 1 []
        Unclaimed 2 + Returned { linger: 0ns } = Unclaimed 1 []
        Unclaimed 2 + Stop = Ended 2 [SayEnding, Exit]
        Starting { before: false } 0 + Taken = Starting { before: false } 1 []
        Starting { before: false } 0 + Returned { linger: 300s } = Ending 0 [EndEngine]
        Starting { before: false } 0 + Returned { linger: 0ns } = Ending 0 [EndEngine]
        Starting { before: false } 0 + LingerOver = Ending 0 [SayEnding, EndEngine]
        Starting { before: false } 0 + Healthy = Ready 0 [SayReady]
        Starting { before: false } 0 + Gone { deaths: 1 } = Ended 0 [SayFailed, Exit]
        Starting { before: false } 0 + Gone { deaths: 4 } = Ended 0 [SayFailed, Exit]
        Starting { before: false } 0 + Stalled = Ending 0 [SayFailed, EndEngine]
        Starting { before: false } 0 + Stop = Ending 0 [SayEnding, EndEngine]
        Starting { before: false } 1 + Taken = Starting { before: false } 2 []
        Starting { before: false } 1 + Returned { linger: 300s } = Ending 0 [EndEngine]
        Starting { before: false } 1 + Returned { linger: 0ns } = Ending 0 [EndEngine]
        Starting { before: false } 1 + Healthy = Ready 1 [SayReady]
        Starting { before: false } 1 + Gone { deaths: 1 } = Ended 1 [SayFailed, Exit]
        Starting { before: false } 1 + Gone { deaths: 4 } = Ended 1 [SayFailed, Exit]
        Starting { before: false } 1 + Stalled = Ending 1 [SayFailed, EndEngine]
        Starting { before: false } 1 + Stop = Ending 1 [SayEnding, EndEngine]
        Starting { before: false } 2 + Taken = Starting { before: false } 3 []
        Starting { before: false } 2 + Returned { linger: 300s } = Starting { before: false } 1 []
        Starting { before: false } 2 + Returned { linger: 0ns } = Starting { before: false } 1 []
        Starting { before: false } 2 + Healthy = Ready 2 [SayReady]
        Starting { before: false } 2 + Gone { deaths: 1 } = Ended 2 [SayFailed, Exit]
        Starting { before: false } 2 + Gone { deaths: 4 } = Ended 2 [SayFailed, Exit]
        Starting { before: false } 2 + Stalled = Ending 2 [SayFailed, EndEngine]
        Starting { before: false } 2 + Stop = Ending 2 [SayEnding, EndEngine]
        Starting { before: true } 0 + Taken = Starting { before: true } 1 []
        Starting { before: true } 0 + Returned { linger: 300s } = Ending 0 [EndEngine]
        Starting { before: true } 0 + Returned { linger: 0ns } = Ending 0 [EndEngine]
        Starting { before: true } 0 + LingerOver = Ending 0 [SayEnding, EndEngine]
        Starting { before: true } 0 + Healthy = Ready 0 [SayReady]
        Starting { before: true } 0 + Gone { deaths: 1 } = Waiting 0 [SayRestarting, Pause(500ms)]
        Starting { before: true } 0 + Gone { deaths: 4 } = Ended 0 [SayFailed, Exit]
        Starting { before: true } 0 + Stalled = Ending 0 [SayFailed, EndEngine]
        Starting { before: true } 0 + Stop = Ending 0 [SayEnding, EndEngine]
        Starting { before: true } 1 + Taken = Starting { before: true } 2 []
        Starting { before: true } 1 + Returned { linger: 300s } = Ending 0 [EndEngine]
        Starting { before: true } 1 + Returned { linger: 0ns } = Ending 0 [EndEngine]
        Starting { before: true } 1 + Healthy = Ready 1 [SayReady]
        Starting { before: true } 1 + Gone { deaths: 1 } = Waiting 1 [SayRestarting, Pause(500ms)]
        Starting { before: true } 1 + Gone { deaths: 4 } = Ended 1 [SayFailed, Exit]
        Starting { before: true } 1 + Stalled = Ending 1 [SayFailed, EndEngine]
        Starting { before: true } 1 + Stop = Ending 1 [SayEnding, EndEngine]
        Starting { before: true } 2 + Taken = Starting { before: true } 3 []
        Starting { before: true } 2 + Returned { linger: 300s } = Starting { before: true } 1 []
        Starting { before: true } 2 + Returned { linger: 0ns } = Starting { before: true } 1 []
        Starting { before: true } 2 + Healthy = Ready 2 [SayReady]
        Starting { before: true } 2 + Gone { deaths: 1 } = Waiting 2 [SayRestarting, Pause(500ms)]
        Starting { before: true } 2 + Gone { deaths: 4 } = Ended 2 [SayFailed, Exit]
        Starting { before: true } 2 + Stalled = Ending 2 [SayFailed, EndEngine]
        Starting { before: true } 2 + Stop = Ending 2 [SayEnding, EndEngine]
        Ready 0 + Taken = Ready 1 [SayReady]
        Ready 0 + Returned { linger: 300s } = Ready 0 [Linger(300s)]
        Ready 0 + Returned { linger: 0ns } = Ending 0 [EndEngine]
        Ready 0 + LingerOver = Ending 0 [SayEnding, EndEngine]
        Ready 0 + Gone { deaths: 1 } = Ended 0 [Exit]
        Ready 0 + Gone { deaths: 4 } = Ended 0 [Exit]
        Ready 0 + Stop = Ending 0 [SayEnding, EndEngine]
        Ready 1 + Taken = Ready 2 [SayReady]
        Ready 1 + Returned { linger: 300s } = Ready 0 [Linger(300s)]
        Ready 1 + Returned { linger: 0ns } = Ending 0 [EndEngine]
        Ready 1 + Gone { deaths: 1 } = Waiting 1 [SayRestarting, Pause(500ms)]
        Ready 1 + Gone { deaths: 4 } = Ended 1 [SayFailed, Exit]
        Ready 1 + Stop = Ending 1 [SayEnding, EndEngine]
        Ready 2 + Taken = Ready 3 [SayReady]
        Ready 2 + Returned { linger: 300s } = Ready 1 []
        Ready 2 + Returned { linger: 0ns } = Ready 1 []
        Ready 2 + Gone { deaths: 1 } = Waiting 2 [SayRestarting, Pause(500ms)]
        Ready 2 + Gone { deaths: 4 } = Ended 2 [SayFailed, Exit]
        Ready 2 + Stop = Ending 2 [SayEnding, EndEngine]
        Waiting 0 + Taken = Waiting 1 []
        Waiting 0 + Returned { linger: 300s } = Ended 0 [Exit]
        Waiting 0 + Returned { linger: 0ns } = Ended 0 [Exit]
        Waiting 0 + LingerOver = Ended 0 [Exit]
        Waiting 0 + PauseOver = Starting { before: true } 0 [StartEngine]
        Waiting 0 + Stop = Ended 0 [SayEnding, Exit]
        Waiting 1 + Taken = Waiting 2 []
        Waiting 1 + Returned { linger: 300s } = Ended 0 [Exit]
        Waiting 1 + Returned { linger: 0ns } = Ended 0 [Exit]
        Waiting 1 + PauseOver = Starting { before: true } 1 [StartEngine]
        Waiting 1 + Stop = Ended 1 [SayEnding, Exit]
        Waiting 2 + Taken = Waiting 3 []
        Waiting 2 + Returned { linger: 300s } = Waiting 1 []
        Waiting 2 + Returned { linger: 0ns } = Waiting 1 []
        Waiting 2 + PauseOver = Starting { before: true } 2 [StartEngine]
        Waiting 2 + Stop = Ended 2 [SayEnding, Exit]
        Ending 0 + Taken = Ending 0 [Refuse]
        Ending 0 + Gone { deaths: 1 } = Ended 0 [Exit]
        Ending 0 + Gone { deaths: 4 } = Ended 0 [Exit]
        Ending 1 + Taken = Ending 1 [Refuse]
        Ending 1 + Returned { linger: 300s } = Ending 0 []
        Ending 1 + Returned { linger: 0ns } = Ending 0 []
        Ending 1 + Gone { deaths: 1 } = Ended 1 [Exit]
        Ending 1 + Gone { deaths: 4 } = Ended 1 [Exit]
        Ending 2 + Taken = Ending 2 [Refuse]
        Ending 2 + Returned { linger: 300s } = Ending 1 []
        Ending 2 + Returned { linger: 0ns } = Ending 1 []
        Ending 2 + Gone { deaths: 1 } = Ended 2 [Exit]
        Ending 2 + Gone { deaths: 4 } = Ended 2 [Exit]
        Ended 0 + Taken = Ended 0 [Refuse]
        Ended 1 + Taken = Ended 1 [Refuse]
        Ended 1 + Returned { linger: 300s } = Ended 0 []
        Ended 1 + Returned { linger: 0ns } = Ended 0 []
        Ended 2 + Taken = Ended 2 [Refuse]
        Ended 2 + Returned { linger: 300s } = Ended 1 []
        Ended 2 + Returned { linger: 0ns } = Ended 1 []
        ");
    }

    #[test]
    fn the_pause_grows_and_is_bounded() {
        let pauses: Vec<u64> = [1, 2, 3, 9]
            .map(|deaths| u64::try_from(backoff(deaths).as_millis()).expect("small"))
            .to_vec();
        assert_eq!(pauses, [500, 1_000, 2_000, 8_000]);
        assert!(backoff(usize::MAX) <= Duration::from_secs(8));
    }
}
