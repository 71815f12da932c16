//! What a shard says of itself once a second.

use super::Shard;
use super::hosted::Hosted;
use super::stores::OpenStore;
use crate::limit::{LOST_REPORTED_MAX, VOLUMES_PER_PAGE};
use crate::order::{
    DriveUnknown, RepairStatus, ReplicaStatus, ShardMetrics, ShardReport, StoreStatus, VolumePage,
    VolumeReport,
};
use ogee_group::{FoundBy, Group, GroupReport, KeeperMetrics, LostBlocks, MendState};
use ogee_proto::id::{CopysetId, LogId, Term, VolumeId};
use ogee_store::{Budget, Purpose};
use std::collections::BTreeMap;

/// Everything.
pub(super) fn report(shard: &Shard) -> ShardReport {
    ShardReport {
        shard: shard.number,
        stores: stores(shard),
        replicas: replicas(shard),
        volumes_removed: volumes_removed(shard),
        replicas_removed: shard.changes.take_removed(),
        lost: blocks(shard, Group::lost_blocks),
        disputed: blocks(shard, Group::disputed_blocks),
        volumes: shard.listing.take().map(|after| volumes(shard, after)),
        metrics: metrics(shard),
    }
}

/// The first few blocks that groups say this of.
fn blocks(shard: &Shard, of: fn(&Group) -> Vec<LostBlocks>) -> Vec<(CopysetId, LostBlocks)> {
    let hosted = shard.hosted().into_iter();
    let found = hosted.flat_map(|hosted| {
        let copyset = hosted.group.copyset();
        let blocks = of(&hosted.group).into_iter();
        blocks.map(move |blocks| (copyset, blocks))
    });
    found.take(LOST_REPORTED_MAX).collect()
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
        class: open.class,
        capacity: open.store.capacity(),
        used: open.store.used(),
        log_capacity: log.capacity,
        log_used: log.used,
        state: match (open.has_failed(), open.keeper.is_full()) {
            (true, _) => "failed",
            // It serves; its replicas are to leave it.
            (false, _) if open.store.is_worn() => "worn",
            (false, true) => "full",
            (false, false) => "ok",
        },
        retired: open.store.retired(),
        pace: open.device.pace(),
        failures: open.device.counters().failures,
        scrub: open.scrubbed.status(),
        compare: open.compared.status(),
        is_paused: open.store.is_paused(),
        background: open.background.status(open.store.budget()),
        vitals: open.device.vitals(),
        drive_unknown: DriveUnknown::Known,
        repairs: repairs(open),
        light: open.verified.status(),
    }
}

fn repairs(open: &OpenStore) -> RepairStatus {
    let counters = open.store.counters();
    RepairStatus {
        blocks: counters.repairs,
        pages: open.store.open_stats().pages_healed as u64 + counters.metadata_repairs,
        pages_anew: counters.metadata_rewrites,
    }
}

fn replicas(shard: &Shard) -> Vec<ReplicaStatus> {
    let hosted = shard.hosted();
    let status = hosted.iter().map(|hosted| ReplicaStatus {
        group: hosted.group.report(),
        store: hosted.store,
        voters: hosted.group.voters(),
        last_term: hosted.group.last_logged().term,
        is_led: hosted.group.is_led(),
        state: if hosted.group.report().is_running {
            "ok"
        } else {
            "failed"
        },
    });
    let damaged = shard.damaged.borrow();
    let damaged = damaged.values().map(|damaged| ReplicaStatus {
        group: damaged.mender.report(),
        store: damaged.store,
        voters: Vec::new(),
        last_term: Term::default(),
        is_led: false,
        state: match damaged.mender.state() {
            MendState::Repairing => "repairing",
            MendState::NeedsReplacing => "damaged",
        },
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
            is_outrun: false,
            is_quiet: false,
            requests: 0,
            bytes: 0,
        },
        store: broken.store,
        voters: Vec::new(),
        last_term: Term::default(),
        is_led: false,
        state: broken.state,
    });
    status.chain(damaged).chain(broken).collect()
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

/// The volumes after one, as far as a page goes. It looks at every chunk's key, so it is made only when
/// asked for.
fn volumes(shard: &Shard, after: VolumeId) -> VolumePage {
    let mut volumes: BTreeMap<VolumeId, VolumeReport> = BTreeMap::new();
    for hosted in shard.hosted() {
        let held = hosted.group.volumes().into_iter();
        for (id, held) in held.filter(|(id, _)| *id > after) {
            let report = volumes.entry(id).or_default();
            report.chunks = report.chunks.saturating_add(held.chunks);
            report.is_removed |= held.is_removed;
            if !held.is_removed {
                report.epoch = report.epoch.max(held.epoch);
            }
            report.copysets.push(hosted.group.copyset());
        }
    }
    let rest = volumes.keys().nth(VOLUMES_PER_PAGE).copied();
    let has_more = rest.is_some_and(|rest| !volumes.split_off(&rest).is_empty());
    VolumePage { volumes, has_more }
}

fn metrics(shard: &Shard) -> ShardMetrics {
    let stages = &shard.metrics;
    let hosted = shard.hosted();
    ShardMetrics {
        stages: vec![
            ("queue", stages.queue.snapshot()),
            ("log", stages.log.snapshot()),
            ("replicate", stages.replicate.snapshot()),
            ("apply", stages.apply.snapshot()),
            ("write", stages.write.snapshot()),
            ("read", stages.read.snapshot()),
        ],
        counters: counters(shard),
        gauges: gauges(shard, &hosted),
        keeper: keeper(shard),
    }
}

fn gauges(shard: &Shard, hosted: &[Hosted]) -> Vec<Counter> {
    let sum = |of: fn(&Group) -> usize| hosted.iter().map(|it| of(&it.group)).sum::<usize>() as u64;
    let mut gauges = vec![
        (
            "overlay_blocks",
            "Blocks that live in the log only",
            sum(Group::overlay_blocks),
        ),
        (
            "damaged_places",
            "Places with damaged blocks that are not repaired yet, or cannot be",
            sum(Group::repairs_waiting),
        ),
        (
            "lost_places",
            "Places with damaged blocks that no replica has as they should be",
            hosted
                .iter()
                .map(|it| it.group.lost_blocks().len() as u64)
                .sum(),
        ),
        (
            "disputed_places",
            "Pieces in which replicas differ and no rule tells which is right",
            sum(|group| group.disputed_places().len()),
        ),
        (
            "retired_extents",
            "Extents that did not take what was written, and are never used again",
            shard
                .stores
                .iter()
                .map(|open| u64::from(open.store.retired()))
                .sum(),
        ),
        (
            "waiting_bytes",
            "Bytes of clients' requests that wait for their turn",
            shard.admission.waiting() as u64,
        ),
    ];
    gauges.extend(background_gauges(shard));
    gauges
}

/// A counter's name, its help, and its value.
type Counter = (&'static str, &'static str, u64);

fn counters(shard: &Shard) -> Vec<Counter> {
    let mut counters = store_counters(&shard.stores);
    counters.extend(scrub_counters(&shard.stores));
    counters.extend(metadata_counters(&shard.stores));
    counters.extend(FoundBy::ALL.map(|by| repaired_counter(shard, by)));
    counters.extend(background_counters(shard));
    counters.extend(traffic_counters(shard));
    counters.extend(registered_counters());
    counters
}

/// Device bytes over appended bytes is this host's write amplification; log, redirected, written back
/// and metadata say where they went.
fn store_counters(stores: &[OpenStore]) -> Vec<Counter> {
    let sum = |value: fn(&OpenStore) -> u64| stores.iter().map(value).sum::<u64>();
    vec![
        (
            "device_written_bytes",
            "Bytes written to devices",
            sum(|open| open.device.counters().written_bytes),
        ),
        (
            "device_read_bytes",
            "Bytes read from devices",
            sum(|open| open.device.counters().read_bytes),
        ),
        (
            "device_failures",
            "Requests that devices failed",
            sum(|open| open.device.counters().failures),
        ),
        (
            "log_written_bytes",
            "Bytes written to logs",
            sum(|open| open.log.counters().bytes_written),
        ),
        (
            "redirected_bytes",
            "Payload bytes written to extents of their own instead of to the log",
            sum(|open| open.log.counters().placed_bytes),
        ),
        (
            "written_back_bytes",
            "Bytes written back from the log to extents",
            sum(|open| open.store.counters().data_bytes_written),
        ),
        (
            "metadata_pages_written",
            "Pages of 4 KiB written by checkpoints",
            sum(|open| open.store.counters().pages_written),
        ),
        (
            "checksum_errors",
            "Blocks read from devices that failed their checksum",
            sum(|open| open.store.counters().checksum_errors),
        ),
        (
            "log_payloads_lost",
            "Payloads read from logs that failed their checksum",
            sum(|open| open.log.counters().payloads_lost),
        ),
    ]
}

/// Of what is done in the background.
fn scrub_counters(stores: &[OpenStore]) -> Vec<Counter> {
    let sum = |value: fn(&OpenStore) -> u64| stores.iter().map(value).sum::<u64>();
    vec![
        (
            "scrubbed_bytes",
            "Bytes read by scrubbing, to find what rots",
            sum(|open| open.scrubbed.bytes.get()),
        ),
        (
            "scrub_passes",
            "Stores that scrubbing has read whole",
            sum(|open| open.scrubbed.passes.get()),
        ),
        (
            "compared_bytes",
            "Bytes of which all replicas were compared, where they are led",
            sum(|open| open.compared.bytes.get()),
        ),
        (
            "compare_passes",
            "Copysets of which all replicas were compared, where they are led",
            sum(|open| open.compared.passes.get()),
        ),
        (
            "blocks_differing",
            "Blocks in which replicas were found to differ",
            sum(|open| open.compared.differing.get()),
        ),
        (
            "blocks_rewritten",
            "Of those, the ones that most replicas agreed about, and that were written anew",
            sum(|open| open.compared.rewritten.get()),
        ),
        (
            "blocks_repaired",
            "Damaged blocks rewritten with what other replicas have",
            sum(|open| open.store.counters().repairs),
        ),
    ]
}

/// Of verifying metadata.
fn metadata_counters(stores: &[OpenStore]) -> Vec<Counter> {
    let sum = |value: fn(&OpenStore) -> u64| stores.iter().map(value).sum::<u64>();
    vec![
        (
            "metadata_copies_checked",
            "Copies of metadata pages that were verified in use",
            sum(|open| open.store.counters().metadata_copies_checked),
        ),
        (
            "metadata_passes",
            "Stores of which all metadata was verified",
            sum(|open| open.verified.status().passes),
        ),
        (
            "metadata_copies_repaired",
            "Copies of metadata pages that were bad, and were rewritten from the other one",
            sum(|open| repairs(open).pages),
        ),
        (
            "metadata_copies_repaired_at_start",
            "Of those, the ones that were found when the store was opened",
            sum(|open| open.store.open_stats().pages_healed as u64),
        ),
        (
            "metadata_copies_repaired_in_use",
            "Of those, the ones that were found by verifying metadata in use",
            sum(|open| open.store.counters().metadata_repairs),
        ),
        (
            "metadata_pages_rewritten",
            "Metadata pages of which no copy was good, and that were written anew with what the store knows",
            sum(|open| open.store.counters().metadata_rewrites),
        ),
        (
            "metadata_copies_refused",
            "Times that a bad copy of a metadata page did not take what was written",
            sum(|open| open.store.counters().metadata_refusals),
        ),
        (
            "metadata_pages_unread",
            "Times that neither copy of a metadata page could be read",
            sum(|open| open.store.counters().metadata_unread),
        ),
    ]
}

/// Who had found the blocks that were repaired.
fn repaired_counter(shard: &Shard, by: FoundBy) -> Counter {
    let (name, help) = match by {
        FoundBy::Read => (
            "blocks_repaired_by_read",
            "Of the blocks repaired, those that a client's read had found damaged",
        ),
        FoundBy::Scrub => (
            "blocks_repaired_by_scrub",
            "Of the blocks repaired, those that scrubbing had found damaged",
        ),
        FoundBy::Compare => (
            "blocks_repaired_by_compare",
            "Of the blocks repaired, those that the comparison of replicas had found damaged",
        ),
        FoundBy::Copy => (
            "blocks_repaired_by_copy",
            "Of the blocks repaired, those that a copy to another replica had found damaged",
        ),
        FoundBy::Peer => (
            "blocks_repaired_by_peer",
            "Of the blocks repaired, those that another replica had asked for and were found damaged",
        ),
    };
    (name, help, shard.metrics.repaired.count(by))
}

/// What all kinds of background work have drawn from the budgets of devices and network.
fn background_counters(shard: &Shard) -> [Counter; 5] {
    let of_devices = |purpose| {
        let stores = shard.stores.iter();
        stores.map(|open| open.store.budget().drawn(purpose)).sum()
    };
    let network = Purpose::ALL.map(|purpose| shard.copies.network().drawn(purpose));
    [
        (
            "background_recovery_bytes",
            "Bytes read or written to copy a replica that its copyset lacks",
            of_devices(Purpose::Recovery),
        ),
        (
            "background_move_bytes",
            "Bytes read or written to copy a replica that is moved",
            of_devices(Purpose::Move),
        ),
        (
            "background_compare_bytes",
            "Bytes read to compare replicas",
            of_devices(Purpose::Compare),
        ),
        (
            "background_scrub_bytes",
            "Bytes read to find what rots",
            of_devices(Purpose::Scrub),
        ),
        (
            "background_network_bytes",
            "Bytes of copies sent and received",
            network.iter().sum(),
        ),
    ]
}

/// What may be drawn from them, in bytes per second.
fn background_gauges(shard: &Shard) -> [Counter; 3] {
    let budgets = || shard.stores.iter().map(|open| open.store.budget());
    [
        (
            "background_device_limit_bytes",
            "What background work may read and write in a second, all devices of the shard together",
            budgets().map(Budget::limit).sum(),
        ),
        (
            "background_device_allowed_bytes",
            "Of that, what it may now, as clients fare",
            budgets().map(Budget::allowed).sum(),
        ),
        (
            "background_network_limit_bytes",
            "What copies may send and receive in a second, all shards together",
            shard.copies.network().bucket().limit(),
        ),
    ]
}

fn traffic_counters(shard: &Shard) -> [Counter; 12] {
    let (stages, transport) = (&shard.metrics, ogee_transport::metrics());
    let logs = shard.stores.iter().map(|open| open.log.counters());
    let log_copied: u64 = logs.map(|log| log.bytes_copied).sum();
    let copied = log_copied + stages.bytes_copied.get() + transport.bytes_copied;
    [
        (
            "client_written_bytes",
            "Bytes of writes proposed here for clients",
            stages.bytes_proposed.get(),
        ),
        (
            "appended_bytes",
            "Payload bytes of entries appended here, led or followed",
            stages.bytes_appended.get(),
        ),
        (
            "replica_copy_bytes",
            "Bytes of blocks sent to replicas that are copied whole",
            shard.copies.bytes_sent(),
        ),
        ("copied_bytes", "Bytes copied in memory", copied),
        (
            "transport_copied_bytes",
            "Of those, by connections",
            transport.bytes_copied,
        ),
        (
            "received_copied_bytes",
            "Of those, on the way in",
            transport.bytes_copied_in,
        ),
        (
            "log_copied_bytes",
            "Of those, by logs on the way to their devices",
            log_copied,
        ),
        (
            "connections",
            "Connections made, by either side",
            transport.connections,
        ),
        (
            "rdma_connections",
            "Of those, the ones over RDMA",
            transport.connections_rdma,
        ),
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
            "throttled_requests",
            "Requests refused for overload",
            shard.throttled.get(),
        ),
    ]
}

/// Of memory that RDMA devices reach; all of them are zero without such.
fn registered_counters() -> [Counter; 4] {
    let transport = ogee_transport::metrics();
    [
        (
            "sent_copied_bytes",
            "Of bytes copied by connections, on the way out, into memory that RDMA devices reach",
            transport.bytes_copied_out,
        ),
        (
            "registered_bytes",
            "Bytes of memory for transfers registered with RDMA devices, again and again with each of them",
            transport.registered_bytes,
        ),
        (
            "registrations_failed",
            "Memory that could not be registered: what is sent from there is copied",
            transport.registrations_failed,
        ),
        (
            "transfers_elsewhere",
            "Buffers that found no room in the memory that RDMA devices reach (rdma.transfers)",
            transport.transfers_elsewhere,
        ),
    ]
}

fn keeper(shard: &Shard) -> KeeperMetrics {
    let all = shard.stores.iter().map(|open| open.keeper.metrics());
    all.fold(KeeperMetrics::default(), |sum, one| KeeperMetrics {
        checkpoints: sum.checkpoints + one.checkpoints,
        blocks_written: sum.blocks_written + one.blocks_written,
        blocks_adopted: sum.blocks_adopted + one.blocks_adopted,
        blocks_superseded: sum.blocks_superseded + one.blocks_superseded,
    })
}
