//! Who belongs to the metadata group, and who leads it.
//!
//! *Place*: beside `node`, on the Raft thread. *Owner*: the leader; others say who that is.
//! *Invariants*: a new member learns first and votes when it lacks next to nothing; nobody is taken
//! out whose absence would leave fewer than a majority that answers; leadership is handed only to a
//! member that has everything and was just heard of. Membership is in Raft's own entries, so a
//! change of leader loses none.
//! *On failure*: what has begun is in the log and goes on; the same call again finds it so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardToLeader, RaftError};
use openraft::impls::BasicNode;
use tokio::time::{Instant, sleep};

use super::client::{MemberRecord, Members, Progress};
use super::error::{MemberError, Unavailable};
use super::node::Core;
use super::types::Group;
use crate::limit::{
    HAND_OVER_WAIT, JOIN_LAG_MAX, JOIN_WAIT, MEMBER_SILENT, MEMBERS_MAX, RETRY_PAUSE,
};

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// One more.
    Add {
        /// Its number.
        id: u64,
        /// Where its gRPC services are.
        addr: String,
    },
    /// One less.
    Remove {
        /// Its number.
        id: u64,
    },
}

impl Core {
    /// The members as far as this one knows, with the addresses that are used.
    pub(super) fn members(&self) -> Arc<Members> {
        let metrics = self.raft.server_metrics();
        let stored = Arc::clone(&metrics.borrow_watched().membership_config);
        let mut known = self.members.borrow_mut();
        if let Some((of, members)) = known.as_ref().filter(|(of, _)| Arc::ptr_eq(of, &stored)) {
            debug_assert!(Arc::ptr_eq(of, &stored), "invariant: just compared");
            return Arc::clone(members);
        }
        let voters: BTreeSet<u64> = stored.voter_ids().collect();
        let record = |(id, node): (&u64, &BasicNode)| {
            let addr = self.config.members.get(id).unwrap_or(&node.addr).clone();
            let is_voter = voters.contains(id);
            (*id, MemberRecord { addr, is_voter })
        };
        let members: Arc<Members> = Arc::new(stored.nodes().map(record).collect());
        *known = Some((stored, Arc::clone(&members)));
        members
    }

    /// How far the others are, if this one leads.
    pub(super) fn progress(&self) -> Progress {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.iter().flatten();
        let matched: BTreeMap<u64, u64> = matched
            .map(|(id, log)| (*id, log.as_ref().map_or(0, |log| log.index)))
            .collect();
        let heard = metrics.heartbeat.iter().flatten();
        let heard = heard.filter_map(|(id, at)| {
            let at = at.as_ref()?;
            Some((*id, at.elapsed()))
        });
        Progress {
            last_log: metrics.last_log.as_ref().map_or(0, |log| log.index),
            matched,
            silence: heard.collect(),
        }
    }

    pub(super) async fn change_members(&self, change: MemberChange) -> Result<(), MemberError> {
        self.check_leads()?;
        match change {
            MemberChange::Add { id, addr } => self.add_member(id, addr).await,
            MemberChange::Remove { id } => self.remove_member(id).await,
        }
    }

    async fn add_member(&self, id: u64, addr: String) -> Result<(), MemberError> {
        let members = self.members();
        if let Some(configured) = self.config.members.get(&id).filter(|it| **it != addr) {
            return Err(MemberError::Configured {
                id,
                addr: configured.clone(),
            });
        }
        let mut others = members.iter().filter(|(other, _)| **other != id);
        if let Some((other, _)) = others.find(|(_, member)| member.addr == addr) {
            return Err(MemberError::AddressInUse {
                addr,
                other: *other,
            });
        }
        let known = members.get(&id);
        if let Some(member) = known.filter(|member| member.addr != addr) {
            return Err(MemberError::OtherAddress {
                id,
                addr: member.addr.clone(),
            });
        }
        if known.is_some_and(|member| member.is_voter) {
            return Ok(());
        }
        if voters(&members).len() >= MEMBERS_MAX {
            return Err(MemberError::TooMany);
        }
        if known.is_none() {
            let added = self.raft.add_learner(id, BasicNode { addr }, false).await;
            self.settle(added.map(|_| ()))?;
        }
        self.await_caught_up(id).await?;
        let promoted = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        let changed = self.raft.change_membership(promoted, false).await;
        self.settle(changed.map(|_| ()))
    }

    /// Returns when the learner lacks next to nothing.
    async fn await_caught_up(&self, id: u64) -> Result<(), MemberError> {
        let deadline = Instant::now() + JOIN_WAIT;
        loop {
            let progress = self.progress();
            let matched = progress.matched.get(&id).copied().unwrap_or(0);
            if matched > 0 && matched + JOIN_LAG_MAX >= progress.last_log {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let lacks = progress.last_log.saturating_sub(matched);
                return Err(MemberError::Behind { id, lacks });
            }
            self.check_leads()?;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn remove_member(&self, id: u64) -> Result<(), MemberError> {
        let members = self.members();
        let member = members.get(&id).ok_or(MemberError::Unknown { id })?;
        if !member.is_voter {
            let gone = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            let changed = self.raft.change_membership(gone, false).await;
            return self.settle(changed.map(|_| ()));
        }
        let now = voters(&members);
        let mut then = now.clone();
        then.remove(&id);
        if then.is_empty() {
            return Err(MemberError::Last { id });
        }
        self.await_quorum(&now).await?;
        self.await_quorum(&then).await?;
        if id == self.config.id {
            let to = self.hand_over(None).await?;
            let addr = members.get(&to).map(|member| member.addr.clone());
            // The caller asks there again.
            return Err(Unavailable::NotLeader {
                id: to,
                addr: addr.unwrap_or_default(),
            }
            .into());
        }
        let gone = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
        let changed = self.raft.change_membership(gone, false).await;
        self.settle(changed.map(|_| ()))
    }

    /// Returns when a majority of these voters answers: one that just began to lead has heard of nobody.
    async fn await_quorum(&self, of: &BTreeSet<u64>) -> Result<(), MemberError> {
        let needed = of.len() / 2 + 1;
        let deadline = Instant::now() + MEMBER_SILENT;
        loop {
            let progress = self.progress();
            let answers = |id: &&u64| **id == self.config.id || progress.is_heard(**id);
            let answering = of.iter().filter(answers).count();
            if answering >= needed {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(MemberError::NoQuorum { answering, needed });
            }
            self.check_leads()?;
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Gives leadership to that voter, or to the one that is furthest; returns when that one leads.
    pub(super) async fn hand_over(&self, to: Option<u64>) -> Result<u64, MemberError> {
        self.check_leads()?;
        if to == Some(self.config.id) {
            return Ok(self.config.id);
        }
        let members = self.members();
        if let Some(id) = to.filter(|id| !members.get(id).is_some_and(|it| it.is_voter)) {
            return Err(MemberError::NoVoter { id });
        }
        if voters(&members).iter().all(|id| *id == self.config.id) {
            return Err(MemberError::NoTarget { to });
        }
        let deadline = Instant::now() + HAND_OVER_WAIT;
        let target = loop {
            let progress = self.progress();
            let candidates = voters(&members).into_iter();
            let candidates = candidates.filter(|id| *id != self.config.id);
            let candidates = candidates.filter(|id| to.is_none_or(|to| to == *id));
            let furthest = candidates
                .filter(|id| progress.is_heard(*id))
                .max_by_key(|id| progress.matched.get(id).copied());
            let has_all = |id: &u64| progress.matched.get(id) == Some(&progress.last_log);
            match furthest.filter(has_all) {
                Some(id) => break id,
                None if Instant::now() >= deadline => return Err(MemberError::NoTarget { to }),
                None => sleep(RETRY_PAUSE).await,
            }
        };
        // The others may elect it in spite of what they promised: no lease of this term counts.
        self.unleased.set(self.term());
        let asked = self.raft.trigger().transfer_leader(target).await;
        asked.map_err(|_| Unavailable::Stopped)?;
        loop {
            match self.leader() {
                Some(id) if id != self.config.id => return Ok(id),
                _ if Instant::now() >= deadline => {
                    return Err(MemberError::NoTarget { to: Some(target) });
                }
                _ => sleep(RETRY_PAUSE).await,
            }
        }
    }

    fn check_leads(&self) -> Result<(), Unavailable> {
        match self.leader() {
            Some(id) if id == self.config.id => Ok(()),
            Some(id) => {
                let members = self.members();
                let addr = members.get(&id).map(|member| member.addr.clone());
                let addr = addr.unwrap_or_default();
                Err(Unavailable::NotLeader { id, addr })
            }
            None => Err(Unavailable::NoLeader),
        }
    }

    /// openraft's answer in our words.
    fn settle(
        &self,
        answer: Result<(), RaftError<Group, ClientWriteError<Group>>>,
    ) -> Result<(), MemberError> {
        match answer {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(_)) => Err(Unavailable::Stopped.into()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(self.forwarded(&forward).into())
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => match error
            {
                ChangeMembershipError::InProgress(_) => Err(MemberError::InProgress),
                other => Err(MemberError::Refused {
                    reason: other.to_string(),
                }),
            },
            Err(RaftError::APIError(_)) => Err(Unavailable::Unknown.into()),
        }
    }

    pub(super) fn forwarded(&self, forward: &ForwardToLeader<Group>) -> Unavailable {
        match forward.leader_id {
            Some(id) => {
                let members = self.members();
                let addr = members.get(&id).map(|member| member.addr.clone());
                let addr = addr.unwrap_or_default();
                Unavailable::NotLeader { id, addr }
            }
            None => Unavailable::NoLeader,
        }
    }
}

impl Progress {
    /// Whether a member answered a moment ago.
    pub(crate) fn is_heard(&self, id: u64) -> bool {
        const SILENT: Duration = MEMBER_SILENT;
        self.silence.get(&id).is_some_and(|it| *it < SILENT)
    }
}

fn voters(members: &Members) -> BTreeSet<u64> {
    let voters = members.iter().filter(|(_, member)| member.is_voter);
    voters.map(|(id, _)| *id).collect()
}
