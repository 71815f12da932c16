//! Which numbered things are free.
//!
//! *Place*: under the extent and the page allocator. *Owner*: whoever holds it; synchronous.
//! *Invariants*: `free` equals the number of set bits; nothing below `low` is free.
//! *On failure*: releasing what is free already is a bug and panics, since the next two takers
//! would share it.

const WORD_BITS: u32 = u64::BITS;

/// A bitmap allocator over `0..len`, lowest first.
///
/// Lowest first keeps file-backed stores compact and neighbours together.
pub struct FreeMap {
    /// One bit per number, set when free.
    words: Vec<u64>,
    len: u32,
    free: u32,
    /// Nothing below this word is free.
    low: usize,
}

impl FreeMap {
    /// All of `0..len` free.
    pub fn new(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(WORD_BITS) as usize];
        let tail = len % WORD_BITS;
        if tail != 0
            && let Some(last) = words.last_mut()
        {
            *last = (1 << tail) - 1;
        }
        Self {
            words,
            len,
            free: len,
            low: 0,
        }
    }

    /// How many there are, free or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// How many are free.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Takes `index`; false if it is out of range or taken already.
    pub fn take_at(&mut self, index: u32) -> bool {
        let (word, bit) = split(index);
        let is_free = index < self.len && self.words[word] & bit != 0;
        if is_free {
            self.words[word] &= !bit;
            self.free -= 1;
        }
        is_free
    }

    /// Takes the lowest free number.
    pub fn take(&mut self) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        let word = (self.low..self.words.len()).find(|&word| self.words[word] != 0)?;
        self.low = word;
        let bit = self.words[word].trailing_zeros();
        self.words[word] &= self.words[word] - 1;
        self.free -= 1;
        Some(u32::try_from(word).expect("invariant: len is a u32") * WORD_BITS + bit)
    }

    /// Takes the lowest free number and those directly above it, at most `count_max`.
    ///
    /// Returns the first and how many.
    pub fn take_run(&mut self, count_max: u32) -> Option<(u32, u32)> {
        let first = self.take()?;
        let mut count = 1;
        while count < count_max && self.take_at(first + count) {
            count += 1;
        }
        Some((first, count))
    }

    /// Gives `index` back.
    ///
    /// # Panics
    /// When it was free: two owners would share it.
    pub fn release(&mut self, index: u32) {
        let (word, bit) = split(index);
        assert!(index < self.len, "released {index} of {}", self.len);
        assert!(self.words[word] & bit == 0, "released {index} twice");
        self.words[word] |= bit;
        self.free += 1;
        self.low = self.low.min(word);
    }
}

fn split(index: u32) -> (usize, u64) {
    ((index / WORD_BITS) as usize, 1 << (index % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn hands_out_each_number_once() {
        let mut map = FreeMap::new(130);
        let taken: Vec<u32> = std::iter::from_fn(|| map.take()).collect();
        assert_eq!(taken, (0..130).collect::<Vec<_>>());
        assert_eq!(map.free(), 0);
        map.release(77);
        assert_eq!(map.take(), Some(77));
        assert_eq!(map.take(), None);
    }

    #[test]
    fn out_of_range_is_never_free() {
        let mut map = FreeMap::new(64);
        assert!(!map.take_at(64));
        assert!(map.take_at(63));
        assert!(!map.take_at(63));
    }

    #[test]
    #[should_panic(expected = "released 3 twice")]
    fn double_release_is_a_bug() {
        FreeMap::new(8).release(3);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(ops in prop::collection::vec((0..4u8, 0..200u32), 1..300)) {
            let mut map = FreeMap::new(200);
            let mut free: BTreeSet<u32> = (0..200).collect();
            for (op, index) in ops {
                match op {
                    0 => prop_assert_eq!(map.take(), free.pop_first()),
                    1 => prop_assert_eq!(map.take_at(index), free.remove(&index)),
                    2 => if let Some((first, count)) = map.take_run(index % 9 + 1) {
                        prop_assert_eq!(free.first().copied(), Some(first));
                        for taken in first..first + count {
                            prop_assert!(free.remove(&taken));
                        }
                    },
                    _ => if free.insert(index) { map.release(index) },
                }
                prop_assert_eq!(map.free() as usize, free.len());
            }
        }
    }
}
