//! Numbers handed out in order and given back in any order.
//!
//! *Place*: under `session` (sequence numbers) and `barrier` (what a flush waits for).
//! *Owner*: whoever embeds it; no task, no clock.
//! *Invariants*: every number below [`Ledger::low`] is closed, `low` itself is not; a number is
//! closed once.
//! *On failure*: closing a number twice, or one never opened, is a bug and stops the process.

use std::collections::VecDeque;

/// Open and closed numbers from `low` on.
#[derive(Debug)]
pub(crate) struct Ledger {
    low: u64,
    closed: VecDeque<bool>,
}

impl Ledger {
    /// An empty ledger whose first number will be `first`.
    pub(crate) const fn new(first: u64) -> Self {
        Self {
            low: first,
            closed: VecDeque::new(),
        }
    }

    /// Hands out the next number.
    pub(crate) fn open(&mut self) -> u64 {
        let number = self.next();
        self.closed.push_back(false);
        number
    }

    /// Takes `number` back; true when [`Self::low`] moved.
    ///
    /// # Panics
    /// When the number is not open: its exactly-once bookkeeping would be lost.
    pub(crate) fn close(&mut self, number: u64) -> bool {
        let at = number
            .checked_sub(self.low)
            .and_then(|at| usize::try_from(at).ok());
        let slot = at.and_then(|at| self.closed.get_mut(at));
        let slot = slot.expect("invariant: only an open number is closed");
        assert!(!*slot, "invariant: number {number} is closed once");
        *slot = true;
        let before = self.low;
        while self.closed.front() == Some(&true) {
            self.closed.pop_front();
            self.low += 1;
        }
        self.low != before
    }

    /// The lowest number that is not closed: open, or the next to be handed out.
    pub(crate) const fn low(&self) -> u64 {
        self.low
    }

    /// The next number to be handed out.
    pub(crate) fn next(&self) -> u64 {
        self.low + self.closed.len() as u64
    }

    /// Numbers from the lowest open one to the newest, both counted.
    pub(crate) fn span(&self) -> u64 {
        self.closed.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn starts_empty() {
        let ledger = Ledger::new(1);
        assert_eq!((ledger.low(), ledger.next(), ledger.span()), (1, 1, 0));
    }

    #[test]
    #[should_panic(expected = "closed once")]
    fn a_second_close_is_a_bug() {
        let mut ledger = Ledger::new(1);
        let (_, second) = (ledger.open(), ledger.open());
        ledger.close(second);
        ledger.close(second);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec(any::<Option<u8>>(), 1..400)) {
            let mut ledger = Ledger::new(1);
            let (mut open, mut newest) = (BTreeSet::new(), 0);
            for step in steps {
                match step {
                    None => {
                        newest += 1;
                        prop_assert_eq!(ledger.open(), newest);
                        open.insert(newest);
                    }
                    Some(pick) if !open.is_empty() => {
                        let number = *open.iter().nth(usize::from(pick) % open.len()).unwrap();
                        let was_low = open.first() == Some(&number);
                        open.remove(&number);
                        prop_assert_eq!(ledger.close(number), was_low);
                    }
                    Some(_) => {}
                }
                let low = open.first().copied().unwrap_or(newest + 1);
                prop_assert_eq!(ledger.low(), low);
                prop_assert_eq!(ledger.span(), newest + 1 - low);
            }
        }
    }
}
