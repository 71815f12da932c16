//! Keeps clients' changes out of a piece of a chunk for a moment, while what differs there is put right.
//!
//! *Place*: before a leader hands a command to openraft. *Owner*: the group. *Invariants*: once [`Gate::close`] has ended, and
//! until what it gave is dropped, no client's change of the piece is handed over, and none is on its way that was let
//! through before. One piece at a time. Who waits is bounded by admission, and for how long by whoever closes it.
//! *On failure*: a request that is dropped while it waits, or behind the gate, is out of it.

use crate::command::CommandHead;
use crate::repair::Span;
use ogee_runtime::channel::{Mutex, MutexGuard, Notify};
use std::cell::{Cell, RefCell};

pub(crate) struct Gate {
    closed: RefCell<Option<Span>>,
    /// Who is behind the gate, by when they came: of the closing before, and since.
    behind: [Cell<u32>; 2],
    newest: Cell<usize>,
    changed: Notify,
    turn: Mutex<()>,
}

/// Somebody who was let through.
pub(crate) struct Passed<'a> {
    gate: &'a Gate,
    when: usize,
}

/// While it lives, the piece is closed.
pub(crate) struct Closed<'a> {
    gate: &'a Gate,
    _turn: MutexGuard<'a, ()>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            closed: RefCell::default(),
            behind: Default::default(),
            newest: Cell::new(0),
            changed: Notify::new(),
            turn: Mutex::new(()),
        }
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let behind = &self.gate.behind[self.when];
        behind.set(behind.get() - 1);
        let is_awaited = behind.get() == 0 && self.gate.closed.borrow().is_some();
        if is_awaited {
            self.gate.changed.notify_all();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        *self.gate.closed.borrow_mut() = None;
        self.gate.changed.notify_all();
    }
}

impl Gate {
    /// Lets a command through when the gate is open for it.
    pub(crate) async fn pass(&self, head: &CommandHead) -> Passed<'_> {
        if self.is_closed_to(head) {
            // Seldom, so that every request need not have room for it.
            Box::pin(self.opened(head)).await;
        }
        let when = self.newest.get();
        let behind = &self.behind[when];
        behind.set(behind.get() + 1);
        Passed { gate: self, when }
    }

    async fn opened(&self, head: &CommandHead) {
        loop {
            let changed = self.changed.notified();
            if !self.is_closed_to(head) {
                return;
            }
            changed.await;
        }
    }

    fn is_closed_to(&self, head: &CommandHead) -> bool {
        let closed = self.closed.borrow();
        closed.is_some_and(|span| head.kind.is_clients_change() && span.meets(head))
    }

    /// Closes a piece and waits until those who were let through before have left.
    pub(crate) async fn close(&self, span: Span) -> Closed<'_> {
        let turn = self.turn.lock().await;
        *self.closed.borrow_mut() = Some(span);
        let closed = Closed {
            gate: self,
            _turn: turn,
        };
        // Those of the closing before have left, or that one gave up.
        self.left(1 - self.newest.get()).await;
        let before = self.newest.replace(1 - self.newest.get());
        self.left(before).await;
        closed
    }

    async fn left(&self, when: usize) {
        loop {
            let changed = self.changed.notified();
            if self.behind[when].get() == 0 {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;
    use crate::command::{CommandHead, CommandKind};
    use crate::fixture::run;
    use crate::repair::Span;
    use futures_util::FutureExt;
    use ogee_proto::id::{ChunkIndex, ChunkKey, ClientId, Epoch, Incarnation, Sequence, VolumeId};
    use ogee_proto::unit::BlockIndex;

    fn key() -> ChunkKey {
        ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(0),
        }
    }

    fn head(kind: CommandKind, block: u32) -> CommandHead {
        CommandHead {
            kind,
            key: key(),
            offset: block * 4096,
            length: 4096,
            client: ClientId::new(1),
            epoch: Epoch::new(1),
            incarnation: Incarnation::new(0),
            sequence: Sequence::new(1),
            watermark: Sequence::new(0),
        }
    }

    fn write(block: u32) -> CommandHead {
        head(CommandKind::Write, block)
    }

    fn span() -> Span {
        Span::new(key(), BlockIndex::new(256).unwrap(), 256)
    }

    #[test]
    fn it_keeps_changes_of_the_piece_out_and_nothing_else() {
        run(async {
            let gate = Gate::default();
            let closed = gate.close(span()).await;
            assert!(gate.pass(&write(256)).now_or_never().is_none());
            assert!(gate.pass(&write(511)).now_or_never().is_none());
            let across = CommandHead {
                length: 2 * 4096,
                ..write(255)
            };
            assert!(gate.pass(&across).now_or_never().is_none());
            let discard = head(CommandKind::Discard, 300);
            assert!(gate.pass(&discard).now_or_never().is_none());
            for outside in [write(255), write(512), head(CommandKind::Rewrite, 300)] {
                assert!(gate.pass(&outside).now_or_never().is_some());
            }
            drop(closed);
            assert!(gate.pass(&write(256)).now_or_never().is_some());
        });
    }

    /// Those who come meanwhile, elsewhere, are not waited for.
    #[test]
    fn closing_waits_for_those_who_were_let_through_before() {
        run(async {
            let gate = Gate::default();
            let passed = gate.pass(&write(300)).await;
            let mut closing = Box::pin(gate.close(span()));
            assert!((&mut closing).now_or_never().is_none());
            let _later = gate.pass(&write(0)).await;
            assert!((&mut closing).now_or_never().is_none());
            drop(passed);
            let closed = closing.await;
            assert!(gate.pass(&write(300)).now_or_never().is_none());
            drop(closed);
        });
    }

    #[test]
    fn a_closing_that_is_given_up_opens_it_again_and_forgets_nobody() {
        run(async {
            let gate = Gate::default();
            let passed = gate.pass(&write(300)).await;
            assert!(gate.close(span()).now_or_never().is_none());
            assert!(gate.pass(&write(300)).now_or_never().is_some());
            let mut closing = Box::pin(gate.close(span()));
            assert!((&mut closing).now_or_never().is_none());
            drop(passed);
            drop(closing.await);
        });
    }
}
