//! What owners may have, and what may be in directories: bytes, as users of volumes see them, and volumes.

use std::collections::BTreeMap;
use std::fmt;

use ogee_proto::name::PathName;
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::{State, Volume};
use super::refusal::{Refusal, gib};
use super::topology::{check_count, check_text};
use crate::limit::OWNER_QUOTAS_MAX;

/// How much there may be; `None`: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of volumes.
    pub bytes: Option<u64>,
    /// Volumes.
    pub volumes: Option<u64>,
}

/// How much there is, or more is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of volumes.
    pub bytes: u64,
    /// Volumes.
    pub volumes: u64,
}

/// Whose quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaOf {
    /// Of all volumes of an owner.
    Owner(String),
    /// Of all volumes in a directory.
    Directory(PathName),
}

/// What a quota bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Bytes of volumes.
    Bytes,
    /// Volumes.
    Volumes,
}

/// What becomes of one bound of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// It stays as it is.
    #[default]
    Keep,
    /// There is none any more.
    Lift,
    /// It is that.
    At(u64),
}

/// See [`super::Command::SetQuota`]. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetQuota {
    /// Whose.
    pub of: QuotaOf,
    /// Bytes of volumes.
    pub bytes: Bound,
    /// Volumes.
    pub volumes: Bound,
}

impl Usage {
    /// Of these volumes.
    pub fn of<'a>(volumes: impl IntoIterator<Item = &'a Volume>) -> Self {
        let mut usage = Self::default();
        volumes.into_iter().for_each(|volume| usage.add(volume));
        usage
    }

    const fn add(&mut self, volume: &Volume) {
        self.bytes = self.bytes.saturating_add(volume.size);
        self.volumes += 1;
    }
}

impl Quota {
    /// Whether it bounds anything.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.bytes.is_some() || self.volumes.is_some()
    }

    fn set(&mut self, command: &SetQuota) {
        command.bytes.set(&mut self.bytes);
        command.volumes.set(&mut self.volumes);
    }

    /// What was there before is let be: only what is more is looked at.
    fn check(&self, of: impl FnOnce() -> QuotaOf, used: Usage, more: Usage) -> Result<(), Refusal> {
        let kinds = [
            (Resource::Bytes, self.bytes, used.bytes, more.bytes),
            (Resource::Volumes, self.volumes, used.volumes, more.volumes),
        ];
        for (resource, limit, used, more) in kinds {
            let limit = limit.unwrap_or(u64::MAX);
            if more > 0 && used.saturating_add(more) > limit {
                return Err(Refusal::Quota {
                    of: of(),
                    resource,
                    limit,
                    used,
                    more,
                });
            }
        }
        Ok(())
    }
}

impl Bound {
    const fn set(self, bound: &mut Option<u64>) {
        match self {
            Self::Keep => {}
            Self::Lift => *bound = None,
            Self::At(limit) => *bound = Some(limit),
        }
    }
}

impl Resource {
    /// So much of it, for people.
    pub(super) fn show(self, amount: u64) -> String {
        match (self, amount) {
            (Self::Bytes, amount) => gib(amount),
            (Self::Volumes, 1) => "1 volume".into(),
            (Self::Volumes, amount) => format!("{amount} volumes"),
        }
    }
}

impl QuotaOf {
    /// The options of `ogee quota set` that raise it.
    pub(super) fn option(&self, resource: Resource) -> String {
        let of = match self {
            Self::Owner(owner) => format!("--owner {owner}"),
            Self::Directory(path) => format!("--dir {path}"),
        };
        match resource {
            Resource::Bytes => format!("{of} --bytes SIZE (or none)"),
            Resource::Volumes => format!("{of} --volumes N (or none)"),
        }
    }
}

impl fmt::Display for QuotaOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(owner) => write!(f, "owner \"{owner}\""),
            Self::Directory(path) => write!(f, "directory \"{path}\""),
        }
    }
}

impl State {
    /// What the volumes of an owner have.
    fn usage_of(&self, owner: &str) -> Usage {
        Usage::of(self.volumes.values().filter(|it| it.owner == owner))
    }

    /// Owners that have a quota, and what their volumes have.
    pub fn owner_quotas(&self) -> impl Iterator<Item = (&str, &Quota, Usage)> {
        let mut used: BTreeMap<&str, Usage> = BTreeMap::new();
        for volume in self.volumes.values() {
            used.entry(&volume.owner).or_default().add(volume);
        }
        let quotas = self.owner_quotas.iter();
        quotas.map(move |(owner, quota)| {
            let used = used.get(owner.as_str()).copied();
            (owner.as_str(), quota, used.unwrap_or_default())
        })
    }

    /// Whether there may be so much more of an owner's, and in directories.
    pub(super) fn check_quotas<'a>(
        &self,
        owner: Option<&str>,
        directories: impl Iterator<Item = &'a str>,
        more: Usage,
    ) -> Result<(), Refusal> {
        if let Some((owner, quota)) = owner.and_then(|owner| self.owner_quotas.get_key_value(owner))
        {
            let of = || QuotaOf::Owner(owner.clone());
            quota.check(of, self.usage_of(owner), more)?;
        }
        let known = directories.filter_map(|path| self.directories.get_key_value(path));
        for (path, directory) in known.filter(|(_, it)| it.quota.is_set()) {
            let of = || QuotaOf::Directory(path.clone());
            directory
                .quota
                .check(of, self.usage_below(path.as_str()), more)?;
        }
        Ok(())
    }

    pub(super) fn set_quota(&mut self, command: &SetQuota) -> Outcome {
        match &command.of {
            QuotaOf::Owner(owner) => self.set_owner_quota(owner, command)?,
            QuotaOf::Directory(path) => {
                self.directory(path.as_str())?;
                if let Some(directory) = self.directories.get_mut(path) {
                    directory.quota.set(command);
                }
            }
        }
        Ok(Reply::Done)
    }

    fn set_owner_quota(&mut self, owner: &str, command: &SetQuota) -> Result<(), Refusal> {
        check_text("owner", owner)?;
        let known = self.owner_quotas.get(owner).copied();
        let mut quota = known.unwrap_or_default();
        quota.set(command);
        if !quota.is_set() {
            self.owner_quotas.remove(owner);
            return Ok(());
        }
        let count = self.owner_quotas.len() + usize::from(known.is_none());
        check_count("owners with a quota", count, OWNER_QUOTAS_MAX)?;
        self.owner_quotas.insert(owner.to_owned(), quota);
        Ok(())
    }
}
