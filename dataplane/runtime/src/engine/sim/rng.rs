//! The generator behind every choice of a simulated world.
//!
//! **Place.** Inside the world. **Owner.** The world. **Invariants.** `SplitMix64`, spelled out here
//! so that a seed means the same run after every upgrade of a library. **Failure.** None.

/// Weyl constant of `SplitMix64`: the odd number nearest to 2^64 over the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug)]
pub(super) struct Rng {
    state: u64,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero. The bias is below one in 2^32 for our bounds.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("invariant: usize is at most 64 bits");
        usize::try_from(self.next() % bound).expect("invariant: below a usize")
    }
}
