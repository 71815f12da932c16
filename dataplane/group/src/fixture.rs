//! What the unit tests of this crate share: a group of one replica on a device in memory.

use crate::config::GroupConfig;
use crate::group::{Group, GroupParams};
use crate::keeper::StoreKeeper;
use crate::metrics::GroupMetrics;
use crate::peers::PeerBook;
use crate::snapshot::CopyBudget;
use crate::types::ReplicaNode;
use crate::watch::Watch;
use ogee_device::Device;
use ogee_log::{Log, LogOptions, LogRegion};
use ogee_proto::id::{CopysetId, ReplicaId, StoreId};
use ogee_proto::unit::ByteLen;
use ogee_store::{Store, StoreParams};
use ogee_transport::{CallerOptions, Hello, Role};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

pub(crate) const COPYSET: CopysetId = CopysetId::new(7);
const REPLICA: ReplicaId = ReplicaId::new(1);

/// A group of one, and the task that writes it back.
pub(crate) struct Lone {
    pub(crate) group: Group,
    pub(crate) keeper: StoreKeeper,
    pub(crate) log: Log,
}

/// Runs a test's body, which must end in time.
pub(crate) fn run(body: impl Future<Output = ()>) {
    ogee_runtime::executor::block_on(async {
        let done = ogee_runtime::timeout(Duration::from_secs(120), body).await;
        done.expect("the test ends");
    });
}

impl Lone {
    /// A replica that belongs to no group yet.
    pub(crate) async fn open() -> Self {
        Self::open_with(true).await
    }

    async fn open_with(redirect: bool) -> Self {
        let store = format().await;
        let log = open_log(&store).await;
        let keeper = StoreKeeper::start(store.clone(), log.clone());
        Group::create(&store, COPYSET, REPLICA).await.unwrap();
        let hello = Hello::new(Role::Chunkserver, 1, "lone");
        let config = GroupConfig {
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(400),
            redirect,
            ..GroupConfig::default()
        };
        let peers = Rc::new(PeerBook::new(hello, CallerOptions::default()));
        let params = GroupParams {
            copyset: COPYSET,
            log: log.clone(),
            store: store.clone(),
            watch: Watch::start(peers.clone(), config),
            peers,
            config,
            metrics: Rc::new(GroupMetrics::default()),
            copies: Rc::new(CopyBudget::new(None)),
        };
        let group = Group::open(params).await.unwrap();
        keeper.add(group.clone());
        Self { group, keeper, log }
    }

    /// Makes the group and waits until it leads itself.
    pub(crate) async fn start() -> Self {
        Self::start_with(true).await
    }

    /// The same, with large writes redirected or not.
    pub(crate) async fn start_with(redirect: bool) -> Self {
        let lone = Self::open_with(redirect).await;
        let members = [(REPLICA, ReplicaNode::default())].into();
        lone.group.bootstrap(members).await.unwrap();
        while !lone.group.report().is_leader {
            ogee_runtime::sleep(Duration::from_millis(5)).await;
        }
        lone
    }
}

async fn format() -> Store {
    let device = Device::memory(ByteLen::new(64 << 20));
    let params = StoreParams {
        store: StoreId::from_bytes([1; 16]),
        cluster: Uuid::from_bytes([2; 16]),
        log_len: ByteLen::new(24 << 20),
        force: false,
    };
    Store::format(&device, params).await.unwrap();
    Store::open(&device).await.unwrap()
}

async fn open_log(store: &Store) -> Log {
    let (start, len) = store.log_region();
    let region = LogRegion { start, len };
    let options = LogOptions {
        segment_len: ByteLen::new(4 << 20),
        ..LogOptions::new(store.id())
    };
    Log::format(store.device(), region, options).await.unwrap();
    Log::open(store.device(), region, options).await.unwrap()
}
