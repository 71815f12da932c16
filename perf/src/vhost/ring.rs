//! A split ring, from the driver's side.
//!
//! *Place*: under `queue`. *Owner*: one queue. *Invariants*: a request is offered behind what describes it; its head is the
//! number of its slot, so there are no more of them than places. *On failure*: an answer that names no place is
//! [`VhostError::Protocol`].
//!
//! virtio 1.2, section 2.7.

use super::error::VhostError;
use super::layout::{DESCRIPTOR_LEN, RingPlace, USED_LEN};
use super::memory::Memory;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Flag of the used part: the server looks by itself.
const NO_NOTIFY: u16 = 1;

/// A stretch of memory that a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) len: u32,
    /// The server writes it, or reads it.
    pub(super) is_written: bool,
}

/// See the module.
pub(super) struct Ring {
    memory: Rc<Memory>,
    place: RingPlace,
    has_event_index: bool,
    next: u16,
    seen: u16,
}

impl Ring {
    pub(super) const fn new(memory: Rc<Memory>, place: RingPlace, has_event_index: bool) -> Self {
        Self {
            memory,
            place,
            has_event_index,
            next: 0,
            seen: 0,
        }
    }

    /// Offers the request of slot `head`, made of `parts` that are described at `table`; whether the server is to be told.
    pub(super) fn offer(&mut self, head: u16, table: u64, parts: &[Part]) -> bool {
        let memory = &self.memory;
        let last = parts.len() - 1;
        for (at, part) in parts.iter().enumerate() {
            let next = u16::try_from(at + 1).expect("invariant: three parts");
            let (flags, next) = if at < last { (NEXT, next) } else { (0, 0) };
            let flags = flags | if part.is_written { WRITE } else { 0 };
            let raw = descriptor(part.at, part.len, flags, next);
            memory.write(table + DESCRIPTOR_LEN * at as u64, &raw);
        }
        let len = u32::try_from(parts.len()).expect("invariant: three parts") * 16;
        let place = self.place;
        let in_ring = place.table + DESCRIPTOR_LEN * u64::from(head);
        memory.write(in_ring, &descriptor(table, len, INDIRECT, 0));
        let at = u64::from(self.next % place.size);
        memory.store(place.available + 4 + 2 * at, head);
        self.next = self.next.wrapping_add(1);
        // Behind all of that.
        memory.store(place.available + 2, self.next);
        // The server says what it wants to hear before it looks for the last time, we the other way round.
        fence(Ordering::SeqCst);
        if !self.has_event_index {
            return memory.load(place.used) & NO_NOTIFY == 0;
        }
        let event = memory.load(place.used + 4 + USED_LEN * u64::from(place.size));
        self.next.wrapping_sub(event).wrapping_sub(1) < 1
    }

    /// The next answer: the slot of its request.
    pub(super) fn take(&mut self) -> Result<Option<u16>, VhostError> {
        let place = self.place;
        if self.memory.load(place.used + 2) == self.seen {
            return Ok(None);
        }
        let at = place.used + 4 + USED_LEN * u64::from(self.seen % place.size);
        let mut head = [0; 4];
        self.memory.read(at, &mut head);
        self.seen = self.seen.wrapping_add(1);
        let head = u16::try_from(u32::from_le_bytes(head)).ok();
        let head = head.filter(|head| *head < place.size);
        let head = head.ok_or(VhostError::Protocol("an answer outside of the ring"))?;
        Ok(Some(head))
    }

    /// Asks to be told of the next answer; whether there is one already.
    pub(super) fn listen(&self) -> bool {
        let place = self.place;
        if self.has_event_index {
            let at = place.available + 4 + 2 * u64::from(place.size);
            self.memory.store(at, self.seen);
        }
        fence(Ordering::SeqCst);
        self.memory.load(place.used + 2) != self.seen
    }
}

fn descriptor(at: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&at.to_le_bytes());
    raw[8..12].copy_from_slice(&len.to_le_bytes());
    raw[12..14].copy_from_slice(&flags.to_le_bytes());
    raw[14..].copy_from_slice(&next.to_le_bytes());
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: RingPlace = RingPlace {
        size: 8,
        table: 0,
        available: 128,
        used: 192,
    };

    fn ring(has_event_index: bool) -> (Rc<Memory>, Ring) {
        let memory = Rc::new(Memory::shared(4096).unwrap().0);
        let ring = Ring::new(Rc::clone(&memory), PLACE, has_event_index);
        (memory, ring)
    }

    fn answer(memory: &Memory, index: u16, head: u32) {
        let at = PLACE.used + 4 + 8 * u64::from(index % 8);
        memory.write(at, &head.to_le_bytes());
        memory.store(PLACE.used + 2, index.wrapping_add(1));
    }

    const PARTS: [Part; 2] = [
        Part {
            at: 1024,
            len: 16,
            is_written: false,
        },
        Part {
            at: 1040,
            len: 1,
            is_written: true,
        },
    ];

    #[test]
    fn a_request_is_described_and_offered() {
        let (memory, mut ring) = ring(true);
        assert!(ring.offer(5, 2048, &PARTS), "nobody has looked yet");
        assert_eq!(
            (
                memory.load(PLACE.available + 2),
                memory.load(PLACE.available + 4)
            ),
            (1, 5)
        );
        let mut raw = [0; 16];
        memory.read(PLACE.table + 5 * 16, &mut raw);
        assert_eq!(raw, descriptor(2048, 32, INDIRECT, 0));
        memory.read(2048, &mut raw);
        assert_eq!(raw, descriptor(1024, 16, NEXT, 1));
        memory.read(2064, &mut raw);
        assert_eq!(raw, descriptor(1040, 1, WRITE, 0));
    }

    #[test]
    fn the_server_is_told_when_it_wants_to_be() {
        let (memory, mut ring) = ring(true);
        assert!(ring.offer(0, 2048, &PARTS));
        // It has asked for the first only.
        assert!(!ring.offer(1, 2048, &PARTS));
        memory.store(PLACE.used + 4 + 64, 2);
        assert!(ring.offer(2, 2048, &PARTS));
        let (memory, mut ring) = self::ring(false);
        assert!(ring.offer(0, 2048, &PARTS));
        memory.store(PLACE.used, NO_NOTIFY);
        assert!(!ring.offer(1, 2048, &PARTS));
    }

    #[test]
    fn answers_come_once_each_also_round_the_end() {
        let (memory, mut ring) = ring(true);
        for index in 0..20 {
            assert!(ring.take().unwrap().is_none());
            assert!(!ring.listen());
            assert_eq!(memory.load(PLACE.available + 4 + 16), index);
            answer(&memory, index, u32::from(index % 8));
            assert!(ring.listen());
            assert_eq!(ring.take().unwrap(), Some(index % 8));
        }
        for wrong in [8, u32::from(u16::MAX) + 1, u32::MAX] {
            let (memory, mut ring) = self::ring(true);
            answer(&memory, 0, wrong);
            assert!(matches!(ring.take(), Err(VhostError::Protocol(_))));
        }
    }
}
