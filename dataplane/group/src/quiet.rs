//! Quiet groups: no ticks, no heartbeats where nothing happens.
//!
//! *Place*: part of the group; `watch` decides when, requests and the other replicas' messages end it.
//! *Owner*: one replica of one group; plain cells.
//! *Invariants*
//! 1. A follower is quiet only while it agrees with its leader on term and last entry, and hears the
//!    leader's beats; each beat missed counts, and when its patience is at an end it is awake and
//!    stands for election as any other would. So no group stays without ticks and without a leader.
//! 2. A leader is quiet only after every member has agreed to the very state that it is in. The
//!    first request wakes it; a follower is woken by what the leader then sends.
//! 3. Quiet changes nothing that safety rests on. Beats acknowledge nothing: a quiet leader's lease
//!    runs out, and its first read or write asks a majority.
//!
//! *On failure*: whatever does not fit wakes the group: it then goes on as Raft does.
//!
//! While a follower hears beats it refuses its vote, as it would with heartbeats (openraft knows
//! nothing of beats, and takes the leader for long gone): one replica that hears no beats must not
//! depose a leader that the others hear.

use crate::beat::Standing;
use crate::config::GroupConfig;
use crate::group::Group;
use ogee_runtime::seeded_bug;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use std::cell::Cell;
use std::time::Duration;

/// Whether a replica has its ticks on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Ticks are on.
    Awake,
    /// The leader of a quiet group.
    Leads(Standing),
    /// A follower that hears beats.
    Follows {
        standing: Standing,
        /// Looks since the last beat.
        missed: u32,
        /// Looks after which the leader is given up.
        patience: u32,
    },
}

/// One replica's share of its group's quiet.
pub(crate) struct Quiet {
    phase: Cell<Phase>,
    /// Requests so far.
    requests: Cell<u64>,
    /// Bytes that they move, in either direction.
    bytes: Cell<u64>,
    /// Nobody has asked for anything since it was woken for a comparison.
    rests_soon: Cell<bool>,
}

impl Default for Quiet {
    fn default() -> Self {
        Self {
            phase: Cell::new(Phase::Awake),
            requests: Cell::new(0),
            bytes: Cell::new(0),
            rests_soon: Cell::new(false),
        }
    }
}

impl GroupConfig {
    /// How often the watch looks at its groups.
    pub(crate) fn look(&self) -> Duration {
        (self.election_min / 5).max(Duration::from_millis(1))
    }

    /// Looks that make up a time, rounded up.
    pub(crate) fn looks(&self, time: Duration) -> u32 {
        let looks = time.as_nanos().div_ceil(self.look().as_nanos());
        u32::try_from(looks).unwrap_or(u32::MAX)
    }

    /// As long as a follower with ticks waits: the lease, then an election timeout drawn anew. What
    /// many groups lose together they do not elect together.
    fn patience(&self) -> u32 {
        let spread = self.election_max.saturating_sub(self.election_min);
        let timeout = self.election_min + spread.mul_f64(crate::group::random_fraction());
        self.looks(self.promised() + timeout)
    }
}

impl Group {
    /// A request has come: it counts, and wakes a leader. Whether it did: then the lease is being
    /// renewed.
    pub(crate) fn touch(&self) -> bool {
        let quiet = self.quiet();
        quiet.requests.set(quiet.requests.get() + 1);
        quiet.rests_soon.set(false);
        self.rouse()
    }

    /// A comparison wakes a leader, too, but nobody has asked for anything: it counts for nothing, and the group rests
    /// again as soon as it has done.
    pub(crate) fn touch_for_comparison(&self) -> bool {
        let was_quiet = self.rouse();
        if was_quiet {
            self.quiet().rests_soon.set(true);
        }
        was_quiet
    }

    fn rouse(&self) -> bool {
        let was_quiet = matches!(self.phase(), Phase::Leads(_));
        if was_quiet {
            self.wake_followers();
        }
        was_quiet
    }

    /// Whether it need not be idle for long before it is quiet again.
    pub(crate) fn rests_soon(&self) -> bool {
        self.quiet().rests_soon.get()
    }

    /// Touches, for a client or not; if that woke this leader, waits a while for a majority that follows it again.
    pub(crate) async fn touch_and_lead(&self, is_clients: bool) {
        let was_quiet = match is_clients {
            true => self.touch(),
            false => self.touch_for_comparison(),
        };
        if was_quiet {
            // In a box: it is rare, and large, and every write's task would have room for it.
            let led = Box::pin(self.linearize_untouched());
            // Without a majority the request fails in its own way.
            let _ = ogee_runtime::timeout(self.config().election_min, led).await;
        }
    }

    /// Ticks are on from now on.
    pub(crate) fn wake(&self) {
        if self.quiet().phase.replace(Phase::Awake) != Phase::Awake {
            tracing::debug!(copyset = %self.copyset(), "awake");
            self.raft().runtime_config().tick(true);
        }
    }

    /// Wakes the leader, and through its heartbeat the others.
    pub(crate) fn wake_followers(&self) {
        self.wake();
        let raft = self.raft().clone();
        drop(ogee_runtime::spawn(async move {
            // An error means that the group has stopped.
            let _ = raft.trigger().heartbeat().await;
        }));
    }

    pub(crate) fn phase(&self) -> Phase {
        self.quiet().phase.get()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.quiet().requests.get()
    }

    /// A client's request that is served moves so many bytes.
    pub fn note_bytes(&self, bytes: usize) {
        let sum = &self.quiet().bytes;
        sum.set(sum.get().wrapping_add(bytes as u64));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.quiet().bytes.get()
    }

    fn rest(&self, phase: Phase) {
        if self.quiet().phase.replace(phase) == Phase::Awake {
            tracing::debug!(copyset = %self.copyset(), ?phase, "quiet");
            self.raft().runtime_config().tick(false);
        }
    }

    /// How the group stands if this replica leads it and nothing is left to do: every member has
    /// every entry, all are applied here, no change of members or leader is under way.
    pub(crate) fn settled(&self) -> Option<Standing> {
        let applied = self.replica().state.borrow().applied?;
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let (me, term) = (metrics.id, metrics.current_term);
        let membership = metrics.membership_config.membership();
        let is_leader = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        if !is_leader
            || self.hands_over(term)
            || metrics.last_log_index != Some(applied.index)
            || membership.get_joint_config().len() != 1
        {
            return None;
        }
        let matched = metrics.replication.as_ref()?;
        let has_all = |id: &u64| matched.get(id) == Some(&Some(applied));
        let mut others = membership.nodes().map(|(id, _)| id).filter(|id| **id != me);
        others.all(has_all).then_some(Standing {
            leader: me,
            term,
            index: applied.index,
        })
    }

    /// Every member has agreed to `standing`, and nothing has come meanwhile.
    pub(crate) fn lead_quietly(&self, standing: Standing) {
        self.quiet().rests_soon.set(false);
        self.rest(Phase::Leads(standing));
    }

    /// Whether this replica still leads in that term.
    pub(crate) fn leads_in(&self, term: u64) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader
            && metrics.current_term == term
            && !self.hands_over(term)
    }

    /// Takes a beat. Whether this replica agrees: then it is quiet from now on.
    pub(crate) fn hear_beat(&self, standing: Standing) -> bool {
        if !self.agrees(standing) {
            self.wake();
            return false;
        }
        self.note_heard();
        let patience = match self.phase() {
            Phase::Follows { patience, .. } => patience,
            _ => self.config().patience(),
        };
        let missed = 0;
        self.rest(Phase::Follows {
            standing,
            missed,
            patience,
        });
        true
    }

    fn agrees(&self, standing: Standing) -> bool {
        let applied = self.replica().state.borrow().applied;
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let follows = matches!(metrics.state, ServerState::Follower | ServerState::Learner);
        follows
            && metrics.running_state.is_ok()
            && metrics.current_term == standing.term
            && metrics.current_leader == Some(standing.leader)
            && metrics.last_log_index == Some(standing.index)
            && applied.is_some_and(|applied| applied.index == standing.index)
    }

    /// A look without a beat in between. When patience is at an end this replica is awake, and its
    /// next tick finds the leader's time long over.
    pub(crate) fn miss_beat(&self) {
        let Phase::Follows {
            standing,
            missed,
            patience,
        } = self.phase()
        else {
            return;
        };
        let missed = missed + 1;
        if missed < patience || seeded_bug!("quiet-follower-waits") {
            self.rest(Phase::Follows {
                standing,
                missed,
                patience,
            });
        } else {
            tracing::info!(copyset = %self.copyset(), leader = standing.leader, missed,
                "no word of the leader of a quiet group");
            self.wake();
        }
    }

    /// Whether a candidate is refused because the leader lives: as far as a quiet replica knows, and
    /// openraft does not. A leader that is asked sends heartbeats instead.
    pub(crate) fn stands_by_leader(&self) -> bool {
        match self.phase() {
            Phase::Awake => false,
            Phase::Leads(_) => {
                self.wake_followers();
                true
            }
            Phase::Follows { missed, .. } => {
                missed <= self.config().looks(self.config().promised())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::beat::Standing;
    use crate::config::GroupConfig;
    use crate::fixture::{Lone, run};
    use crate::group::Group;
    use crate::quiet::Phase;
    use std::time::Duration;

    /// How a leader stands once its first entry is applied.
    async fn settled(group: &Group) -> Standing {
        loop {
            if let Some(standing) = group.settled() {
                return standing;
            }
            ogee_runtime::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn patience_is_a_lease_and_an_election_timeout_in_looks() {
        let config = GroupConfig::default();
        assert_eq!(config.look(), Duration::from_millis(100));
        let drawn: Vec<u32> = (0..200).map(|_| config.patience()).collect();
        assert!(drawn.iter().all(|looks| (15..=20).contains(looks)));
        for looks in [16, 20] {
            assert!(drawn.contains(&looks), "no {looks} in 200: {drawn:?}");
        }
    }

    #[test]
    fn a_beat_that_does_not_fit_is_refused_and_wakes() {
        run(async {
            let lone = Lone::start().await;
            let group = &lone.group;
            let standing = settled(group).await;
            group.lead_quietly(standing);
            assert_eq!(group.phase(), Phase::Leads(standing));
            let other = Standing {
                leader: 2,
                ..standing
            };
            assert!(!group.hear_beat(other), "it leads itself");
            assert_eq!(group.phase(), Phase::Awake);
        });
    }

    #[test]
    fn a_request_wakes_the_leader_and_a_handover_keeps_it_awake() {
        run(async {
            let lone = Lone::start().await;
            let group = &lone.group;
            let standing = settled(group).await;
            group.lead_quietly(standing);
            let before = group.requests();
            assert!(group.touch(), "it was quiet");
            assert!(!group.touch(), "it is awake");
            assert_eq!(group.requests(), before + 2);
            assert!(group.leads_in(standing.term));
            assert!(!group.leads_in(standing.term + 1));
            group.lease().hand_over(group.raft());
            assert_eq!(group.settled(), None);
            assert!(!group.leads_in(standing.term));
        });
    }
}
