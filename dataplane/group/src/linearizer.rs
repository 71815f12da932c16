//! ReadIndex, shared: all reads that wait when a round starts are answered by that round.
//!
//! A read may be served by a round that began *after* the read arrived, never by one under way: a
//! leader deposed in between would otherwise serve it stale.

use crate::machine::Machine;
use crate::types::TypeConfig;
use ogee_runtime::channel::oneshot;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

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
#[derive(Default)]
pub(crate) struct Linearizer {
    waiting: RefCell<Vec<oneshot::Sender<Answer>>>,
    running: Cell<bool>,
}

impl Linearizer {
    /// Waits until a round that starts after this call has confirmed leadership, and everything
    /// committed before it has been applied.
    pub(crate) async fn check(self: &Rc<Self>, raft: &Raft<TypeConfig, Machine>) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push(sender);
        if !self.running.replace(true) {
            self.clone().run(raft).await;
        }
        receiver.await.unwrap_or(Err(NotReadable::Stopped))
    }

    /// Runs one round in the caller's task, then hands later waiters to a task of their own, so
    /// that a lone read costs no spawn.
    async fn run(self: Rc<Self>, raft: &Raft<TypeConfig, Machine>) {
        // If the caller goes away mid-round, its guard lets the next caller start a new one.
        let guard = RunGuard {
            linearizer: self.clone(),
        };
        self.round(raft).await;
        drop(guard);
        if self.waiting.borrow().is_empty() || self.running.replace(true) {
            return;
        }
        let raft = raft.clone();
        drop(ogee_runtime::spawn(async move {
            let guard = RunGuard {
                linearizer: self.clone(),
            };
            while !self.waiting.borrow().is_empty() {
                self.round(&raft).await;
            }
            drop(guard);
        }));
    }

    async fn round(&self, raft: &Raft<TypeConfig, Machine>) {
        let batch = std::mem::take(&mut *self.waiting.borrow_mut());
        let result = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        let answer = result.map(drop).map_err(|error| not_readable(&error));
        for waiter in batch {
            // A waiter that gave up is none of our business.
            let _ = waiter.send(answer);
        }
    }
}

struct RunGuard {
    linearizer: Rc<Linearizer>,
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.linearizer.running.set(false);
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
