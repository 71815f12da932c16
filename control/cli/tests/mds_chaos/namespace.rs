//! What one metadata server does with the names of one group, one request after the other.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Answer, Ask, Name, Place, Seen};

/// What the names of a group stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace {
    directories: BTreeSet<u8>,
    volumes: BTreeMap<Name, Volume>,
    /// Numbers that volumes of the group are known to have had.
    known: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Volume {
    id: Id,
    size: u64,
    epoch: u64,
    writer: Option<Writer>,
}

/// Numbers are given in the order in which volumes are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Id {
    Known(u64),
    /// Nobody has been told it yet: between these two.
    Between(u64, u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writer {
    /// `None`: nobody has been told it yet.
    client: Option<u64>,
    /// The volume was renamed since: the name by which he knows it is another one's, or nobody's.
    was_renamed: bool,
}

/// What the answer to a request must be.
enum Due {
    /// The volume of that name as it is afterwards.
    Volume(Name),
    /// The same, and who has it from now on.
    Attached(Name),
    Exactly(Answer),
}

/// Why not.
type Refused = Answer;

impl Namespace {
    /// What it is after the request, if such an answer can be given now.
    pub fn after(&self, on: Place, ask: Ask, answer: Answer) -> Option<Self> {
        let mut next = self.clone();
        let due = next.carry_out(on, ask);
        let due = due.unwrap_or_else(Due::Exactly);
        match (due, answer) {
            (_, Answer::Unknown) => Some(next),
            (Due::Volume(name), Answer::Volume(seen)) => {
                if matches!(ask, Ask::Create { .. }) {
                    next.is_made_last(name, seen.id);
                }
                next.told(name, seen)
            }
            (Due::Attached(name), Answer::Attached { seen, client }) => {
                let mut next = next.told(name, seen)?;
                next.volumes.get_mut(&name)?.writer = Some(Writer::new(Some(client)));
                Some(next)
            }
            (Due::Exactly(due), answer) => (due == answer).then_some(next),
            _ => None,
        }
    }

    fn carry_out(&mut self, on: Place, ask: Ask) -> Result<Due, Refused> {
        match on {
            Place::Volume(name) => self.ask_volume(name, ask),
            Place::Directory(at) => self.ask_directory(at, ask),
        }
    }

    fn ask_volume(&mut self, name: Name, ask: Ask) -> Result<Due, Refused> {
        match ask {
            Ask::Create { size } => {
                self.check_free(name)?;
                let above = self.known.last().copied().unwrap_or(0);
                let volume = Volume {
                    id: Id::Between(above, u64::MAX),
                    size,
                    epoch: 0,
                    writer: None,
                };
                self.volumes.insert(name, volume);
                return Ok(Due::Volume(name));
            }
            Ask::Rename { to } => {
                self.volume(name)?;
                if to != name {
                    self.check_free(to)?;
                }
                self.call(name, to);
                return Ok(Due::Volume(to));
            }
            Ask::Detach { client, epoch } => {
                let volume = self.volume_of(name, client)?;
                if !volume.may_detach(client, epoch) {
                    return Err(Answer::Stale);
                }
                volume.writer = None;
                return Ok(Due::Exactly(Answer::Done));
            }
            _ => {}
        }
        let volume = self.volume(name)?;
        match ask {
            Ask::Show => return Ok(Due::Volume(name)),
            Ask::Resize { size } if size < volume.size => return Err(Answer::Shrinks),
            Ask::Resize { size } => {
                volume.size = size;
                return Ok(Due::Volume(name));
            }
            Ask::Attach => {
                volume.epoch += 1;
                volume.writer = Some(Writer::new(None));
                return Ok(Due::Attached(name));
            }
            Ask::TakeAway => {
                volume.epoch += 1;
                volume.writer = None;
            }
            Ask::Remove if volume.writer.is_some() => return Err(Answer::InUse),
            Ask::Remove => drop(self.volumes.remove(&name)),
            ask => panic!("{ask:?} is not asked of volumes"),
        }
        Ok(Due::Exactly(Answer::Done))
    }

    fn ask_directory(&mut self, at: u8, ask: Ask) -> Result<Due, Refused> {
        if ask == Ask::MakeDirectory {
            self.check_no_directory(at)?;
            self.directories.insert(at);
            return Ok(Due::Exactly(Answer::Done));
        }
        if !self.directories.contains(&at) {
            return Err(Answer::NoDirectory);
        }
        let within: Vec<Name> = self.volumes.keys().copied().collect();
        let within = within.into_iter().filter(|it| it.directory == Some(at));
        let within: Vec<Name> = within.collect();
        match ask {
            Ask::RemoveDirectory if !within.is_empty() => return Err(Answer::NotEmpty),
            Ask::RemoveDirectory => drop(self.directories.remove(&at)),
            Ask::MoveDirectory { to } if to == at => {}
            Ask::MoveDirectory { to } => {
                self.check_no_directory(to)?;
                self.directories.remove(&at);
                self.directories.insert(to);
                for name in within {
                    let directory = Some(to);
                    self.call(name, Name { directory, ..name });
                }
            }
            Ask::List => {
                let sizes = within.iter().map(|name| self.volumes[name].size);
                return Ok(Due::Exactly(Answer::Directory {
                    volumes: within.len() as u64,
                    bytes: sizes.sum(),
                }));
            }
            ask => panic!("{ask:?} is not asked of directories"),
        }
        Ok(Due::Exactly(Answer::Done))
    }

    fn check_free(&self, name: Name) -> Result<(), Refused> {
        if self.volumes.contains_key(&name) {
            return Err(Answer::Exists);
        }
        match name.directory.filter(|at| !self.directories.contains(at)) {
            Some(_) => Err(Answer::NoDirectory),
            None => Ok(()),
        }
    }

    fn check_no_directory(&self, at: u8) -> Result<(), Refused> {
        match self.directories.contains(&at) {
            true => Err(Answer::DirectoryExists),
            false => Ok(()),
        }
    }

    fn volume(&mut self, name: Name) -> Result<&mut Volume, Refused> {
        self.volumes.get_mut(&name).ok_or(Answer::NoVolume)
    }

    /// What one of its users means: it may have been renamed since, and another one be called so by now.
    fn volume_of(&mut self, name: Name, client: u64) -> Result<&mut Volume, Refused> {
        let renamed = |volume: &Volume| {
            let writer = volume.writer.as_ref();
            writer.is_some_and(|it| it.was_renamed && it.client == Some(client))
        };
        let found = self.volumes.iter().find(|(_, volume)| renamed(volume));
        let found = found.map_or(name, |(name, _)| *name);
        self.volume(found)
    }

    fn call(&mut self, from: Name, to: Name) {
        if from == to {
            return;
        }
        if let Some(mut volume) = self.volumes.remove(&from) {
            if let Some(writer) = &mut volume.writer {
                writer.was_renamed = true;
            }
            self.volumes.insert(to, volume);
        }
    }

    /// Those that are there and have a number that nobody knows were made before.
    fn is_made_last(&mut self, name: Name, id: u64) {
        for (other, volume) in &mut self.volumes {
            if let Id::Between(_, below) = &mut volume.id
                && *other != name
            {
                *below = id.min(*below);
            }
        }
    }

    /// If that is what may be seen of it.
    fn told(mut self, name: Name, seen: Seen) -> Option<Self> {
        let volume = self.volumes.get_mut(&name)?;
        let is_it = match volume.id {
            Id::Known(id) => id == seen.id,
            Id::Between(above, below) => {
                above < seen.id && seen.id < below && !self.known.contains(&seen.id)
            }
        };
        let same = (volume.size, volume.epoch, volume.writer.is_some());
        if !is_it || same != (seen.size, seen.epoch, seen.attached) {
            return None;
        }
        volume.id = Id::Known(seen.id);
        self.known.insert(seen.id);
        Some(self)
    }
}

impl Volume {
    /// Also one that has gone already: the answer to the first try was lost.
    fn may_detach(&self, client: u64, epoch: u64) -> bool {
        let writer = self.writer.as_ref();
        self.epoch == epoch && writer.is_none_or(|writer| writer.client == Some(client))
    }
}

impl Writer {
    const fn new(client: Option<u64>) -> Self {
        Self {
            client,
            was_renamed: false,
        }
    }
}
