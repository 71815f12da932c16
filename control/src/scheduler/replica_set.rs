//! Many replicas, by their numbers.
//!
//! Numbers are issued one after another, so that those of a cluster lie close together: a bit each, in pages,
//! takes a hundredth of what a set of numbers takes, and is looked up as much faster.

use std::collections::BTreeMap;

use ogee_proto::id::ReplicaId;

/// Words of a page.
const WORDS: usize = 8;

/// A set of replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaSet {
    pages: BTreeMap<u64, [u64; WORDS]>,
}

impl ReplicaSet {
    pub(crate) fn insert(&mut self, id: ReplicaId) {
        let (page, word, bit) = place(id);
        if let Some(word) = self.pages.entry(page).or_default().get_mut(word) {
            *word |= bit;
        }
    }

    pub(crate) fn contains(&self, id: &ReplicaId) -> bool {
        let (page, word, bit) = place(*id);
        let page = self.pages.get(&page);
        page.and_then(|page| page.get(word))
            .is_some_and(|word| word & bit != 0)
    }
}

/// Its page, and word and bit in it.
const fn place(id: ReplicaId) -> (u64, usize, u64) {
    let number = id.get();
    let (bits, words) = (u64::BITS as u64, WORDS as u64);
    // Below the number of words.
    #[expect(clippy::cast_possible_truncation, reason = "below eight")]
    let word = (number / bits % words) as usize;
    (number / bits / words, word, 1 << (number % bits))
}

#[cfg(test)]
mod tests {
    use super::ReplicaSet;
    use ogee_proto::id::ReplicaId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn holds_what_was_put_in_and_nothing_else(
            near in prop::collection::vec(0u64..2000, 0..100), far in prop::collection::vec(any::<u64>(), 0..10),
            asked in prop::collection::vec(0u64..2000, 0..100),
        ) {
            let ids: BTreeSet<u64> = near.into_iter().chain(far).collect();
            let mut set = ReplicaSet::default();
            ids.iter().for_each(|id| set.insert(ReplicaId::new(*id)));
            for id in ids.iter().chain(&asked) {
                prop_assert_eq!(set.contains(&ReplicaId::new(*id)), ids.contains(id));
            }
        }
    }
}
