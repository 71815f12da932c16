//! What the members understand, and when the group may use it.
//!
//! *Place*: beside `node`, on the Raft thread. *Owner*: each member notes what the others say of themselves with every
//! message and answer; the leader acts on it.
//! *Invariants*: a command is proposed only when the group's version, which is metadata, has reached the command's; it is
//! raised only while every member, those that learn included, answers and says that it understands that much.
//! Who is told of something that it does not understand ends: nothing is skipped.
//! *On failure*: what not all understand is refused, and the refusal names who does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::sleep;

use super::error::{NodeError, Older, WriteError};
use super::node::Core;
use crate::limit::VERSION_LOOK;
use crate::state::{Command, FIRST_VERSION, RaiseVersion};

/// The versions that other members have said, by their numbers.
pub(super) type Said = Rc<RefCell<BTreeMap<u64, u32>>>;

/// What a member says that says nothing: a release from before there were versions.
pub(super) const fn said(version: u32) -> u32 {
    if version < FIRST_VERSION {
        FIRST_VERSION
    } else {
        version
    }
}

impl Core {
    /// Whether a member may be told that; else this one cannot go on.
    pub(super) fn check_understood(&self, from: u64, needed: u32) -> bool {
        let ours = self.config.version;
        if needed <= ours {
            return true;
        }
        let mut outdated = self.outdated.borrow_mut();
        *outdated = Some(NodeError::Outdated { from, needed, ours });
        self.outdated_told.notify_one();
        false
    }

    /// Resolves when this release is too old for the group.
    pub(super) async fn outdated(&self) -> NodeError {
        loop {
            let outdated = self.outdated.borrow_mut().take();
            match outdated {
                Some(error) => return error,
                None => self.outdated_told.notified().await,
            }
        }
    }

    /// What each member says that it understands, if it answers.
    fn understood(&self) -> Vec<(u64, String, Option<u32>)> {
        let said = self.said.borrow();
        let (members, progress) = (self.members(), self.progress());
        // What one has said that does not answer is of a release that it may not be started with again.
        let version_of = |id: u64| match id == self.config.id {
            true => Some(self.config.version),
            false => said.get(&id).copied().filter(|_| progress.is_heard(id)),
        };
        let members = members.iter();
        members
            .map(|(id, member)| (*id, member.addr.clone(), version_of(*id)))
            .collect()
    }

    /// The members that understand less than that, or do not answer.
    fn older_than(&self, version: u32) -> Vec<(u64, String, Option<u32>)> {
        let is_older = |it: &(u64, String, Option<u32>)| it.2.is_none_or(|is| is < version);
        self.understood().into_iter().filter(is_older).collect()
    }

    /// What all of them understand, if all answer.
    fn understood_by_all(&self) -> Option<u32> {
        let said = self.understood().into_iter().map(|it| it.2);
        let said: Option<Vec<u32>> = said.collect();
        said?.into_iter().min()
    }

    /// Whether all members understand a command that is about to be proposed. Of the leader.
    pub(super) async fn check_version(&self, command: &Command) -> Result<(), WriteError> {
        let needed = command.version();
        let group = || self.state.borrow().state.version();
        if needed <= group() || matches!(command, Command::RaiseVersion(_)) {
            return Ok(());
        }
        // It may not have applied yet what the leader before it has raised.
        self.catch_up().await?;
        if needed <= group() {
            return Ok(());
        }
        let older = self.older_than(needed);
        if older.is_empty() {
            return self.raise(needed).await;
        }
        let group = group();
        Err(Older {
            needed,
            group,
            older,
        }
        .into())
    }

    async fn raise(&self, version: u32) -> Result<(), WriteError> {
        let raise = Command::RaiseVersion(RaiseVersion { version });
        let raised = self.raft.client_write(raise).await;
        match raised {
            Ok(_) => {
                tracing::info!(
                    version,
                    "all metadata servers understand it: it is used from now on"
                );
                Ok(())
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(self.forwarded(&forward).into())
            }
            Err(RaftError::APIError(_)) => Err(super::error::Unavailable::Unknown.into()),
            Err(RaftError::Fatal(_)) => Err(super::error::Unavailable::Stopped.into()),
        }
    }

    /// Raises the group's version when the last member has been upgraded.
    pub(super) async fn raise_versions(self: Rc<Self>) {
        loop {
            sleep(VERSION_LOOK).await;
            let leads = self.leader() == Some(self.config.id);
            let group = self.state.borrow().state.version();
            let is_due = leads && group < self.config.version;
            let all = is_due.then(|| self.understood_by_all()).flatten();
            // Applied entries may lag behind at the beginning of a term: it is raised again, which changes nothing.
            if let Some(all) = all.filter(|all| *all > group)
                && let Err(error) = self.raise(all).await
            {
                tracing::warn!(%error, "the version of the metadata's commands is not raised yet");
            }
        }
    }
}
