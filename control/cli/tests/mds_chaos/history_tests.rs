//! Histories made by hand, right and wrong.

use super::history::{Answer, Ask, Name, Operation, Place, Seen, contradiction, is_linearizable};

const GIB: u64 = 1 << 30;

/// Of the one volume that most of these are about.
const ONE: Name = Name::at_top(0);
const OTHER: Name = Name::at_top(1);

fn operation(ask: Ask, answer: Answer, from: u64, to: impl Into<Option<u64>>) -> Operation {
    on(Place::Volume(ONE), ask, answer, from, to)
}

fn on(on: Place, ask: Ask, answer: Answer, from: u64, to: impl Into<Option<u64>>) -> Operation {
    Operation {
        on,
        ask,
        answer,
        sent_us: from,
        answered_us: to.into(),
    }
}

fn seen(id: u64, size: u64, epoch: u64, attached: bool) -> Seen {
    Seen {
        id,
        size,
        epoch,
        attached,
    }
}

fn made(id: u64, from: u64, to: u64) -> Operation {
    let answer = Answer::Volume(seen(id, GIB, 0, false));
    operation(Ask::Create { size: GIB }, answer, from, to)
}

fn resized(id: u64, size: u64, from: u64, to: u64) -> Operation {
    let answer = Answer::Volume(seen(id, size, 0, false));
    operation(Ask::Resize { size }, answer, from, to)
}

fn attached(id: u64, epoch: u64, client: u64, from: u64, to: u64) -> Operation {
    let seen = seen(id, GIB, epoch, true);
    operation(Ask::Attach, Answer::Attached { seen, client }, from, to)
}

fn shows(what: Seen, from: u64, to: u64) -> Operation {
    operation(Ask::Show, Answer::Volume(what), from, to)
}

fn shows_none(from: u64, to: u64) -> Operation {
    operation(Ask::Show, Answer::NoVolume, from, to)
}

fn unknown(ask: Ask, from: u64) -> Operation {
    operation(ask, Answer::Unknown, from, None)
}

#[track_caller]
fn good(operations: &[Operation]) {
    assert!(is_linearizable(operations), "{operations:#?}");
    assert_eq!(contradiction(operations), None);
}

#[track_caller]
fn bad(operations: &[Operation], beginning: usize) {
    assert!(!is_linearizable(operations), "{operations:#?}");
    let part = contradiction(operations).expect("it is none");
    assert_eq!(part.len(), beginning, "{part:#?}");
}

#[test]
fn a_life_of_a_name() {
    good(&[
        shows_none(0, 1),
        made(1, 2, 3),
        operation(Ask::Create { size: GIB }, Answer::Exists, 4, 5),
        attached(1, 1, 7, 6, 7),
        operation(Ask::Remove, Answer::InUse, 8, 9),
        attached(1, 2, 8, 10, 11),
        operation(
            Ask::Detach {
                client: 7,
                epoch: 1,
            },
            Answer::Stale,
            12,
            13,
        ),
        shows(seen(1, GIB, 2, true), 14, 15),
        operation(
            Ask::Detach {
                client: 8,
                epoch: 2,
            },
            Answer::Done,
            16,
            17,
        ),
        operation(Ask::Resize { size: 1 }, Answer::Shrinks, 18, 19),
        operation(Ask::TakeAway, Answer::Done, 20, 21),
        shows(seen(1, GIB, 3, false), 22, 23),
        operation(Ask::Remove, Answer::Done, 24, 25),
        operation(Ask::Remove, Answer::NoVolume, 26, 27),
        made(5, 28, 29),
    ]);
    good(&[]);
}

#[test]
fn an_acknowledged_change_that_is_lost() {
    bad(&[made(1, 0, 1), shows_none(2, 3)], 2);
    bad(
        &[
            made(1, 0, 1),
            resized(1, 2 * GIB, 2, 3),
            shows(seen(1, GIB, 0, false), 4, 5),
        ],
        3,
    );
    bad(
        &[
            made(1, 0, 1),
            attached(1, 1, 7, 2, 3),
            shows(seen(1, GIB, 0, false), 4, 5),
        ],
        3,
    );
    let removed = operation(Ask::Remove, Answer::Done, 2, 3);
    bad(
        &[made(1, 0, 1), removed, shows(seen(1, GIB, 0, false), 4, 5)],
        3,
    );
    // What came after the contradiction is not shown.
    bad(&[made(1, 0, 1), shows_none(2, 3), shows_none(4, 5)], 2);
}

#[test]
fn one_that_is_carried_out_twice() {
    // Asked for again after it was done: nobody else has made it.
    bad(
        &[operation(Ask::Create { size: GIB }, Answer::Exists, 0, 9)],
        1,
    );
    bad(&[made(1, 0, 1), attached(1, 2, 8, 2, 9)], 2);
    bad(&[made(1, 0, 1), made(2, 2, 3)], 2);
}

#[test]
fn two_writers_are_not_told_the_same_epoch() {
    bad(
        &[
            made(1, 0, 1),
            attached(1, 1, 7, 2, 9),
            attached(1, 1, 8, 3, 8),
        ],
        3,
    );
    good(&[
        made(1, 0, 1),
        attached(1, 1, 7, 2, 9),
        attached(1, 2, 8, 3, 8),
    ]);
}

#[test]
fn a_leader_that_was_deposed_answers_old_things() {
    let (old, new) = (seen(1, GIB, 0, false), seen(1, 2 * GIB, 0, false));
    bad(
        &[
            made(1, 0, 1),
            resized(1, 2 * GIB, 2, 3),
            shows(new, 4, 5),
            shows(old, 6, 7),
        ],
        4,
    );
    // While the change is under way either is right, until one has seen it.
    good(&[
        made(1, 0, 1),
        resized(1, 2 * GIB, 2, 9),
        shows(old, 3, 4),
        shows(new, 5, 6),
    ]);
    bad(
        &[
            made(1, 0, 1),
            resized(1, 2 * GIB, 2, 9),
            shows(new, 3, 4),
            shows(old, 5, 6),
        ],
        4,
    );
}

#[test]
fn unknown_outcomes_happen_at_any_time_or_never() {
    let create = unknown(Ask::Create { size: GIB }, 0);
    good(&[create, shows_none(1, 2), shows_none(100, 101)]);
    good(&[
        create,
        shows_none(1, 2),
        shows(seen(4, GIB, 0, false), 100, 101),
    ]);
    bad(
        &[
            create,
            shows(seen(4, GIB, 0, false), 1, 2),
            shows_none(100, 101),
        ],
        3,
    );
    // It is one volume, whatever its number is.
    let other = shows(seen(5, GIB, 0, false), 100, 101);
    bad(&[create, shows(seen(4, GIB, 0, false), 1, 2), other], 3);
    let attach = unknown(Ask::Attach, 2);
    good(&[made(1, 0, 1), attach, shows(seen(1, GIB, 1, true), 3, 4)]);
    good(&[
        made(1, 0, 1),
        attach,
        attached(1, 1, 7, 3, 4),
        attached(1, 3, 8, 5, 6),
    ]);
    bad(
        &[
            made(1, 0, 1),
            attach,
            attached(1, 1, 7, 3, 4),
            attached(1, 4, 8, 5, 6),
        ],
        4,
    );
}

#[test]
fn numbers_are_not_given_twice() {
    let removed = operation(Ask::Remove, Answer::Done, 2, 3);
    bad(&[made(3, 0, 1), removed, made(3, 4, 5)], 3);
    bad(&[made(3, 0, 1), removed, made(2, 4, 5)], 3);
}

/// The same, of another volume.
fn of(name: Name, operation: Operation) -> Operation {
    Operation {
        on: Place::Volume(name),
        ..operation
    }
}

fn renamed(from: Name, to: Name, what: Seen, at: (u64, u64)) -> Operation {
    let ask = Ask::Rename { to };
    on(Place::Volume(from), ask, Answer::Volume(what), at.0, at.1)
}

fn directory(at: u8, ask: Ask, answer: Answer, time: (u64, u64)) -> Operation {
    on(Place::Directory(at), ask, answer, time.0, time.1)
}

fn lists(at: u8, volumes: u64, time: (u64, u64)) -> Operation {
    let bytes = volumes * GIB;
    directory(at, Ask::List, Answer::Directory { volumes, bytes }, time)
}

fn free(id: u64) -> Seen {
    seen(id, GIB, 0, false)
}

#[test]
fn a_name_that_changes_hands() {
    let taken = on(
        Place::Volume(ONE),
        Ask::Rename { to: OTHER },
        Answer::Exists,
        4,
        5,
    );
    let homeless = on(
        Place::Volume(ONE),
        Ask::Rename {
            to: Name::within(0),
        },
        Answer::NoDirectory,
        6,
        7,
    );
    good(&[
        made(1, 0, 1),
        of(OTHER, made(2, 2, 3)),
        taken,
        homeless,
        of(OTHER, operation(Ask::Remove, Answer::Done, 8, 9)),
        renamed(ONE, OTHER, free(1), (10, 11)),
        shows_none(12, 13),
        of(OTHER, shows(free(1), 12, 13)),
        operation(Ask::Rename { to: OTHER }, Answer::NoVolume, 14, 15),
        made(3, 16, 17),
    ]);
    // One who has it goes on by the name that he knows, whoever is called so by now.
    let detach = Ask::Detach {
        client: 7,
        epoch: 1,
    };
    good(&[
        made(1, 0, 1),
        attached(1, 1, 7, 2, 3),
        renamed(ONE, OTHER, seen(1, GIB, 1, true), (4, 5)),
        made(2, 6, 7),
        operation(detach, Answer::Done, 8, 9),
        of(OTHER, shows(seen(1, GIB, 1, false), 10, 11)),
    ]);
    // And what has his volume's old name is not taken from anybody.
    bad(
        &[
            made(1, 0, 1),
            attached(1, 1, 7, 2, 3),
            renamed(ONE, OTHER, seen(1, GIB, 1, true), (4, 5)),
            made(2, 6, 7),
            operation(detach, Answer::Stale, 8, 9),
        ],
        5,
    );
}

#[test]
fn an_acknowledged_rename_that_is_lost() {
    let rename = renamed(ONE, OTHER, free(1), (2, 3));
    // Both names are as they were before.
    bad(&[made(1, 0, 1), rename, shows(free(1), 4, 5)], 3);
    // The volume is gone on the way.
    let none = of(OTHER, shows_none(6, 7));
    bad(&[made(1, 0, 1), rename, shows_none(4, 5), none], 4);
}

#[test]
fn a_rename_that_leaves_two_names() {
    let rename = renamed(ONE, OTHER, free(1), (2, 3));
    let new = of(OTHER, shows(free(1), 4, 5));
    bad(&[made(1, 0, 1), rename, new, shows(free(1), 6, 7)], 4);
    // Or in between: whoever has seen the new name must not find it by the old one any more.
    let slow = renamed(ONE, OTHER, free(1), (2, 9));
    bad(&[made(1, 0, 1), slow, new, shows(free(1), 6, 7)], 4);
    // Nor has it no name in between.
    let nowhere = of(OTHER, shows_none(6, 7));
    bad(&[made(1, 0, 1), slow, shows_none(4, 5), nowhere], 4);
    good(&[made(1, 0, 1), slow, shows_none(4, 5), new]);
}

#[test]
fn a_rename_that_is_carried_out_twice() {
    // Asked for again after it was done: another volume that is called so by now goes along.
    let rename = renamed(ONE, OTHER, free(1), (2, 3));
    let back = renamed(OTHER, ONE, free(1), (4, 5));
    bad(
        &[made(1, 0, 1), rename, back, of(OTHER, shows(free(1), 6, 7))],
        4,
    );
    let again = operation(Ask::Rename { to: OTHER }, Answer::NoVolume, 2, 3);
    bad(&[made(1, 0, 1), again, of(OTHER, shows(free(1), 4, 5))], 2);
    // Of unknown outcome it may happen late, but once.
    let unknown = unknown(Ask::Rename { to: OTHER }, 2);
    good(&[
        made(1, 0, 1),
        unknown,
        shows(free(1), 4, 5),
        of(OTHER, shows(free(1), 6, 7)),
        renamed(OTHER, ONE, free(1), (8, 9)),
        shows(free(1), 10, 11),
    ]);
    bad(
        &[
            made(1, 0, 1),
            unknown,
            of(OTHER, shows(free(1), 4, 5)),
            renamed(OTHER, ONE, free(1), (6, 7)),
            of(OTHER, shows(free(1), 8, 9)),
        ],
        5,
    );
}

#[test]
fn a_directory_moves_with_all_that_is_in_it() {
    let [here, there] = [Name::within(0), Name::within(1)];
    let begin = [
        directory(0, Ask::MakeDirectory, Answer::Done, (0, 1)),
        of(here, made(1, 2, 3)),
        lists(0, 1, (4, 5)),
        directory(0, Ask::MoveDirectory { to: 1 }, Answer::Done, (6, 20)),
    ];
    let with = |more: &[Operation]| [&begin[..], more].concat();
    good(&with(&[
        of(here, shows(free(1), 7, 8)),
        of(there, shows(free(1), 9, 10)),
        directory(0, Ask::List, Answer::NoDirectory, (11, 12)),
        lists(1, 1, (13, 14)),
        directory(1, Ask::RemoveDirectory, Answer::NotEmpty, (15, 16)),
    ]));
    // The directory before the volume.
    bad(
        &with(&[lists(1, 1, (7, 8)), of(here, shows(free(1), 9, 10))]),
        6,
    );
    bad(&with(&[lists(1, 0, (7, 8))]), 5);
    // A volume that is left behind, or lost.
    bad(&with(&[of(there, shows_none(21, 22))]), 5);
    bad(
        &with(&[directory(
            0,
            Ask::MakeDirectory,
            Answer::DirectoryExists,
            (21, 22),
        )]),
        5,
    );
}

#[test]
fn numbers_grow_whatever_the_names_are() {
    bad(&[made(3, 0, 1), of(OTHER, made(2, 2, 3))], 2);
    let unknown = of(OTHER, unknown(Ask::Create { size: GIB }, 0));
    // It was made before or after: either is an order.
    good(&[unknown, made(3, 1, 2), of(OTHER, shows(free(2), 4, 5))]);
    good(&[unknown, made(3, 1, 2), of(OTHER, shows(free(5), 4, 5))]);
    bad(
        &[unknown, made(3, 1, 2), of(OTHER, shows(free(3), 4, 5))],
        3,
    );
}
