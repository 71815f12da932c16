//! What hardware has, by the number that its completion will carry.
//!
//! *Place*: in a rail, one for sends and one for receives. *Owner*: the rail. *Invariants*: a number is not
//! used again for 2^32 uses of its slot, so a completion that comes after its entry is gone (its pair was destroyed) finds nothing.
//! *On failure*: a full ledger gives the value back.

/// Entries that are with the hardware.
pub(crate) struct Ledger<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: u32,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Ledger<T> {
    /// An empty ledger of so many entries.
    pub(crate) const fn new(limit: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    /// Enters `value`; its number.
    pub(crate) fn enter(&mut self, value: T) -> Result<u64, T> {
        let at = match self.free.pop() {
            Some(at) => at,
            None => match u32::try_from(self.slots.len()) {
                Ok(at) if at < self.limit => {
                    self.slots.push(Slot {
                        generation: 0,
                        value: None,
                    });
                    at
                }
                _ => return Err(value),
            },
        };
        let slot = &mut self.slots[at as usize];
        slot.value = Some(value);
        Ok(u64::from(slot.generation) << 32 | u64::from(at))
    }

    /// Takes the entry out.
    pub(crate) fn take(&mut self, number: u64) -> Option<T> {
        let (generation, at) = split(number);
        let slot = self.slots.get_mut(at as usize)?;
        if slot.generation != generation {
            return None;
        }
        let value = slot.value.take()?;
        self.retire(at);
        Some(value)
    }

    /// Takes out all entries that `is_meant`.
    pub(crate) fn take_all(&mut self, mut is_meant: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if slot.value.as_ref().is_some_and(&mut is_meant) {
                taken.extend(slot.value.take());
                self.retire(u32::try_from(at).expect("invariant: at most `limit` slots"));
            }
        }
        taken
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn retire(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(at);
    }
}

fn split(number: u64) -> (u32, u32) {
    let bytes = number.to_be_bytes();
    let half = |at: usize| {
        let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        u32::from_be_bytes(four)
    };
    (half(0), half(4))
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn a_number_names_one_entry_for_ever() {
        let mut ledger = Ledger::new(2);
        let first = ledger.enter('a').expect("room");
        let second = ledger.enter('b').expect("room");
        assert_eq!(ledger.enter('c'), Err('c'));
        assert_eq!(ledger.take(first), Some('a'));
        assert_eq!(ledger.take(first), None);
        let third = ledger.enter('c').expect("room");
        assert_ne!(first, third);
        assert_eq!(ledger.take(first), None, "its place is another's");
        assert_eq!(ledger.take(third ^ 1 << 40), None);
        assert_eq!(ledger.take(u64::MAX), None);
        assert_eq!(ledger.len(), 2);
        assert_eq!(ledger.take_all(|value| *value == 'b'), ['b']);
        assert_eq!((ledger.take(second), ledger.take(third)), (None, Some('c')));
        assert_eq!(ledger.len(), 0);
    }
}
