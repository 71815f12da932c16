//! From what was found of a group to the group: what is whole, and what is lost.
//!
//! *Place*: the end of `replay`. *Owner*: the task that opens the log; no I/O. *Invariants*: going
//! down from the last entry, each is taken only if the one after it names its identity, so nothing
//! that is left over from before a lost record passes for what the record said; below an entry of
//! which nothing is known, entries are taken as they are and compared when it is put back.
//! *On failure*: an entry that is not there, or not the right one, is a [`Loss`].

use crate::facts::Facts;
use crate::group::{Durable, Front, Group, Loss, Slot};
use crate::limit::LOST_ENTRIES_MAX;
use crate::record::{EntryRecord, Named};
use crate::replay::{Found, Replay, Replayed};
use crate::segments::EntryPlace;
use crate::window::Window;
use ogee_proto::id::{CopysetId, LogId};
use std::collections::BTreeMap;

impl Replay {
    /// All groups.
    pub(crate) fn settle(self) -> BTreeMap<CopysetId, Group> {
        let groups = self.groups.into_iter();
        groups.map(|(id, group)| (id, group.settle(id))).collect()
    }
}

/// An entry of a group that is being settled.
struct Piece {
    slot: Slot,
    place: Option<EntryPlace>,
    loss: Option<Loss>,
}

impl Replayed {
    fn settle(mut self, group: CopysetId) -> Group {
        let live = self.facts.live();
        let found = self.entries.range(live.clone()).count();
        let missing = (live.end - live.start).saturating_sub(found as u64);
        if missing > LOST_ENTRIES_MAX {
            // Nobody could bring them back one by one: the replica is replaced.
            tracing::error!(%group, missing, "too much of the log is lost");
            self.forget();
        }
        let mut pieces = Vec::with_capacity(self.entries.len());
        let mut expected = known(self.facts.last_crc);
        for index in self.facts.live().rev() {
            let found = self.entries.remove(&index);
            let found = found.filter(|found| expected.is_none_or(|id| id == found.identity()));
            let piece = piece_of(index, found, expected);
            expected = known(piece.slot.record.chain);
            pieces.push(piece);
        }
        build(self.facts, pieces)
    }

    fn forget(&mut self) {
        self.entries.clear();
        let last = self.facts.last;
        self.facts.first = last.map_or(0, |last| last.index.get() + 1);
        self.facts.lose();
    }
}

const fn known(identity: u32) -> Option<u32> {
    if identity == 0 { None } else { Some(identity) }
}

fn piece_of(index: u64, found: Option<Found>, expected: Option<u32>) -> Piece {
    match found {
        Some(Found::Whole {
            record,
            payload_at,
            place,
        }) => Piece {
            slot: Slot {
                record,
                serial: 0,
                durable_at: Some(payload_at),
                cached: None,
            },
            place: Some(place),
            loss: None,
        },
        Some(Found::Named { named, place }) => Piece {
            slot: Slot::lost(&named),
            place: Some(place),
            loss: Some(Loss::Entry),
        },
        None => {
            let named = Named {
                id: LogId::new(0, index),
                identity: expected.unwrap_or(0),
                chain: 0,
            };
            Piece {
                slot: Slot::lost(&named),
                place: None,
                loss: Some(Loss::Entry),
            }
        }
    }
}

/// `pieces` from the last entry to the first.
fn build(facts: Facts, pieces: Vec<Piece>) -> Group {
    let (mut entries, mut places) = (Window::default(), Window::default());
    let mut losses = BTreeMap::new();
    for (index, piece) in facts.live().zip(pieces.into_iter().rev()) {
        losses.extend(piece.loss.map(|loss| (index, loss)));
        places.push(index, piece.place);
        entries.push(index, piece.slot);
    }
    Group {
        front: Front::recovered(facts, entries, losses),
        durable: Durable {
            exists: true,
            facts,
            places,
            placed: BTreeMap::new(),
        },
        queued: 0,
        cost: 0,
    }
}

impl Slot {
    /// An entry of which only the identity is known, if that.
    pub(crate) fn lost(named: &Named) -> Self {
        Self {
            record: EntryRecord::lost(named),
            serial: 0,
            durable_at: None,
            cached: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::entry::Entry;
    use crate::facts::Facts;
    use crate::group::Loss;
    use crate::head::SegmentHead;
    use crate::record::{Decoded, EntryRecord, Record};
    use crate::repeat::Repeat;
    use crate::replay::Replay;
    use bytes::Bytes;
    use ogee_proto::id::{CopysetId, LogId, StoreId};
    use ogee_proto::unit::ByteOffset;
    use ogee_runtime::Payload;

    const GROUP: CopysetId = CopysetId::new(1);

    fn entry(term: u64, index: u64, chain: u32) -> EntryRecord {
        let entry = Entry {
            id: LogId::new(term, index),
            kind: 0,
            head: Bytes::new(),
            payload: Payload::empty(),
            payload_crc: 0,
        };
        EntryRecord::new(GROUP, &entry, chain)
    }

    /// Entries of one term that follow each other.
    fn chained(indexes: std::ops::RangeInclusive<u64>) -> Vec<EntryRecord> {
        let mut chain = 0;
        let link = |index| {
            let record = entry(1, index, chain);
            chain = record.identity;
            record
        };
        indexes.map(link).collect()
    }

    fn apply(replay: &mut Replay, record: Record) {
        let decoded = Decoded {
            group: GROUP,
            record,
            payload_page: 0,
        };
        replay.apply(decoded, 0, ByteOffset::ZERO);
    }

    /// A segment begins in which the group's live entries are said to be `first..=last`.
    fn begin(replay: &mut Replay, first: u64, last: &EntryRecord) {
        let facts = Facts {
            first,
            last: Some(last.id),
            last_crc: last.identity,
            ..Facts::default()
        };
        replay.begin_segment(&SegmentHead {
            store: StoreId::default(),
            slot: 0,
            sequence: 1,
            epoch: 1,
            first_batch: 1,
            previous: None,
            oldest_live: 1,
            region_len: 0,
            segment_len: 0,
            groups: vec![(GROUP, facts)],
            crc: 0,
        });
    }

    /// Facts, and each lost index with its identity.
    fn settle(replay: Replay) -> (Facts, Vec<(u64, u32)>) {
        let groups = replay.settle();
        let Some(group) = groups.get(&GROUP) else {
            return (Facts::default(), Vec::new());
        };
        let identity = |index| {
            let slot = group.front.entry(index).expect("live");
            slot.record.identity
        };
        let losses = group.front.losses.iter();
        let losses = losses.map(|(index, loss)| {
            assert_eq!(*loss, Loss::Entry);
            (*index, identity(*index))
        });
        (group.front.facts, losses.collect())
    }

    #[test]
    fn moved_entries_fill_what_freed_segments_left() {
        let mut replay = Replay::default();
        let all = chained(3..=4);
        begin(&mut replay, 3, &all[1]);
        apply(&mut replay, Record::Moved(all[1].clone()));
        apply(&mut replay, Record::Moved(entry(1, 9, 0)));
        apply(&mut replay, Record::Moved(all[0].clone()));
        let (facts, losses) = settle(replay);
        assert_eq!((facts.live(), losses), (3..5, vec![]));
    }

    /// The oldest segment left has lost its header, so what is live is told by the next one only.
    #[test]
    fn copies_count_before_it_is_known_where_the_log_ends() {
        let all = chained(3..=5);
        let copies = |replay: &mut Replay| {
            replay.lose();
            apply(replay, Record::Moved(all[0].clone()));
            apply(replay, Record::Hole(all[1].named()));
            let moved = Record::Moved(all[2].clone());
            replay.say(Repeat::of(GROUP, &moved), 0);
        };
        let named = [(4, all[1].identity), (5, all[2].identity)];
        let mut replay = Replay::default();
        copies(&mut replay);
        begin(&mut replay, 3, &all[2]);
        let (facts, losses) = settle(replay);
        assert_eq!((facts.live(), &losses[..]), (3..6, &named[..]));
        // A purge does not tell the end.
        let mut replay = Replay::default();
        copies(&mut replay);
        apply(&mut replay, Record::Purge(LogId::new(1, 3)));
        begin(&mut replay, 4, &all[2]);
        assert_eq!(settle(replay).1, named);
        // A truncation does; what is appended to it is not what was copied before.
        let mut replay = Replay::default();
        copies(&mut replay);
        let (last, crc) = (Some(all[0].id), all[0].identity);
        apply(&mut replay, Record::Truncate { last, crc });
        let newer = entry(2, 4, crc);
        begin(&mut replay, 3, &newer);
        assert_eq!(settle(replay).1, [(4, newer.identity)]);
        // Nothing does: the group has lost its end, and no entry is said to be there.
        let mut replay = Replay::default();
        copies(&mut replay);
        let (facts, losses) = settle(replay);
        assert!(facts.end_lost && facts.live().is_empty() && losses.is_empty());
    }

    #[test]
    fn a_missing_entry_is_named_by_the_one_after_it() {
        let mut replay = Replay::default();
        let all = chained(3..=5);
        begin(&mut replay, 3, &all[2]);
        apply(&mut replay, Record::Moved(all[2].clone()));
        let (_, losses) = settle(replay);
        assert_eq!(losses, [(3, 0), (4, all[1].identity)]);
    }

    #[test]
    fn the_last_one_is_named_by_the_table() {
        let mut replay = Replay::default();
        let all = chained(3..=5);
        begin(&mut replay, 3, &all[2]);
        apply(&mut replay, Record::Moved(all[0].clone()));
        apply(&mut replay, Record::Hole(all[1].named()));
        let (_, losses) = settle(replay);
        assert_eq!(losses, [(4, all[1].identity), (5, all[2].identity)]);
    }

    #[test]
    fn what_a_lost_record_replaced_does_not_pass_for_it() {
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(entry(1, 3, 0)));
        // Lost: a truncation, and another entry 3.
        let newer = entry(2, 3, 0);
        begin(&mut replay, 3, &newer);
        assert_eq!(settle(replay).1, [(3, newer.identity)]);
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(entry(1, 3, 77)));
        apply(&mut replay, Record::Entry(entry(1, 4, newer.identity)));
        assert_eq!(settle(replay).1, [(3, newer.identity)]);
    }

    #[test]
    fn a_lost_batch_is_repeated() {
        let all = chained(3..=6);
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(all[0].clone()));
        for record in [
            Record::Entry(all[1].clone()),
            Record::Entry(all[2].clone()),
            Record::Vote(crate::entry::Vote::default()),
        ] {
            replay.say(Repeat::of(GROUP, &record), 0);
        }
        apply(&mut replay, Record::Entry(all[3].clone()));
        let (facts, losses) = settle(replay);
        assert_eq!(facts.live(), 3..7);
        assert!(facts.vote.is_some() && !facts.vote_lost && !facts.end_lost);
        assert_eq!(losses, [(4, all[1].identity), (5, all[2].identity)]);
    }

    #[test]
    fn what_nothing_repeats_is_lost_until_a_record_states_it_again() {
        let all = chained(3..=6);
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(all[0].clone()));
        replay.lose();
        let vote = crate::entry::Vote::default();
        apply(&mut replay, Record::Vote(vote));
        apply(&mut replay, Record::Entry(all[3].clone()));
        let (facts, losses) = settle(replay);
        assert!(!facts.vote_lost && !facts.end_lost);
        assert_eq!(losses, [(4, 0), (5, all[2].identity)]);
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(all[0].clone()));
        replay.lose();
        let (facts, losses) = settle(replay);
        assert!(facts.vote_lost && facts.end_lost && losses.is_empty());
    }

    #[test]
    fn a_group_first_seen_after_a_loss_may_have_begun_before_it() {
        let mut replay = Replay::default();
        replay.lose();
        apply(&mut replay, Record::Entry(entry(1, 2, 9)));
        let (facts, losses) = settle(replay);
        assert!(facts.vote_lost);
        assert_eq!(losses, [(0, 0), (1, 9)]);
        let mut replay = Replay::default();
        replay.lose();
        replay.expect(GROUP);
        assert!(settle(replay).0.end_lost);
    }

    /// Its removal is lost, and what it began with; the rest cannot follow what is known from before.
    #[test]
    fn a_group_made_again_among_what_is_lost_is_not_its_earlier_life() {
        let all = chained(1..=6);
        let earlier = || {
            let mut replay = Replay::default();
            let entries = all[..5].iter().cloned();
            entries.for_each(|entry| apply(&mut replay, Record::Entry(entry)));
            apply(&mut replay, Record::Vote(crate::entry::Vote::default()));
            apply(&mut replay, Record::Purge(LogId::new(1, 3)));
            replay.lose();
            replay
        };
        let mut replay = earlier();
        let newer = entry(2, 2, 9);
        apply(&mut replay, Record::Entry(newer));
        let (facts, losses) = settle(replay);
        assert_eq!((facts.live(), facts.purged, facts.vote), (0..3, None, None));
        assert!(facts.vote_lost && !facts.end_lost);
        assert_eq!(losses, [(0, 0), (1, 9)]);
        for upto in [LogId::new(1, 2), LogId::new(2, 3)] {
            let mut replay = earlier();
            apply(&mut replay, Record::Purge(upto));
            let (facts, losses) = settle(replay);
            assert_eq!((facts.purged, facts.last), (Some(upto), Some(upto)));
            assert!(facts.vote_lost && facts.end_lost && losses.is_empty());
        }
        let (last, crc) = (Some(LogId::new(2, 1)), 9);
        let mut replay = earlier();
        apply(&mut replay, Record::Truncate { last, crc });
        let (facts, losses) = settle(replay);
        assert_eq!((facts.last, facts.live()), (last, 0..2));
        assert_eq!((facts.purged, losses), (None, vec![(0, 0), (1, 9)]));
        // What follows it is of the same life.
        for record in [
            Record::Entry(all[5].clone()),
            Record::Purge(LogId::new(1, 3)),
            Record::Purge(LogId::new(1, 4)),
        ] {
            let mut replay = earlier();
            apply(&mut replay, record);
            let (facts, losses) = settle(replay);
            assert!(facts.vote.is_some() && facts.purged.is_some() && losses.is_empty());
            assert_eq!(
                facts.live().start,
                facts.purged.expect("purged").index.get() + 1
            );
        }
    }

    #[test]
    fn an_absurd_loss_is_not_listed() {
        let mut replay = Replay::default();
        begin(&mut replay, 0, &entry(1, u64::MAX - 2, 0));
        let (facts, losses) = settle(replay);
        assert!(facts.end_lost && facts.vote_lost && losses.is_empty());
    }

    #[test]
    fn a_segment_header_overrules_what_was_replayed() {
        let all = chained(1..=6);
        let mut replay = Replay::default();
        for record in &all {
            apply(&mut replay, Record::Entry(record.clone()));
        }
        begin(&mut replay, 3, &all[2]);
        let (facts, losses) = settle(replay);
        assert_eq!((facts.live(), losses), (3..4, vec![]));
        let mut replay = Replay::default();
        apply(&mut replay, Record::Entry(entry(1, 1, 0)));
        apply(&mut replay, Record::RemoveGroup);
        assert_eq!(settle(replay).0, Facts::default());
    }
}
