//! Whose turn it is: fair queueing by bytes, with weights.
//!
//! *Place*: inside a line; plain data. *Invariants*: of those who wait, each purpose gets bytes by its weight, whatever the
//! others want, and one that has not wanted anything has saved nothing up. Within a purpose, who came first goes
//! first. *On failure*: none.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1997): each purpose has the number of bytes for its weight that it has
//! had; the least one is next; one that comes back begins where the others are.

use std::collections::VecDeque;

/// What background work is for. The order is that of who goes first, all else being equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// A copy to a replica of a copyset that lacks one.
    Recovery,
    /// A copy of a replica that is only moved.
    Move,
    /// Replicas are compared.
    Compare,
    /// All that is stored is read, for what rots.
    Scrub,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Recovery, Self::Move, Self::Compare, Self::Scrub];

    const fn weight(self) -> u64 {
        match self {
            Self::Recovery => 8,
            Self::Move => 2,
            Self::Compare | Self::Scrub => 1,
        }
    }

    pub(super) const fn at(self) -> usize {
        self as usize
    }
}

/// Bytes count so many times, so that little is lost by rounding.
const SCALE: u64 = 8;

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: [VecDeque<u64>; 4],
    /// Where each purpose is.
    had: [u64; 4],
    /// Where the last one that went was.
    now: u64,
    issued: u64,
}

impl Turns {
    /// Another one; its number.
    pub(super) fn join(&mut self, purpose: Purpose) -> u64 {
        let at = purpose.at();
        if self.waiting[at].is_empty() {
            self.had[at] = self.had[at].max(self.now);
        }
        self.issued += 1;
        self.waiting[at].push_back(self.issued);
        self.issued
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> Option<u64> {
        let purposes = Purpose::ALL.iter().map(|purpose| purpose.at());
        let wanting = purposes.filter(|at| !self.waiting[*at].is_empty());
        let next = wanting.min_by_key(|at| (self.had[*at], *at))?;
        self.waiting[next].front().copied()
    }

    /// It goes, with so many bytes, wherever it stood.
    pub(super) fn goes(&mut self, purpose: Purpose, number: u64, bytes: usize) {
        self.leaves(purpose, number);
        self.now = self.now.max(self.had[purpose.at()]);
        self.count(purpose, bytes);
    }

    /// Bytes that went without a turn.
    pub(super) fn count(&mut self, purpose: Purpose, bytes: usize) {
        let had = &mut self.had[purpose.at()];
        *had = had.saturating_add(bytes as u64 * SCALE / purpose.weight());
    }

    /// It does not want any more, or has gone.
    pub(super) fn leaves(&mut self, purpose: Purpose, number: u64) {
        self.waiting[purpose.at()].retain(|it| *it != number);
    }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, Turns};
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use proptest::sample::select;

    const PIECE: usize = 128 << 10;

    /// Serves `rounds` times those of these purposes, each of which always wants something; bytes that each got.
    fn served(turns: &mut Turns, wanting: &[(Purpose, usize)], rounds: usize) -> [usize; 4] {
        let mut waiting: Vec<(u64, Purpose, usize)> = Vec::new();
        for (purpose, len) in wanting {
            waiting.push((turns.join(*purpose), *purpose, *len));
        }
        let mut got = [0; 4];
        for _ in 0..rounds {
            let next = turns.next().unwrap();
            let at = waiting.iter().position(|it| it.0 == next).unwrap();
            let (number, purpose, len) = waiting.remove(at);
            turns.goes(purpose, number, len);
            got[purpose.at()] += len;
            waiting.push((turns.join(purpose), purpose, len));
        }
        for (number, purpose, _) in waiting {
            turns.leaves(purpose, number);
        }
        got
    }

    #[test]
    fn a_recovery_comes_first_and_nobody_starves() {
        let wanting = Purpose::ALL.map(|purpose| (purpose, PIECE));
        let got = served(&mut Turns::default(), &wanting, 1200);
        let pieces = got.map(|bytes| bytes / PIECE);
        for (got, due) in pieces.iter().zip([800, 200, 100, 100]) {
            assert!(got.abs_diff(due) <= 8, "{pieces:?}");
        }
    }

    #[test]
    fn who_comes_back_has_saved_nothing_up() {
        let mut turns = Turns::default();
        served(&mut turns, &[(Purpose::Scrub, PIECE)], 1000);
        // Neither does a recovery that was not there get all of it, nor is scrubbing punished for what nobody else wanted.
        let got = served(
            &mut turns,
            &[(Purpose::Recovery, PIECE), (Purpose::Scrub, PIECE)],
            90,
        );
        assert!(got[Purpose::Scrub.at()] / PIECE >= 8, "{got:?}");
        assert!(got[Purpose::Recovery.at()] / PIECE >= 78, "{got:?}");
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut turns = Turns::default();
        let (first, second) = (turns.join(Purpose::Move), turns.join(Purpose::Move));
        assert_eq!(turns.next(), Some(first));
        turns.leaves(Purpose::Move, first);
        assert_eq!(turns.next(), Some(second));
        turns.goes(Purpose::Move, second, PIECE);
        assert_eq!(turns.next(), None);
    }

    proptest! {
        /// Two that always want something get bytes by their weights, whatever their pieces' lengths.
        #[test]
        fn shares_are_by_bytes(
            one in select(Purpose::ALL.to_vec()),
            other in select(Purpose::ALL.to_vec()),
            lens in (1..64usize, 1..64usize),
            before in vec((select(Purpose::ALL.to_vec()), 1..64usize), 0..20),
        ) {
            let mut turns = Turns::default();
            for (purpose, len) in before {
                served(&mut turns, &[(purpose, len << 12)], 3);
            }
            let (len, other_len) = (lens.0 << 12, lens.1 << 12);
            let got = served(&mut turns, &[(one, len), (other, other_len)], 2000);
            if one == other {
                prop_assert_eq!(got.iter().filter(|bytes| **bytes > 0).count(), 1);
                return Ok(());
            }
            let share = |of: Purpose| got[of.at()] as f64 / of.weight() as f64;
            // One piece of either, and what one was behind when the other came.
            let most = 3.0 * (64 << 12) as f64;
            prop_assert!((share(one) - share(other)).abs() <= most, "{got:?}");
        }
    }
}
