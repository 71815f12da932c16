//! Leaders that become even by what is asked of them, in the worlds of `heal_tests`.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, CopysetId};
use proptest::prelude::*;

use super::heal_tests::World;
use super::{Handover, balance};
use crate::state::{AddJobs, Cause, Command, Ending, JobKind, NewJob};

const PERCENT: u64 = 20;

struct Loaded {
    world: World,
    demand: BTreeMap<CopysetId, u64>,
}

impl Loaded {
    /// Of each copyset in turn who leads it, by its place among the replicas, and what is asked of it.
    fn new(zones: &[u8], copysets: &[(usize, u64)]) -> Self {
        let mut world = World::new(zones, copysets.len());
        let mut demand = BTreeMap::new();
        for ((id, copyset), (leader, asked)) in world.state.copysets().iter().zip(copysets) {
            world.leaders.insert(*id, copyset.replicas[*leader].id);
            demand.insert(*id, *asked);
        }
        Self { world, demand }
    }

    fn plan(&self, percent: u64, cause: Cause) -> Vec<Handover> {
        let mut picture = self.world.picture();
        picture.demand = self.demand.clone();
        balance(&self.world.state, &picture, percent, cause)
    }

    /// How many transfers; they are done.
    fn balance(&mut self, percent: u64, cause: Cause) -> usize {
        let plan = self.plan(percent, cause);
        for Handover { job, .. } in &plan {
            self.world.leaders.insert(job.copyset, job.replica);
        }
        plan.len()
    }

    /// How many each chunkserver leads, and what is asked of those.
    fn standings(&self) -> BTreeMap<ChunkserverId, (usize, u64)> {
        let servers = self.world.state.chunkservers().keys();
        let mut standings: BTreeMap<_, _> = servers.map(|id| (*id, (0, 0))).collect();
        for (id, copyset) in self.world.state.copysets() {
            let leads = |r: &&crate::state::Replica| self.world.leaders[id] == r.id;
            let leader = copyset.replicas.iter().find(leads).expect("one of them");
            let standing = standings.entry(leader.chunkserver).or_default();
            *standing = (standing.0 + 1, standing.1 + self.demand[id]);
        }
        standings
    }

    fn leads(&self) -> Vec<usize> {
        self.standings()
            .into_values()
            .map(|(leads, _)| leads)
            .collect()
    }

    fn demands(&self) -> Vec<u64> {
        self.standings()
            .into_values()
            .map(|(_, asked)| asked)
            .collect()
    }

    fn squares(&self) -> u128 {
        let demands = self.demands().into_iter();
        demands.map(|it| u128::from(it) * u128::from(it)).sum()
    }
}

/// `count` on the chunkserver at that place of three that have everything.
fn led_by(server: u32, demands: &[u64]) -> Vec<(u32, u64)> {
    demands.iter().map(|asked| (server, *asked)).collect()
}

/// Three chunkservers with everything: who leads what.
fn three(leaders: &[Vec<(u32, u64)>]) -> Loaded {
    let all: Vec<(u32, u64)> = leaders.iter().flatten().copied().collect();
    let unplaced: Vec<(usize, u64)> = all.iter().map(|(_, asked)| (0, *asked)).collect();
    let mut loaded = Loaded::new(&[0, 1, 2], &unplaced);
    for ((id, copyset), (server, _)) in loaded.world.state.copysets().iter().zip(&all) {
        let server = ChunkserverId::new(*server);
        let replica = copyset.replicas.iter().find(|r| r.chunkserver == server);
        loaded
            .world
            .leaders
            .insert(*id, replica.expect("everywhere").id);
    }
    loaded
}

#[test]
fn a_hot_volume_on_few_copysets_is_spread_and_stays() {
    let mut loaded = three(&[
        led_by(1, &[1000, 1000, 1000]),
        led_by(2, &[0, 0, 0]),
        led_by(3, &[0, 0, 0]),
    ]);
    let plan = loaded.plan(PERCENT, Cause::Asked);
    let first = &plan[0];
    assert_eq!(
        (first.from.leads, first.from.demand, first.demand),
        (3, 3000, 1000)
    );
    assert_eq!((first.to.leads, first.to.demand), (3, 0));
    assert_eq!(loaded.balance(PERCENT, Cause::Asked), 4, "two exchanges");
    assert_eq!(
        (loaded.leads(), loaded.demands()),
        (vec![3, 3, 3], vec![1000; 3])
    );
    assert_eq!(loaded.balance(PERCENT, Cause::Asked), 0, "it stays");
}

#[test]
fn who_leads_one_more_gives_one_without_taking_any() {
    let mut loaded = three(&[
        led_by(1, &[600, 600]),
        led_by(2, &[300]),
        led_by(3, &[900, 300]),
    ]);
    let before = loaded.demands();
    assert!(loaded.balance(PERCENT, Cause::Asked) > 0, "{before:?}");
    assert_eq!(loaded.demands(), [900; 3]);
    assert!(
        loaded
            .leads()
            .into_iter()
            .all(|leads| (1..=2).contains(&leads))
    );
}

#[test]
fn what_is_nearly_even_or_hardly_asked_for_is_let_be() {
    let nearly = [
        led_by(1, &[1000, 1060]),
        led_by(2, &[1000, 950]),
        led_by(3, &[990, 1000]),
    ];
    assert_eq!(three(&nearly).balance(PERCENT, Cause::Asked), 0);
    assert!(
        three(&nearly).balance(1, Cause::Asked) > 0,
        "with a smaller margin"
    );
    let seldom = [led_by(1, &[40, 40]), led_by(2, &[0, 0]), led_by(3, &[0, 0])];
    assert_eq!(three(&seldom).balance(PERCENT, Cause::Asked), 0);
    let off = [
        led_by(1, &[9000, 9000]),
        led_by(2, &[0, 0]),
        led_by(3, &[0, 0]),
    ];
    assert_eq!(three(&off).balance(0, Cause::Asked), 0, "it is off");
}

#[test]
fn one_that_was_moved_lately_stays_unless_an_operator_asks() {
    let mut loaded = three(&[
        led_by(1, &[1000, 1000, 1000]),
        led_by(2, &[0, 0, 0]),
        led_by(3, &[0, 0, 0]),
    ]);
    let jobs: Vec<NewJob> = loaded
        .plan(PERCENT, Cause::Uneven)
        .into_iter()
        .map(|it| it.job)
        .collect();
    assert_eq!(jobs.len(), 4);
    let at_ms = loaded.world.now_ms;
    let warm: BTreeSet<CopysetId> = jobs.iter().map(|job| job.copyset).collect();
    let moves = |loaded: &Loaded, cause| -> BTreeSet<CopysetId> {
        let plan = loaded.plan(PERCENT, cause).into_iter();
        plan.map(|it| it.job.copyset).collect()
    };
    let add = Command::AddJobs(AddJobs { jobs, at_ms });
    loaded.world.state.apply(&add).expect("there is room");
    assert!(
        moves(&loaded, Cause::Asked).is_disjoint(&warm),
        "they are under way"
    );
    let jobs = loaded.world.state.jobs().iter();
    let ids: Vec<_> = jobs.map(|(id, job)| (*id, job.attempt)).collect();
    for (id, attempt) in ids {
        assert_eq!(loaded.world.state.jobs()[&id].kind, JobKind::Lead);
        let end = Command::end(id, attempt, Ending::InPlace, at_ms);
        loaded.world.state.apply(&end).expect("it ends");
    }
    // The load has not followed, or came back: nobody goes back and forth.
    assert!(
        moves(&loaded, Cause::Uneven).is_disjoint(&warm),
        "they cool"
    );
    assert_eq!(moves(&loaded, Cause::Asked), warm);
    loaded.world.now_ms += crate::limit::LEAD_COOLING_MS;
    assert_eq!(moves(&loaded, Cause::Uneven), warm);
}

fn copysets() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let asked = prop_oneof![3 => Just(0u64), 3 => 0u64..100, 2 => 100u64..10_000];
    prop::collection::vec((0usize..3, asked), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn numbers_stay_even_demands_come_nearer_and_it_comes_to_rest(
        zones in prop::collection::vec(0u8..4, 0..6), copysets in copysets(), percent in 1u64..100,
    ) {
        let zones: Vec<u8> = [0, 1, 2].into_iter().chain(zones).collect();
        let mut loaded = Loaded::new(&zones, &copysets);
        loaded.balance(0, Cause::Asked);
        let mut by_number = loaded.leads();
        let before = loaded.squares();
        let moved = loaded.balance(percent, Cause::Asked);
        let mut leads = loaded.leads();
        by_number.sort_unstable();
        leads.sort_unstable();
        prop_assert_eq!(leads, by_number, "as many lead as many as before");
        let after = loaded.squares();
        prop_assert_eq!(after < before, moved > 0);
        prop_assert!(after <= before);
        // A plan is bounded; what is left comes with the next ones.
        let mut rounds = 0;
        while loaded.balance(percent, Cause::Asked) > 0 {
            rounds += 1;
            prop_assert!(rounds < 10, "it never rests");
        }
    }

    #[test]
    fn what_is_asked_alike_of_all_moves_nobody(
        zones in prop::collection::vec(0u8..4, 0..6), leaders in prop::collection::vec(0usize..3, 1..40),
        asked in prop_oneof![Just(0u64), 1u64..10_000],
    ) {
        let zones: Vec<u8> = [0, 1, 2].into_iter().chain(zones).collect();
        let copysets: Vec<(usize, u64)> = leaders.into_iter().map(|leader| (leader, asked)).collect();
        let mut loaded = Loaded::new(&zones, &copysets);
        loaded.balance(0, Cause::Asked);
        prop_assert_eq!(loaded.balance(1, Cause::Asked), 0);
    }
}
