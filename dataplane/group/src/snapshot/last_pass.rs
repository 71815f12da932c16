//! The end of a copy: the part for which the log must be kept.
//!
//! *Place*: prepared by one attempt of the sender, used by the next, and after it by the target's
//! catching up. *Owner*: the leader's replica; one at a time per store, whose log it needs.
//! *Invariants*: while it lives the log behind its checkpoint is kept, and what writers may put into
//! the log shrinks with the room that is left, never to nothing ([`PACE_RATE_MIN`]).
//! *On failure*: it ends, the log goes, writers are free. What the target has got stays good, unless
//! it had installed the copy: then it needs another one.
//!
//! The room that is left at any moment is given to the writers at the rate at which it lasts for
//! [`LAST_PASS_HORIZON`]. On a log that holds much more than they write in that time they notice
//! nothing; on a small one they slow down while the end lasts, and with them what the target has to
//! catch up with.
//!
//! [`PACE_RATE_MIN`]: crate::limit::PACE_RATE_MIN

use super::gain::Speed;
use crate::limit::{
    CATCH_UP_KEPT, CATCH_UP_LOOK, CATCH_UP_LOSSES, CATCH_UP_STUCK, CAUGHT_UP_SHARE,
    LAST_PASS_HORIZON, LAST_PASS_MAX, LAST_PASS_PERCENT, LAST_PASS_SEND_MAX, LAST_PASS_SHARE,
};
use crate::pacer::Limit;
use crate::replica::{KeptLog, Replica};
use ogee_log::LogUsage;
use ogee_proto::id::{LogIndex, ReplicaId};
use ogee_runtime::channel::Permit;
use ogee_runtime::{Instant, ScopedTask};
use std::rc::{Rc, Weak};

/// Blocks that are little enough in any case.
const FEW: u64 = 256;

/// Writers held back, and the turn to do so.
pub(super) struct Brake {
    _turn: Option<Permit>,
    _task: ScopedTask<()>,
}

impl Brake {
    pub(super) fn begin(replica: &Rc<Replica>, turn: Option<Permit>) -> Self {
        let (weak, limit) = (Rc::downgrade(replica), replica.pacer().limit());
        Self {
            _turn: turn,
            _task: ogee_runtime::spawn_scoped(hold_back(weak, limit)),
        }
    }
}

/// All that the end of a copy needs.
pub(super) struct LastPass {
    pub(super) brake: Brake,
    pub(super) log: KeptLog,
}

async fn hold_back(replica: Weak<Replica>, limit: Limit) {
    let until = ogee_runtime::now() + LAST_PASS_MAX;
    while ogee_runtime::now() < until {
        let Some(replica) = replica.upgrade() else {
            return;
        };
        limit.set(rate(&replica.log_usage()));
        drop(replica);
        ogee_runtime::sleep(CATCH_UP_LOOK).await;
    }
}

/// Bytes per second at which the room lasts for [`LAST_PASS_HORIZON`].
fn rate(usage: &LogUsage) -> u64 {
    let wanted = usage.capacity.get() * LAST_PASS_PERCENT / 100;
    wanted.saturating_sub(usage.used.get()) / LAST_PASS_HORIZON.as_secs()
}

/// Whether so many blocks are sent before writers have taken more of the log than is to spare.
pub(super) fn is_little(blocks: u64, speed: Speed, log_len: u64) -> bool {
    let time = blocks as f64 / speed.sent.max(1.0);
    let taken = time * speed.appended;
    blocks <= FEW
        || time <= LAST_PASS_SEND_MAX.as_secs_f64() && taken <= (log_len / LAST_PASS_SHARE) as f64
}

/// How a target that got its copy fares against the writers.
struct Chase {
    /// The newest entry that it has, and since when.
    has: Option<u64>,
    moved: Instant,
    /// When it was last compared what it lacks, and the bytes of that.
    compared: (Instant, Option<u64>),
    /// Comparisons in a row that found it no nearer.
    losses: u32,
}

/// What that asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Open,
    /// To hold writers back is no use.
    Vain,
    Lost,
}

impl Chase {
    fn begin() -> Self {
        let now = ogee_runtime::now();
        Self {
            has: None,
            moved: now,
            compared: (now, None),
            losses: 0,
        }
    }

    /// It has entries up to `has`, and lacks so many bytes.
    fn look(&mut self, has: Option<u64>, lacks: Option<u64>) -> Standing {
        let now = ogee_runtime::now();
        let is_moving = has > self.has;
        if is_moving {
            (self.has, self.moved) = (has, now);
        }
        let (since, lacked) = self.compared;
        if now < since + CATCH_UP_STUCK {
            return Standing::Open;
        }
        // One that says nothing may be on its way back: nothing is lost to it before the log is.
        if now > self.moved + CATCH_UP_STUCK {
            return Standing::Vain;
        }
        self.compared = (now, lacks);
        let (Some(lacks), Some(lacked)) = (lacks, lacked) else {
            return Standing::Open;
        };
        self.losses = if lacks < lacked { 0 } else { self.losses + 1 };
        match self.losses {
            0 => Standing::Open,
            losses if losses < CATCH_UP_LOSSES => Standing::Vain,
            _ => Standing::Lost,
        }
    }
}

/// Keeps the log until a target that got its copy has caught up, and holds writers back while it
/// comes nearer.
pub(super) async fn catch_up(
    replica: Weak<Replica>,
    target: ReplicaId,
    until: u64,
    last: LastPass,
) {
    let LastPass { brake, log } = last;
    let (mut brake, began) = (Some(brake), ogee_runtime::now());
    let mut chase = Chase::begin();
    while ogee_runtime::now() < began + CATCH_UP_KEPT {
        let Some(replica) = replica.upgrade() else {
            return;
        };
        if replica.follows_another() {
            // It no longer hears how far the target is, and who leads has a log of its own to keep.
            return;
        }
        let has = replica.followers.matched(target.get());
        let lacks = has.map(|has| replica.lacks(has));
        if has.is_some_and(|has| has >= until) && lacks.is_some_and(|it| replica.is_near(it)) {
            replica.copies.laggards.has_caught_up(target);
            tracing::info!(copyset = %replica.copyset, %target, took = ?(ogee_runtime::now() - began),
                "a copy is complete, and its replica has caught up");
            return;
        }
        let is_gone = !replica.has_log_behind(has.unwrap_or(0).max(log.behind()));
        let standing = if is_gone {
            Standing::Lost
        } else {
            chase.look(has, lacks)
        };
        match standing {
            Standing::Open => {}
            Standing::Vain => drop(brake.take()),
            Standing::Lost => {
                let pause = replica.copies.laggards.note(target);
                tracing::warn!(copyset = %replica.copyset, %target, ?pause,
                    "a replica got its copy and takes entries more slowly than they come: it is left \
                     behind for a while; look at its device and its network");
                return;
            }
        }
        drop(replica);
        ogee_runtime::sleep(CATCH_UP_LOOK).await;
    }
    drop(log);
    tracing::warn!(%target, "a replica got its copy and does not catch up: its log is kept no longer");
}

impl Replica {
    /// Whether its newest vote is for another replica: then it does not lead.
    fn follows_another(&self) -> bool {
        let vote = self.log.state().vote;
        vote.is_some_and(|vote| vote.voted_for != self.id.get())
    }

    /// Bytes of the log behind an entry.
    fn lacks(&self, matched: u64) -> u64 {
        self.log.live_len_from(LogIndex::new(matched + 1)).get()
    }

    fn is_near(&self, lacks: u64) -> bool {
        lacks <= self.log_usage().capacity.get() / CAUGHT_UP_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::{Brake, Chase, LastPass, Speed, Standing, catch_up, is_little, rate};
    use crate::fixture::{Lone, run};
    use crate::limit::{CATCH_UP_LOOK, CATCH_UP_LOSSES, CATCH_UP_STUCK, LAST_PASS_HORIZON};
    use crate::replica::Replica;
    use ogee_log::{LogUsage, Vote};
    use ogee_proto::id::ReplicaId;
    use ogee_proto::unit::ByteLen;
    use std::rc::Rc;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_rest_is_little_when_the_log_bears_it() {
        let speed = Speed {
            sent: 10_000.0,
            changed: 8_000.0,
            appended: 40.0 * MIB as f64,
        };
        // A second of writers takes a fifth of 200 MiB.
        assert!(is_little(10_000, speed, 201 * MIB));
        assert!(!is_little(11_000, speed, 201 * MIB));
        assert!(is_little(11_000, speed, 401 * MIB));
        // However large the log.
        assert!(!is_little(60_000, speed, 1 << 40));
        let unknown = Speed::default();
        assert!(is_little(100, unknown, MIB) && !is_little(1000, unknown, MIB));
    }

    #[test]
    fn the_less_room_is_left_the_slower_it_is_given() {
        run(async {
            let lone = Lone::open().await;
            let usage = |used| LogUsage {
                capacity: ByteLen::new(1000 * MIB),
                used: ByteLen::new(used),
                ..lone.group.replica().log_usage()
            };
            let seconds = LAST_PASS_HORIZON.as_secs();
            assert_eq!(rate(&usage(0)), 700 * MIB / seconds);
            assert_eq!(rate(&usage(600 * MIB)), 100 * MIB / seconds);
            assert_eq!(rate(&usage(700 * MIB)), 0, "what the pacer makes its least");
            assert_eq!(rate(&usage(900 * MIB)), 0);
        });
    }

    /// A leader with a checkpoint, up to which its log is purged.
    async fn leader() -> (Lone, Rc<Replica>, u64) {
        let lone = Lone::start().await;
        let replica = lone.group.replica().clone();
        // It leads before it has applied its first entry.
        let upto = loop {
            assert!(lone.keeper.checkpoint_now().await);
            match replica.checkpointed_to() {
                Some(upto) if replica.log.state().purged == Some(upto) => break upto,
                _ => ogee_runtime::sleep(CATCH_UP_LOOK).await,
            }
        };
        (lone, replica, upto.index.get())
    }

    #[test]
    fn the_log_goes_up_to_what_the_neediest_copy_needs() {
        run(async {
            let (_lone, replica, upto) = leader().await;
            assert_eq!(replica.may_purge(upto + 9), Some(upto + 9));
            let all = ByteLen::new(u64::MAX);
            let (early, late) = (
                replica.keep_log(upto + 2, all),
                replica.keep_log(upto + 5, all),
            );
            assert!(replica.is_log_kept());
            assert_eq!(replica.may_purge(upto + 9), Some(upto + 2));
            assert_eq!(replica.may_purge(upto + 1), Some(upto + 1));
            drop(early);
            assert_eq!(replica.may_purge(upto + 9), Some(upto + 5));
            drop(late);
            assert!(!replica.is_log_kept());
            let short = replica.keep_log(0, ByteLen::new(0));
            assert_eq!(
                replica.may_purge(upto),
                Some(upto),
                "longer than it asked for"
            );
            drop(short);
            let hold = replica.hold();
            assert_eq!(replica.may_purge(upto), None);
            drop(hold);
        });
    }

    #[test]
    fn a_target_that_takes_entries_and_comes_no_nearer_has_lost() {
        run(async {
            let mut chase = Chase::begin();
            let mut has = 0;
            let mut later = async |lacks| {
                ogee_runtime::sleep(CATCH_UP_STUCK / 2).await;
                has += 1;
                assert_eq!(chase.look(Some(has), Some(lacks)), Standing::Open);
                ogee_runtime::sleep(CATCH_UP_STUCK / 2 + CATCH_UP_LOOK).await;
                has += 1;
                chase.look(Some(has), Some(lacks))
            };
            assert_eq!(later(1000).await, Standing::Open, "the first look");
            assert_eq!(later(900).await, Standing::Open, "nearer");
            for _ in 1..CATCH_UP_LOSSES {
                assert_eq!(later(900).await, Standing::Vain);
            }
            assert_eq!(later(899).await, Standing::Open, "nearer again");
            for _ in 1..CATCH_UP_LOSSES {
                assert_eq!(later(950).await, Standing::Vain);
            }
            assert_eq!(later(950).await, Standing::Lost);
        });
    }

    #[test]
    fn writers_are_held_back_while_a_target_catches_up_and_not_for_one_that_does_not() {
        run(async {
            let (_lone, replica, upto) = leader().await;
            let (target, pacer) = (ReplicaId::new(9), replica.pacer());
            let begin = || {
                let last = LastPass {
                    brake: Brake::begin(&replica, None),
                    log: replica.keep_log(upto, ByteLen::new(u64::MAX)),
                };
                let keeps = catch_up(Rc::downgrade(&replica), target, upto + 100, last);
                ogee_runtime::spawn_scoped(keeps)
            };
            let keeps = begin();
            ogee_runtime::sleep(2 * CATCH_UP_LOOK).await;
            assert!(pacer.is_limited() && replica.is_log_kept());
            replica.followers.note(target.get(), 1, upto + 99);
            ogee_runtime::sleep(3 * CATCH_UP_LOOK).await;
            assert!(pacer.is_limited(), "one entry is missing");
            replica.followers.note(target.get(), 1, upto + 100);
            ogee_runtime::sleep(3 * CATCH_UP_LOOK).await;
            assert!(!pacer.is_limited() && !replica.is_log_kept());
            drop(keeps);

            replica.followers.note(target.get(), 1, upto);
            let _keeps = begin();
            ogee_runtime::sleep(CATCH_UP_STUCK / 2).await;
            assert!(pacer.is_limited());
            ogee_runtime::sleep(CATCH_UP_STUCK).await;
            assert!(!pacer.is_limited(), "it makes no progress");
            assert!(replica.is_log_kept(), "it may still come");
            let of_another = Vote {
                term: 1000,
                voted_for: target.get(),
                committed: false,
            };
            let saved = replica.log.save_vote(of_another).await;
            saved.expect("a vote is saved");
            ogee_runtime::sleep(3 * CATCH_UP_LOOK).await;
            assert!(!replica.is_log_kept(), "to nobody that leads no more");
        });
    }
}
