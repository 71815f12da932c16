//! Shards' reports → protobuf.

use crate::order::{
    BackgroundStatus, DriveUnknown, LightStatus, RepairStatus, ReplicaStatus, ScrubStatus,
    ShardReport, StoreStatus, VolumePage,
};
use ogee_device::{Flow, NvmeVitals};
use ogee_group::LostBlocks as Blocks;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::service::{
    BackgroundReport, DriveReport, DriveUnknown as Unknown, IoFlow, LightReport, LostBlocks,
    RepairReport, ReplicaName, ReplicaReport, ScrubReport, StoreReport, VolumeHeld,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn store(status: &StoreStatus) -> StoreReport {
    StoreReport {
        store: status.store.to_string(),
        shard: u32::from(status.shard),
        path: status.path.clone(),
        capacity: status.capacity.get(),
        used: status.used.get(),
        log_capacity: status.log_capacity.get(),
        log_used: status.log_used.get(),
        state: status.state.to_owned(),
        writes: Some(flow(status.pace.writes)),
        flushes: Some(flow(status.pace.flushes)),
        reads: Some(flow(status.pace.reads)),
        failures: status.failures,
        retired_extents: status.retired,
        scrub: Some(scrub(&status.scrub)),
        compare: Some(scrub(&status.compare)),
        scrub_paused: status.is_paused,
        background: Some(background(&status.background)),
        drive: status.vitals.and_then(drive),
        drive_unknown: unknown(status.drive_unknown).into(),
        repairs: Some(repairs(status.repairs)),
        light: Some(light(status.light)),
        class: status
            .class
            .map_or_else(String::new, |class| class.to_string()),
    }
}

const fn repairs(status: RepairStatus) -> RepairReport {
    RepairReport {
        blocks: status.blocks,
        pages: status.pages,
        pages_anew: status.pages_anew,
    }
}

const fn light(status: LightStatus) -> LightReport {
    LightReport {
        passes: status.passes,
        copies: status.copies,
        bad: status.bad,
        unread: status.unread,
    }
}

const fn background(status: &BackgroundStatus) -> BackgroundReport {
    BackgroundReport {
        speed: status.speed,
        allowed: status.allowed,
        limit: status.limit,
    }
}

const fn unknown(why: DriveUnknown) -> Unknown {
    match why {
        DriveUnknown::Known => Unknown::Unspecified,
        DriveUnknown::NoNvme => Unknown::NoNvme,
        DriveUnknown::NotPermitted => Unknown::NotPermitted,
        DriveUnknown::NoNode => Unknown::NoNode,
        DriveUnknown::Refused => Unknown::Refused,
    }
}

/// Nothing of one that has not told anything yet.
fn drive(vitals: NvmeVitals) -> Option<DriveReport> {
    let health = vitals.health?;
    Some(DriveReport {
        warnings: health.warnings.bits().into(),
        celsius: health.celsius,
        spare_percent: health.spare_percent.into(),
        spare_threshold_percent: health.spare_threshold_percent.into(),
        used_percent: health.used_percent.into(),
        media_errors: health.media_errors,
        error_log_entries: health.error_log_entries,
        unsafe_shutdowns: health.unsafe_shutdowns,
        power_cycles: health.power_cycles,
        power_on_hours: health.power_on_hours,
        bytes_read: health.bytes_read,
        bytes_written: health.bytes_written,
        refusals: vitals.refusals,
        is_old: vitals.is_old,
    })
}

fn scrub(status: &ScrubStatus) -> ScrubReport {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ScrubReport {
        read: status.read,
        of: status.of,
        took_ms: ms(status.took),
        passes: status.passes,
        ended_ms_ago: ms(status.ended),
    }
}

const fn flow(flow: Flow) -> IoFlow {
    IoFlow {
        ops: flow.ops,
        bytes: flow.bytes,
        waited_ns: flow.waited_ns,
    }
}

pub(super) fn stores(reports: &[ShardReport]) -> Vec<StoreReport> {
    reports
        .iter()
        .flat_map(|report| report.stores.iter().map(store))
        .collect()
}

pub(super) fn replicas(reports: &[ShardReport]) -> Vec<ReplicaReport> {
    reports
        .iter()
        .flat_map(|report| report.replicas.iter().map(replica))
        .collect()
}

/// `installing`, `outrun`, or what the shard says.
const fn state(status: &ReplicaStatus) -> &'static str {
    let group = &status.group;
    match (group.is_running, group.is_installing, group.is_outrun) {
        (true, true, _) => "installing",
        (true, _, true) => "outrun",
        _ => status.state,
    }
}

/// Blocks that no replica has.
pub(super) fn lost(reports: &[ShardReport]) -> Vec<LostBlocks> {
    reports
        .iter()
        .flat_map(|report| &report.lost)
        .map(blocks)
        .collect()
}

/// Blocks in which replicas differ, and no rule tells which is right.
pub(super) fn disputed(reports: &[ShardReport]) -> Vec<LostBlocks> {
    let disputed = reports.iter().flat_map(|report| &report.disputed);
    disputed.map(blocks).collect()
}

fn blocks((copyset, blocks): &(CopysetId, Blocks)) -> LostBlocks {
    LostBlocks {
        copyset: copyset.get(),
        volume: blocks.key.volume.get(),
        chunk: blocks.key.chunk.get(),
        first_block: blocks.first.get().into(),
        blocks: blocks.count.into(),
    }
}

/// One page of the volumes held, and after which the next one goes on (0: that was all). None if not every
/// shard has listed its own.
pub(super) fn volumes(reports: &[ShardReport], shards: usize) -> Option<(Vec<VolumeHeld>, u64)> {
    let pages = reports.iter().filter_map(|report| report.volumes.as_ref());
    let pages: Vec<&VolumePage> = pages.collect();
    if pages.len() != shards {
        return None;
    }
    // What a shard has left out must not be passed over.
    let ends = pages.iter().filter(|page| page.has_more);
    let end = ends.filter_map(|page| page.volumes.keys().last()).min();
    let mut all: BTreeMap<u64, VolumeHeld> = BTreeMap::new();
    for (id, report) in pages.iter().flat_map(|page| &page.volumes) {
        if end.is_some_and(|end| id > end) {
            continue;
        }
        let held = all.entry(id.get()).or_default();
        held.volume = id.get();
        held.chunks = held.chunks.saturating_add(report.chunks);
        held.epoch = held.epoch.max(report.epoch.get());
        held.removed |= report.is_removed;
        held.copysets
            .extend(report.copysets.iter().map(|id| id.get()));
    }
    Some((all.into_values().collect(), end.map_or(0, |id| id.get())))
}

/// Replicas that were deleted.
pub(super) fn replicas_removed(reports: &[ShardReport]) -> Vec<ReplicaName> {
    // Every shard is asked: only together do they know that none of their stores holds it.
    let mut shards: BTreeMap<(CopysetId, ReplicaId), usize> = BTreeMap::new();
    for name in reports.iter().flat_map(|report| &report.replicas_removed) {
        *shards.entry(*name).or_default() += 1;
    }
    let everywhere = shards
        .into_iter()
        .filter(|(_, count)| *count == reports.len());
    everywhere
        .map(|((copyset, replica), _)| ReplicaName {
            copyset: copyset.get(),
            replica: replica.get(),
        })
        .collect()
}

fn replica(status: &ReplicaStatus) -> ReplicaReport {
    let group = &status.group;
    ReplicaReport {
        copyset: group.copyset.get(),
        replica: group.replica.get(),
        leader_replica: group.leader.map_or(0, |id| id.get()),
        term: group.term.get(),
        applied: group.applied.index.get(),
        last_log: group.last_log,
        conf_epoch: 0,
        state: state(status).to_owned(),
        store: status.store.to_string(),
        voters: status.voters.iter().map(|id| id.get()).collect(),
        requests: group.requests,
        bytes: group.bytes,
        last_log_term: status.last_term.get(),
        is_led: status.is_led,
        held: status.held,
    }
}

#[cfg(test)]
mod tests {
    use super::volumes;
    use crate::order::{ShardReport, VolumePage, VolumeReport};
    use ogee_proto::id::{CopysetId, Epoch, VolumeId};

    fn report(shard: u16, ids: &[u64], has_more: bool) -> ShardReport {
        let one = |id: &u64| {
            let held = VolumeReport {
                chunks: 2,
                epoch: Epoch::new(*id + u64::from(shard)),
                is_removed: false,
                copysets: vec![CopysetId::new(u32::from(shard))],
            };
            (VolumeId::new(*id), held)
        };
        let volumes = ids.iter().map(one).collect();
        ShardReport {
            shard,
            stores: Vec::new(),
            replicas: Vec::new(),
            volumes_removed: Vec::new(),
            replicas_removed: Vec::new(),
            lost: Vec::new(),
            disputed: Vec::new(),
            volumes: Some(VolumePage { volumes, has_more }),
            metrics: crate::order::ShardMetrics::default(),
        }
    }

    #[test]
    fn a_page_ends_where_the_shard_that_is_least_far_ends() {
        let reports = [report(0, &[1, 2, 5], true), report(1, &[2, 3, 9], false)];
        let (page, next) = volumes(&reports, 2).expect("both have listed");
        let ids: Vec<u64> = page.iter().map(|held| held.volume).collect();
        assert_eq!((ids, next), (vec![1, 2, 3, 5], 5));
        assert_eq!((page[1].chunks, page[1].epoch), (4, 3));
        assert_eq!(page[1].copysets, [0, 1]);
        let reports = [report(0, &[1], false), report(1, &[], false)];
        assert_eq!(
            volumes(&reports, 2).map(|(page, next)| (page.len(), next)),
            Some((1, 0))
        );
        assert!(volumes(&reports, 3).is_none(), "one has not listed");
    }
}
