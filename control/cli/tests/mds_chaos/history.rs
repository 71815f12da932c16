//! What a volume's name stands for, as clients of the metadata servers may see it, and whether they saw that.
//!
//! A history holds every request on one name with the times at which it was sent and answered. It is
//! linearizable if each request can be given a moment between the two, so that the answers are those of one
//! metadata server that does one request after the other. A request of unknown outcome may take effect at
//! any time after it was sent, or never. The search is Wing and Gong's, of `todc-utils`.

use std::collections::BTreeMap;
use std::fmt;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Create { size: u64 },
    Resize { size: u64 },
    Attach,
    Detach { client: u64, epoch: u64 },
    TakeAway,
    Remove,
    Show,
}

/// What is said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The volume as the request left it, or found it.
    Volume(Seen),
    Attached {
        seen: Seen,
        client: u64,
    },
    Done,
    Exists,
    NoVolume,
    Shrinks,
    InUse,
    Stale,
    /// Nothing that tells.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: u64,
    pub size: u64,
    pub epoch: u64,
    pub attached: bool,
}

/// One request. Of unknown outcome: it has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub ask: Ask,
    pub answer: Answer,
    pub sent_us: u64,
    pub answered_us: Option<u64>,
}

impl Operation {
    /// Somebody was told so.
    pub fn was_carried_out(&self) -> bool {
        matches!(
            self.answer,
            Answer::Volume(_) | Answer::Attached { .. } | Answer::Done
        )
    }
}

/// By the names of volumes.
pub type Histories = BTreeMap<String, Vec<Operation>>;

/// A name that has none, or one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// The highest number that a volume of this name is known to have had.
    newest: u64,
    volume: Option<Volume>,
}

/// `None` stands for what nobody has been told yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Volume {
    id: Option<u64>,
    size: u64,
    epoch: u64,
    writer: Option<Option<u64>>,
}

/// The metadata servers, for one name.
pub struct Name;

impl Specification for Name {
    type State = Held;
    type Operation = (Ask, Answer);

    fn init() -> Held {
        Held::default()
    }

    fn apply((ask, answer): &(Ask, Answer), held: &Held) -> (bool, Held) {
        match held.after(*ask, *answer) {
            Some(next) => (true, next),
            None => (false, held.clone()),
        }
    }
}

impl Held {
    /// What it is after the request, if such an answer can be given now.
    fn after(&self, ask: Ask, answer: Answer) -> Option<Self> {
        if answer == Answer::Unknown {
            return Some(self.changed(ask));
        }
        let Some(volume) = &self.volume else {
            return match (ask, answer) {
                (Ask::Create { .. }, Answer::Volume(seen)) => self.changed(ask).told(seen),
                (Ask::Create { .. }, _) => None,
                (_, Answer::NoVolume) => Some(self.clone()),
                _ => None,
            };
        };
        let is_told = match (ask, answer) {
            (Ask::Create { .. }, Answer::Exists) => return Some(self.clone()),
            (Ask::Show, Answer::Volume(seen)) => return self.clone().told(seen),
            (Ask::Resize { size }, Answer::Shrinks) => size < volume.size,
            (Ask::Resize { size }, Answer::Volume(seen)) => {
                let next = (size >= volume.size).then(|| self.changed(ask));
                return next?.told(seen);
            }
            (Ask::Attach, Answer::Attached { seen, client }) => {
                let mut next = self.changed(ask).told(seen)?;
                next.volume.as_mut()?.writer = Some(Some(client));
                return Some(next);
            }
            (Ask::TakeAway, Answer::Done) => true,
            (Ask::Remove, Answer::InUse) => volume.writer.is_some(),
            (Ask::Remove, Answer::Done) => volume.writer.is_none(),
            (Ask::Detach { client, epoch }, Answer::Done) => volume.may_detach(client, epoch),
            (Ask::Detach { client, epoch }, Answer::Stale) => !volume.may_detach(client, epoch),
            _ => false,
        };
        match answer {
            Answer::Done => is_told.then(|| self.changed(ask)),
            _ => is_told.then(|| self.clone()),
        }
    }

    /// If it is carried out or refused, whichever is due.
    fn changed(&self, ask: Ask) -> Self {
        let mut next = self.clone();
        match (ask, &mut next.volume) {
            (Ask::Create { size }, none @ None) => {
                *none = Some(Volume {
                    id: None,
                    size,
                    epoch: 0,
                    writer: None,
                });
            }
            (Ask::Resize { size }, Some(volume)) => volume.size = volume.size.max(size),
            (Ask::Attach, Some(volume)) => {
                volume.epoch += 1;
                volume.writer = Some(None);
            }
            (Ask::TakeAway, Some(volume)) => {
                volume.epoch += 1;
                volume.writer = None;
            }
            (Ask::Detach { client, epoch }, Some(volume)) if volume.may_detach(client, epoch) => {
                volume.writer = None;
            }
            (Ask::Remove, Some(volume)) if volume.writer.is_none() => next.volume = None,
            _ => {}
        }
        next
    }

    /// If that is what may be seen of it.
    fn told(mut self, seen: Seen) -> Option<Self> {
        let volume = self.volume.as_mut()?;
        let is_new = volume.id.is_none() && seen.id > self.newest;
        let is_it = volume.id == Some(seen.id) || is_new;
        let same = (volume.size, volume.epoch, volume.writer.is_some());
        if !is_it || same != (seen.size, seen.epoch, seen.attached) {
            return None;
        }
        volume.id = Some(seen.id);
        self.newest = seen.id;
        Some(self)
    }
}

impl Volume {
    fn may_detach(&self, client: u64, epoch: u64) -> bool {
        self.epoch == epoch && self.writer.is_none_or(|writer| writer == Some(client))
    }
}

/// Whether one order explains all answers on one name.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    let mut events: Vec<(u64, usize, usize)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.sent_us, 0, at));
        // Of unknown outcome: at the end of time it disturbs nobody.
        events.push((operation.answered_us.unwrap_or(u64::MAX), 1, at));
    }
    if events.is_empty() {
        return true;
    }
    events.sort_unstable();
    let actions = events.into_iter().map(|(_, which, at)| {
        let Operation { ask, answer, .. } = operations[at];
        let action = if which == 0 {
            Action::Call((ask, answer))
        } else {
            Action::Response((ask, answer))
        };
        (at, action)
    });
    WGLChecker::<Name>::is_linearizable(History::from_actions(actions.collect()))
}

/// The shortest beginning of it that no order explains.
pub fn contradiction(operations: &[Operation]) -> Option<Vec<Operation>> {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.answered_us.unwrap_or(u64::MAX));
    if is_linearizable(&operations) {
        return None;
    }
    // What was not answered by then may have been sent: it is in each beginning.
    let answered = |operation: &&Operation| operation.answered_us.is_some();
    let count = operations.iter().filter(answered).count();
    let (answered, open) = operations.split_at(count);
    let beginning = |length: usize| {
        let end = answered[..length].last().and_then(|it| it.answered_us);
        let mut part = answered[..length].to_vec();
        let later = answered[length..].iter().chain(open);
        let later = later.filter(|it| Some(it.sent_us) <= end);
        part.extend(later.map(|it| Operation {
            answer: Answer::Unknown,
            answered_us: None,
            ..*it
        }));
        part
    };
    let shortest = (1..=count).map(beginning);
    shortest.into_iter().find(|part| !is_linearizable(part))
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.answered_us.map(|at| at.to_string());
        let end = end.unwrap_or_default();
        let (ask, answer) = (self.ask, self.answer);
        write!(f, "{:>9}..{end:<9} {ask:?}: {answer:?}", self.sent_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn operation(ask: Ask, answer: Answer, from: u64, to: impl Into<Option<u64>>) -> Operation {
        Operation {
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
}
