//! Which segments a log consists of.
//!
//! *Place*: the start of `recovery`. *Owner*: the task that opens the log; it only reads.
//! *Invariants*: a segment whose header is lost is found by its batches; a batch that was written to a
//! wrong place takes no slot from the segment there. *On failure*: an error only where nothing of a log of this store is there, or it is not one that we may open.

use crate::batch::BatchHead;
use crate::error::{DamageReason, GeometryField, LogError};
use crate::format::{HeadFault, is_trace};
use crate::head::SegmentHead;
use crate::limit::PAGE;
use crate::options::{Geometry, LogOptions};
use crate::scan::SegmentReader;
use ogee_device::Device;
use ogee_proto::id::StoreId;
use ogee_proto::unit::ByteLen;
use std::collections::BTreeMap;

/// A segment to replay.
pub(crate) struct Segment {
    pub sequence: u64,
    pub epoch: u64,
    pub slot: usize,
    /// `None` if it is lost.
    pub head: Option<SegmentHead>,
}

/// What the start of a slot tells.
struct SlotScan {
    head: Result<SegmentHead, HeadFault>,
    /// Sequence and epoch of the segments whose batches are in the first window, with their number.
    batches: BTreeMap<(u64, u64), usize>,
    /// Whether anything there bears our store's id, however damaged.
    is_trace: bool,
}

/// The segments to replay, oldest first; at least one.
pub(crate) async fn find(
    device: &Device,
    geometry: &Geometry,
    options: LogOptions,
) -> Result<Vec<Segment>, LogError> {
    let mut scans = Vec::with_capacity(geometry.slots);
    for slot in 0..geometry.slots {
        let mut reader = SegmentReader::new(device, options.store, geometry, slot);
        let window = reader.first_window().await?;
        scans.push(SlotScan {
            head: SegmentHead::parse(&window, slot, options.store),
            batches: batches(&window, options.store),
            is_trace: window
                .chunks_exact(PAGE)
                .any(|page| is_trace(page, options.store)),
        });
    }
    chain_of(scans, geometry, options.store)
}

fn batches(window: &[u8], store: StoreId) -> BTreeMap<(u64, u64), usize> {
    let batch_at = |at: usize| {
        let rest = window.get(at..)?;
        let area = rest.get(..BatchHead::area_len(rest).ok()?)?;
        let head = BatchHead::parse(area, store).ok()?;
        (head.place.offset == at).then_some((head.place.segment, head.place.epoch))
    };
    let mut found = BTreeMap::new();
    for segment in (0..window.len()).step_by(PAGE).filter_map(batch_at) {
        *found.entry(segment).or_default() += 1;
    }
    found
}

/// The slot of each segment that any slot tells of: if several do, the one of the newest epoch, with the
/// header, or with more of its batches; others were written to a wrong place.
fn owners(scans: &[SlotScan]) -> BTreeMap<u64, usize> {
    let mut best = BTreeMap::new();
    for (slot, scan) in scans.iter().enumerate() {
        let head = scan.head.as_ref().ok();
        let head = head.map(|head| (head.sequence, (head.epoch, true, 0)));
        let batches = scan.batches.iter();
        let batches =
            batches.map(|((sequence, epoch), count)| (*sequence, (*epoch, false, *count)));
        for (sequence, claim) in head.into_iter().chain(batches) {
            let known = best.entry(sequence).or_insert((claim, slot));
            if known.0 < claim {
                *known = (claim, slot);
            }
        }
    }
    best.into_iter()
        .map(|(sequence, (_, slot))| (sequence, slot))
        .collect()
}

fn chain_of(
    scans: Vec<SlotScan>,
    geometry: &Geometry,
    store: StoreId,
) -> Result<Vec<Segment>, LogError> {
    let (mut segments, mut faults) = (Vec::new(), Vec::new());
    let mut newest: Option<SegmentHead> = None;
    let is_ours = scans.iter().any(|scan| scan.is_trace);
    let owners = owners(&scans);
    for (slot, scan) in scans.into_iter().enumerate() {
        let head = scan.head.map_err(|fault| faults.push(fault)).ok();
        if let Some(head) = &head
            && newest
                .as_ref()
                .is_none_or(|newest| newest.sequence < head.sequence)
        {
            newest = Some(head.clone());
        }
        let batches = scan.batches.into_keys();
        let newest_batch = batches
            .rev()
            .find(|(sequence, _)| owners.get(sequence) == Some(&slot));
        segments.extend(segment_of(slot, head, newest_batch));
    }
    let Some(newest) = newest else {
        return Err(no_head(&faults, is_ours, geometry, store));
    };
    check_geometry(&newest, geometry)?;
    segments.retain(|segment| segment.sequence >= newest.oldest_live);
    segments.sort_by_key(|segment| (segment.sequence, std::cmp::Reverse(segment.epoch)));
    segments.dedup_by(|later, kept| {
        let is_double = later.sequence == kept.sequence;
        if is_double {
            let sequence = kept.sequence;
            tracing::error!(%store, sequence, "two segments of a log carry one number");
        }
        is_double
    });
    Ok(segments)
}

/// The segment in `slot`: of its header, unless it holds batches of a newer one (`batch`: its sequence
/// and epoch) that no other slot holds, whose header must then be lost, since it is written first.
fn segment_of(
    slot: usize,
    head: Option<SegmentHead>,
    batch: Option<(u64, u64)>,
) -> Option<Segment> {
    let newer = batch.filter(|(sequence, _)| {
        let head = head.as_ref();
        head.is_none_or(|head| head.sequence < *sequence)
    });
    if let Some((sequence, epoch)) = newer {
        return Some(Segment {
            sequence,
            epoch,
            slot,
            head: None,
        });
    }
    head.map(|head| Segment {
        sequence: head.sequence,
        epoch: head.epoch,
        slot,
        head: Some(head),
    })
}

/// Why no slot holds a segment header of ours. Another version beside headers of this one would be
/// a flipped bit: a log is of one version. Where `is_ours` says that something of our log is left, it
/// was formatted, and what it held is lost.
fn no_head(faults: &[HeadFault], is_ours: bool, geometry: &Geometry, store: StoreId) -> LogError {
    let start = geometry.region.start;
    let unknown = faults.iter().find_map(|fault| match fault {
        HeadFault::Version(found) => Some(*found),
        _ => None,
    });
    if let Some(found) = unknown {
        return LogError::UnknownVersion {
            found,
            ours: crate::format::VERSION,
        };
    }
    if is_ours || faults.contains(&HeadFault::Invalid) {
        return LogError::Damaged {
            store,
            offset: start,
            reason: DamageReason::SegmentHeader,
        };
    }
    let foreign = faults.iter().find_map(|fault| match fault {
        HeadFault::Foreign(found) => Some(*found),
        _ => None,
    });
    match foreign {
        Some(found) => LogError::ForeignStore { found, ours: store },
        None => LogError::NotFormatted { store, start },
    }
}

fn check_geometry(head: &SegmentHead, geometry: &Geometry) -> Result<(), LogError> {
    let check = |field, found, ours| {
        let (found, ours) = (ByteLen::new(found), ByteLen::new(ours));
        if found == ours {
            Ok(())
        } else {
            Err(LogError::Geometry { field, found, ours })
        }
    };
    check(
        GeometryField::SegmentLen,
        head.segment_len,
        geometry.segment_len as u64,
    )?;
    check(
        GeometryField::RegionLen,
        head.region_len,
        geometry.region.len.get(),
    )
}
