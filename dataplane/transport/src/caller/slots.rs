//! The calls in flight on one connection.
//!
//! *Place*: under a session. *Owner*: one session. *Invariants*: a slot is held from before its
//! request is queued until the reply is taken, or, if the call gave up, until the reply comes; it
//! holds a credit all that time, so the peer never sees more requests than it offered. A slot's
//! generation changes with every use. *On failure*: nothing fails here.

use crate::call_id::{CallId, GENERATION_MAX};
use crate::frame::Frame;
use ogee_runtime::Instant;
use ogee_runtime::channel::Permit;
use std::task::{Context, Poll, Waker};

/// The calls in flight on one connection. Grows to the number of credits and stays.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    deadline: Option<Instant>,
    state: State,
    /// The credit.
    permit: Option<Permit>,
}

enum State {
    Free,
    Waiting(Option<Waker>),
    Expired,
    Done(Frame),
    /// Nobody waits; the reply is still to come.
    GivenUp,
}

/// What a call finds in its slot.
pub(super) enum Found {
    /// The reply. The slot is free again.
    Reply(Frame),
    /// The time is over. The slot waits for the late reply.
    Expired,
}

impl Slots {
    /// Takes a slot.
    pub(super) fn insert(&mut self, permit: Permit, deadline: Instant) -> CallId {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = &mut self.slots[index as usize];
        slot.deadline = Some(deadline);
        slot.state = State::Waiting(None);
        slot.permit = Some(permit);
        CallId {
            generation: slot.generation,
            slot: index,
        }
    }

    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.slots.len()).expect("credits are counted in 32 bits");
        self.slots.push(Slot {
            generation: 1,
            deadline: None,
            state: State::Free,
            permit: None,
        });
        index
    }

    /// Gives a slot back whose request was not sent.
    pub(super) fn remove(&mut self, id: CallId) -> Permit {
        let permit = self.release(id);
        permit.expect("a call's slot holds its credit")
    }

    /// What has become of a call.
    pub(super) fn poll(&mut self, id: CallId, cx: &Context<'_>) -> Poll<Found> {
        let slot = self
            .get(id)
            .expect("a call's slot is its own until it has given up");
        match std::mem::replace(&mut slot.state, State::GivenUp) {
            State::Done(frame) => {
                drop(self.release(id));
                Poll::Ready(Found::Reply(frame))
            }
            State::Expired => Poll::Ready(Found::Expired),
            State::Waiting(_) => {
                slot.state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Free | State::GivenUp => unreachable!("a call is polled while it waits"),
        }
    }

    /// The call's future is gone: a reply that has come is dropped, one to come will be.
    pub(super) fn give_up(&mut self, id: CallId) {
        let Some(slot) = self.get(id) else { return };
        slot.deadline = None;
        if matches!(
            std::mem::replace(&mut slot.state, State::GivenUp),
            State::Done(_)
        ) {
            drop(self.release(id));
        }
    }

    /// A reply has come. Whether anybody waited for it.
    pub(super) fn complete(&mut self, id: CallId, frame: Frame) -> bool {
        let Some(slot) = self.get(id) else {
            return false;
        };
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting(waker) => {
                slot.state = State::Done(frame);
                slot.deadline = None;
                waker.into_iter().for_each(Waker::wake);
                true
            }
            // Late, but its call has not looked yet.
            State::Expired => {
                slot.state = State::Done(frame);
                true
            }
            State::GivenUp => {
                drop(self.release(id));
                false
            }
            // A second reply: the first stands.
            state @ (State::Done(_) | State::Free) => {
                slot.state = state;
                false
            }
        }
    }

    /// Expires every call whose time is over; returns the next deadline.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for slot in &mut self.slots {
            let Some(deadline) = slot.deadline else {
                continue;
            };
            if deadline > now {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            } else if let State::Waiting(waker) = &mut slot.state {
                let waker = waker.take();
                slot.state = State::Expired;
                slot.deadline = None;
                waker.into_iter().for_each(Waker::wake);
            }
        }
        next
    }

    /// Wakes every call: the connection is gone.
    pub(super) fn wake_all(&mut self) {
        for slot in &mut self.slots {
            if let State::Waiting(waker) = &mut slot.state {
                waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    fn get(&mut self, id: CallId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|slot| slot.generation == id.generation && slot.permit.is_some())
    }

    fn release(&mut self, id: CallId) -> Option<Permit> {
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation % GENERATION_MAX + 1;
        slot.deadline = None;
        slot.state = State::Free;
        self.free.push(id.slot);
        slot.permit.take()
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Slots};
    use crate::frame::Frame;
    use ogee_proto::id::RequestId;
    use ogee_proto::wire::{FrameHeader, FrameKind};
    use ogee_runtime::channel::Semaphore;
    use ogee_runtime::executor::block_on;
    use ogee_runtime::now;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    fn reply() -> Frame {
        Frame::new(FrameHeader::new(FrameKind::Reply, RequestId::new(0)))
    }

    #[test]
    fn a_late_reply_returns_the_credit_and_reaches_nobody_else() {
        block_on(async {
            let (credits, mut slots) = (Semaphore::new(1), Slots::default());
            let cx = Context::from_waker(Waker::noop());
            let first = slots.insert(credits.try_acquire(1).unwrap(), now());
            assert!(slots.poll(first, &cx).is_pending());
            assert_eq!(slots.expire(now() + Duration::from_secs(1)), None);
            assert!(matches!(
                slots.poll(first, &cx),
                Poll::Ready(Found::Expired)
            ));
            slots.give_up(first);
            assert!(
                credits.try_acquire(1).is_none(),
                "the peer still works on it"
            );
            assert!(!slots.complete(first, reply()));

            let second = slots.insert(credits.try_acquire(1).unwrap(), now());
            assert_eq!(
                (first.slot, first.generation + 1),
                (second.slot, second.generation)
            );
            assert!(!slots.complete(first, reply()), "a stale id finds nobody");
            assert!(slots.complete(second, reply()));
            assert!(
                !slots.complete(second, reply()),
                "a second reply is dropped"
            );
            assert!(matches!(
                slots.poll(second, &cx),
                Poll::Ready(Found::Reply(_))
            ));
            assert!(credits.try_acquire(1).is_some());
        });
    }

    #[test]
    fn expire_names_the_next_deadline() {
        block_on(async {
            let (credits, mut slots) = (Semaphore::new(3), Slots::default());
            let start = now();
            for seconds in [3, 1, 2] {
                let permit = credits.try_acquire(1).unwrap();
                slots.insert(permit, start + Duration::from_secs(seconds));
            }
            for seconds in 1..=2 {
                let at = start + Duration::from_secs(seconds);
                assert_eq!(slots.expire(at), Some(at + Duration::from_secs(1)));
            }
        });
    }
}
