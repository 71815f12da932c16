//! From the medium to groups.
//!
//! *Place*: the first half of `Log::open`. *Owner*: the task that opens the log; it only reads.
//! *Invariants*: what was acknowledged is found, or the log is reported damaged; a torn tail is
//! dropped only where `format` allows; damage is overlooked only if nothing live was there; running it again on the same medium gives the same result.
//! *On failure*: the error names the place; nothing was written.

use crate::error::{DamageReason, GeometryField, LogError};
use crate::format::HeadFault;
use crate::head::SegmentHead;
use crate::limit::PAGE;
use crate::options::{Geometry, LogOptions};
use crate::record::Decoded;
use crate::replay::Replay;
use crate::scan::{FoundBatch, SegmentReader};
use crate::segments::Segments;
use crate::state::State;
use ogee_device::Device;
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};

/// The log as the medium tells it, at the end of its newest segment.
pub(crate) async fn recover(
    device: &Device,
    geometry: Geometry,
    options: LogOptions,
) -> Result<State, LogError> {
    let slots = read_heads(device, &geometry, options.store).await?;
    let chain = chain_of(slots, &geometry, options)?;
    let mut walk = Walk {
        device,
        geometry,
        store: options.store,
        replay: Replay::default(),
    };
    let (mut end, mut damage) = (Tail::default(), None);
    for (position, head) in chain.iter().enumerate() {
        let successor = chain.get(position + 1);
        match walk.segment(head, successor).await {
            Ok(tail) => end = tail,
            // It matters only if something live was there: that is known at the end.
            Err(error @ LogError::Damaged { .. }) if successor.is_some() => {
                tracing::warn!(%error, "part of a segment is unreadable");
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let newest = chain
        .last()
        .expect("invariant: chain_of finds at least one segment");
    let damaged = |reason| LogError::Damaged {
        store: options.store,
        segment: newest.sequence,
        offset: geometry.slot_start(newest.slot),
        reason,
    };
    let groups = walk.replay.finish();
    let groups = groups.map_err(|reason| damage.unwrap_or_else(|| damaged(reason)))?;
    let mut segments = Segments::new(geometry);
    chain
        .iter()
        .for_each(|head| segments.found(head.slot, head.sequence));
    for group in groups.values() {
        group
            .durable
            .places
            .iter()
            .for_each(|(_, place)| segments.occupy(*place));
    }
    segments.settle(newest.slot, end.len, end.crc);
    Ok(State::new(
        options,
        groups,
        segments,
        newest.epoch,
        end.sequence,
    ))
}

/// What the start of a slot tells.
struct SlotScan {
    head: Result<SegmentHead, HeadFault>,
    /// Highest segment that a batch in the first window belongs to, and where it stands.
    newest_batch: Option<(u64, ByteOffset)>,
}

async fn read_heads(
    device: &Device,
    geometry: &Geometry,
    store: StoreId,
) -> Result<Vec<SlotScan>, LogError> {
    let mut scans = Vec::with_capacity(geometry.slots);
    for slot in 0..geometry.slots {
        let mut reader = SegmentReader::new(device, store, geometry, slot);
        let window = reader.first_window().await?;
        let head = SegmentHead::parse(&window, slot, store);
        let newest_batch =
            newest_batch(&window, store).map(|(segment, at)| (segment, reader.offset(at)));
        scans.push(SlotScan { head, newest_batch });
    }
    Ok(scans)
}

fn newest_batch(window: &[u8], store: StoreId) -> Option<(u64, usize)> {
    use crate::batch::BatchHead;
    let batch_at = |at: usize| {
        let rest = window.get(at..)?;
        let area = rest.get(..BatchHead::area_len(rest).ok()?)?;
        let head = BatchHead::parse(area, store).ok()?;
        (head.place.offset == at).then_some((head.place.segment, at))
    };
    (0..window.len()).step_by(PAGE).filter_map(batch_at).max()
}

/// The segments to replay, oldest first.
fn chain_of(
    slots: Vec<SlotScan>,
    geometry: &Geometry,
    options: LogOptions,
) -> Result<Vec<SegmentHead>, LogError> {
    let newest_batch = slots.iter().filter_map(|slot| slot.newest_batch).max();
    let (mut heads, mut faults) = (Vec::new(), Vec::new());
    for slot in slots {
        match slot.head {
            Ok(head) => heads.push(head),
            Err(fault) => faults.push(fault),
        }
    }
    heads.sort_by_key(|head| head.sequence);
    check_versions(&faults)?;
    let Some(newest) = heads.last() else {
        return Err(no_head(&faults, geometry, options.store));
    };
    check_geometry(newest, geometry)?;
    let damaged = |segment, offset, reason| LogError::Damaged {
        store: options.store,
        segment,
        offset,
        reason,
    };
    // A batch is begun only when its segment's header is durable: the header was lost since.
    if let Some((segment, offset)) = newest_batch.filter(|(segment, _)| *segment > newest.sequence)
    {
        return Err(damaged(segment, offset, DamageReason::SegmentHeader));
    }
    let oldest = newest.oldest_live;
    heads.retain(|head| head.sequence >= oldest);
    if let Some(pair) = heads
        .windows(2)
        .find(|pair| pair[0].sequence == pair[1].sequence)
    {
        let offset = geometry.slot_start(pair[1].slot);
        return Err(damaged(
            pair[1].sequence,
            offset,
            DamageReason::DuplicateSegment,
        ));
    }
    Ok(heads)
}

fn check_versions(faults: &[HeadFault]) -> Result<(), LogError> {
    let unknown = faults.iter().find_map(|fault| match fault {
        HeadFault::Version(found) => Some(*found),
        _ => None,
    });
    unknown.map_or(Ok(()), |found| {
        Err(LogError::UnknownVersion {
            found,
            ours: crate::format::VERSION,
        })
    })
}

/// Why no slot holds a segment of ours.
fn no_head(faults: &[HeadFault], geometry: &Geometry, store: StoreId) -> LogError {
    let start = geometry.region.start;
    if faults.contains(&HeadFault::Invalid) {
        let reason = DamageReason::SegmentHeader;
        return LogError::Damaged {
            store,
            segment: 0,
            offset: start,
            reason,
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

/// Where the log ends.
#[derive(Default)]
struct Tail {
    /// Bytes of the segment: header and batches.
    len: usize,
    /// The last batch.
    sequence: u64,
    /// Its checksum, or the segment header's: what the next batch repeats.
    crc: u32,
}

/// The walk over the chain.
struct Walk<'a> {
    device: &'a Device,
    geometry: Geometry,
    store: StoreId,
    replay: Replay,
}

/// The position in one segment.
struct Cursor {
    at: usize,
    /// Sequence of the batch that belongs there.
    expected: u64,
    previous_crc: u32,
    /// Highest batch known durable.
    proven: u64,
}

impl Cursor {
    const fn follows(&self, batch: &FoundBatch) -> bool {
        batch.head.place.sequence == self.expected
            && batch.head.place.previous_crc == self.previous_crc
    }

    fn pass(&mut self, batch: &FoundBatch) {
        self.at = batch.at + batch.head.len();
        self.expected += 1;
        self.previous_crc = batch.head.crc;
        self.proven = self.proven.max(batch.head.place.durable_upto);
    }
}

impl Walk<'_> {
    /// Replays one segment; `successor` is the next one that is left, `None` for the newest.
    async fn segment(
        &mut self,
        head: &SegmentHead,
        successor: Option<&SegmentHead>,
    ) -> Result<Tail, LogError> {
        self.replay.begin_segment(head);
        let mut reader = SegmentReader::new(self.device, self.store, &self.geometry, head.slot);
        let known_len = successor
            .and_then(|next| next.previous)
            .filter(|(sequence, _)| *sequence == head.sequence)
            .map(|(_, len)| ByteLen::new(len).as_usize());
        let proven = successor.map_or(head.first_batch, |next| next.first_batch) - 1;
        let mut cursor = Cursor {
            at: head.len(),
            expected: head.first_batch,
            previous_crc: head.crc,
            proven,
        };
        while known_len != Some(cursor.at) {
            let Some(batch) = self.next(&mut reader, head, &cursor).await? else {
                break;
            };
            let records = self.records(head, &reader, &batch)?;
            if !self
                .is_whole(&mut reader, &cursor, head, &batch, &records)
                .await?
            {
                break;
            }
            cursor.pass(&batch);
            self.apply(head, &reader, &batch, records)?;
        }
        if known_len.is_some_and(|len| len != cursor.at) {
            return Err(self.unreadable(head, &reader, &cursor));
        }
        if known_len.is_none() {
            self.check_tail(&mut reader, head, &cursor, successor.is_none())
                .await?;
        }
        Ok(Tail {
            len: cursor.at,
            sequence: cursor.expected - 1,
            crc: cursor.previous_crc,
        })
    }

    /// The batch at the cursor.
    async fn next(
        &self,
        reader: &mut SegmentReader<'_>,
        head: &SegmentHead,
        cursor: &Cursor,
    ) -> Result<Option<FoundBatch>, LogError> {
        let found = reader.batch_at(cursor.at).await?;
        let ours = found.filter(|batch| {
            (batch.head.place.segment, batch.head.place.epoch) == (head.sequence, head.epoch)
        });
        match ours {
            Some(batch) if !cursor.follows(&batch) => {
                let (expected, found) = (cursor.expected, batch.head.place.sequence);
                let reason = DamageReason::BatchOrder { expected, found };
                Err(self.damaged(head, reader.offset(cursor.at), reason))
            }
            other => Ok(other),
        }
    }

    /// Whether the batch's payloads are there too. Only a batch that nothing proves durable may
    /// lack them; the payloads of the others are verified when they are read.
    async fn is_whole(
        &self,
        reader: &mut SegmentReader<'_>,
        cursor: &Cursor,
        head: &SegmentHead,
        batch: &FoundBatch,
        records: &[Decoded],
    ) -> Result<bool, LogError> {
        let sequence = batch.head.place.sequence;
        if sequence <= cursor.proven {
            return Ok(true);
        }
        let next_at = batch.at + batch.head.len();
        if let Some(next) = reader.batch_at(next_at).await? {
            let place = next.head.place;
            let proves = (place.segment, place.epoch) == (head.sequence, head.epoch)
                && place.previous_crc == batch.head.crc
                && place.durable_upto >= sequence;
            if proves {
                return Ok(true);
            }
        }
        reader.verify_payloads(batch, records).await
    }

    fn records(
        &self,
        head: &SegmentHead,
        reader: &SegmentReader<'_>,
        batch: &FoundBatch,
    ) -> Result<Vec<Decoded>, LogError> {
        let sequence = batch.head.place.sequence;
        batch.head.records(&batch.area).ok_or_else(|| {
            self.damaged(
                head,
                reader.offset(batch.at),
                DamageReason::Record { sequence },
            )
        })
    }

    fn apply(
        &mut self,
        head: &SegmentHead,
        reader: &SegmentReader<'_>,
        batch: &FoundBatch,
        records: Vec<Decoded>,
    ) -> Result<(), LogError> {
        let slot = u32::try_from(head.slot).expect("invariant: at most SEGMENTS_MAX slots");
        let payloads = batch.at + batch.head.header_len;
        for decoded in records {
            let at = reader.offset(payloads + decoded.payload_page as usize * PAGE);
            if let Err(reason) = self.replay.apply(decoded, slot, at) {
                return Err(self.damaged(head, reader.offset(batch.at), reason));
            }
        }
        Ok(())
    }

    /// The cursor stands where no batch is: proves that the segment ends there, or that the batch
    /// that belongs there is torn.
    async fn check_tail(
        &self,
        reader: &mut SegmentReader<'_>,
        head: &SegmentHead,
        cursor: &Cursor,
        newest: bool,
    ) -> Result<(), LogError> {
        let later = reader
            .batch_after(cursor.at + PAGE, head.sequence, head.epoch)
            .await?;
        let known = newest && cursor.expected <= cursor.proven;
        if known || later.is_some() {
            return Err(self.unreadable(head, reader, cursor));
        }
        Ok(())
    }

    fn unreadable(
        &self,
        head: &SegmentHead,
        reader: &SegmentReader<'_>,
        cursor: &Cursor,
    ) -> LogError {
        let reason = DamageReason::Batch {
            sequence: cursor.expected,
        };
        self.damaged(head, reader.offset(cursor.at), reason)
    }

    fn damaged(&self, head: &SegmentHead, offset: ByteOffset, reason: DamageReason) -> LogError {
        LogError::Damaged {
            store: self.store,
            segment: head.sequence,
            offset,
            reason,
        }
    }
}
