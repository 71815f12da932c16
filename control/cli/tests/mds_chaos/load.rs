//! Clients that make, change and remove volumes, and note what they asked, when, and what they were told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ogee_client::{ControlError, MdsClient, MdsConfig};
use ogee_proto::service::{
    AttachRequest, Attachment, CreateVolumeRequest, DetachRequest, RemoveVolumeRequest,
    ResizeVolumeRequest, VolumeInfo, VolumeName,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::RwLock;

use super::history::{Answer, Ask, Histories, Operation, Seen};

/// Sizes are multiples of a chunk.
const CHUNK: u64 = 16 << 20;
/// Names that clients quarrel about at a time.
const NAMES: u64 = 5;

/// What clients share.
pub struct Load {
    began: Instant,
    histories: Mutex<Histories>,
    /// Held for each request; who has it all knows that none is under way.
    gate: RwLock<()>,
    /// Names change with it, so that histories stay short.
    round: AtomicU64,
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
            round: AtomicU64::default(),
            stop: AtomicBool::default(),
            mds,
            done_us: Mutex::default(),
        })
    }

    /// Nobody asks anything while it is held.
    pub async fn pause(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    pub fn next_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
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
        let mut mine: Option<(String, u64, u64)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let pass = self.gate.read().await;
            let round = self.round.load(Ordering::Relaxed);
            let mut name = format!("v{round}-{}", random.random_range(0..NAMES));
            let ask = match random.random_range(0..20) {
                0..4 => Ask::Create {
                    size: CHUNK * random.random_range(1..16),
                },
                4..7 => Ask::Resize {
                    size: CHUNK * random.random_range(1..64),
                },
                7..10 => Ask::Attach,
                10..12 if mine.is_some() => {
                    let (of, client, epoch) = mine.take().unwrap();
                    name = of;
                    Ask::Detach { client, epoch }
                }
                10..13 => Ask::TakeAway,
                13..16 => Ask::Remove,
                _ => Ask::Show,
            };
            if let Answer::Attached { seen, client } = self.ask(&client, &name, ask).await {
                mine = Some((name, client, seen.epoch));
            }
            drop(pass);
            // Histories of a name are short, and the machine has other things to do.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..12))).await;
        }
    }

    /// Asks, and notes it.
    pub async fn ask(&self, client: &MdsClient, name: &str, ask: Ask) -> Answer {
        let sent_us = self.now_us();
        let answer = answer(client, name.to_owned(), ask).await;
        let now_us = self.now_us();
        let answered_us = (answer != Answer::Unknown).then_some(now_us);
        let operation = Operation {
            ask,
            answer,
            sent_us,
            answered_us,
        };
        let mut histories = self.histories.lock().unwrap();
        let history = histories.entry(name.to_owned()).or_default();
        // A question without an answer says nothing.
        if ask != Ask::Show || answer != Answer::Unknown {
            history.push(operation);
        }
        if answered_us.is_some() {
            self.done_us.lock().unwrap().push(now_us);
        }
        answer
    }
}

async fn answer(client: &MdsClient, name: String, ask: Ask) -> Answer {
    let host = "chaos".to_owned();
    let asked = match ask {
        Ask::Create { size } => {
            let request = CreateVolumeRequest {
                name,
                size,
                ..CreateVolumeRequest::default()
            };
            client.create(request).await.map(volume)
        }
        Ask::Resize { size } => {
            let request = ResizeVolumeRequest {
                name,
                size,
                ..ResizeVolumeRequest::default()
            };
            client.resize(request).await.map(volume)
        }
        Ask::Attach => {
            let request = AttachRequest {
                name,
                host,
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
            let removed = client.remove(request).await;
            removed.map(|_| Answer::Done)
        }
        Ask::Show => client.show(VolumeName { name }).await.map(volume),
    };
    asked.unwrap_or_else(|error| refused(ask, &error))
}

fn seen(info: &VolumeInfo) -> Seen {
    Seen {
        id: info.id,
        size: info.size,
        epoch: info.epoch,
        attached: info.attached,
    }
}

fn volume(info: VolumeInfo) -> Answer {
    Answer::Volume(seen(&info))
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

fn refused(ask: Ask, error: &ControlError) -> Answer {
    match error {
        ControlError::Refused(refusal) => match refusal.fault().map(|fault| fault.code()) {
            Some("OGEE-2002") => Answer::Exists,
            Some("OGEE-2003") => Answer::NoVolume,
            Some("OGEE-2004") => Answer::InUse,
            Some("OGEE-2006") => Answer::Shrinks,
            Some("OGEE-2015") => Answer::Stale,
            _ => panic!("{ask:?}: {error}"),
        },
        ControlError::Unreachable { .. } | ControlError::OutcomeUnknown { .. } => Answer::Unknown,
        error => panic!("{ask:?}: {error}"),
    }
}
