//! Requests on a ring, and who waits for them.
//!
//! *Place*: between the client's handles and `ring`. *Owner*: one connection; a task takes answers. *Invariants*: a slot
//! belongs to one request from before it is offered until it is answered, even if nobody waits for it any more, since
//! until then the server may write to its memory. *On failure*: the first failure is that of every request under way
//! and of every later one.

use super::connect::Events;
use super::error::VhostError;
use super::layout::{Layout, STATUS_AT, TABLE_AT};
use super::memory::Memory;
use super::ring::{Part, Ring};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Readiness;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Unit of all positions on the wire.
const SECTOR_LEN: u64 = 512;
const HEADER_LEN: u32 = 16;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
/// No server writes it.
const UNANSWERED: u8 = 0xff;

/// What a request is to do.
#[derive(Clone, Copy)]
pub(super) enum Doing<'a> {
    Read {
        offset: ByteOffset,
        len: ByteLen,
        /// Somebody looks at what comes.
        keeps: bool,
    },
    Write {
        offset: ByteOffset,
        data: &'a [u8],
    },
    Flush,
}

/// See the module.
pub(super) struct Queue {
    memory: Rc<Memory>,
    layout: Layout,
    index: usize,
    events: Events,
    state: RefCell<State>,
}

struct State {
    ring: Ring,
    slots: Vec<Slot>,
    free: Vec<u16>,
    failure: Option<VhostError>,
}

enum Slot {
    Free,
    UnderWay(Option<Waker>),
    Answered,
    /// Nobody waits; the answer is still to come.
    GivenUp,
}

impl Queue {
    pub(super) fn new(
        memory: &Rc<Memory>,
        layout: Layout,
        index: usize,
        has_event_index: bool,
        events: Events,
    ) -> Self {
        let place = layout.ring(index);
        let state = State {
            ring: Ring::new(Rc::clone(memory), place, has_event_index),
            slots: (0..layout.depth()).map(|_| Slot::Free).collect(),
            free: (0..layout.depth()).rev().collect(),
            failure: None,
        };
        Self {
            memory: Rc::clone(memory),
            layout,
            index,
            events,
            state: RefCell::new(state),
        }
    }

    /// Does it; what was read, if that is to be kept.
    pub(super) async fn call(&self, doing: Doing<'_>) -> Result<Option<Vec<u8>>, VhostError> {
        let slot = self.take_slot()?;
        let mut call = Call {
            queue: self,
            slot,
            is_over: false,
        };
        if self.offer(slot, doing) {
            self.events.kick();
        }
        poll_fn(|cx| self.poll(slot, cx)).await?;
        call.is_over = true;
        let outcome = self.outcome(slot, doing);
        self.state.borrow_mut().release(slot);
        outcome
    }

    fn take_slot(&self) -> Result<u16, VhostError> {
        let mut state = self.state.borrow_mut();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let slot = state.free.pop();
        let slot = slot.expect("invariant: a job has as many lanes as its ring has slots");
        *state.slot(slot) = Slot::UnderWay(None);
        Ok(slot)
    }

    fn offer(&self, slot: u16, doing: Doing<'_>) -> bool {
        let (at, data_at) = (self.at(slot), self.layout.data(self.index, slot));
        let (kind, offset, data) = match doing {
            Doing::Read { offset, len, .. } => (IN, offset.get(), Some((len.get(), true))),
            Doing::Write { offset, data } => {
                self.memory.write(data_at, data);
                (OUT, offset.get(), Some((data.len() as u64, false)))
            }
            Doing::Flush => (FLUSH, 0, None),
        };
        let mut header = [0; HEADER_LEN as usize];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&(offset / SECTOR_LEN).to_le_bytes());
        self.memory.write(at, &header);
        self.memory.write(at + STATUS_AT, &[UNANSWERED]);
        let part = |at, len, is_written| Part {
            at,
            len,
            is_written,
        };
        let (head, status) = (part(at, HEADER_LEN, false), part(at + STATUS_AT, 1, true));
        let mut state = self.state.borrow_mut();
        let ring = &mut state.ring;
        match data {
            None => ring.offer(slot, at + TABLE_AT, &[head, status]),
            Some((len, is_written)) => {
                let len = u32::try_from(len).expect("invariant: requests are at most 16 MiB");
                let data = part(data_at, len, is_written);
                ring.offer(slot, at + TABLE_AT, &[head, data, status])
            }
        }
    }

    fn poll(&self, slot: u16, cx: &Context<'_>) -> Poll<Result<(), VhostError>> {
        let mut state = self.state.borrow_mut();
        if matches!(state.slot(slot), Slot::Answered) {
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if let Slot::UnderWay(waker) = state.slot(slot) {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }

    /// Of a request that was answered.
    fn outcome(&self, slot: u16, doing: Doing<'_>) -> Result<Option<Vec<u8>>, VhostError> {
        let mut status = [UNANSWERED];
        self.memory.read(self.at(slot) + STATUS_AT, &mut status);
        if status != [0] {
            return Err(VhostError::Status(status[0]));
        }
        let Doing::Read {
            len, keeps: true, ..
        } = doing
        else {
            return Ok(None);
        };
        let mut data = vec![0; len.as_usize()];
        self.memory
            .read(self.layout.data(self.index, slot), &mut data);
        Ok(Some(data))
    }

    fn at(&self, slot: u16) -> u64 {
        self.layout.slot(self.index, slot)
    }
}

impl State {
    fn slot(&mut self, slot: u16) -> &mut Slot {
        let found = self.slots.get_mut(usize::from(slot));
        found.expect("invariant: slots are counted by the depth")
    }

    fn release(&mut self, slot: u16) {
        *self.slot(slot) = Slot::Free;
        self.free.push(slot);
    }

    /// Takes every answer that is there.
    fn take_answers(&mut self) -> Result<(), VhostError> {
        while let Some(head) = self.ring.take()? {
            let slot = self.slots.get_mut(usize::from(head));
            match slot {
                Some(slot @ Slot::UnderWay(_)) => {
                    if let Slot::UnderWay(Some(waker)) = std::mem::replace(slot, Slot::Answered) {
                        waker.wake();
                    }
                }
                Some(Slot::GivenUp) => self.release(head),
                Some(Slot::Free | Slot::Answered) | None => {
                    return Err(VhostError::Protocol("an answer to no request"));
                }
            }
        }
        Ok(())
    }

    /// Fails every request that has no answer, and every later one.
    fn fail(&mut self, failure: VhostError) {
        self.failure.get_or_insert(failure);
        for slot in &mut self.slots {
            if let Slot::UnderWay(waker) = slot
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }
}

/// A request that is offered; dropping it leaves its slot to the answer.
struct Call<'a> {
    queue: &'a Queue,
    slot: u16,
    is_over: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.queue.state.borrow_mut();
        match state.slot(self.slot) {
            Slot::Answered => state.release(self.slot),
            slot => *slot = Slot::GivenUp,
        }
    }
}

/// Takes answers until the connection ends.
pub(super) async fn reap(queue: Rc<Queue>, mut watched: Readiness) {
    let failure = loop {
        let taken = queue.state.borrow_mut().take_answers();
        if let Err(failure) = taken {
            break failure;
        }
        if queue.state.borrow().ring.listen() {
            continue;
        }
        if let Err(failure) = queue.events.wait(&mut watched).await {
            // What came before it counts.
            let taken = queue.state.borrow_mut().take_answers();
            break taken.err().unwrap_or(failure);
        }
    };
    queue.state.borrow_mut().fail(failure);
}
