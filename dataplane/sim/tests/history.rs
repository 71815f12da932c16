//! The checker of histories: bad ones made by hand, and against a second checker on small ones.
//!
//! The second one is the search of Wing and Gong in `todc-utils`: it knows nothing of clusters, tries
//! every order, and takes exponential time.

use ogee_sim::history::OperationKind::{Read, Write};
use ogee_sim::history::ViolationKind::{
    EndsBeforeItBegins, FromNowhere, FromTheFuture, NewThenOld, NotAtomic, NotUnique, Stale,
};
use ogee_sim::history::{INITIAL, Operation, OperationKind, Summary, ViolationKind, check};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::register::{RegisterOperation, RegisterSpecification};

// ---- by hand -----------------------------------------------------------------------------------

fn operation(kind: OperationKind, value: u64, from: u64, to: impl Into<Option<u64>>) -> Operation {
    Operation {
        client: 0,
        block: 7,
        kind,
        value,
        invoked_ns: from,
        completed_ns: to.into(),
    }
}

fn write(value: u64, from: u64, to: impl Into<Option<u64>>) -> Operation {
    operation(Write, value, from, to)
}

fn read(value: u64, from: u64, to: impl Into<Option<u64>>) -> Operation {
    operation(Read, value, from, to)
}

#[track_caller]
fn good(history: &[Operation]) -> Summary {
    let summary = check(history).unwrap_or_else(|violation| panic!("{violation}"));
    assert!(second_opinion(history), "the second checker differs");
    summary
}

/// Refused for that reason, with these operations of it (by their places) named.
#[track_caller]
fn bad(kind: ViolationKind, history: &[Operation], named: &[usize]) {
    let violation = check(history).expect_err("no register does that");
    assert_eq!(violation.kind, kind, "{violation}");
    assert_eq!(violation.block, 7);
    let mut due: Vec<Operation> = named.iter().map(|at| history[*at]).collect();
    due.sort_by_key(|operation| operation.invoked_ns);
    assert_eq!(violation.operations, due, "{violation}");
    let others = [NotUnique, EndsBeforeItBegins];
    assert!(
        others.contains(&kind) || !second_opinion(history),
        "the second checker differs"
    );
}

#[test]
fn one_after_the_other() {
    let history = [
        read(INITIAL, 0, 1),
        write(1, 2, 3),
        read(1, 4, 5),
        write(2, 6, 7),
        read(2, 8, 9),
        read(2, 10, None),
    ];
    let due = Summary {
        blocks: 1,
        reads: 3,
        reads_open: 1,
        writes: 2,
        ..Summary::default()
    };
    assert_eq!(good(&history), due);
    assert_eq!(good(&[]), Summary::default());
}

#[test]
fn reads_of_a_write_under_way_see_either_until_one_sees_it() {
    good(&[
        write(1, 0, 10),
        read(INITIAL, 1, 2),
        read(1, 3, 4),
        read(1, 5, 6),
    ]);
    let history = [write(1, 0, 10), read(1, 1, 2), read(INITIAL, 3, 4)];
    bad(NewThenOld, &history, &[0, 1, 2]);
}

#[test]
fn what_touches_is_concurrent() {
    good(&[
        write(1, 0, 5),
        read(INITIAL, 5, 6),
        write(2, 6, 7),
        read(1, 7, 8),
    ]);
    bad(Stale, &[write(1, 0, 5), read(INITIAL, 6, 7)], &[0, 1]);
    good(&[read(1, 0, 5), write(1, 5, 6)]);
}

#[test]
fn stale_reads_and_lost_writes() {
    let history = [write(1, 0, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)];
    bad(Stale, &history, &[0, 1, 3]);
    bad(Stale, &[write(1, 0, 1), read(INITIAL, 2, 3)], &[0, 1]);
}

#[test]
fn values_from_nowhere() {
    bad(FromNowhere, &[write(1, 0, 1), read(9, 2, 3)], &[1]);
    // Also what another block holds.
    let elsewhere = Operation {
        block: 8,
        ..write(9, 0, 1)
    };
    let violation = check(&[elsewhere, read(9, 2, 3)]).expect_err("misdirected");
    assert_eq!((violation.kind, violation.block), (FromNowhere, 7));
    // An unanswered read says nothing.
    assert_eq!(good(&[read(9, 2, None)]).reads_open, 1);
}

#[test]
fn values_from_the_future() {
    bad(FromTheFuture, &[read(1, 0, 1), write(1, 2, 3)], &[0, 1]);
    bad(FromTheFuture, &[read(1, 0, 1), write(1, 2, None)], &[0, 1]);
}

#[test]
fn new_then_old() {
    let history = [
        write(1, 0, 1),
        write(2, 2, 20),
        read(2, 3, 4),
        read(1, 5, 6),
        read(2, 7, 8),
    ];
    bad(NewThenOld, &history, &[0, 1, 2, 3]);
}

#[test]
fn two_orders_of_concurrent_writes() {
    let history = [
        write(1, 0, 100),
        write(2, 0, 100),
        read(1, 10, 11),
        read(2, 20, 21),
        read(1, 30, 31),
    ];
    bad(NotAtomic, &history, &[0, 1, 2, 3, 4]);
    // A backward zone within a forward one.
    let history = [
        write(1, 0, 1),
        read(1, 30, 31),
        write(2, 10, 21),
        read(2, 20, 22),
    ];
    bad(Stale, &history, &[0, 1, 2]);
    good(&history[..3].iter().copied().map(later).collect::<Vec<_>>());
}

/// With the write of 2 made longer, so that it may stand after the reads of 1.
fn later(operation: Operation) -> Operation {
    if operation.value == 2 {
        write(2, 10, 40)
    } else {
        operation
    }
}

#[test]
fn writes_of_unknown_outcome() {
    // Never, late, and at once.
    good(&[
        write(1, 0, None),
        read(INITIAL, 1, 2),
        read(INITIAL, 100, 101),
    ]);
    let late = [
        write(1, 0, None),
        write(2, 1, 2),
        read(2, 3, 4),
        read(1, 100, 101),
    ];
    let due = Summary {
        blocks: 1,
        reads: 2,
        writes: 1,
        writes_open: 1,
        writes_open_seen: 1,
        ..Summary::default()
    };
    assert_eq!(good(&late), due);
    good(&[
        write(1, 0, None),
        read(1, 1, 2),
        write(2, 3, 4),
        read(2, 5, 6),
    ]);
    // Once seen it stays, and it comes once only.
    bad(
        NewThenOld,
        &[write(1, 0, None), read(1, 1, 2), read(INITIAL, 3, 4)],
        &[0, 1, 2],
    );
    let twice = [
        write(1, 0, None),
        read(1, 1, 2),
        write(2, 3, 4),
        read(2, 5, 6),
        read(1, 7, 8),
    ];
    let violation = check(&twice).expect_err("an old request that landed again");
    assert_eq!(violation.kind, NotAtomic);
}

#[test]
fn the_historys_own_faults() {
    bad(NotUnique, &[write(1, 0, 1), write(1, 2, 3)], &[0, 1]);
    bad(NotUnique, &[write(INITIAL, 0, 1)], &[0]);
    bad(EndsBeforeItBegins, &[write(1, 5, 4)], &[0]);
}

#[test]
fn blocks_do_not_hide_each_other() {
    let mut history: Vec<Operation> = (0..1000)
        .map(|block| Operation {
            block,
            ..write(block + 1, block, block + 2)
        })
        .collect();
    assert_eq!(good_blocks(&history), 1000);
    history.push(Operation {
        block: 999,
        ..read(INITIAL, 5000, 5001)
    });
    history.push(Operation {
        block: 500,
        ..read(INITIAL, 5000, 5001)
    });
    let violation = check(&history).expect_err("two lost writes");
    assert_eq!((violation.kind, violation.block), (Stale, 500));
    let text = violation.to_string();
    assert!(text.starts_with("block 500: stale"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

fn good_blocks(history: &[Operation]) -> u64 {
    check(history).expect("in order").blocks
}

// ---- a second checker --------------------------------------------------------------------------

/// Of the operations of one block: every order is tried.
fn second_opinion(history: &[Operation]) -> bool {
    let mut events: Vec<(u64, usize, usize)> = Vec::new();
    for (at, operation) in history.iter().enumerate() {
        if operation.kind == Read && operation.completed_ns.is_none() {
            continue;
        }
        // Of unknown outcome: at the end of time it disturbs nobody.
        let end = operation.completed_ns.unwrap_or(u64::MAX);
        events.push((operation.invoked_ns, 0, at));
        events.push((end, 1, at));
    }
    if events.is_empty() {
        return true;
    }
    events.sort_unstable();
    let actions = events.into_iter().map(|(_, which, at)| {
        let Operation { kind, value, .. } = history[at];
        let action = match kind {
            Read => RegisterOperation::Read(Some(value)),
            Write => RegisterOperation::Write(value),
        };
        (
            at,
            if which == 0 {
                Action::Call(action)
            } else {
                Action::Response(action)
            },
        )
    });
    let history = History::from_actions(actions.collect());
    WGLChecker::<RegisterSpecification<u64>>::is_linearizable(history)
}

/// A few operations at random times; reads answer what some write writes, now and then nothing known.
fn any_history(random: &mut SmallRng) -> Vec<Operation> {
    let count = random.random_range(1..=9u64);
    let span = random.random_range(2..=24u64);
    (0..count)
        .map(|at| {
            let from = random.random_range(0..span);
            let to = from + random.random_range(0..=span / 2 + 1);
            let open = random.random_ratio(1, 6);
            let to = (!open).then_some(to);
            if random.random_ratio(2, 5) {
                write(at + 1, from, to)
            } else {
                read(random.random_range(0..=count), from, to)
            }
        })
        .collect()
}

/// Reads are given values that exist, so that not nearly all histories are bad for that reason.
fn settle(history: &mut [Operation], random: &mut SmallRng) {
    let mut values: Vec<u64> = vec![INITIAL];
    values.extend(history.iter().filter(|o| o.kind == Write).map(|o| o.value));
    for operation in history.iter_mut().filter(|o| o.kind == Read) {
        if random.random_ratio(19, 20) {
            operation.value = values[random.random_range(0..values.len())];
        }
    }
}

#[test]
fn agrees_with_a_search_of_all_orders() {
    let mut random = SmallRng::seed_from_u64(0x0611);
    let (mut passed, mut refused) = (0, std::collections::BTreeMap::new());
    for round in 0..60_000 {
        let mut history = any_history(&mut random);
        settle(&mut history, &mut random);
        let verdict = check(&history);
        let second = second_opinion(&history);
        assert_eq!(
            verdict.is_ok(),
            second,
            "round {round}: {verdict:?} of {history:#?}"
        );
        match verdict {
            Ok(_) => passed += 1,
            Err(violation) => {
                *refused.entry(format!("{:?}", violation.kind)).or_insert(0) += 1;
                contradicts_itself(&violation.operations, &history);
            }
        }
    }
    println!("{passed} passed, refused {refused:?}");
    assert!(passed > 5_000, "{passed} good ones only");
    for kind in [FromNowhere, FromTheFuture, Stale, NewThenOld, NotAtomic] {
        let seen = refused.get(&format!("{kind:?}")).copied().unwrap_or(0);
        assert!(seen > 200, "{kind:?} was seen {seen} times only");
    }
}

/// What a violation names is enough for it.
fn contradicts_itself(named: &[Operation], history: &[Operation]) {
    assert!(named.iter().all(|operation| history.contains(operation)));
    assert!(!second_opinion(named), "a register explains {named:#?}");
}

// ---- properties --------------------------------------------------------------------------------

/// What one operation of a real register's history is made of.
#[derive(Debug, Clone)]
struct Plan {
    write: bool,
    /// When it takes effect, and how long before and after it begins and ends.
    effect: u64,
    before: u64,
    after: u64,
    /// Its outcome is not told; if `lost`, it has none.
    open: bool,
    lost: bool,
}

fn plans(count: usize) -> impl Strategy<Value = Vec<Plan>> {
    let plan = (
        any::<bool>(),
        0..400u64,
        0..60u64,
        0..60u64,
        0..8u8,
        any::<bool>(),
    );
    let plan = plan.prop_map(|(write, effect, before, after, open, lost)| Plan {
        write,
        effect,
        before,
        after,
        open: open == 0,
        lost,
    });
    proptest::collection::vec(plan, 1..count)
}

/// What clients of a register see that does what it promises.
fn obey(mut plans: Vec<Plan>) -> Vec<Operation> {
    plans.sort_by_key(|plan| plan.effect);
    let mut held = INITIAL;
    let mut history = Vec::with_capacity(plans.len());
    for (value, plan) in (1..).zip(plans) {
        let from = plan.effect.saturating_sub(plan.before);
        let to = (!plan.open).then_some(plan.effect + plan.after);
        if plan.write {
            if !(plan.open && plan.lost) {
                held = value;
            }
            history.push(write(value, from, to));
        } else {
            history.push(read(held, from, to));
        }
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_registers_histories_pass(plans in plans(120), rotate in any::<prop::sample::Index>()) {
        let mut history = obey(plans);
        let middle = rotate.index(history.len());
        history.rotate_left(middle);
        prop_assert_eq!(check(&history).err(), None);
    }

    #[test]
    fn a_changed_history_is_judged_as_the_search_judges_it(
        plans in plans(14),
        at in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        how in 0..4u8,
        by in 0..120u64,
    ) {
        let mut history = obey(plans);
        let value = history[from.index(history.len())].value;
        let changed = at.index(history.len());
        let operation = &mut history[changed];
        match how {
            0 if operation.kind == Read => operation.value = value,
            1 => operation.completed_ns = None,
            2 => {
                operation.invoked_ns += by;
                operation.completed_ns = operation.completed_ns.map(|end| end + by);
            }
            _ => {
                operation.completed_ns = operation.completed_ns.map(|end| end.saturating_sub(by).max(operation.invoked_ns));
            }
        }
        prop_assert_eq!(check(&history).is_ok(), second_opinion(&history));
    }
}
