//! Devices that become even, in the worlds of `heal_tests`.

use std::collections::BTreeSet;

use ogee_proto::id::{ChunkserverId, CopysetId};
use proptest::prelude::*;

use super::heal_tests::{GIB, World, register, rules, store};
use super::{HealRules, Loads, spread};
use crate::state::{Cause, Ending, JobKind, JobState, Mark};

const ALL: usize = 1000;

/// Even to the last replica, by an operator's wish.
fn asked(world: &mut World) -> usize {
    world.spread(&rules(), Cause::AskedSpread, ALL)
}

#[test]
fn a_new_device_gets_its_part_and_no_more_is_moved_than_must_be() {
    let mut world = World::new(&[0, 1, 2], 12);
    register(&mut world.state, 4, 0, 100 * GIB);
    assert_eq!(asked(&mut world), 6);
    assert_eq!(asked(&mut world), 0, "what is planned counts");
    let jobs = world.state.jobs().values();
    assert!(jobs.clone().all(|job| job.kind == JobKind::Balance
        && job.from == ChunkserverId::new(1)
        && job.to == Some(store(4))));
    world.settle();
    assert_eq!(
        world.carried().into_values().collect::<Vec<_>>(),
        [6, 12, 12, 6]
    );
    assert_eq!(asked(&mut world), 0, "it stays");
    let done = world.state.jobs().values();
    assert!(
        done.clone()
            .filter(|job| job.kind == JobKind::Balance)
            .all(|job| job.state == JobState::Done)
    );
}

#[test]
fn a_device_twice_as_large_carries_twice_as_much() {
    let mut world = World::new(&[0, 1, 2], 12);
    register(&mut world.state, 4, 0, 200 * GIB);
    assert_eq!(asked(&mut world), 8);
    world.settle();
    assert_eq!(world.carried()[&4], 8);
}

#[test]
fn a_small_difference_is_left_unless_an_operator_asks() {
    let mut world = World::new(&[0, 1, 2, 0], 80);
    // 40 and 40 in zone 0; two go over by hand.
    let ids: Vec<CopysetId> = world.state.copysets().keys().copied().collect();
    let mut moved = 0;
    for id in ids {
        let copyset = &world.state.copysets()[&id];
        let on = |server| {
            let mut replicas = copyset.replicas.iter();
            replicas.find(|r| r.chunkserver == ChunkserverId::new(server))
        };
        if moved < 2 && on(4).is_some_and(|r| world.leaders[&id] != r.id) {
            let replica = on(4).expect("just seen").id;
            let replace = crate::state::ReplaceReplica {
                copyset: id,
                replica,
                store: store(1),
            };
            let replace = crate::state::Command::ReplaceReplica(replace);
            world.state.apply(&replace).expect("a place");
            moved += 1;
        }
    }
    world.settle();
    let carried = world.carried();
    let (more, less) = (carried[&1], carried[&4]);
    assert_eq!(more, less + 4, "{carried:?}");
    let wide = HealRules {
        spread_percent: 20,
        ..rules()
    };
    assert_eq!(world.spread(&wide, Cause::Crowded, ALL), 0);
    assert_eq!(world.spread(&wide, Cause::AskedSpread, ALL), 2);
    let jobs = spread(
        &world.state,
        &world.picture(),
        &rules(),
        Cause::Crowded,
        ALL,
    );
    assert!(jobs.is_empty(), "what is planned counts: {jobs:?}");
}

#[test]
fn what_leads_hands_over_first() {
    let mut world = World::new(&[0, 1, 2], 6);
    for (id, copyset) in world.state.copysets() {
        let first = copyset.replicas.iter();
        let first = first
            .clone()
            .find(|r| r.chunkserver == ChunkserverId::new(1));
        world.leaders.insert(*id, first.expect("everywhere").id);
    }
    register(&mut world.state, 4, 0, 100 * GIB);
    assert_eq!(asked(&mut world), 1);
    let job = world.state.jobs().values().next().expect("one").clone();
    assert_eq!(job.kind, JobKind::Lead);
    world.transfer();
    world.look();
    assert!(asked(&mut world) >= 1);
    let is_move = |job: &&crate::state::Job| job.kind == JobKind::Balance;
    assert_eq!(world.state.jobs().values().filter(is_move).count(), 1);
}

#[test]
fn nothing_is_evened_out_beside_what_must_be_healed() {
    let mut world = World::new(&[0, 1, 2], 6);
    register(&mut world.state, 4, 0, 100 * GIB);
    register(&mut world.state, 5, 1, 100 * GIB);
    world.away.insert(store(3));
    assert_eq!(asked(&mut world), 0);
    world.away.clear();
    assert!(asked(&mut world) > 3);
    world.look();
    let running = world
        .state
        .jobs()
        .values()
        .filter(|job| job.state == JobState::Running)
        .count();
    assert_eq!(running, HealRules::spare(rules().moves_max));
    world.away.insert(store(3));
    world.look();
    let jobs = world.state.jobs().values();
    let dropped = jobs
        .filter(|job| job.ending == Some(Ending::NotNeeded))
        .count();
    assert!(dropped >= 3, "what waited is planned anew later");
    world.away.clear();
    world.mark(5, Some(Mark::Draining));
    world.settle();
    assert_eq!(
        world.carried()[&5],
        0,
        "nothing goes to where it would be taken away"
    );
}

#[test]
fn the_replica_goes_that_makes_bytes_even() {
    let mut world = World::new(&[0, 1, 2], 8);
    let volume = crate::state::CreateVolume {
        name: super::heal_tests::name("v").into(),
        labels: std::collections::BTreeMap::new(),
        pool: super::heal_tests::name("p"),
        size: 8 << 24,
        stripe: ogee_proto::layout::StripeLayout::new(1 << 16, 1)
            .expect("valid")
            .into(),
        replicas: 0,
        owner: String::new(),
        created_unix_ms: 1,
    };
    let volume = crate::state::Command::CreateVolume(volume);
    world.state.apply(&volume).expect("made");
    let filled: BTreeSet<CopysetId> = {
        let copysets = world.state.copysets().iter();
        copysets
            .filter(|(_, c)| c.chunks > 0)
            .map(|(id, _)| *id)
            .collect()
    };
    assert!(!filled.is_empty());
    register(&mut world.state, 4, 0, 100 * GIB);
    // The new one is as full as the others: what holds nothing goes there.
    let mut picture = world.picture();
    let jobs = spread(&world.state, &picture, &rules(), Cause::Crowded, 1);
    let least = world.state.copysets().values().map(|c| c.chunks).min();
    assert_eq!(least, Some(world.state.copysets()[&jobs[0].copyset].chunks));
    // It is empty, and the others hold much: the more goes there.
    picture.places.get_mut(&store(1)).expect("there").used = 80 * GIB;
    picture.places.get_mut(&store(4)).expect("there").used = 0;
    let jobs = spread(&world.state, &picture, &rules(), Cause::Crowded, 1);
    let most = world.state.copysets().values().map(|c| c.chunks).max();
    assert_eq!(most, Some(world.state.copysets()[&jobs[0].copyset].chunks));
    assert!(jobs[0].bytes > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// Whatever is added, it ends, and nothing is left that would help; copysets keep their zones (`World::check`).
    #[test]
    fn whatever_is_added_becomes_even_and_stays(
        zones in prop::collection::vec(0u8..4, 0..5), copysets in 1usize..40,
        new in prop::collection::vec((0u8..5, 1u64..4), 0..4),
        steps in prop::collection::vec(any::<usize>(), 0..60), every in 1usize..5,
    ) {
        let zones: Vec<u8> = [0, 1, 2].into_iter().chain(zones).collect();
        let mut world = World::new(&zones, copysets);
        for ((zone, size), server) in new.into_iter().zip(zones.len() + 1..) {
            register(&mut world.state, u32::try_from(server).expect("few"), zone, size * 100 * GIB);
        }
        for (at, step) in steps.into_iter().enumerate() {
            if at % every == 0 {
                world.spread(&rules(), Cause::Crowded, 2);
            }
            world.look();
            world.transfer();
            world.step(step);
        }
        let mut moves = 0;
        for round in 0.. {
            prop_assert!(round < 100, "no end: {:?}", world.carried());
            world.settle();
            let planned = world.spread(&rules(), Cause::AskedSpread, ALL);
            if planned == 0 {
                break;
            }
            moves += planned;
        }
        prop_assert!(moves <= 3 * copysets * 3);
        let picture = world.picture();
        let loads = Loads::of(&world.state, &picture);
        for (id, copyset) in world.state.copysets() {
            for replica in copyset.replicas.iter().filter(|r| picture.leaders[id] != r.id) {
                for (_, stores) in loads.zones() {
                    for (rank, to) in stores {
                        let helps = *rank <= loads.surplus(replica.store)
                            && loads.is_target(copyset, replica, 0, *to);
                        prop_assert!(!helps, "{id} could go to {to}: {:?}", world.carried());
                    }
                }
            }
        }
    }
}
