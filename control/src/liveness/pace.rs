//! How devices fare beside their peers.
//!
//! *Place*: fed with the counters that heartbeats carry; what comes of it is planned by `scheduler`.
//! *Owner*: memory of the leading metadata server, as all of `liveness`.
//! *Invariants*: a device is judged by what it does now against what is usual among the devices of its
//! pool, never against a fixed figure alone; one that does more than its peers may take longer in
//! proportion; below a floor nothing is slow. Time that requests wait counts even if none of them ends.
//! A pool of fewer than three devices that were ever seen at work has nobody to compare with.
//! *On failure*: counters that went back are those of a device that was opened anew: it begins afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ogee_proto::id::{PoolId, StoreId};
use ogee_proto::service::IoFlow;

use crate::limit::{PACE_OPS_MIN, PACE_PEERS_MIN};
use crate::state::State;

/// Requests of one kind since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) ops: u64,
    pub(crate) bytes: u64,
    /// Nanoseconds that they waited, those under way included.
    pub(crate) waited_ns: u64,
}

/// Writes, flushes, reads.
pub(crate) type Flows = [Flow; KINDS];
const KINDS: usize = 3;
/// Flushes end what many writes began, and differ more.
const FLOORS: [u64; KINDS] = [1, 40, 1];

/// When a device is slow. By default never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// So many times as long as is usual; 0: never.
    pub(crate) factor: u64,
    /// And at least so long.
    pub(crate) floor_ms: u64,
    /// What lies further apart than two heartbeats can says more of the chunkserver than of its devices.
    pub(crate) window_max: Duration,
}

/// What requests took on average, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) latency_ns: u64,
    ops_per_s: u64,
    bytes_per_s: u64,
}

/// For how long a device has been found slow, or well, each time: from the first such heartbeat to the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) slow_ms: u64,
    pub(crate) well_ms: u64,
}

/// One device.
#[derive(Debug, Default, PartialEq)]
struct Pace {
    seen: Option<(Instant, Flows)>,
    /// Of the last seconds in which there were requests.
    usual: [Option<Rate>; KINDS],
    slow_since: Option<Instant>,
    well_since: Option<Instant>,
    judged: Option<Instant>,
}

/// All devices.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Paces {
    stores: BTreeMap<StoreId, Pace>,
    /// What is usual among the peers of each device, as of the last look.
    norms: BTreeMap<StoreId, [Option<Rate>; KINDS]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Slow,
    Well,
    Nothing,
}

impl From<IoFlow> for Flow {
    fn from(told: IoFlow) -> Self {
        Self {
            ops: told.ops,
            bytes: told.bytes,
            waited_ns: told.waited_ns,
        }
    }
}

impl Flow {
    fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            ops: self.ops.checked_sub(before.ops)?,
            bytes: self.bytes.checked_sub(before.bytes)?,
            waited_ns: self.waited_ns.checked_sub(before.waited_ns)?,
        })
    }

    /// None if there was too little to say anything. What is stuck is something.
    fn rate(self, elapsed: Duration) -> Option<Rate> {
        let elapsed_ns = u64::try_from(elapsed.as_nanos())
            .ok()
            .filter(|ns| *ns > 0)?;
        let is_stuck = self.waited_ns >= elapsed_ns / 2;
        let per_s = |count: u64| {
            let all = u128::from(count) * 1_000_000_000 / u128::from(elapsed_ns);
            u64::try_from(all).unwrap_or(u64::MAX)
        };
        (self.ops >= PACE_OPS_MIN || is_stuck).then(|| Rate {
            latency_ns: self.waited_ns / self.ops.max(1),
            ops_per_s: per_s(self.ops),
            bytes_per_s: per_s(self.bytes),
        })
    }
}

impl Rate {
    /// A quarter of the newest, three of what was before.
    fn follow(before: Option<Self>, newest: Self) -> Self {
        let blend = |old: u64, new: u64| {
            (old / 4 * 3)
                .saturating_add(old % 4 * 3 / 4)
                .saturating_add(new / 4)
        };
        before.map_or(newest, |old| Self {
            latency_ns: blend(old.latency_ns, newest.latency_ns),
            ops_per_s: blend(old.ops_per_s, newest.ops_per_s),
            bytes_per_s: blend(old.bytes_per_s, newest.bytes_per_s),
        })
    }

    /// What is usual where these are: the middle of each figure, of two middle ones the larger.
    fn median(rates: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> u64| {
            let mut all: Vec<u64> = rates.iter().map(of).collect();
            let at = all.len() / 2;
            *all.select_nth_unstable(at).1
        };
        Self {
            latency_ns: middle(|rate| rate.latency_ns),
            ops_per_s: middle(|rate| rate.ops_per_s),
            bytes_per_s: middle(|rate| rate.bytes_per_s),
        }
    }

    /// Its latency, less what it does more than `norm`.
    fn weighed(self, norm: Self) -> u64 {
        let more = |own: u64, usual: u64| (u128::from(own) << 16) / u128::from(usual.max(1));
        let load =
            more(self.ops_per_s, norm.ops_per_s).max(more(self.bytes_per_s, norm.bytes_per_s));
        let latency = (u128::from(self.latency_ns) << 16) / load.max(1 << 16);
        u64::try_from(latency).unwrap_or(u64::MAX)
    }
}

impl Bounds {
    fn judge(self, kind: usize, own: Rate, norm: Option<Rate>) -> Said {
        let floor_ns = self
            .floor_ms
            .saturating_mul(1_000_000)
            .saturating_mul(FLOORS[kind]);
        let Some(norm) = norm else {
            let is_fast = own.latency_ns < floor_ns / 2;
            return if is_fast { Said::Well } else { Said::Nothing };
        };
        let limit = floor_ns.max(norm.latency_ns.saturating_mul(self.factor));
        let latency = own.weighed(norm);
        if self.factor > 0 && latency >= limit {
            Said::Slow
        } else if latency < limit / 2 {
            Said::Well
        } else {
            Said::Nothing
        }
    }
}

impl Paces {
    /// Takes the counters of a heartbeat.
    pub(super) fn take(&mut self, now: Instant, store: StoreId, flows: Flows, bounds: Bounds) {
        let norm = self.norms.get(&store).copied().unwrap_or_default();
        self.stores
            .entry(store)
            .or_default()
            .take(now, flows, norm, bounds);
    }

    /// Forgets devices that are none any more, and finds what is usual among those that are.
    pub(crate) fn compare(&mut self, state: &State) {
        self.stores.retain(|id, _| state.stores().contains_key(id));
        let mut pools: BTreeMap<PoolId, BTreeSet<StoreId>> = BTreeMap::new();
        for copyset in state.copysets().values() {
            let stores = pools.entry(copyset.pool).or_default();
            stores.extend(copyset.replicas.iter().map(|r| r.store));
        }
        self.norms.clear();
        for stores in pools.values() {
            let norm: [Option<Rate>; KINDS] =
                std::array::from_fn(|kind| self.norm(kind, stores.iter()));
            for store in stores {
                let known = self.norms.entry(*store).or_default();
                for (known, norm) in known.iter_mut().zip(norm) {
                    // A device of several pools is as good as the worst of them.
                    *known = slower(*known, norm);
                }
            }
        }
    }

    fn norm<'a>(&self, kind: usize, stores: impl Iterator<Item = &'a StoreId>) -> Option<Rate> {
        let paces = stores.filter_map(|id| self.stores.get(id));
        let rates: Vec<Rate> = paces.filter_map(|pace| pace.usual[kind]).collect();
        (rates.len() > PACE_PEERS_MIN).then(|| Rate::median(&rates))
    }

    pub(crate) fn verdict(&self, store: StoreId) -> Verdict {
        self.stores
            .get(&store)
            .map_or_else(Verdict::default, Pace::verdict)
    }

    /// Writes, flushes, reads, in nanoseconds; 0: none was seen.
    pub(crate) fn latencies(&self, store: StoreId) -> [u64; KINDS] {
        let usual = self
            .stores
            .get(&store)
            .map(|pace| pace.usual)
            .unwrap_or_default();
        usual.map(|rate| rate.map_or(0, |rate| rate.latency_ns))
    }

    /// What the peers' writes usually take, in nanoseconds.
    pub(crate) fn usual_write_ns(&self, store: StoreId) -> Option<u64> {
        self.norms.get(&store)?[0].map(|rate| rate.latency_ns)
    }

    /// What was held against a device is forgotten.
    pub(crate) fn forgive(&mut self, store: StoreId) {
        if let Some(pace) = self.stores.get_mut(&store) {
            (pace.slow_since, pace.well_since) = (None, None);
        }
    }
}

fn slower(one: Option<Rate>, other: Option<Rate>) -> Option<Rate> {
    one.into_iter()
        .chain(other)
        .max_by_key(|rate| rate.latency_ns)
}

impl Pace {
    fn take(&mut self, now: Instant, flows: Flows, norm: [Option<Rate>; KINDS], bounds: Bounds) {
        let Some((at, before)) = self.seen.replace((now, flows)) else {
            return;
        };
        let elapsed = now.saturating_duration_since(at);
        if elapsed >= bounds.window_max {
            self.slow_since = None;
            return;
        }
        let mut said = Said::Nothing;
        for kind in 0..KINDS {
            let Some(flow) = flows[kind].since(before[kind]) else {
                *self = Self {
                    seen: self.seen,
                    ..Self::default()
                };
                return;
            };
            let Some(rate) = flow.rate(elapsed) else {
                continue;
            };
            self.usual[kind] = Some(Rate::follow(self.usual[kind], rate));
            said = match (said, bounds.judge(kind, rate, norm[kind])) {
                (Said::Slow, _) | (_, Said::Slow) => Said::Slow,
                (Said::Nothing, Said::Well) => Said::Well,
                (said, _) => said,
            };
        }
        self.judged = Some(now);
        match said {
            Said::Slow => {
                self.slow_since.get_or_insert(now);
                self.well_since = None;
            }
            Said::Well => {
                self.well_since.get_or_insert(now);
                self.slow_since = None;
            }
            Said::Nothing => self.slow_since = None,
        }
    }

    fn verdict(&self) -> Verdict {
        let since = |at: Option<Instant>| {
            let last = self.judged.zip(at);
            let lasted = last.map(|(now, at)| now.saturating_duration_since(at).as_millis());
            u64::try_from(lasted.unwrap_or(0)).unwrap_or(u64::MAX)
        };
        Verdict {
            slow_ms: since(self.slow_since),
            well_ms: since(self.well_since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        factor: 5,
        floor_ms: 25,
        window_max: Duration::from_secs(3),
    };
    const MS: u64 = 1_000_000;

    /// Devices of one pool, each with what its writes take and how many there are in a second.
    struct Lab {
        paces: Paces,
        now: Instant,
        sums: Vec<Flows>,
    }

    impl Lab {
        fn new(devices: usize) -> Self {
            Self {
                paces: Paces::default(),
                now: Instant::now(),
                sums: vec![Flows::default(); devices],
            }
        }

        fn id(at: usize) -> StoreId {
            StoreId::from_bytes([u8::try_from(at + 1).unwrap(); 16])
        }

        /// One second: (operations, milliseconds that each took) of every device.
        fn second(&mut self, loads: &[(u64, u64)]) {
            self.now += Duration::from_secs(1);
            for (at, (ops, ms)) in loads.iter().enumerate() {
                let sum = &mut self.sums[at][0];
                sum.ops += ops;
                sum.bytes += ops * 4096;
                sum.waited_ns += ops.max(&1) * ms * MS;
                self.paces
                    .take(self.now, Self::id(at), self.sums[at], BOUNDS);
            }
            let rates: Vec<Rate> = (0..loads.len())
                .filter_map(|at| self.paces.stores[&Self::id(at)].usual[0])
                .collect();
            let norm = (rates.len() > PACE_PEERS_MIN).then(|| Rate::median(&rates));
            for at in 0..loads.len() {
                self.paces.norms.insert(Self::id(at), [norm, None, None]);
            }
        }

        fn slow_ms(&self, at: usize) -> u64 {
            self.paces.verdict(Self::id(at)).slow_ms
        }
    }

    #[test]
    fn one_that_takes_much_longer_than_its_peers_is_slow_from_the_first_such_second() {
        let mut lab = Lab::new(3);
        for _ in 0..3 {
            lab.second(&[(500, 1), (500, 1), (500, 2)]);
        }
        assert_eq!(lab.slow_ms(2), 0);
        lab.second(&[(20, 1), (20, 1), (20, 50)]);
        lab.second(&[(20, 1), (20, 1), (20, 50)]);
        assert_eq!([0, 1, 2].map(|at| lab.slow_ms(at)), [0, 0, 1000]);
        lab.second(&[(500, 1), (500, 1), (500, 2)]);
        let verdict = lab.paces.verdict(Lab::id(2));
        assert_eq!((verdict.slow_ms, verdict.well_ms), (0, 0));
        lab.second(&[(500, 1), (500, 1), (500, 2)]);
        assert_eq!(lab.paces.verdict(Lab::id(2)).well_ms, 1000);
        lab.paces.forgive(Lab::id(2));
        assert_eq!(lab.paces.verdict(Lab::id(2)), Verdict::default());
    }

    #[test]
    fn one_that_answers_nothing_is_slow_even_if_nobody_can_work_meanwhile() {
        let mut lab = Lab::new(3);
        lab.second(&[(0, 0); 3]);
        lab.second(&[(500, 1), (500, 1), (500, 1)]);
        lab.second(&[(0, 0), (0, 0), (0, 1000)]);
        lab.second(&[(0, 0), (0, 0), (0, 1000)]);
        assert_eq!([0, 1, 2].map(|at| lab.slow_ms(at)), [0, 0, 1000]);
    }

    #[test]
    fn noise_below_the_floor_and_what_all_suffer_alike_are_nothing() {
        let mut lab = Lab::new(3);
        for _ in 0..5 {
            lab.second(&[(500, 1), (500, 1), (500, 20)]);
        }
        assert_eq!(lab.slow_ms(2), 0, "20 ms are below the floor");
        for _ in 0..5 {
            lab.second(&[(30, 60), (30, 80), (30, 100)]);
        }
        assert_eq!([0, 1, 2].map(|at| lab.slow_ms(at)), [0, 0, 0]);
    }

    #[test]
    fn one_that_does_much_more_may_take_longer() {
        let mut lab = Lab::new(4);
        for _ in 0..5 {
            lab.second(&[(100, 5), (100, 5), (100, 5), (1000, 40)]);
        }
        assert_eq!(
            lab.slow_ms(3),
            0,
            "ten times the load, eight times the time"
        );
        for _ in 0..2 {
            lab.second(&[(100, 5), (100, 5), (100, 5), (100, 40)]);
        }
        assert_eq!(lab.slow_ms(3), 1000);
    }

    #[test]
    fn a_chunkserver_that_stood_still_says_nothing_of_its_devices() {
        let mut lab = Lab::new(3);
        for _ in 0..3 {
            lab.second(&[(500, 1), (500, 1), (500, 1)]);
        }
        lab.now += Duration::from_secs(5);
        lab.second(&[(500, 1), (500, 1), (1, 5000)]);
        lab.second(&[(500, 1), (500, 1), (500, 1)]);
        assert_eq!(lab.slow_ms(2), 0);
        // Nor does one slow second.
        lab.second(&[(500, 1), (500, 1), (5, 200)]);
        assert_eq!(lab.slow_ms(2), 0);
    }

    #[test]
    fn two_devices_have_nobody_to_compare_with_and_a_device_opened_anew_begins_afresh() {
        let mut lab = Lab::new(2);
        for _ in 0..4 {
            lab.second(&[(100, 1), (100, 500)]);
        }
        assert_eq!([0, 1].map(|at| lab.slow_ms(at)), [0, 0]);
        let mut lab = Lab::new(3);
        for _ in 0..4 {
            lab.second(&[(100, 1), (100, 1), (100, 90)]);
        }
        assert!(lab.slow_ms(2) >= 1000);
        lab.sums[2] = Flows::default();
        lab.second(&[(100, 1), (100, 1), (1, 90)]);
        assert_eq!(lab.slow_ms(2), 0);
    }
}
