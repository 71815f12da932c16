//! What each place must hold.
//!
//! *Place*: consulted around each request of a verifying run.
//! *Owner*: the run; plain cells.
//! *Invariants*: one request at a time per place, so the last acknowledged write is the one to
//! find. A place that this run has not written may hold anything.
//! *On failure*: a mismatch ends the run.

use crate::address::Place;
use std::cell::RefCell;

/// The places of a verifying run.
pub(crate) struct Memory {
    places: RefCell<Vec<State>>,
}

#[derive(Clone, Copy, Default)]
struct State {
    busy: bool,
    written: u64,
}

impl Memory {
    /// Nothing written.
    pub(crate) fn new(places: u64) -> Self {
        let places = usize::try_from(places).expect("invariant: bounded by VERIFY_SLOTS_MAX");
        Self {
            places: RefCell::new(vec![State::default(); places]),
        }
    }

    /// The first free place from `wanted` on, round the end; now busy.
    pub(crate) fn claim(&self, wanted: Place) -> Place {
        let mut places = self.places.borrow_mut();
        let count = places.len();
        let first = usize::try_from(wanted).expect("invariant: a place of the plan");
        let mut order = (first..count).chain(0..first);
        let free = order.find(|at| places.get(*at).is_some_and(|place| !place.busy));
        let free = free.expect("invariant: there are at least as many places as lanes");
        if let Some(place) = places.get_mut(free) {
            place.busy = true;
        }
        free as u64
    }

    /// Frees a place; `written` if it holds a newer write now.
    pub(crate) fn release(&self, place: Place, written: Option<u64>) {
        let at = usize::try_from(place).expect("invariant: a place of the plan");
        if let Some(state) = self.places.borrow_mut().get_mut(at) {
            state.busy = false;
            state.written = written.unwrap_or(state.written);
        }
    }

    /// The number of the write that `place` must hold.
    pub(crate) fn written(&self, place: Place) -> Option<u64> {
        let at = usize::try_from(place).ok()?;
        let state = self.places.borrow().get(at).copied()?;
        Some(state.written).filter(|written| *written > 0)
    }

    /// The next place from `from` on that this run has written.
    pub(crate) fn next_written(&self, from: Place) -> Option<Place> {
        let places = self.places.borrow();
        let from = usize::try_from(from).ok()?;
        let rest = places.get(from..)?;
        rest.iter()
            .position(|state| state.written > 0)
            .map(|at| (from + at) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_place_is_passed_over() {
        let memory = Memory::new(3);
        assert_eq!(
            [memory.claim(1), memory.claim(1), memory.claim(1)],
            [1, 2, 0]
        );
        memory.release(2, Some(9));
        assert_eq!(memory.claim(0), 2);
        assert_eq!(memory.written(2), Some(9));
        memory.release(2, None);
        assert_eq!(memory.written(2), Some(9), "a read leaves the number alone");
        assert_eq!(
            (memory.next_written(0), memory.next_written(3)),
            (Some(2), None)
        );
    }
}
