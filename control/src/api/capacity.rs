//! How much pools hold, and how much they could.
//!
//! What a pool may be on is shared with every other pool that may be there, so room is what there is now, not what is kept for
//! it. *Invariant*: nothing is counted that no replica could be on: what is failed, offline, declared lost or of another class.

use std::collections::BTreeMap;

use ogee_proto::name::Name;
use ogee_proto::service::PoolInfo;

use super::info::Scene;
use super::jobs::picture;
use crate::scheduler::{Bytes, Presence};
use crate::state::Mark;

/// Bytes that pools have, each as its class allows.
pub(super) fn add(scene: &Scene<'_>, pools: &mut [PoolInfo]) {
    let picture = picture(scene);
    let bytes = Bytes::of(scene.state, &picture);
    for info in pools {
        let Ok((id, pool)) = scene.state.pool(&info.name) else {
            continue;
        };
        let mut zones: BTreeMap<&Name, (u64, u64)> = BTreeMap::new();
        for (store, place) in &picture.places {
            let is_there =
                !matches!(place.presence, Presence::Away { .. }) && place.mark != Some(Mark::Lost);
            let zone = scene.state.zone_of(place.chunkserver);
            let Some(zone) = zone.filter(|_| is_there && scene.state.is_of_class(*store, id))
            else {
                continue;
            };
            let (capacity, free) = zones.entry(zone).or_default();
            *capacity = capacity.saturating_add(place.capacity);
            *free = free.saturating_add(place.capacity.saturating_sub(place.used));
        }
        let sum = |of: fn(&(u64, u64)) -> u64| {
            let all = zones.values().map(of);
            all.fold(0, u64::saturating_add)
        };
        info.raw = sum(|it| it.0);
        info.raw_used = info.raw.saturating_sub(sum(|it| it.1));
        let replicas = usize::from(pool.replicas);
        info.usable = usable(zones.values().map(|it| it.0).collect(), replicas);
        info.usable_free = usable(zones.values().map(|it| it.1).collect(), replicas);
        let copysets = pool.copysets.iter();
        let copysets = copysets.filter_map(|id| Some((*id, scene.state.copysets().get(id)?)));
        let used = copysets.map(|(id, copyset)| bytes.of_one(id, copyset));
        info.used = used.fold(0, u64::saturating_add);
    }
}

/// Bytes that fit so many times, each time in another one of zones of these sizes.
fn usable(mut zones: Vec<u64>, replicas: usize) -> u64 {
    zones.sort_unstable_by(|a, b| b.cmp(a));
    let mut rest = zones.iter().map(|it| u128::from(*it)).sum::<u128>();
    // A zone that is larger than what fits takes one of each; the others share what is left.
    for (larger, zone) in zones.iter().enumerate().take(replicas) {
        let fits = rest / (replicas - larger) as u128;
        if u128::from(*zone) <= fits {
            return u64::try_from(fits).unwrap_or(u64::MAX);
        }
        rest -= u128::from(*zone);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::usable;
    use proptest::prelude::*;

    #[test]
    fn what_fits_is_bounded_by_zones() {
        assert_eq!(usable(vec![100, 100, 100], 3), 100);
        assert_eq!(usable(vec![100, 100, 50], 3), 50, "each zone has a copy");
        assert_eq!(usable(vec![100, 100, 50, 50], 3), 100);
        assert_eq!(usable(vec![300, 10, 10], 1), 320);
        assert_eq!(usable(vec![1000, 60, 40, 20], 3), 60);
        assert_eq!(usable(vec![100, 100], 3), 0, "too few zones");
        assert_eq!(usable(vec![], 1), 0);
    }

    proptest! {
        /// So much can be cut into pieces of which each is in as many zones, and no more.
        #[test]
        fn it_is_the_most_for_which_zones_have_room(
            zones in prop::collection::vec(0u64..1000, 0..8), replicas in prop::sample::select(vec![1usize, 3, 5]),
        ) {
            let fits = |bytes: u64| {
                let room: u64 = zones.iter().map(|zone| bytes.min(*zone)).sum();
                room >= bytes * replicas as u64
            };
            let most = usable(zones.clone(), replicas);
            prop_assert!(fits(most));
            prop_assert!(!fits(most + 1));
        }
    }
}
