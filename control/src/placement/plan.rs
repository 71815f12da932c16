//! The greedy planner: each replica goes where the load in proportion to the weight is least.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ogee_proto::id::{ChunkserverId, StoreId};
use ogee_proto::name::Name;

use super::error::PlacementError;
use super::site::{Request, Site};
use crate::limit::REPLICAS_PER_STORE_DEFAULT;

/// Copysets that a pool gets when nobody says how many: enough for each store to carry a few
/// replicas, so that load and recovery spread, and few enough for the shards.
#[must_use]
pub fn default_copysets(sites: &[Site], replicas: usize) -> usize {
    (sites.len() * REPLICAS_PER_STORE_DEFAULT)
        .div_ceil(replicas.max(1))
        .max(1)
}

/// Chooses the stores of each copyset's replicas; the first is the preferred first leader.
///
/// # Errors
/// [`PlacementError::TooFewZones`].
pub fn plan(sites: &[Site], request: Request) -> Result<Vec<Vec<StoreId>>, PlacementError> {
    let mut planner = Planner::new(sites);
    if planner.zones.len() < request.replicas {
        return Err(PlacementError::TooFewZones {
            needed: request.replicas,
            zones: planner.zones.into_keys().cloned().collect(),
        });
    }
    Ok((0..request.copysets)
        .map(|_| planner.next_copyset(request.replicas))
        .collect())
}

/// Equally loaded stores of which the one is taken that meets the copyset's others least often.
const EQUALS_TRIED: usize = 8;

/// Load carried in proportion to a weight. Compared exactly, without division.
#[derive(Clone, Copy)]
struct Share {
    load: u64,
    weight: u64,
}

impl Share {
    /// Orders by the load after one more replica, over the weight.
    fn next_cmp(self, other: Self) -> std::cmp::Ordering {
        let (left, right) = (u128::from(self.load) + 1, u128::from(other.load) + 1);
        let left = left * u128::from(other.weight.max(1));
        left.cmp(&(right * u128::from(self.weight.max(1))))
    }

    /// The same order, but for the last bits of a quotient.
    fn rank(self) -> u128 {
        let next = u128::from(self.load.saturating_add(1));
        (next << 64) / u128::from(self.weight.max(1))
    }
}

struct Zone {
    share: Share,
    /// The least loaded first.
    sites: BTreeSet<(u128, usize)>,
    /// Where the search among equals goes on, so that they take turns.
    turn: usize,
}

struct Planner<'a> {
    sites: &'a [Site],
    /// Replicas carried, by position in `sites`, this plan's included.
    shares: Vec<Share>,
    leaders: Vec<u64>,
    leaders_by_server: BTreeMap<ChunkserverId, u64>,
    zones: BTreeMap<&'a Name, Zone>,
    /// How often two stores share a copyset (lower position first): ties go to pairs that share
    /// few, so that a lost store's work spreads over many others.
    together: HashMap<(usize, usize), u32>,
}

impl<'a> Planner<'a> {
    fn new(sites: &'a [Site]) -> Self {
        let mut zones: BTreeMap<&Name, Zone> = BTreeMap::new();
        let mut leaders_by_server = BTreeMap::new();
        for (at, site) in sites.iter().enumerate() {
            let zone = zones.entry(&site.zone).or_insert_with(|| Zone {
                share: Share { load: 0, weight: 0 },
                sites: BTreeSet::new(),
                turn: 0,
            });
            zone.share.load += site.replicas;
            zone.share.weight = zone.share.weight.saturating_add(site.weight.max(1));
            let share = Share {
                load: site.replicas,
                weight: site.weight,
            };
            zone.sites.insert((share.rank(), at));
            *leaders_by_server.entry(site.chunkserver).or_default() += site.leaders;
        }
        Self {
            sites,
            shares: sites
                .iter()
                .map(|s| Share {
                    load: s.replicas,
                    weight: s.weight,
                })
                .collect(),
            leaders: sites.iter().map(|s| s.leaders).collect(),
            leaders_by_server,
            zones,
            together: HashMap::new(),
        }
    }

    fn next_copyset(&mut self, replicas: usize) -> Vec<StoreId> {
        let mut chosen = Vec::with_capacity(replicas);
        for zone in self.least_loaded_zones(replicas) {
            let site = self.best_site(zone, &chosen);
            self.carry(zone, site, &chosen);
            chosen.push(site);
        }
        self.put_leader_first(&mut chosen);
        chosen.into_iter().map(|at| self.sites[at].store).collect()
    }

    fn least_loaded_zones(&self, count: usize) -> Vec<&'a Name> {
        let mut zones: Vec<(&'a Name, Share)> = self
            .zones
            .iter()
            .map(|(name, zone)| (*name, zone.share))
            .collect();
        zones.sort_by(|a, b| a.1.next_cmp(b.1).then(a.0.cmp(b.0)));
        zones
            .into_iter()
            .take(count)
            .map(|(name, _)| name)
            .collect()
    }

    fn best_site(&self, zone: &Name, chosen: &[usize]) -> usize {
        let met = |at: usize| -> u32 {
            chosen
                .iter()
                .map(|c| self.together.get(&pair(at, *c)).copied().unwrap_or(0))
                .sum()
        };
        let zone = &self.zones[zone];
        let (least, _) = (zone.sites.first()).expect("invariant: a zone is made by its first site");
        let (first, turn, last) = ((*least, 0), (*least, zone.turn), (*least, usize::MAX));
        let equals = zone
            .sites
            .range(turn..=last)
            .chain(zone.sites.range(first..turn));
        let equals = equals.take(EQUALS_TRIED).map(|(_, at)| *at);
        equals
            .min_by_key(|at| met(*at))
            .expect("invariant: the first of them is one")
    }

    fn carry(&mut self, zone: &Name, site: usize, chosen: &[usize]) {
        let before = self.shares[site].rank();
        self.shares[site].load += 1;
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.share.load += 1;
            zone.sites.remove(&(before, site));
            zone.sites.insert((self.shares[site].rank(), site));
            zone.turn = site + 1;
        }
        for other in chosen {
            *self.together.entry(pair(site, *other)).or_default() += 1;
        }
    }

    /// The member that leads least, by its chunkserver's count and then by its own.
    fn put_leader_first(&mut self, chosen: &mut [usize]) {
        let led = |at: &usize| {
            let server = self.sites[*at].chunkserver;
            (self.leaders_by_server[&server], self.leaders[*at], *at)
        };
        let Some(at) = (0..chosen.len()).min_by_key(|at| led(&chosen[*at])) else {
            return;
        };
        chosen[..=at].rotate_right(1);
        let leader = chosen[0];
        self.leaders[leader] += 1;
        *self
            .leaders_by_server
            .entry(self.sites[leader].chunkserver)
            .or_default() += 1;
    }
}

const fn pair(a: usize, b: usize) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn site(at: u128, zone: usize, weight: u64) -> Site {
        Site {
            store: StoreId::from_bytes(at.to_be_bytes()),
            chunkserver: ChunkserverId::new(u32::try_from(at).expect("small")),
            zone: Name::new(&format!("z{zone}")).expect("valid"),
            weight,
            replicas: 0,
            leaders: 0,
        }
    }

    /// `zones` zones of `per_zone` stores each, one store to a chunkserver.
    fn even(zones: usize, per_zone: usize) -> Vec<Site> {
        (0..zones * per_zone)
            .map(|at| site(at as u128, at % zones, 1 << 40))
            .collect()
    }

    fn count<T: Ord>(of: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
        let mut counts = BTreeMap::new();
        of.for_each(|item| *counts.entry(item).or_default() += 1);
        counts
    }

    fn gap(sites: &[Site], counts: &BTreeMap<StoreId, usize>) -> usize {
        let of = |s: &Site| counts.get(&s.store).copied().unwrap_or(0);
        let most = sites.iter().map(of).max().unwrap_or(0);
        most - sites.iter().map(of).min().unwrap_or(0)
    }

    #[test]
    fn too_few_zones_names_them() {
        let error = plan(
            &even(2, 4),
            Request {
                replicas: 3,
                copysets: 1,
            },
        )
        .expect_err("two zones");
        assert_eq!(
            error.to_string(),
            "3 replicas need 3 zones, and 2 are online: z0, z1"
        );
        let error = plan(
            &[],
            Request {
                replicas: 1,
                copysets: 1,
            },
        )
        .expect_err("nothing");
        assert!(error.to_string().ends_with("online: none"), "{error}");
    }

    #[test]
    fn load_that_was_there_before_counts() {
        let mut sites = even(3, 2);
        sites[0].replicas = 10;
        let sets = plan(
            &sites,
            Request {
                replicas: 3,
                copysets: 10,
            },
        )
        .expect("three zones");
        assert!(sets.iter().flatten().all(|store| *store != sites[0].store));
    }

    #[test]
    fn pairs_are_scattered() {
        let sites = even(3, 4);
        let sets = plan(
            &sites,
            Request {
                replicas: 3,
                copysets: 16,
            },
        )
        .expect("three zones");
        let distinct: BTreeSet<BTreeSet<StoreId>> = sets
            .iter()
            .map(|set| set.iter().copied().collect())
            .collect();
        assert!(
            distinct.len() >= 12,
            "only {} different sets",
            distinct.len()
        );
    }

    #[test]
    fn a_store_twice_as_large_carries_twice_as_much() {
        let sites: Vec<Site> = (0..6u128)
            .map(|at| {
                site(
                    at,
                    usize::from(at % 3 == 1) + 2 * usize::from(at % 3 == 2),
                    1 + u64::from(at >= 3),
                )
            })
            .collect();
        let sets = plan(
            &sites,
            Request {
                replicas: 3,
                copysets: 90,
            },
        )
        .expect("three zones");
        let counts = count(sets.into_iter().flatten());
        for site in &sites {
            let expected = usize::try_from(site.weight).expect("small") * 30;
            assert_eq!(counts[&site.store], expected, "{site:?}");
        }
    }

    proptest! {
        #[test]
        fn zones_are_distinct_and_stores_known(
            shape in prop::collection::vec((0usize..6, 0u64..1 << 44), 1..30),
            replicas in 1usize..=5, copysets in 0usize..60,
        ) {
            let sites: Vec<Site> = shape.iter().enumerate()
                .map(|(at, (zone, weight))| site(at as u128, *zone, *weight)).collect();
            let zones: BTreeMap<StoreId, &Name> = sites.iter().map(|s| (s.store, &s.zone)).collect();
            let existing: BTreeSet<&Name> = zones.values().copied().collect();
            match plan(&sites, Request { replicas, copysets }) {
                Err(PlacementError::TooFewZones { needed, zones }) => {
                    prop_assert_eq!(needed, replicas);
                    prop_assert!(existing.len() < replicas);
                    prop_assert_eq!(zones.len(), existing.len());
                }
                Ok(sets) => {
                    prop_assert_eq!(sets.len(), copysets);
                    for set in sets {
                        let used: BTreeSet<&Name> = set.iter().map(|s| zones[s]).collect();
                        prop_assert_eq!((set.len(), used.len()), (replicas, replicas));
                    }
                }
            }
        }

        #[test]
        fn equal_stores_carry_alike_and_lead_alike(
            zones in 3usize..6, per_zone in 1usize..6, copysets in 1usize..80,
        ) {
            let sites = even(zones, per_zone);
            let sets = plan(&sites, Request { replicas: 3, copysets }).expect("enough zones");
            let carried = count(sets.iter().flatten().copied());
            prop_assert!(gap(&sites, &carried) <= 1, "{carried:?}");
            let led = count(sets.iter().map(|set| set[0]));
            let even = copysets.div_ceil(sites.len());
            prop_assert!(led.values().all(|led| *led <= even + 1), "{led:?}");
        }
    }
}
