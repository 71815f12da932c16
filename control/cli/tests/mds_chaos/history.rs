//! What names stand for, as clients of the metadata servers may see it, and whether they saw that.
//!
//! Names that clients quarrel about at a time are one group, and a group is one object, since a rename changes two
//! names at once, and that of a directory all in it. A history holds every request on names of one group with the
//! times at which it was sent and answered. It is linearizable if each request can be given a moment between the two,
//! so that the answers are those of one metadata server that does one request after the other. A request of unknown
//! outcome may take effect at any time after it was sent, or never. The search is Wing and Gong's, of `todc-utils`;
//! what one metadata server would do is in `namespace`.

use std::collections::BTreeMap;
use std::fmt;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::namespace::Namespace;

/// The name of a volume of a group: at the top, or in a directory of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub directory: Option<u8>,
    pub at: u8,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Volume(Name),
    Directory(u8),
}

/// Names of volumes of a group.
pub const NAMES: [Name; 5] = [
    Name::at_top(0),
    Name::at_top(1),
    Name::at_top(2),
    Name::within(0),
    Name::within(1),
];

/// Directories of a group.
pub const DIRECTORIES: [u8; 2] = [0, 1];

impl Name {
    pub const fn at_top(at: u8) -> Self {
        Self {
            directory: None,
            at,
        }
    }

    pub const fn within(directory: u8) -> Self {
        Self {
            directory: Some(directory),
            at: 0,
        }
    }
}

impl Place {
    /// All of a group.
    pub fn all() -> impl Iterator<Item = Self> {
        let volumes = NAMES.into_iter().map(Self::Volume);
        volumes.chain(DIRECTORIES.into_iter().map(Self::Directory))
    }

    /// As the metadata servers know it.
    pub fn path(self, group: u64) -> String {
        let directory = |at| format!("d{group}-{at}");
        match self {
            Self::Directory(at) => directory(at),
            Self::Volume(name) => match name.directory {
                None => format!("v{group}-{}", name.at),
                Some(of) => format!("{}/v{}", directory(of), name.at),
            },
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Create { size: u64 },
    Resize { size: u64 },
    Attach,
    Detach { client: u64, epoch: u64 },
    TakeAway,
    Remove,
    Show,
    Rename { to: Name },
    MakeDirectory,
    RemoveDirectory,
    MoveDirectory { to: u8 },
    List,
}

/// What is said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The volume as the request left it, or found it.
    Volume(Seen),
    Attached {
        seen: Seen,
        client: u64,
    },
    /// What is in the directory.
    Directory {
        volumes: u64,
        bytes: u64,
    },
    Done,
    Exists,
    NoVolume,
    Shrinks,
    InUse,
    Stale,
    DirectoryExists,
    NoDirectory,
    NotEmpty,
    /// Nothing that tells.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: u64,
    pub size: u64,
    pub epoch: u64,
    pub attached: bool,
}

/// One request. Of unknown outcome: it has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub on: Place,
    pub ask: Ask,
    pub answer: Answer,
    pub sent_us: u64,
    pub answered_us: Option<u64>,
}

impl Operation {
    /// Somebody was told so.
    pub fn was_carried_out(&self) -> bool {
        matches!(
            self.answer,
            Answer::Volume(_) | Answer::Attached { .. } | Answer::Directory { .. } | Answer::Done
        )
    }
}

/// By the numbers of groups.
pub type Histories = BTreeMap<u64, Vec<Operation>>;

/// The metadata servers, for one group of names.
struct Group;

impl Specification for Group {
    type State = Namespace;
    type Operation = (Place, Ask, Answer);

    fn init() -> Namespace {
        Namespace::default()
    }

    fn apply((on, ask, answer): &(Place, Ask, Answer), space: &Namespace) -> (bool, Namespace) {
        match space.after(*on, *ask, *answer) {
            Some(next) => (true, next),
            None => (false, space.clone()),
        }
    }
}

/// Whether one order explains all answers on one group.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    let mut events: Vec<(u64, usize, usize)> = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.sent_us, 0, at));
        // Of unknown outcome: at the end of time it disturbs nobody.
        events.push((operation.answered_us.unwrap_or(u64::MAX), 1, at));
    }
    if events.is_empty() {
        return true;
    }
    events.sort_unstable();
    let actions = events.into_iter().map(|(_, which, at)| {
        let Operation {
            on, ask, answer, ..
        } = operations[at];
        let action = if which == 0 {
            Action::Call((on, ask, answer))
        } else {
            Action::Response((on, ask, answer))
        };
        (at, action)
    });
    WGLChecker::<Group>::is_linearizable(History::from_actions(actions.collect()))
}

/// The shortest beginning of it that no order explains.
pub fn contradiction(operations: &[Operation]) -> Option<Vec<Operation>> {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.answered_us.unwrap_or(u64::MAX));
    if is_linearizable(&operations) {
        return None;
    }
    // What was not answered by then may have been sent: it is in each beginning.
    let answered = |operation: &&Operation| operation.answered_us.is_some();
    let count = operations.iter().filter(answered).count();
    let (answered, open) = operations.split_at(count);
    let beginning = |length: usize| {
        let end = answered[..length].last().and_then(|it| it.answered_us);
        let mut part = answered[..length].to_vec();
        let later = answered[length..].iter().chain(open);
        let later = later.filter(|it| Some(it.sent_us) <= end);
        part.extend(later.map(|it| Operation {
            answer: Answer::Unknown,
            answered_us: None,
            ..*it
        }));
        part
    };
    let shortest = (1..=count).map(beginning);
    shortest.into_iter().find(|part| !is_linearizable(part))
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.answered_us.map(|at| at.to_string());
        let end = end.unwrap_or_default();
        let (ask, answer) = (self.ask, self.answer);
        write!(f, "{:>9}..{end:<9} {}", self.sent_us, self.on.path(0))?;
        write!(f, " {ask:?}: {answer:?}")
    }
}
