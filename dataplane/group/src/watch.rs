//! The watch over a shard's groups: lets idle ones go quiet, beats for them, and misses beats.
//!
//! *Place*: beside the groups of a shard; beats travel on the shard's connections to its peers.
//! *Owner*: one task per shard, and while a peer is asked one task for that.
//! *Invariants*: one frame per peer and two looks, whatever the number of quiet groups (each has a
//! hundred bytes in it at most); at most one of them unanswered. Time is counted in looks: a shard
//! that was itself stopped for seconds has missed one beat, and blames nobody for its own sleep.
//! *On failure*: a peer that does not answer, or does not agree, keeps its groups from going quiet.
//! A quiet group is kept alive by its leader's word for this very group, so a leader that is gone,
//! deposed, or out of service on a living node is missed all the same.

use crate::beat::{Beat, Standing, get_beats, get_refused, put_beats, put_refused};
use crate::config::GroupConfig;
use crate::group::{Group, WeakGroup};
use crate::limit::BEATS_MAX;
use crate::looks::next_look;
use crate::peers::PeerBook;
use crate::quiet::Phase;
use ogee_proto::id::{CopysetId, ReplicaId, RequestId};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_transport::{Caller, Endpoint, Frame, Peer, Role};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Looks from beat to beat. A follower's patience is 15 looks and more.
const BEAT_LOOKS: u64 = 2;
/// Looks that the answer to a beat may take.
const ANSWER_LOOKS: u32 = 3;

/// Handle of a shard's watch. Dropping the last one ends it.
pub struct Watch {
    inner: Rc<Inner>,
}

struct Inner {
    peers: Rc<PeerBook>,
    config: GroupConfig,
    watched: RefCell<BTreeMap<CopysetId, Watched>>,
    /// Peers with an unanswered beat.
    asked: RefCell<BTreeSet<Endpoint>>,
    stopped: Cell<bool>,
}

/// One group under watch.
struct Watched {
    group: WeakGroup,
    /// As of the last look.
    requests: u64,
    standing: Option<Standing>,
    /// Looks for which both have been the same.
    idle: u32,
    /// Who agrees to that standing.
    agreed: BTreeSet<ReplicaId>,
}

/// What came of a beat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Agreed,
    Refused,
    Silence,
}

impl Watch {
    /// Starts the watch of a shard whose groups have these times.
    #[must_use]
    pub fn start(peers: Rc<PeerBook>, config: GroupConfig) -> Rc<Self> {
        let inner = Rc::new(Inner {
            peers,
            config,
            watched: RefCell::default(),
            asked: RefCell::default(),
            stopped: Cell::new(false),
        });
        drop(ogee_runtime::spawn(run(inner.clone())));
        Rc::new(Self { inner })
    }

    /// Watches a group until it has stopped.
    pub(crate) fn add(&self, group: &Group) {
        let watched = Watched {
            group: group.downgrade(),
            requests: group.requests(),
            standing: None,
            idle: 0,
            agreed: BTreeSet::new(),
        };
        let mut all = self.inner.watched.borrow_mut();
        all.insert(group.copyset(), watched);
    }

    /// Answers a peer's beats. Does not block.
    pub fn on_beat(&self, peer: &Peer, frame: &Frame) {
        let reply = match get_beats(&frame.meta) {
            Ok(beats) if peer.hello().role == Role::Chunkserver => {
                let mut meta = Vec::new();
                put_refused(&mut meta, &self.inner.hear(&beats));
                let mut reply = Frame::new(FrameHeader::reply(&frame.header, Status::Ok));
                reply.meta = meta.into();
                reply
            }
            refused => {
                tracing::warn!(peer = %peer.hello().name, ?refused, "refused beats");
                Frame::new(FrameHeader::reply(&frame.header, Status::BadRequest))
            }
        };
        if let Err(error) = peer.reply(reply) {
            tracing::debug!(peer = %peer.id(), %error, "an answer found no peer");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.stopped.set(true);
    }
}

async fn run(inner: Rc<Inner>) {
    let mut looks = 0u64;
    while !inner.stopped.get() {
        ogee_runtime::sleep_until(next_look(inner.config.look())).await;
        looks += 1;
        let told = inner.look();
        if !looks.is_multiple_of(BEAT_LOOKS) {
            continue;
        }
        for (caller, beats) in inner.beats(told) {
            if inner.asked.borrow_mut().insert(caller.endpoint().clone()) {
                drop(ogee_runtime::spawn(ask(inner.clone(), caller, beats)));
            }
        }
    }
}

/// Beats for many groups at one peer.
async fn ask(inner: Rc<Inner>, caller: Caller, beats: Vec<Beat>) {
    for some in beats.chunks(BEATS_MAX) {
        let refused = refused(&caller, some, &inner.config).await;
        for beat in some {
            let answer = match &refused {
                Some(refused) if refused.contains(&beat.copyset) => Answer::Refused,
                Some(_) => Answer::Agreed,
                None => Answer::Silence,
            };
            inner.answered(beat, answer);
        }
    }
    inner.asked.borrow_mut().remove(caller.endpoint());
}

/// Which of the groups do not agree; `None` without an answer.
async fn refused(caller: &Caller, beats: &[Beat], config: &GroupConfig) -> Option<Vec<CopysetId>> {
    let header = FrameHeader::new(FrameKind::Beat, RequestId::new(0));
    let mut meta = Vec::new();
    put_beats(&mut meta, beats);
    let mut frame = Frame::new(header);
    frame.meta = meta.into();
    let limit = config.look() * ANSWER_LOOKS;
    let reply = caller.call_within(frame, limit).await.ok()?;
    let reply = (reply.header.status == Status::Ok).then_some(reply)?;
    get_refused(&reply.meta).ok()
}

impl Inner {
    /// One look at every group. Those that are to be told to their followers, and what.
    fn look(&self) -> Vec<(Group, Standing)> {
        let mut told = Vec::new();
        self.watched.borrow_mut().retain(|_, watched| {
            let Some(group) = watched.group.upgrade().filter(Group::is_running) else {
                return false;
            };
            if let Some(standing) = watched.look(&group, &self.config) {
                told.push((group, standing));
            }
            true
        });
        told
    }

    /// The beats for these groups, by peer.
    fn beats(&self, told: Vec<(Group, Standing)>) -> Vec<(Caller, Vec<Beat>)> {
        let mut beats: BTreeMap<Endpoint, (Caller, Vec<Beat>)> = BTreeMap::new();
        for (group, standing) in told {
            let copyset = group.copyset();
            for (to, endpoint) in group.others() {
                let Some(caller) = self.peers.caller(to, &endpoint) else {
                    continue;
                };
                let at = caller.endpoint().clone();
                let (_, list) = beats.entry(at).or_insert((caller, Vec::new()));
                list.push(Beat {
                    copyset,
                    to,
                    standing,
                });
            }
        }
        beats.into_values().collect()
    }

    fn answered(&self, beat: &Beat, answer: Answer) {
        let mut all = self.watched.borrow_mut();
        if let Some(watched) = all.get_mut(&beat.copyset)
            && let Some(group) = watched.group.upgrade()
        {
            watched.answered(&group, beat, answer);
        }
    }

    /// The groups that do not agree with a peer's beats.
    fn hear(&self, beats: &[Beat]) -> Vec<CopysetId> {
        let all = self.watched.borrow();
        let agrees = |beat: &Beat| {
            let group = all.get(&beat.copyset)?.group.upgrade()?;
            (group.replica_id() == beat.to && group.hear_beat(beat.standing)).then_some(())
        };
        let refused = beats.iter().filter(|beat| agrees(beat).is_none());
        refused.map(|beat| beat.copyset).collect()
    }
}

impl Watched {
    /// The standing to beat for, if any.
    fn look(&mut self, group: &Group, config: &GroupConfig) -> Option<Standing> {
        match group.phase() {
            Phase::Awake => {
                group.look_after_leader();
                group.look_after_damage();
                return self.offer(group, config);
            }
            Phase::Leads(standing) if group.leads_in(standing.term) => {
                self.idle = 0;
                return Some(standing);
            }
            Phase::Leads(_) => group.wake(),
            Phase::Follows { .. } => group.miss_beat(),
        }
        self.idle = 0;
        None
    }

    /// A leader that has been idle for long enough offers its followers to be quiet, and is quiet
    /// itself when all have agreed.
    fn offer(&mut self, group: &Group, config: &GroupConfig) -> Option<Standing> {
        if config.quiet_after.is_zero() {
            return None;
        }
        let requests = group.requests();
        let standing = match requests == self.requests {
            true => group.settled(),
            false => None,
        };
        if standing.is_none() || standing != self.standing {
            (self.requests, self.standing, self.idle) = (requests, standing, 0);
            self.agreed.clear();
            return None;
        }
        self.idle += 1;
        let idle_least = match group.rests_soon() {
            true => 1,
            false => config.looks(config.quiet_after),
        };
        if self.idle < idle_least {
            self.agreed.clear();
            return None;
        }
        self.rest_if_agreed(group);
        standing
    }

    fn answered(&mut self, group: &Group, beat: &Beat, answer: Answer) {
        match (group.phase(), answer) {
            (Phase::Leads(standing), Answer::Refused) if standing == beat.standing => {
                group.wake_followers();
            }
            (Phase::Awake, Answer::Agreed) if self.standing == Some(beat.standing) => {
                self.agreed.insert(beat.to);
                self.rest_if_agreed(group);
            }
            (Phase::Awake, Answer::Refused | Answer::Silence) => self.idle = 0,
            _ => {}
        }
    }

    fn rest_if_agreed(&self, group: &Group) {
        let Some(standing) = self.standing else {
            return;
        };
        let all = group
            .others()
            .iter()
            .all(|(id, _)| self.agreed.contains(id));
        // Nothing may have come since they were asked.
        if all && group.requests() == self.requests && group.settled() == Some(standing) {
            group.lead_quietly(standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Watched;
    use crate::config::GroupConfig;
    use crate::fixture::{Lone, run};
    use crate::quiet::Phase;
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// Nobody is asked for leave: it is alone.
    #[test]
    fn a_comparison_lets_a_group_rest_at_once_and_a_request_does_not() {
        run(async {
            let lone = Lone::start().await;
            let group = &lone.group;
            let config = GroupConfig {
                quiet_after: Duration::from_secs(3600),
                ..GroupConfig::default()
            };
            while group.settled().is_none() {
                ogee_runtime::sleep(Duration::from_millis(5)).await;
            }
            let mut watched = Watched {
                group: group.downgrade(),
                requests: group.requests(),
                standing: None,
                idle: 0,
                agreed: BTreeSet::new(),
            };
            for is_request in [false, true, false] {
                let standing = group.settled().expect("nothing is under way");
                group.lead_quietly(standing);
                let requests = group.requests();
                let was_quiet = match is_request {
                    true => group.touch(),
                    false => group.touch_for_comparison(),
                };
                assert!(was_quiet && group.phase() == Phase::Awake);
                assert_eq!(group.requests(), requests + u64::from(is_request));
                for _ in 0..3 {
                    watched.offer(group, &config);
                }
                assert_eq!(group.phase() == Phase::Awake, is_request);
            }
        });
    }
}
