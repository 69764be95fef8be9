//! Turns at the engine: as many at a time as it works at, in order within a conversation, and fair between conversations.
//!
//! Of the requests that wait, the one that came first is next, unless its conversation has a turn already. Background questions of the client, such as
//! one for a title, let others pass, but not for ever.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::auth::Caller;

/// How many later requests a background question lets pass.
const PATIENCE: u32 = 8;

/// A conversation: its requests are answered in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conversation(Caller, u64);

impl Conversation {
    /// The conversation of a session, or of an agent in it.
    pub(crate) fn of(caller: Caller, agent: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        agent.hash(&mut hasher);
        Self(caller, hasher.finish())
    }
}

/// A request's standing in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The next step of a conversation.
    Step(Conversation),
    /// Part of no conversation.
    Alone,
    /// The same, and nobody waits for it.
    Background,
}

/// The way to the engine. Clones lead to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Queue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// How many may have their turn at the same time.
    together: usize,
    /// How many of them at the moment: fewer after the engine had too many.
    allowed: usize,
    /// How many have it.
    taken: usize,
    waiting: Vec<Waiter>,
    /// Conversations that have a turn.
    active: BTreeSet<Conversation>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    /// Its number: later requests have larger ones.
    number: u64,
    standing: Standing,
    /// How many it let pass.
    passed: u32,
    call: oneshot::Sender<Turn>,
}

/// A place in the queue. Dropped, it is given up.
pub(crate) struct Place {
    queue: Queue,
    number: u64,
    called: oneshot::Receiver<Turn>,
}

/// One's turn. Dropped, it is the next one's.
#[derive(Debug)]
pub(crate) struct Turn {
    queue: Queue,
    conversation: Option<Conversation>,
}

impl Queue {
    /// `together`: how many have their turn at the same time, at least one.
    pub(crate) fn new(together: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            together: together.max(1),
            allowed: together.max(1),
            taken: 0,
            waiting: Vec::new(),
            active: BTreeSet::new(),
            next: 0,
        })))
    }

    /// Takes the place at the end.
    pub(crate) fn enter(&self, standing: Standing) -> Place {
        let (call, called) = oneshot::channel();
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push(Waiter {
            number,
            standing,
            passed: 0,
            call,
        });
        let turns = state.call(self);
        drop(state);
        drop(turns);
        Place {
            queue: self.clone(),
            number,
            called,
        }
    }

    /// The engine has more than it takes: half as many have their turn from now on.
    pub(crate) fn slow_down(&self) {
        let mut state = self.state();
        state.allowed = (state.allowed / 2).max(1);
    }

    /// The engine has answered: one more may have its turn, until it is as many as before.
    pub(crate) fn speed_up(&self) {
        let mut state = self.state();
        if state.allowed < state.together {
            state.allowed += 1;
            let gone = state.call(self);
            drop(state);
            drop(gone);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Calls all whose turn it is. Returns the turns of those who are gone, to be dropped when the state is not locked.
    fn call(&mut self, queue: &Queue) -> Vec<Turn> {
        let mut gone = Vec::new();
        while self.taken < self.allowed
            && let Some(next) = self.next_in_line()
        {
            let waiter = self.waiting.remove(next);
            for other in &mut self.waiting {
                if other.number < waiter.number {
                    other.passed += 1;
                }
            }
            let conversation = match waiter.standing {
                Standing::Step(conversation) => Some(conversation),
                Standing::Alone | Standing::Background => None,
            };
            self.taken += 1;
            self.active.extend(conversation);
            let turn = Turn {
                queue: queue.clone(),
                conversation,
            };
            gone.extend(waiter.call.send(turn).err());
        }
        gone
    }

    /// The waiter whose turn it is: the first of those that may have one, those first for whom somebody waits.
    fn next_in_line(&self) -> Option<usize> {
        let mut seen = BTreeSet::new();
        let mut best: Option<(bool, usize)> = None;
        for (index, waiter) in self.waiting.iter().enumerate() {
            let gives_way = match waiter.standing {
                // Only the first of a conversation can be next.
                Standing::Step(conversation) if !seen.insert(conversation) => continue,
                Standing::Step(conversation) if self.active.contains(&conversation) => continue,
                Standing::Step(_) | Standing::Alone => false,
                Standing::Background => waiter.passed < PATIENCE,
            };
            if best.is_none_or(|best| (gives_way, index) < best) {
                best = Some((gives_way, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

impl Place {
    /// Waits for one's turn. Can be cancelled, and the place is given up then.
    pub(crate) async fn turn(mut self) -> Turn {
        match (&mut self.called).await {
            Ok(turn) => turn,
            // The queue holds the other end as long as this place is in it.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.waiting.retain(|waiter| waiter.number != self.number);
        drop(state);
        // It may have been called already: the turn in the channel is dropped with it, and is the next one's.
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.taken -= 1;
        if let Some(conversation) = self.conversation {
            state.active.remove(&conversation);
        }
        let gone = state.call(&self.queue);
        drop(state);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::LocalBoxFuture;
    use proptest::prelude::*;

    use super::*;

    fn of(name: &str) -> Standing {
        Standing::Step(Conversation::of(Caller::Main, Some(name.as_bytes())))
    }

    /// A request under way: its name, and its turn once it has one.
    struct Line {
        queue: Queue,
        places: Vec<(usize, LocalBoxFuture<'static, Turn>)>,
        turns: Vec<(usize, Turn)>,
        order: Vec<usize>,
        entered: usize,
    }

    impl Line {
        fn new(together: usize) -> Self {
            Self {
                queue: Queue::new(together),
                places: Vec::new(),
                turns: Vec::new(),
                order: Vec::new(),
                entered: 0,
            }
        }

        fn enter(&mut self, standing: Standing) {
            let place = self.queue.enter(standing);
            self.places.push((self.entered, Box::pin(place.turn())));
            self.entered += 1;
            self.look();
        }

        fn look(&mut self) {
            let mut index = 0;
            while index < self.places.len() {
                match self.places[index].1.as_mut().now_or_never() {
                    Some(turn) => {
                        let (name, _) = self.places.remove(index);
                        self.order.push(name);
                        self.turns.push((name, turn));
                    }
                    None => index += 1,
                }
            }
        }

        fn end(&mut self, name: usize) {
            self.turns.retain(|(other, _)| *other != name);
            self.look();
        }
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_entering_not_of_asking() {
        let queue = Queue::new(1);
        let first = queue.enter(of("a"));
        let second = queue.enter(of("b"));
        let third = queue.enter(of("c"));
        let mut third = Box::pin(third.turn());
        assert!(third.as_mut().now_or_never().is_none());
        let mut second = Box::pin(second.turn());
        assert!(second.as_mut().now_or_never().is_none());
        let turn = first.turn().now_or_never().expect("it is its turn");
        assert!(second.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(third.as_mut().now_or_never().is_none());
        let turn = second.now_or_never().expect("it is its turn");
        drop(turn);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_leaves_is_not_waited_for() {
        let queue = Queue::new(1);
        let turn = queue.enter(of("a")).turn().await;
        let gone = queue.enter(of("b"));
        let mut next = Box::pin(queue.enter(of("c")).turn());
        assert!(next.as_mut().now_or_never().is_none());
        drop(gone);
        drop(turn);
        assert!(next.now_or_never().is_some());
        // Nor a request that leaves after it was called.
        let called = queue.enter(of("d"));
        drop(called);
        assert!(queue.enter(of("e")).turn().now_or_never().is_some());
    }

    #[test]
    fn conversations_go_side_by_side_and_each_in_its_order() {
        let mut line = Line::new(2);
        for name in ["a", "a", "b", "c"] {
            line.enter(of(name));
        }
        // The second step of a waits for the first, and b passes it.
        assert_eq!(line.order, [0, 2]);
        line.end(2);
        assert_eq!(line.order, [0, 2, 3]);
        line.end(0);
        assert_eq!(line.order, [0, 2, 3, 1]);
    }

    #[test]
    fn an_engine_that_has_too_many_gets_fewer_until_it_answers() {
        let mut line = Line::new(4);
        for n in 0..7 {
            line.enter(of(&n.to_string()));
        }
        assert_eq!(line.order, [0, 1, 2, 3]);
        line.queue.slow_down();
        line.end(0);
        line.end(1);
        assert_eq!(line.order, [0, 1, 2, 3]);
        line.end(2);
        assert_eq!(line.order, [0, 1, 2, 3, 4]);
        for more in [5, 6] {
            line.queue.speed_up();
            line.look();
            assert_eq!(line.order.len(), more + 1);
        }
        // Never fewer than one, never more than before.
        (0..9).for_each(|_| line.queue.slow_down());
        assert_eq!(line.queue.state().allowed, 1);
        (0..9).for_each(|_| line.queue.speed_up());
        assert_eq!(line.queue.state().allowed, 4);
    }

    #[test]
    fn background_questions_let_others_pass_but_not_for_ever() {
        let mut line = Line::new(1);
        line.enter(of("a"));
        line.enter(Standing::Background);
        for n in 0..12 {
            line.enter(of(&format!("agent {n}")));
        }
        for turn in 0..9 {
            let name = line.turns[0].0;
            assert_ne!(name, 1, "turn {turn}");
            line.end(name);
        }
        assert_eq!(line.turns[0].0, 1, "{:?}", line.order);
    }

    #[test]
    fn agents_are_known_by_their_session_and_their_name() {
        let of = |lease, agent: Option<&str>| {
            Conversation::of(Caller::Lease(lease), agent.map(str::as_bytes))
        };
        assert_eq!(of(1, Some("x")), of(1, Some("x")));
        assert_ne!(of(1, Some("x")), of(2, Some("x")));
        assert_ne!(of(1, Some("x")), of(1, Some("y")));
        assert_ne!(of(1, None), of(1, Some("")));
    }

    proptest! {
        /// Whatever comes and goes in whatever order: never more turns than there are, never two of one conversation, each conversation in its order,
        /// and nobody is forgotten.
        #[test]
        fn everyone_gets_a_turn(together in 1_usize..5, steps in proptest::collection::vec((0_u8..6, any::<prop::sample::Index>(), any::<bool>()), 1..60)) {
            let mut line = Line::new(together);
            let mut standings = Vec::new();
            let mut left = BTreeSet::new();
            for (who, which, enters) in steps {
                if enters {
                    let standing = match who { 0 => Standing::Background, 1 => Standing::Alone, who => of(&who.to_string()) };
                    standings.push(standing);
                    line.enter(standing);
                } else if who == 1 && !line.places.is_empty() {
                    let gone = which.index(line.places.len());
                    left.insert(line.places.remove(gone).0);
                    line.look();
                } else if !line.turns.is_empty() {
                    let name = line.turns[which.index(line.turns.len())].0;
                    line.end(name);
                }
                prop_assert!(line.turns.len() <= together);
                let held: Vec<Standing> = line.turns.iter().map(|(name, _)| standings[*name]).collect();
                for (index, one) in held.iter().enumerate() {
                    prop_assert!(!matches!(one, Standing::Step(_)) || !held[..index].contains(one));
                }
            }
            while let Some((name, _)) = line.turns.first() {
                let name = *name;
                line.end(name);
            }
            prop_assert!(line.places.is_empty());
            prop_assert_eq!(line.order.len() + left.len(), line.entered);
            for (index, later) in line.order.iter().enumerate() {
                let standing = standings[*later];
                let before = &line.order[..index];
                prop_assert!(!matches!(standing, Standing::Step(_)) || before.iter().all(|one| standings[*one] != standing || one < later));
            }
        }
    }
}
