//! Whether a read may be served: by the leader's lease, or by ReadIndex, shared: all reads that wait
//! when a round starts are answered by that round.
//!
//! A read may be served by a round that began *after* the read arrived, never by one under way: a
//! leader deposed in between would otherwise serve it stale.

use crate::lease::Lease;
use crate::machine::Machine;
use crate::types::TypeConfig;
use ogee_runtime::channel::oneshot;
use ogee_runtime::seeded_bug;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Rounds tried when openraft took an old answer for a new one, and the pause between them.
const ROUNDS_MAX: usize = 20;
const ROUND_PAUSE: Duration = Duration::from_millis(5);

/// Why reads may not be served here now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotReadable {
    /// Another replica leads, if known.
    Forward(Option<u64>),
    /// No quorum answered.
    NoQuorum,
    /// The group has stopped.
    Stopped,
}

type Answer = Result<(), NotReadable>;

/// Batches linearizability checks of one group.
pub(crate) struct Linearizer {
    lease: Lease,
    waiting: RefCell<Vec<oneshot::Sender<Answer>>>,
    running: Cell<bool>,
}

impl Linearizer {
    pub(crate) fn new(lease: Lease) -> Self {
        Self {
            lease,
            waiting: RefCell::default(),
            running: Cell::new(false),
        }
    }

    pub(crate) const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Without a lease, waits until a round that starts after this call has confirmed leadership,
    /// and everything committed before it has been applied.
    pub(crate) async fn check(self: &Rc<Self>, raft: &Raft<TypeConfig, Machine>) -> Answer {
        let believes = seeded_bug!("read-without-round") && raft.is_leader();
        if believes || self.lease.holds(raft) {
            return Ok(());
        }
        loop {
            let (sender, receiver) = oneshot::channel();
            self.waiting.borrow_mut().push(sender);
            if !self.running.replace(true) {
                // In a box: a read under a lease needs no room for it.
                Box::pin(self.clone().run(raft)).await;
            }
            // Without an answer the caller that ran the round went away in the middle: ask again.
            if let Ok(answer) = receiver.await {
                return answer;
            }
        }
    }

    /// Runs one round in the caller's task, then hands later waiters to a task of their own, so
    /// that a lone read costs no spawn.
    async fn run(self: Rc<Self>, raft: &Raft<TypeConfig, Machine>) {
        let mut turn = Turn::new(&self);
        self.round(raft).await;
        turn.done = true;
        drop(turn);
        if self.waiting.borrow().is_empty() || self.running.replace(true) {
            return;
        }
        let raft = raft.clone();
        drop(ogee_runtime::spawn(async move {
            let mut turn = Turn::new(&self);
            while !self.waiting.borrow().is_empty() {
                self.round(&raft).await;
            }
            turn.done = true;
        }));
    }

    /// openraft's round, repeated until what it was told was said in answer to this very round.
    async fn confirm(&self, raft: &Raft<TypeConfig, Machine>) -> Answer {
        let (term, since) = (Lease::term(raft), ogee_runtime::now());
        for _ in 0..ROUNDS_MAX {
            let result = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
            result.map_err(|error| not_readable(&error))?;
            if self.lease.is_led_since(raft, since) {
                self.lease.confirm(raft, term);
                return Ok(());
            }
            ogee_runtime::sleep(ROUND_PAUSE).await;
        }
        Err(NotReadable::NoQuorum)
    }

    async fn round(&self, raft: &Raft<TypeConfig, Machine>) {
        let mut batch = std::mem::take(&mut *self.waiting.borrow_mut());
        let answer = self.confirm(raft).await;
        if seeded_bug!("round-answers-late-reads") {
            batch.append(&mut self.waiting.borrow_mut());
        }
        for waiter in batch {
            // A waiter that gave up is none of our business.
            let _ = waiter.send(answer);
        }
    }
}

/// The right to run rounds.
struct Turn {
    linearizer: Rc<Linearizer>,
    done: bool,
}

impl Turn {
    fn new(linearizer: &Rc<Linearizer>) -> Self {
        Self {
            linearizer: linearizer.clone(),
            done: false,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.linearizer.running.set(false);
        if !self.done {
            // Nobody would wake those who came during the round: they ask again, and the first of
            // them runs the next one.
            drop(self.linearizer.waiting.take());
        }
    }
}

fn not_readable(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> NotReadable {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => {
            NotReadable::Forward(to.leader_id)
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => NotReadable::NoQuorum,
        RaftError::Fatal(_) => NotReadable::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::Linearizer;
    use crate::fixture::{Lone, run};
    use crate::lease::Lease;
    use futures_util::poll;
    use std::pin::pin;
    use std::rc::Rc;
    use std::time::Duration;

    fn without_lease() -> Linearizer {
        Linearizer::new(Lease::new(1, Rc::default(), Duration::ZERO, false))
    }

    #[test]
    fn a_read_that_arrives_during_a_round_waits_for_the_next_one() {
        run(async {
            let lone = Lone::start().await;
            let raft = lone.group.raft();
            let linearizer = Rc::new(without_lease());
            let mut first = pin!(linearizer.check(raft));
            let mut second = pin!(linearizer.check(raft));
            assert!(poll!(&mut first).is_pending(), "the round asks openraft");
            assert!(
                linearizer.waiting.borrow().is_empty(),
                "it answers the first read"
            );
            assert!(poll!(&mut second).is_pending());
            assert_eq!(
                linearizer.waiting.borrow().len(),
                1,
                "the second is not part of it"
            );
            assert_eq!(first.await, Ok(()));
            assert!(
                poll!(&mut second).is_pending(),
                "the first round is not its answer"
            );
            assert_eq!(second.await, Ok(()));
            assert!(!linearizer.running.get(), "nothing runs when nobody waits");
        });
    }

    #[test]
    fn readers_survive_the_one_that_ran_their_round() {
        run(async {
            let lone = Lone::start().await;
            let raft = lone.group.raft();
            let linearizer = Rc::new(without_lease());
            let mut during = pin!(linearizer.check(raft));
            {
                let mut runner = pin!(linearizer.check(raft));
                assert!(poll!(&mut runner).is_pending());
                assert!(poll!(&mut during).is_pending());
            }
            assert_eq!(
                during.await,
                Ok(()),
                "the runner is gone, the reader is not"
            );
            assert!(!linearizer.running.get());
        });
    }

    #[test]
    fn a_group_that_has_stopped_says_so() {
        run(async {
            let lone = Lone::start().await;
            lone.group.shutdown().await;
            let linearizer = Rc::new(without_lease());
            let answer = linearizer.check(lone.group.raft()).await;
            assert_eq!(answer, Err(super::NotReadable::Stopped));
        });
    }
}
