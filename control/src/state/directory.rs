//! Directories, and what things are called.
//!
//! Names are kept whole, `team/db1` and not `db1` in `team`: what users ask for is found at once, and renaming a directory,
//! which is rare, goes through what is in it.

use std::collections::BTreeSet;
use std::ops::Bound;

use ogee_proto::id::{ClientId, VolumeId};
use ogee_proto::name::PathName;
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::{State, Volume};
use super::quota::{Quota, Usage};
use super::refusal::Refusal;
use super::topology::check_count;
use crate::limit::{DIRECTORIES_MAX, NOT_EMPTY_NAMES_MAX};

/// A place for volumes and further directories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Milliseconds since 1970, by the clock of the metadata server that took the request.
    pub created_unix_ms: u64,
    /// What the volumes in it may have, at any depth.
    #[serde(default)]
    pub quota: Quota,
}

/// See [`super::Command::CreateDirectory`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDirectory {
    /// Which.
    pub path: PathName,
    /// Those above it are made as well, and it may exist.
    pub parents: bool,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// See [`super::Command::RemoveDirectory`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveDirectory {
    /// Which.
    pub path: PathName,
}

/// See [`super::Command::RenameVolume`] and [`super::Command::RenameDirectory`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// What it is called.
    pub from: PathName,
    /// What it is to be called.
    pub to: PathName,
}

/// What is in a directory begins so, and ends before that: `/` and what comes next to it.
fn bounds(directory: &str) -> (String, String) {
    (format!("{directory}/"), format!("{directory}0"))
}

impl State {
    /// All directories, and what there is to know of each.
    pub fn directories(&self) -> impl Iterator<Item = (&PathName, &Directory)> {
        self.directories.iter()
    }

    /// The directory of that path.
    ///
    /// # Errors
    /// [`Refusal::NoDirectory`].
    pub fn directory(&self, path: &str) -> Result<(&PathName, &Directory), Refusal> {
        let found = self.directories.get_key_value(path);
        found.ok_or_else(|| Refusal::NoDirectory { path: path.into() })
    }

    /// The directories below one; of none: all.
    pub fn directories_below(
        &self,
        directory: Option<&str>,
    ) -> Box<dyn Iterator<Item = (&PathName, &Directory)> + '_> {
        let Some(directory) = directory else {
            return Box::new(self.directories.iter());
        };
        let (from, to) = bounds(directory);
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        Box::new(self.directories.range::<str, _>(range))
    }

    /// The volumes in a directory, at any depth.
    pub(super) fn volumes_below(
        &self,
        directory: &str,
    ) -> impl Iterator<Item = (&PathName, VolumeId, &Volume)> {
        let (from, to) = bounds(directory);
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        let names = self.names.range::<str, _>(range);
        names.filter_map(|(name, id)| Some((name, *id, self.volumes.get(id)?)))
    }

    /// What the volumes in a directory have.
    #[must_use]
    pub fn usage_below(&self, directory: &str) -> Usage {
        Usage::of(self.volumes_below(directory).map(|(_, _, it)| it))
    }

    /// The volume that one of its users means: it may have been renamed since he attached it, and another one be called
    /// so by now.
    ///
    /// # Errors
    /// [`Refusal::NoVolume`].
    pub fn volume_of(&self, name: &str, user: ClientId) -> Result<(VolumeId, &Volume), Refusal> {
        let renamed = self.renamed.get(&user);
        let found = renamed.and_then(|id| Some((*id, self.volumes.get(id)?)));
        found.map_or_else(|| self.volume(name), Ok)
    }

    /// Whether something may be called so: nothing is, and it would be in a directory.
    pub(super) fn check_place(&self, path: &PathName) -> Result<(), Refusal> {
        if self.names.contains_key(path) {
            return Err(Refusal::VolumeExists { name: path.clone() });
        }
        if self.directories.contains_key(path) {
            return Err(Refusal::DirectoryExists { path: path.clone() });
        }
        path.parent().map_or(Ok(()), |parent| {
            self.check_no_volume(parent)?;
            self.directory(parent).map(drop)
        })
    }

    fn check_no_volume(&self, path: &str) -> Result<(), Refusal> {
        match self.names.contains_key(path) {
            true => Err(Refusal::NoPlace { path: path.into() }),
            false => Ok(()),
        }
    }

    pub(super) fn create_directory(&mut self, command: &CreateDirectory) -> Outcome {
        let CreateDirectory {
            path,
            parents,
            created_unix_ms,
        } = command;
        let mut missing: Vec<PathName> = Vec::new();
        if *parents {
            let above = path.ancestors().chain([path.as_str()]);
            for path in above {
                self.check_no_volume(path)?;
                let is_new = !self.directories.contains_key(path);
                // Parts of a path are paths.
                missing.extend(is_new.then(|| PathName::new(path).ok()).flatten());
            }
        } else {
            self.check_place(path)?;
            missing.push(path.clone());
        }
        let count = self.directories.len() + missing.len();
        check_count("directories", count, DIRECTORIES_MAX)?;
        let directory = Directory {
            created_unix_ms: *created_unix_ms,
            quota: Quota::default(),
        };
        let made = missing.into_iter().map(|path| (path, directory.clone()));
        self.directories.extend(made);
        Ok(Reply::Done)
    }

    pub(super) fn remove_directory(&mut self, command: &RemoveDirectory) -> Outcome {
        let path = &command.path;
        self.check_no_volume(path.as_str())?;
        self.directory(path.as_str())?;
        let directories = self.directories_below(Some(path.as_str()));
        let volumes = self.volumes_below(path.as_str());
        let names = directories.map(|it| it.0).chain(volumes.map(|it| it.0));
        // Of what is directly in it: the rest is in that.
        let within: BTreeSet<&PathName> = names
            .filter(|name| name.parent() == Some(path.as_str()))
            .collect();
        if !within.is_empty() {
            let some = within.iter().take(NOT_EMPTY_NAMES_MAX);
            return Err(Refusal::DirectoryNotEmpty {
                path: path.clone(),
                some: some.map(|name| (*name).clone()).collect(),
                count: within.len(),
            });
        }
        self.directories.remove(path);
        Ok(Reply::Done)
    }

    pub(super) fn rename_volume(&mut self, command: &Rename) -> Outcome {
        let Rename { from, to } = command;
        let (id, volume) = self.volume(from.as_str())?;
        if from == to {
            return Ok(Reply::Volume(id, Box::new(volume.clone())));
        }
        self.check_place(to)?;
        self.check_gained(from, to, Usage::of([volume]))?;
        self.call(id, to.clone());
        let (_, volume) = self.volume(to.as_str())?;
        Ok(Reply::Volume(id, Box::new(volume.clone())))
    }

    pub(super) fn rename_directory(&mut self, command: &Rename) -> Outcome {
        let Rename { from, to } = command;
        self.check_no_volume(from.as_str())?;
        self.directory(from.as_str())?;
        if from == to {
            return Ok(Reply::Done);
        }
        if to.is_within(from.as_str()) {
            let (from, to) = (from.clone(), to.clone());
            return Err(Refusal::IntoItself { from, to });
        }
        self.check_place(to)?;
        self.check_gained(from, to, self.usage_below(from.as_str()))?;
        let moved = |path: &PathName| {
            path.moved(from, to).map_err(|error| Refusal::PathOut {
                from: from.clone(),
                to: to.clone(),
                why: error.to_string().into(),
            })
        };
        let below = self.directories_below(Some(from.as_str())).map(|it| it.0);
        let directories = below.chain([from]);
        let directories: Vec<(PathName, PathName)> = directories
            .map(|path| Ok((path.clone(), moved(path)?)))
            .collect::<Result<_, Refusal>>()?;
        let volumes: Vec<(VolumeId, PathName)> = self
            .volumes_below(from.as_str())
            .map(|(name, id, _)| Ok((id, moved(name)?)))
            .collect::<Result<_, Refusal>>()?;
        for (path, to) in directories {
            if let Some(directory) = self.directories.remove(&path) {
                self.directories.insert(to, directory);
            }
        }
        for (id, to) in volumes {
            self.call(id, to);
        }
        Ok(Reply::Done)
    }

    /// Whether the directories that something comes into have room for it.
    fn check_gained(&self, from: &PathName, to: &PathName, more: Usage) -> Result<(), Refusal> {
        let is_gained = |directory: &&str| !from.is_within(directory);
        let gained = to.ancestors().filter(is_gained);
        self.check_quotas(None, gained, more)
    }

    /// Gives a volume a name that is free. Its users know it by the one it had.
    fn call(&mut self, id: VolumeId, to: PathName) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        for user in volume.users.all() {
            self.renamed.insert(user.client, id);
        }
        let from = std::mem::replace(&mut volume.name, to.clone());
        self.names.remove(&from);
        self.names.insert(to, id);
    }

    /// After users have gone: those who are left know what they have by an old name.
    pub(super) fn forget_renamed(&mut self) {
        let volumes = &self.volumes;
        self.renamed.retain(|user, id| {
            let volume = volumes.get(id);
            volume.is_some_and(|volume| volume.users.contains(*user))
        });
    }
}
