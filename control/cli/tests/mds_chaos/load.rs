//! Clients that make, change, rename and remove volumes and directories, and note what they asked, when, and what they were told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ogee_client::{ControlError, MdsClient, MdsConfig};
use ogee_proto::service::{
    AttachRequest, Attachment, CreateDirectoryRequest, CreateVolumeRequest, DetachRequest,
    ListDirectoriesRequest, RemoveDirectoryRequest, RemoveVolumeRequest, RenameRequest,
    ResizeVolumeRequest, VolumeInfo, VolumeName,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::RwLock;

use super::history::{Answer, Ask, DIRECTORIES, Histories, NAMES, Operation, Place, Seen};

/// Sizes are multiples of a chunk.
const CHUNK: u64 = 16 << 20;
/// Requests on one group of names, and those of unknown outcome among them: the search for an order grows with
/// both, so clients go on to the next group.
const REQUESTS_MAX: usize = 150;
const UNKNOWN_MAX: usize = 6;

/// What clients share.
pub struct Load {
    began: Instant,
    histories: Mutex<Histories>,
    /// Held for each request; who has it all knows that none is under way.
    gate: RwLock<()>,
    /// Names change with it, so that histories stay short.
    group: AtomicU64,
    stop: AtomicBool,
    mds: Vec<String>,
    /// When requests were carried out, for the longest time without any.
    done_us: Mutex<Vec<u64>>,
}

impl Load {
    pub fn new(mds: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            histories: Mutex::default(),
            gate: RwLock::default(),
            group: AtomicU64::default(),
            stop: AtomicBool::default(),
            mds,
            done_us: Mutex::default(),
        })
    }

    /// Nobody asks anything while it is held.
    pub async fn pause(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    pub fn next_group(&self) {
        self.group.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were answered so far.
    pub fn answered(&self) -> usize {
        self.done_us.lock().unwrap().len()
    }

    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn histories(&self) -> Histories {
        self.histories.lock().unwrap().clone()
    }

    /// The longest time in which nobody was answered, since the load began.
    pub fn longest_gap(&self) -> Duration {
        let done = self.done_us.lock().unwrap();
        let gaps = done.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_micros(gaps.max().unwrap_or(0))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    /// Of the production client, but for the order in which it tries the servers.
    fn client(&self, first: usize) -> MdsClient {
        let mut endpoints = self.mds.clone();
        let at = first % endpoints.len();
        endpoints.rotate_left(at);
        MdsClient::new(MdsConfig::new(endpoints)).expect("addresses")
    }

    /// One that does not wait for a server that stands still.
    pub fn operator(&self) -> MdsClient {
        let config = MdsConfig {
            call_timeout: Duration::from_millis(500),
            ..MdsConfig::new(self.mds.clone())
        };
        MdsClient::new(config).expect("addresses")
    }

    /// Asks at random until it is told to end.
    pub async fn run(self: Arc<Self>, seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let client = self.client(usize::try_from(seed % 3).unwrap());
        let mut mine: Option<(u64, Place, Ask)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let pass = self.gate.read().await;
            let mut group = self.group.load(Ordering::Relaxed);
            let (mut on, mut ask) = choose(&mut random);
            if ask == Ask::TakeAway
                && let Some(had) = mine.take()
            {
                (group, on, ask) = had;
            }
            if let Answer::Attached { seen, client } = self.ask(&client, group, on, ask).await {
                let epoch = seen.epoch;
                mine = Some((group, on, Ask::Detach { client, epoch }));
            }
            drop(pass);
            // Histories of a group are short, and the machine has other things to do.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..12))).await;
        }
    }

    /// Asks, and notes it.
    pub async fn ask(&self, client: &MdsClient, group: u64, on: Place, ask: Ask) -> Answer {
        let sent_us = self.now_us();
        let answer = answer(client, group, on, ask).await;
        let now_us = self.now_us();
        let answered_us = (answer != Answer::Unknown).then_some(now_us);
        let operation = Operation {
            on,
            ask,
            answer,
            sent_us,
            answered_us,
        };
        let mut histories = self.histories.lock().unwrap();
        let history = histories.entry(group).or_default();
        // A question without an answer says nothing.
        if !matches!(ask, Ask::Show | Ask::List) || answer != Answer::Unknown {
            history.push(operation);
        }
        let unknown = history.iter().filter(|it| it.answered_us.is_none()).count();
        if history.len() >= REQUESTS_MAX || unknown >= UNKNOWN_MAX {
            let next = group + 1;
            self.group.fetch_max(next, Ordering::Relaxed);
        }
        if answered_us.is_some() {
            self.done_us.lock().unwrap().push(now_us);
        }
        answer
    }
}

/// What to ask next, and of what.
fn choose(random: &mut SmallRng) -> (Place, Ask) {
    let mut size = |chunks| CHUNK * random.random_range(1..chunks);
    let (small, large) = (size(16), size(64));
    let mut name = || NAMES[random.random_range(0..NAMES.len())];
    let (volume, to) = (name(), name());
    let directory = DIRECTORIES[random.random_range(0..DIRECTORIES.len())];
    let ask = match random.random_range(0..36) {
        0..6 => Ask::Create { size: small },
        6..9 => Ask::Resize { size: large },
        9..12 => Ask::Attach,
        12..16 => Ask::TakeAway,
        16..19 => Ask::Remove,
        19..26 if to != volume => Ask::Rename { to },
        26..28 => Ask::MakeDirectory,
        28 => Ask::RemoveDirectory,
        29..31 => Ask::MoveDirectory { to: 1 - directory },
        31 => Ask::List,
        _ => Ask::Show,
    };
    let is_directory = matches!(
        ask,
        Ask::MakeDirectory | Ask::RemoveDirectory | Ask::MoveDirectory { .. } | Ask::List
    );
    match is_directory {
        true => (Place::Directory(directory), ask),
        false => (Place::Volume(volume), ask),
    }
}

async fn answer(client: &MdsClient, group: u64, on: Place, ask: Ask) -> Answer {
    let path = on.path(group);
    let asked = match on {
        Place::Directory(_) => of_directory(client, group, path.clone(), ask).await,
        Place::Volume(_) => of_volume(client, group, path.clone(), ask).await,
    };
    asked.unwrap_or_else(|error| refused(&path, ask, &error))
}

async fn of_volume(
    client: &MdsClient,
    group: u64,
    name: String,
    ask: Ask,
) -> Result<Answer, ControlError> {
    match ask {
        Ask::Create { size } => {
            let request = CreateVolumeRequest {
                name: name.clone(),
                size,
                ..CreateVolumeRequest::default()
            };
            client.create(request).await.map(|it| volume(&name, &it))
        }
        Ask::Resize { size } => {
            let request = ResizeVolumeRequest {
                name: name.clone(),
                size,
                ..ResizeVolumeRequest::default()
            };
            client.resize(request).await.map(|it| volume(&name, &it))
        }
        Ask::Attach => {
            let request = AttachRequest {
                name,
                host: "chaos".to_owned(),
                ..AttachRequest::default()
            };
            client.attach(request).await.map(attached)
        }
        Ask::Detach { client: of, epoch } => {
            let request = DetachRequest {
                name,
                client: of,
                epoch,
                ..DetachRequest::default()
            };
            client.detach(request).await.map(|_| Answer::Done)
        }
        Ask::TakeAway => {
            let request = DetachRequest {
                name,
                force: true,
                ..DetachRequest::default()
            };
            client.detach(request).await.map(|_| Answer::Done)
        }
        Ask::Remove => {
            let request = RemoveVolumeRequest {
                name,
                ..RemoveVolumeRequest::default()
            };
            client.remove(request).await.map(|_| Answer::Done)
        }
        Ask::Show => {
            let asked = VolumeName { name: name.clone() };
            client.show(asked).await.map(|it| volume(&name, &it))
        }
        Ask::Rename { to } => {
            let to = Place::Volume(to).path(group);
            let request = RenameRequest {
                from: name,
                to: to.clone(),
                ..RenameRequest::default()
            };
            client.rename(request).await.map(|it| volume(&to, &it))
        }
        ask => panic!("{ask:?} is not asked of volumes"),
    }
}

async fn of_directory(
    client: &MdsClient,
    group: u64,
    path: String,
    ask: Ask,
) -> Result<Answer, ControlError> {
    match ask {
        Ask::MakeDirectory => {
            let request = CreateDirectoryRequest {
                path,
                ..CreateDirectoryRequest::default()
            };
            let made = client.create_directory(request).await;
            made.map(|_| Answer::Done)
        }
        Ask::RemoveDirectory => {
            let request = RemoveDirectoryRequest {
                path,
                ..RemoveDirectoryRequest::default()
            };
            let removed = client.remove_directory(request).await;
            removed.map(|_| Answer::Done)
        }
        Ask::MoveDirectory { to } => {
            let request = RenameRequest {
                from: path,
                to: Place::Directory(to).path(group),
                ..RenameRequest::default()
            };
            let moved = client.rename_directory(request).await;
            moved.map(|_| Answer::Done)
        }
        Ask::List => {
            let request = ListDirectoriesRequest {
                path,
                ..ListDirectoriesRequest::default()
            };
            let listed = client.list_directories(request).await?;
            let info = listed.directory.expect("what was asked for");
            Ok(Answer::Directory {
                volumes: info.volumes,
                bytes: info.bytes,
            })
        }
        ask => panic!("{ask:?} is not asked of directories"),
    }
}

fn seen(info: &VolumeInfo) -> Seen {
    Seen {
        id: info.id,
        size: info.size,
        epoch: info.epoch,
        attached: info.attached,
    }
}

/// Of the volume that is called so.
fn volume(name: &str, info: &VolumeInfo) -> Answer {
    assert_eq!(info.name, name, "as asked for");
    Answer::Volume(seen(info))
}

fn attached(attachment: Attachment) -> Answer {
    let info = attachment.map.and_then(|map| map.volume);
    let seen = seen(&info.expect("an attachment comes with its map"));
    assert_eq!(seen.epoch, attachment.epoch, "of one moment");
    Answer::Attached {
        seen,
        client: attachment.client,
    }
}

fn refused(path: &str, ask: Ask, error: &ControlError) -> Answer {
    match error {
        ControlError::Refused(refusal) => match refusal.fault().map(|fault| fault.code()) {
            Some("OGEE-2002") => Answer::Exists,
            Some("OGEE-2003") => Answer::NoVolume,
            Some("OGEE-2004") => Answer::InUse,
            Some("OGEE-2006") => Answer::Shrinks,
            Some("OGEE-2015") => Answer::Stale,
            Some("OGEE-2088") => Answer::DirectoryExists,
            Some("OGEE-2089") => Answer::NoDirectory,
            Some("OGEE-2091") => Answer::NotEmpty,
            _ => panic!("{path} {ask:?}: {error}"),
        },
        ControlError::Unreachable { .. } | ControlError::OutcomeUnknown { .. } => Answer::Unknown,
        error => panic!("{path} {ask:?}: {error}"),
    }
}
