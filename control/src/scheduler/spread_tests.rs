//! Devices that become even, in the worlds of `heal_tests`.

use std::collections::BTreeSet;

use ogee_proto::id::{ChunkserverId, CopysetId};
use proptest::prelude::*;

use super::heal_tests::{GIB, World, register, rules, store};
use super::{HealRules, Loads, spread};
use crate::limit::SPREAD_COOLING_MS;
use crate::state::{Cause, Copyset, Ending, JobKind, JobState, Mark};

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

/// Bytes on each device of a zone, the least first.
fn used_in(world: &World, servers: &[u32]) -> Vec<u64> {
    let mut used: Vec<u64> = servers.iter().map(|it| world.used_of(store(*it))).collect();
    used.sort_unstable();
    used
}

/// By itself, until nothing is left to do, which it comes to: how many were moved.
fn levelled(world: &mut World) -> usize {
    let mut moves = 0;
    for _ in 0..50 {
        let planned = world.spread(&rules(), Cause::Crowded, ALL);
        if planned == 0 {
            return moves;
        }
        moves += planned;
        world.settle();
        // Others of the same copysets go again after that.
        world.now_ms += SPREAD_COOLING_MS + 1;
    }
    panic!("no end: {:?}", world.held);
}

/// Copysets with a replica on that server hold more, the others less; the one on server 2 leads, so that any other may go.
fn holding(mut world: World, server: u32, more: u64, less: u64) -> World {
    let copysets = world.state.copysets();
    let on = |c: &Copyset, server| {
        c.replicas
            .iter()
            .find(|r| r.store == store(server))
            .cloned()
    };
    let held = |c: &Copyset| if on(c, server).is_some() { more } else { less };
    world.held = copysets.iter().map(|(id, c)| (*id, held(c))).collect();
    let leader = |c: &Copyset| on(c, 2).expect("everywhere").id;
    world.leaders = copysets.iter().map(|(id, c)| (*id, leader(c))).collect();
    world
}

/// Two devices in zone 0 with ten replicas each, of which those on the first hold more.
fn uneven(more: u64, less: u64) -> World {
    holding(World::new(&[0, 1, 2, 0], 20), 1, more, less)
}

#[test]
fn devices_that_are_even_by_number_become_even_by_bytes() {
    let mut world = uneven(4 * GIB, GIB);
    assert_eq!(used_in(&world, &[1, 4]), [10 * GIB, 40 * GIB]);
    let moves = levelled(&mut world);
    let used = used_in(&world, &[1, 4]);
    assert!(used[1] - used[0] <= 3 * GIB, "{used:?}");
    assert_eq!(moves, 10, "five for five");
    let carried = world.carried();
    assert_eq!((carried[&1], carried[&4]), (10, 10));
}

#[test]
fn one_that_carries_one_more_gives_without_taking() {
    let world = World::new(&[0, 1, 2, 0], 3);
    let carried = world.carried();
    let (more, less) = if carried[&1] > carried[&4] {
        (1, 4)
    } else {
        (4, 1)
    };
    assert_eq!((carried[&more], carried[&less]), (2, 1));
    let mut world = holding(world, more, 8 * GIB, 2 * GIB);
    assert_eq!(used_in(&world, &[1, 4]), [2 * GIB, 16 * GIB]);
    assert_eq!(levelled(&mut world), 1);
    assert_eq!(used_in(&world, &[1, 4]), [8 * GIB, 10 * GIB]);
}

#[test]
fn what_is_level_enough_is_left() {
    // 41 and 40 of 100 GiB differ by less than 5 %.
    for (more, less) in [(41 << 27, 40 << 27), (700 << 20, 650 << 20)] {
        let mut world = uneven(more, less);
        assert_eq!(world.spread(&rules(), Cause::Crowded, ALL), 0);
    }
    // Half as much again, of next to nothing.
    let mut world = uneven(60 << 20, 40 << 20);
    assert_eq!(world.spread(&rules(), Cause::AskedSpread, ALL), 0);
    // An operator wants what is worth anything.
    let mut world = uneven(23 << 27, 20 << 27);
    let wide = HealRules {
        spread_percent: 20,
        ..rules()
    };
    assert_eq!(world.spread(&wide, Cause::Crowded, ALL), 0);
    assert!(world.spread(&rules(), Cause::AskedSpread, ALL) > 0);
}

#[test]
fn nothing_is_exchanged_while_replicas_are_on_their_way() {
    let mut world = uneven(4 * GIB, GIB);
    assert_eq!(world.spread(&rules(), Cause::Crowded, 2), 2);
    assert_eq!(world.spread(&rules(), Cause::Crowded, ALL), 0);
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

    /// Whatever is held where: it ends, devices carry as many as before to ±1, and those of a zone are no further apart than
    /// before.
    #[test]
    fn whatever_is_held_becomes_level_and_stays(
        zones in prop::collection::vec(0u8..3, 1..5), copysets in 1usize..40,
        held in prop::collection::vec(0u64..3000, 40), sizes in prop::collection::vec(1u64..3, 1..5),
    ) {
        let zones: Vec<u8> = [0, 1, 2].into_iter().chain(zones).collect();
        let mut world = World::new(&zones, copysets);
        world.held = world.state.copysets().keys().zip(&held).map(|(id, mib)| (*id, mib << 20)).collect();
        let servers: Vec<u32> = (1..).take(zones.len()).collect();
        for (server, size) in servers.iter().zip(&sizes) {
            let zone = zones[usize::try_from(server - 1).expect("few")];
            register(&mut world.state, *server, zone, size * 100 * GIB);
        }
        world.settle();
        // What number alone asks for, first.
        let mut rounds = 0;
        let held = std::mem::take(&mut world.held);
        while world.spread(&rules(), Cause::Crowded, ALL) > 0 {
            world.settle();
            world.now_ms += SPREAD_COOLING_MS + 1;
            rounds += 1;
            prop_assert!(rounds < 50);
        }
        world.held = held;
        let carried = world.carried();
        let fill = |world: &World, server: u32| {
            let capacity = world.picture().places[&store(server)].capacity;
            world.used_of(store(server)) as f64 / capacity as f64
        };
        let apart = |world: &World, zone: u8| {
            let there = servers.iter().filter(|it| zones[usize::try_from(**it - 1).expect("few")] == zone);
            let fills: Vec<f64> = there.map(|it| fill(world, *it)).collect();
            fills.iter().copied().fold(0.0, f64::max) - fills.iter().copied().fold(f64::MAX, f64::min)
        };
        let before = [0, 1, 2].map(|zone| apart(&world, zone));
        levelled(&mut world);
        for zone in [0, 1, 2] {
            prop_assert!(apart(&world, zone) <= before[usize::from(zone)] + 0.000_1, "zone {zone}");
        }
        let moved: Vec<usize> = (world.carried().iter()).map(|(server, count)| count.abs_diff(carried[server])).collect();
        prop_assert!(moved.iter().all(|it| *it <= 1), "{moved:?}");
    }
}
