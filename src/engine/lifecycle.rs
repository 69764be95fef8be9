//! The engine's life as a state machine: pure, so that every (state, event) pair can be tested.

use crate::sys::process::Ended;

/// State of an engine's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Started; downloading or loading. It does not answer yet.
    Starting,
    /// It answers.
    Ready,
    /// It was asked to end and has its time of grace.
    Stopping,
    /// It did not end in time and was killed; the kernel has not reported its end yet.
    Killed,
    /// It is gone.
    Gone(End),
}

/// How an engine's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// We ended it.
    Stopped,
    /// It ended by itself before it was ready.
    FailedToStart(Ended),
    /// It ended by itself while it served.
    Died(Ended),
}

/// Event in the life of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its health check says that the model is loaded.
    Healthy,
    /// Somebody wants it to end.
    Stop,
    /// Its time of grace is over, or somebody does not want to wait for it.
    GraceOver,
    /// The process is gone.
    Exited(Ended),
}

/// Action that follows from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Ask it to end (SIGTERM), and start its time of grace.
    Terminate,
    /// End its whole process group (SIGKILL).
    Kill,
}

impl State {
    /// The next state, and what to do on the way.
    pub fn on(self, event: Event) -> (State, Action) {
        use {Action as A, Event as E, State as S};
        match (self, event) {
            (S::Gone(_), _) => (self, A::Nothing),
            (S::Starting, E::Exited(ended)) => (S::Gone(End::FailedToStart(ended)), A::Nothing),
            (S::Ready, E::Exited(ended)) => (S::Gone(End::Died(ended)), A::Nothing),
            (S::Stopping | S::Killed, E::Exited(_)) => (S::Gone(End::Stopped), A::Nothing),
            (S::Starting, E::Healthy) => (S::Ready, A::Nothing),
            (S::Ready | S::Stopping | S::Killed, E::Healthy) => (self, A::Nothing),
            (S::Starting | S::Ready, E::Stop) => (S::Stopping, A::Terminate),
            (S::Stopping | S::Killed, E::Stop) => (self, A::Nothing),
            (S::Stopping, E::GraceOver) => (S::Killed, A::Kill),
            // Grace that nobody granted, or that is over already, says nothing.
            (S::Starting | S::Ready | S::Killed, E::GraceOver) => (self, A::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_state_and_event() {
        let dead = Ended::Signal(9);
        let gone = State::Gone(End::Died(dead));
        let states = [
            State::Starting,
            State::Ready,
            State::Stopping,
            State::Killed,
            gone,
        ];
        let events = [
            Event::Healthy,
            Event::Stop,
            Event::GraceOver,
            Event::Exited(dead),
        ];
        let mut table = String::new();
        for state in states {
            for event in events {
                let (next, action) = state.on(event);
                table += &format!("{state:?} + {event:?} = {next:?}, {action:?}\n");
            }
        }
        insta::assert_snapshot!(table, @"
        Starting + Healthy = Ready, Nothing
        Starting + Stop = Stopping, Terminate
        Starting + GraceOver = Starting, Nothing
        Starting + Exited(Signal(9)) = Gone(FailedToStart(Signal(9))), Nothing
        Ready + Healthy = Ready, Nothing
        Ready + Stop = Stopping, Terminate
        Ready + GraceOver = Ready, Nothing
        Ready + Exited(Signal(9)) = Gone(Died(Signal(9))), Nothing
        Stopping + Healthy = Stopping, Nothing
        Stopping + Stop = Stopping, Nothing
        Stopping + GraceOver = Killed, Kill
        Stopping + Exited(Signal(9)) = Gone(Stopped), Nothing
        Killed + Healthy = Killed, Nothing
        Killed + Stop = Killed, Nothing
        Killed + GraceOver = Killed, Nothing
        Killed + Exited(Signal(9)) = Gone(Stopped), Nothing
        Gone(Died(Signal(9))) + Healthy = Gone(Died(Signal(9))), Nothing
        Gone(Died(Signal(9))) + Stop = Gone(Died(Signal(9))), Nothing
        Gone(Died(Signal(9))) + GraceOver = Gone(Died(Signal(9))), Nothing
        Gone(Died(Signal(9))) + Exited(Signal(9)) = Gone(Died(Signal(9))), Nothing
        ");
    }
}
