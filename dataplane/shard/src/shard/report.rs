//! What a shard says of itself once a second.

use super::Shard;
use super::stores::OpenStore;
use crate::order::{ReplicaStatus, ShardMetrics, ShardReport, StoreStatus};
use ogee_group::{GroupReport, KeeperMetrics};
use ogee_proto::id::{LogId, Term, VolumeId};

/// Everything.
pub(super) fn report(shard: &Shard) -> ShardReport {
    ShardReport {
        shard: shard.number,
        stores: stores(shard),
        replicas: replicas(shard),
        volumes_removed: volumes_removed(shard),
        replicas_removed: shard.changes.take_removed(),
        metrics: metrics(shard),
    }
}

/// How the stores stand.
pub(super) fn stores(shard: &Shard) -> Vec<StoreStatus> {
    shard.stores.iter().map(|open| store(shard, open)).collect()
}

fn store(shard: &Shard, open: &OpenStore) -> StoreStatus {
    let log = open.log.usage();
    StoreStatus {
        store: open.id(),
        shard: shard.number,
        path: open.path.clone(),
        capacity: open.store.capacity(),
        used: open.store.used(),
        log_capacity: log.capacity,
        log_used: log.used,
        state: if open.has_failed() { "failed" } else { "ok" },
    }
}

fn replicas(shard: &Shard) -> Vec<ReplicaStatus> {
    let hosted = shard.hosted();
    let status = hosted.iter().map(|hosted| ReplicaStatus {
        group: hosted.group.report(),
        store: hosted.store,
        voters: hosted.group.voters(),
        state: state(&hosted.group.report()),
    });
    let broken = shard.broken.borrow();
    let broken = broken.iter().map(|(copyset, broken)| ReplicaStatus {
        group: GroupReport {
            copyset: *copyset,
            replica: broken.replica,
            leader: None,
            is_leader: false,
            term: Term::default(),
            applied: LogId::default(),
            last_log: 0,
            is_running: false,
            is_installing: false,
        },
        store: broken.store,
        voters: Vec::new(),
        state: broken.state,
    });
    status.chain(broken).collect()
}

const fn state(group: &GroupReport) -> &'static str {
    match (group.is_running, group.is_installing) {
        (false, _) => "failed",
        (true, true) => "installing",
        (true, false) => "ok",
    }
}

/// Volumes of which nothing is left in any of the copysets named and hosted here. Told once: if that
/// is lost, the order comes again.
fn volumes_removed(shard: &Shard) -> Vec<VolumeId> {
    let mut removing = shard.removing.borrow_mut();
    let gone = removing.extract_if(.., |volume, copysets| {
        let mut groups = copysets.iter().filter_map(|copyset| shard.group(*copyset));
        groups.all(|group| group.has_removed(*volume))
    });
    gone.map(|(volume, _)| volume).collect()
}

fn metrics(shard: &Shard) -> ShardMetrics {
    let stages = &shard.metrics;
    let transport = ogee_transport::metrics();
    let device = shard.stores.iter().map(|open| open.device.counters());
    let (written, read) = device.fold((0, 0), |(written, read), counters| {
        (written + counters.written_bytes, read + counters.read_bytes)
    });
    let log_copied: u64 = shard
        .stores
        .iter()
        .map(|open| open.log.counters().bytes_copied)
        .sum();
    let copied = log_copied + stages.bytes_copied.get() + transport.bytes_copied;
    let overlay: usize = shard
        .hosted()
        .iter()
        .map(|h| h.group.overlay_blocks())
        .sum();
    ShardMetrics {
        stages: vec![
            ("queue", stages.queue.snapshot()),
            ("log", stages.log.snapshot()),
            ("replicate", stages.replicate.snapshot()),
            ("apply", stages.apply.snapshot()),
            ("write", stages.write.snapshot()),
            ("read", stages.read.snapshot()),
        ],
        counters: vec![
            ("device_written_bytes", "Bytes written to devices", written),
            ("device_read_bytes", "Bytes read from devices", read),
            ("copied_bytes", "Bytes copied in memory", copied),
            (
                "received_bytes",
                "Bytes received from peers and clients",
                transport.bytes_in,
            ),
            (
                "sent_bytes",
                "Bytes sent to peers and clients",
                transport.bytes_out,
            ),
            (
                "replica_copy_bytes",
                "Bytes of blocks sent to replicas that are copied whole",
                shard.copies.bytes_sent(),
            ),
            (
                "throttled_requests",
                "Requests refused for overload",
                shard.throttled.get(),
            ),
        ],
        gauges: vec![(
            "overlay_blocks",
            "Blocks that live in the log only",
            overlay as u64,
        )],
        keeper: keeper(shard),
    }
}

fn keeper(shard: &Shard) -> KeeperMetrics {
    let all = shard.stores.iter().map(|open| open.keeper.metrics());
    all.fold(KeeperMetrics::default(), |sum, one| KeeperMetrics {
        checkpoints: sum.checkpoints + one.checkpoints,
        blocks_written: sum.blocks_written + one.blocks_written,
        blocks_superseded: sum.blocks_superseded + one.blocks_superseded,
    })
}
