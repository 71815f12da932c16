//! What a leader knows of the room in its followers' stores, and what follows from it.
//!
//! *Place*: followers say it with every answer to an append stream; requests, streams and copies ask.
//! *Owner*: the replica; single-threaded.
//! *Invariants*: new data is proposed only while a majority of the voters have room for it and for all
//! that this group has under way or that they lack, as far as they have said; what was refused is not in
//! the log, so it cannot stand in the way of a discard. One that has just refused what it was sent has
//! room for nothing, whatever it says: others use what is left there. What is let in on a word that was
//! too old is taken all the same in the end (`overdraft`). A follower that has no room gets nothing but
//! heartbeats, so the log is purged without it; its word, or a pause, brings it back, by log or by copy.
//! *On failure*: words get old. Where nobody says that it is full, nobody is refused: whether there is
//! a quorum at all is not judged here.
//!
//! A full follower cannot be elected while it lacks committed entries. One that lacks none may be: it
//! serves reads and discards, refuses new data as any full leader does, and hands over to a follower
//! that has room if with that one a majority has.

use crate::group::Group;
use crate::limit::{
    CHANGE_TOLD_GAP, FULL_PAUSE_MAX, FULL_PAUSE_MIN, HAND_OVER_GAP, HAND_OVER_ROOM_MIN,
    ROOM_WORD_TERMS,
};
use crate::seldom::Seldom;
use crate::types::RaftMembership;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_runtime::Instant;
use openraft::async_runtime::WatchReceiver;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The followers' room.
#[derive(Debug, Default)]
pub(crate) struct Space {
    words: RefCell<BTreeMap<u64, Word>>,
    full: RefCell<BTreeMap<u64, Full>>,
    /// When leadership was last to be handed over for want of room.
    handed_over: Seldom,
    /// When it was last told that the voters cannot change for want of room.
    change_refused: Seldom,
}

/// What a follower has said last.
#[derive(Clone, Copy, Debug)]
struct Word {
    room: u32,
    at: Instant,
}

impl Word {
    /// Whether that is enough for `need` extents, and for `lacks` that are to come before.
    fn has_room(&self, need: u64, lacks: u64) -> bool {
        u64::from(self.room) >= need + lacks
    }
}

/// A follower that has refused what it was sent.
#[derive(Clone, Copy, Debug)]
struct Full {
    since: Instant,
    pause: Duration,
    /// What it had said before.
    room: u32,
    /// Where it stood, once it has said so.
    matched: Option<u64>,
}

/// Who of some voters has room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    roomy: usize,
    full: usize,
}

impl Space {
    /// A follower has room for so many extents.
    pub(crate) fn note(&self, follower: u64, room: u32) {
        let at = ogee_runtime::now();
        self.words.borrow_mut().insert(follower, Word { room, at });
    }

    /// A follower has everything up to `index`: if that is more than it had, it is full no longer.
    pub(crate) fn note_matched(&self, copyset: CopysetId, follower: u64, index: u64) {
        let mut full = self.full.borrow_mut();
        let Some(it) = full.get_mut(&follower) else {
            return;
        };
        if *it.matched.get_or_insert(index) < index {
            full.remove(&follower);
            tracing::info!(%copyset, replica = follower, "a follower whose store was full goes on");
        }
    }

    /// A follower had no room for what it was sent.
    pub(crate) fn note_full(&self, copyset: CopysetId, follower: u64) {
        let now = ogee_runtime::now();
        let room = self.word(follower).map_or(0, |word| word.room);
        let mut full = self.full.borrow_mut();
        let before = full.get(&follower).copied();
        if before.is_none() {
            tracing::warn!(%copyset, replica = follower, "a follower's store is full: it is left behind");
        }
        let it = Full {
            since: now,
            pause: before.map_or(FULL_PAUSE_MIN, |it| (it.pause * 2).min(FULL_PAUSE_MAX)),
            room,
            matched: before.and_then(|it| it.matched),
        };
        full.insert(follower, it);
    }

    /// Whether a follower is to get neither entries nor a copy for now.
    pub(crate) fn is_full(&self, follower: u64) -> bool {
        let full = self.full.borrow().get(&follower).copied();
        full.is_some_and(|full| {
            let word = self.word(follower);
            let has_more = word.is_some_and(|word| word.room > full.room);
            let pause = if has_more { FULL_PAUSE_MIN } else { full.pause };
            ogee_runtime::now() < full.since + pause
        })
    }

    /// What `follower` has said last, ever.
    fn word(&self, follower: u64) -> Option<Word> {
        self.words.borrow().get(&follower).copied()
    }

    /// Whether every follower that ever said anything had room for `need` extents, and for what
    /// `lacked_by` says that it lacks: the usual case.
    fn is_ample(&self, need: u64, lacked_by: impl Fn(u64) -> Option<u64>) -> bool {
        let words = self.words.borrow();
        let has_room = |(id, word): (&u64, &Word)| {
            lacked_by(*id).is_some_and(|lacks| word.has_room(need, lacks))
        };
        self.full.borrow().is_empty() && words.iter().all(has_room)
    }

    fn count(&self, voters: &BTreeSet<u64>, asked: &Asked<'_>, need: u64) -> Count {
        let mut count = Count::default();
        for voter in voters {
            match self.has_room(*voter, asked, need) {
                Some(true) => count.roomy += 1,
                Some(false) => count.full += 1,
                None => {}
            }
        }
        count
    }

    /// Whether a follower has room for `need` extents and all that it lacks; `None` if that is not
    /// known.
    fn has_room(&self, follower: u64, asked: &Asked<'_>, need: u64) -> Option<bool> {
        if self.is_full(follower) {
            return Some(false);
        }
        let word = self.word(follower).filter(|word| asked.is_fresh(word))?;
        let lacks = (asked.lacked_by)(follower)?;
        Some(word.has_room(need, lacks))
    }

    /// Whether a majority has room for `need` extents beside the leader, who `has_room` itself or
    /// not. Without a word of the others it is left open, unless somebody is full.
    fn quorum_has_room(&self, asked: &Asked<'_>, has_room: bool, need: u64) -> bool {
        let mut halves = asked.members.get_joint_config().iter();
        halves.all(|voters| {
            let mut count = self.count(voters, asked, need);
            if voters.contains(&asked.me) {
                count.roomy += usize::from(has_room);
                count.full += usize::from(!has_room);
            }
            count.roomy > voters.len() / 2 || count.full == 0
        })
    }

    /// Whether `voters` would have a quorum that takes what it lacks; the leader lacks nothing.
    fn room_to_change(&self, voters: &BTreeSet<u64>, asked: &Asked<'_>) -> RoomToChange {
        let others = voters.iter().copied().filter(|id| *id != asked.me);
        let mut roomy = usize::from(voters.contains(&asked.me));
        for id in others {
            match self.has_room(id, asked, 0) {
                Some(false) => return RoomToChange::Short(id),
                Some(true) => roomy += 1,
                None => {}
            }
        }
        if roomy > voters.len() / 2 {
            RoomToChange::Enough
        } else {
            RoomToChange::Unknown
        }
    }

    /// Voters with room for `need` extents, the roomiest first.
    fn roomiest(&self, asked: &Asked<'_>, need: u64) -> Vec<u64> {
        let words = self.words.borrow();
        let roomy = words.iter().filter(|(id, _)| {
            let is_voter = asked.members.voter_ids().any(|voter| voter == **id);
            is_voter && **id != asked.me && self.has_room(**id, asked, need) == Some(true)
        });
        let mut roomy: Vec<(u32, u64)> = roomy.map(|(id, word)| (word.room, *id)).collect();
        roomy.sort_unstable_by(|a, b| b.cmp(a));
        roomy.into_iter().map(|(_, id)| id).collect()
    }
}

/// What is known of the room in the stores of voters to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RoomToChange {
    /// A majority has room for all that it lacks, and nobody is known to have none.
    Enough,
    /// This one has none: in a majority it would count for nothing.
    Short(u64),
    /// Too few have said lately what they have, or it is not known what they lack.
    Unknown,
}

/// Of whom it is asked, by whom, and for how long words count.
struct Asked<'a> {
    members: &'a RaftMembership,
    me: u64,
    word_age_max: Duration,
    /// Extents that a follower lacks of those that applied entries have taken, if it is known.
    lacked_by: &'a dyn Fn(u64) -> Option<u64>,
}

impl Asked<'_> {
    fn is_fresh(&self, word: &Word) -> bool {
        ogee_runtime::now() <= word.at + self.word_age_max
    }
}

impl Group {
    /// Whether a majority of the voters have room for what this group has under way, this leader's
    /// own store aside.
    pub(crate) fn quorum_has_room(&self) -> bool {
        let replica = self.replica();
        let need = replica.claimed_extents() as u64;
        let lacked_by = |follower| replica.lacked_by(follower);
        replica.space.is_ample(need, lacked_by)
            || self.asked(|asked| replica.space.quorum_has_room(asked, true, need))
    }

    /// What is known of the room in the stores of `voters`, which are to be this group's.
    pub(crate) fn room_to_change(&self, voters: &BTreeSet<u64>) -> RoomToChange {
        let space = &self.replica().space;
        let room = self.asked(|asked| space.room_to_change(voters, asked));
        if let RoomToChange::Short(id) = room
            && space.change_refused.may(CHANGE_TOLD_GAP)
        {
            let replica = ReplicaId::new(id);
            tracing::warn!(copyset = %self.copyset(), %replica, "its voters do not change: the store of this one has no room \
                for what it lacks; delete or trim data, or give it a larger device");
        }
        room
    }

    /// Lets a follower with room lead in the place of this replica, whose own store is full, if new
    /// data can be written then.
    pub(crate) fn hand_over_for_room(&self) {
        let space = &self.replica().space;
        let roomier = self.asked(|asked| {
            let can_write = space.quorum_has_room(asked, false, HAND_OVER_ROOM_MIN);
            let roomiest = can_write.then(|| space.roomiest(asked, HAND_OVER_ROOM_MIN));
            roomiest.unwrap_or_default()
        });
        let mut roomier = roomier.into_iter().map(ReplicaId::new);
        let Some(to) = roomier.find(|to| self.is_caught_up(*to)) else {
            return;
        };
        if !space.handed_over.may(HAND_OVER_GAP) {
            return;
        }
        tracing::info!(copyset = %self.copyset(), %to, "this store is full: handing over to one with room");
        let group = self.clone();
        drop(ogee_runtime::spawn(async move {
            if let Err(error) = group.transfer_leader(to).await {
                tracing::warn!(copyset = %group.copyset(), %error, "no handover");
            }
        }));
    }

    fn asked<T>(&self, of: impl FnOnce(&Asked<'_>) -> T) -> T {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let replica = self.replica();
        let asked = Asked {
            lacked_by: &|follower| replica.lacked_by(follower),
            members: metrics.membership_config.membership(),
            me: metrics.id,
            word_age_max: self.config().election_max * ROOM_WORD_TERMS,
        };
        of(&asked)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, RoomToChange, Space};
    use crate::fixture::{COPYSET, run};
    use crate::limit::FULL_PAUSE_MIN;
    use crate::types::{RaftMembership, ReplicaNode};
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    fn members(configs: &[&[u64]]) -> RaftMembership {
        let configs: Vec<BTreeSet<u64>> = configs
            .iter()
            .map(|voters| voters.iter().copied().collect())
            .collect();
        let nodes = configs.iter().flatten();
        let nodes: BTreeMap<u64, ReplicaNode> =
            nodes.map(|id| (*id, ReplicaNode::default())).collect();
        RaftMembership::new(configs, nodes).expect("all have a node")
    }

    fn asked(members: &RaftMembership) -> Asked<'_> {
        Asked {
            members,
            me: 1,
            word_age_max: Duration::from_millis(100),
            lacked_by: &|follower| (follower != 9).then_some(0),
        }
    }

    const fn lacks_none(_: u64) -> Option<u64> {
        Some(0)
    }

    #[test]
    fn a_follower_needs_room_for_what_it_lacks() {
        run(async {
            let (space, three) = (Space::default(), members(&[&[1, 2, 3]]));
            space.note(2, 10);
            space.note(3, 4);
            for (lacks, least) in [(Some(0), 10), (Some(7), 3), (Some(11), 0), (None, 0)] {
                let lacked_by = |follower| if follower == 2 { lacks } else { Some(0) };
                let asked = Asked {
                    lacked_by: &lacked_by,
                    ..asked(&three)
                };
                // The third has room for four.
                let admits = |need| space.quorum_has_room(&asked, true, need);
                let least = least.max(4);
                assert!(admits(least) && !admits(least + 1), "{lacks:?}");
                assert_eq!(
                    space.is_ample(1, lacked_by),
                    lacks.is_some_and(|it| it < 10)
                );
            }
            space.note_full(COPYSET, 2);
            assert!(
                !space.quorum_has_room(&asked(&three), true, 5),
                "it refuses"
            );
            assert!(!space.is_ample(1, lacks_none));
        });
    }

    #[test]
    fn new_data_needs_room_on_a_majority() {
        run(async {
            let (space, three) = (Space::default(), members(&[&[1, 2, 3]]));
            let admits = |need| space.quorum_has_room(&asked(&three), true, need);
            assert!(
                space.is_ample(9, lacks_none) && admits(9),
                "nobody has said anything"
            );
            space.note(2, 10);
            space.note(3, 4);
            assert!(space.is_ample(4, lacks_none) && !space.is_ample(5, lacks_none));
            assert!(admits(10), "with the leader two have room");
            assert!(!admits(11));
            assert!(
                !space.quorum_has_room(&asked(&three), false, 5),
                "the leader is full"
            );
            assert!(space.quorum_has_room(&asked(&three), false, 4));
            assert_eq!(space.roomiest(&asked(&three), 4), [2, 3]);
            assert_eq!(space.roomiest(&asked(&three), 5), [2]);
            let joint = members(&[&[1, 2, 3], &[1, 3, 4]]);
            assert!(
                !space.quorum_has_room(&asked(&joint), true, 5),
                "4 is unknown, 3 is full"
            );
            space.note(4, 5);
            assert!(space.quorum_has_room(&asked(&joint), true, 5));
            // Words get old: one that says nothing is not counted on when another one is full.
            ogee_runtime::sleep(Duration::from_millis(150)).await;
            assert!(admits(11), "nobody is known to be full");
            space.note(3, 4);
            assert!(!admits(5), "3 is, and 2 has said nothing lately");
        });
    }

    #[test]
    fn who_has_no_room_for_what_it_lacks_keeps_a_change_from_beginning() {
        run(async {
            let (space, three) = (Space::default(), members(&[&[1, 2, 3]]));
            let wanted = BTreeSet::from([1, 2, 4]);
            let room = |lacks: Option<u64>| {
                let lacked_by = |follower| if follower == 2 { lacks } else { Some(0) };
                let asked = Asked {
                    lacked_by: &lacked_by,
                    ..asked(&three)
                };
                space.room_to_change(&wanted, &asked)
            };
            let (enough, unknown) = (RoomToChange::Enough, RoomToChange::Unknown);
            assert_eq!(room(Some(190)), unknown, "nobody has said anything");
            space.note(2, 22);
            assert_eq!(room(Some(23)), RoomToChange::Short(2));
            assert_eq!(room(Some(22)), enough, "4 may be dead");
            assert_eq!(room(None), unknown, "nobody knows what 2 lacks");
            space.note(3, 0);
            space.note(4, 0);
            assert_eq!(
                room(Some(22)),
                enough,
                "4 is full, and lacks nothing; 3 goes"
            );
            assert_eq!(room(None), enough, "4 makes a majority with the leader");
            space.note_full(COPYSET, 4);
            assert_eq!(room(Some(0)), RoomToChange::Short(4), "it refuses");
            ogee_runtime::sleep(Duration::from_millis(150)).await;
            assert_eq!(
                room(Some(190)),
                RoomToChange::Short(4),
                "a word of old does not count"
            );
            // One that leads a group which it is to leave does not count.
            let without = BTreeSet::from([3, 5, 6]);
            space.note(3, 9);
            space.note(5, 9);
            let change = |it: &BTreeSet<u64>| space.room_to_change(it, &asked(&three));
            assert_eq!(change(&without), enough);
            assert_eq!(change(&BTreeSet::from([3, 6, 7])), unknown);
        });
    }

    #[test]
    fn a_full_follower_is_tried_again_when_it_has_more_and_now_and_then() {
        run(async {
            let space = Space::default();
            assert!(!space.is_full(2));
            space.note(2, 0);
            space.note_full(COPYSET, 2);
            space.note_full(COPYSET, 2);
            assert!(space.is_full(2) && !space.is_full(3));
            let soon = FULL_PAUSE_MIN + FULL_PAUSE_MIN / 10;
            ogee_runtime::sleep(soon).await;
            assert!(space.is_full(2), "the second time it waits for longer");
            space.note(2, 1);
            assert!(!space.is_full(2), "it has more than it had");
            space.note(2, 0);
            assert!(space.is_full(2));
            ogee_runtime::sleep(soon).await;
            assert!(!space.is_full(2));
            space.note_full(COPYSET, 2);
            space.note_matched(COPYSET, 2, 7);
            space.note_matched(COPYSET, 2, 7);
            assert!(space.is_full(2), "it stands where it stood");
            space.note_matched(COPYSET, 2, 8);
            assert!(!space.is_full(2));
        });
    }
}
