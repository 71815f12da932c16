//! Seeded choices of the simulation itself, apart from those of the engine.
//!
//! *Place*: under every other module here. *Owner*: whoever made it. *Invariants*: `SplitMix64`, so a
//! seed means the same choices on every machine. *On failure*: none.

use std::ops::Range;
use std::time::Duration;

/// A generator.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another generator, independent of this one from now on.
    pub const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `bound`, which is not zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index below `bound`, which is not zero.
    ///
    /// # Panics
    /// Never: a remainder of an index is one.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("invariant: below an index")
    }

    /// True once in `odds` times.
    pub const fn once_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// A time in a range of milliseconds.
    pub const fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(range.start * 1000 + self.below((range.end - range.start) * 1000))
    }

    /// In any order.
    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        for last in (1..of.len()).rev() {
            let other = self.index(last + 1);
            of.swap(last, other);
        }
    }
}
