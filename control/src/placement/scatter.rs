//! Scatter width: with how many others a device shares copysets.
//!
//! The more there are, the more devices copy when one is lost, and the sooner it is made good; and the more likely it is
//! that devices that die at once are all the replicas of some copyset. `docs/architecture.md` has the numbers.

use std::collections::BTreeMap;

use ogee_proto::id::StoreId;

/// Who shares copysets with whom, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scatter {
    peers: BTreeMap<StoreId, BTreeMap<StoreId, u32>>,
    sets: BTreeMap<Vec<StoreId>, u32>,
}

/// What there is to know of a pool's scatter. Of the devices that carry anything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Width {
    /// Of the device that has fewest.
    pub least: usize,
    /// Of all.
    pub mean: f64,
    /// Of the one that has most.
    pub most: usize,
    /// Different sets of devices that carry copysets.
    pub sets: usize,
}

impl Scatter {
    /// Of copysets, each by the stores of its replicas.
    pub fn of<I: IntoIterator<Item = StoreId>>(copysets: impl IntoIterator<Item = I>) -> Self {
        let mut scatter = Self::default();
        for copyset in copysets {
            scatter.add(copyset.into_iter().collect());
        }
        scatter
    }

    fn add(&mut self, mut stores: Vec<StoreId>) {
        stores.sort_unstable();
        for store in &stores {
            let peers = self.peers.entry(*store).or_default();
            for other in stores.iter().filter(|other| *other != store) {
                *peers.entry(*other).or_default() += 1;
            }
        }
        *self.sets.entry(stores).or_default() += 1;
    }

    fn remove(&mut self, mut stores: Vec<StoreId>) {
        stores.sort_unstable();
        let Some(copysets) = self.sets.get_mut(&stores) else {
            return;
        };
        *copysets -= 1;
        if *copysets == 0 {
            self.sets.remove(&stores);
        }
        for store in &stores {
            let Some(peers) = self.peers.get_mut(store) else {
                continue;
            };
            for other in stores.iter().filter(|other| *other != store) {
                if let Some(together) = peers.get_mut(other) {
                    *together -= 1;
                }
            }
            peers.retain(|_, together| *together > 0);
        }
    }

    /// A replica beside those goes from one device to another.
    pub fn shift(&mut self, from: StoreId, to: StoreId, beside: &[StoreId]) {
        let with = |store| [beside, &[store]].concat();
        self.remove(with(from));
        self.add(with(to));
    }

    /// Others that it shares copysets with.
    #[must_use]
    pub fn width(&self, store: StoreId) -> usize {
        self.peers.get(&store).map_or(0, BTreeMap::len)
    }

    /// Copysets that two share.
    #[must_use]
    pub fn together(&self, one: StoreId, other: StoreId) -> u32 {
        let peers = self.peers.get(&one);
        let count = peers.and_then(|peers| peers.get(&other));
        count.copied().unwrap_or(0)
    }

    /// Of all.
    #[must_use]
    pub fn summary(&self) -> Width {
        // One that has given all away carries nothing.
        let widths = || self.peers.values().map(BTreeMap::len).filter(|it| *it > 0);
        let sum: usize = widths().sum();
        Width {
            least: widths().min().unwrap_or(0),
            mean: ratio(sum, widths().count()),
            most: widths().max().unwrap_or(0),
            sets: self.sets.len(),
        }
    }

    /// What speaks against a replica on `to` beside those: less is better. While one of two is below the pool's width,
    /// their meeting is wanted; when both have it, a further one only makes losses likelier.
    #[must_use]
    pub fn cost_of_joining(
        &self,
        to: StoreId,
        beside: impl IntoIterator<Item = StoreId>,
        wanted: usize,
    ) -> i64 {
        let need = |store| i64::from(self.width(store) < wanted);
        let meeting = |other| match (self.together(to, other), need(to) + need(other)) {
            (1.., _) => 0,
            (0, 0) => 1,
            (0, needs) => -needs,
        };
        beside.into_iter().map(meeting).sum()
    }

    /// How many devices would be further below the pool's width if a replica beside those went from one device to the other.
    #[must_use]
    pub fn harm_of_moving(
        &self,
        (from, to): (StoreId, StoreId),
        beside: &[StoreId],
        wanted: usize,
    ) -> usize {
        let lost = |other: &&StoreId| self.together(from, **other) == 1;
        let gained = |other: &&StoreId| self.together(to, **other) == 0;
        let is_harmed =
            |other: &&StoreId| lost(other) && !gained(other) && self.width(**other) <= wanted;
        let harmed = beside.iter().filter(is_harmed).count();
        let left = self.width(from) - beside.iter().filter(lost).count().min(self.width(from));
        harmed + usize::from(left < wanted.min(self.width(from)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of devices")]
fn ratio(sum: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { sum as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(at: u8) -> StoreId {
        StoreId::from_bytes([at; 16])
    }

    fn scatter(sets: &[[u8; 3]]) -> Scatter {
        Scatter::of(sets.iter().map(|set| set.map(store)))
    }

    #[test]
    fn widths_count_others_once_however_many_copysets_they_share() {
        let scatter = scatter(&[[1, 2, 3], [3, 2, 1], [1, 2, 4]]);
        let widths = [1, 2, 3, 4, 5].map(|at| scatter.width(store(at)));
        assert_eq!(widths, [3, 3, 2, 2, 0]);
        assert_eq!(scatter.together(store(1), store(2)), 3);
        let width = Width {
            least: 2,
            mean: 2.5,
            most: 3,
            sets: 2,
        };
        assert_eq!(scatter.summary(), width);
        assert_eq!(Scatter::default().summary(), Width::default());
    }

    #[test]
    fn new_meetings_are_wanted_until_the_width_is_there() {
        let scatter = scatter(&[[1, 2, 3], [4, 5, 6]]);
        let cost = |wanted| scatter.cost_of_joining(store(1), [2, 5].map(store), wanted);
        // 1 and 2 have met; 1 and 5 have not, and each has two peers.
        assert_eq!(cost(3), -2);
        assert_eq!(cost(2), 1);
    }

    #[test]
    fn a_move_harms_whoever_loses_a_peer_and_has_none_to_spare() {
        let scatter = scatter(&[[1, 2, 3], [1, 2, 4], [2, 3, 5]]);
        // 3 loses 1 and meets 4; 1 loses 3, keeps 2 and 4.
        let harm =
            |wanted| scatter.harm_of_moving((store(1), store(4)), &[2, 3].map(store), wanted);
        assert_eq!(harm(2), 0);
        assert_eq!(harm(3), 1, "1 has two of three left");
        // 2 keeps 1 by the other copyset; 4 loses 1 and 2 alike.
        // Nobody meets anybody new: 4 has no peer left, and 1 one fewer.
        let harm =
            |wanted| scatter.harm_of_moving((store(4), store(3)), &[1, 2].map(store), wanted);
        assert_eq!((harm(2), harm(3)), (1, 2));
    }

    #[test]
    fn what_was_moved_is_as_if_it_had_been_made_there() {
        let mut moved = scatter(&[[1, 2, 3], [1, 2, 4], [1, 2, 3]]);
        moved.shift(store(3), store(5), &[2, 1].map(store));
        let mut made = scatter(&[[1, 2, 5], [1, 2, 4], [1, 2, 3]]);
        assert_eq!(moved, made);
        moved.shift(store(3), store(5), &[1, 2].map(store));
        made = scatter(&[[1, 2, 5], [1, 2, 4], [5, 2, 1]]);
        assert_eq!(
            (moved.summary(), moved.width(store(3))),
            (made.summary(), 0)
        );
    }
}
