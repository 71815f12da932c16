//! What the flusher writes next.
//!
//! *Place*: asked by the flusher when no write is in flight. *Owner*: the log's executor.
//! *Invariants*: a batch takes records in queue order, as many as fit its limits and the segment;
//! a segment is left only when the next record does not fit. *On failure*: none.

use super::{Previous, State};
use crate::batch::{self, BatchPlace, header_area_len};
use crate::error::LogError;
use crate::group::Group;
use crate::head::SegmentHead;
use crate::limit::PLACED_LEN_MAX;
use crate::options::Geometry;
use crate::queue::{Done, Queued};
use crate::record::Record;
use crate::repeat::Repeat;
use crate::segments::Segments;
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::{Buffer, Gather, Payload, seeded_bug};

/// What the flusher does next.
pub(crate) enum Plan {
    /// Write a batch.
    Write(Batch, Gather),
    /// Nothing to write, but callbacks whose turn has come.
    Finish(Vec<Done>),
    /// Begin a segment.
    Begin(SegmentHead, Buffer),
    /// Copy the live entries of a slot forward.
    Compact(usize),
    /// Wait for more; after a while (if true) ask again for a closing batch.
    Wait(bool),
    /// A segment is needed and no slot is free (a reader may hold one).
    Blocked,
    /// Closed and drained, or failed.
    Stop,
}

/// A batch in flight.
pub(crate) struct Batch {
    /// Where it goes, on the device.
    pub offset: ByteOffset,
    /// Payloads to be written beside it, on the device of the data.
    pub placed: Vec<(ByteOffset, Gather)>,
    pub(super) items: Vec<Queued>,
    pub(super) header_len: usize,
    pub(super) len: usize,
    pub(super) crc: u32,
    pub(super) sequence: u64,
    /// What the next batch says of this one.
    pub(super) previous: Previous,
}

/// The records chosen for the next batch.
struct Draft {
    items: Vec<Queued>,
    records: usize,
    records_len: usize,
    payload_len: usize,
    placed_len: usize,
    repeats: usize,
    room: usize,
    geometry: Geometry,
}

impl Draft {
    const fn new(segments: &Segments, repeats: usize) -> Self {
        Self {
            items: Vec::new(),
            records: 0,
            records_len: 0,
            payload_len: 0,
            placed_len: 0,
            repeats,
            room: segments.room(),
            geometry: segments.geometry,
        }
    }

    fn takes(&self, record: Option<&Record>) -> bool {
        let Some(record) = record else { return true };
        let area = header_area_len(self.records_len + record.len(), self.repeats);
        let payload = self.payload_len + record.payload_len();
        self.records < self.geometry.records_max
            && area <= self.geometry.header_area_max
            && payload <= self.geometry.payload_max
            && self.placed_len + record.placed_len() <= PLACED_LEN_MAX
            && area + payload <= self.room
    }

    fn push(&mut self, item: Queued) {
        if let Some(record) = &item.record {
            self.records += 1;
            self.records_len += record.len();
            self.payload_len += record.payload_len();
            self.placed_len += record.placed_len();
        }
        self.items.push(item);
    }

    const fn has_records(&self) -> bool {
        self.records > 0
    }
}

impl State {
    /// What to do next; `idle` when nothing came for a while.
    pub(crate) fn plan(&mut self, idle: bool) -> Plan {
        if self.stopped.is_some() {
            return Plan::Stop;
        }
        if let Some(victim) = self.victim() {
            return Plan::Compact(victim);
        }
        let mut draft = self.draft();
        let idle = idle || self.closing;
        if draft.items.is_empty() {
            if self.queue.front().is_some() {
                return self.plan_segment();
            }
            let wants_close = self.unproven || !self.lazy.is_empty();
            if !(idle && wants_close) {
                return self.plan_rest(wants_close);
            }
            if self.segments.room() < header_area_len(0, self.previous.repeats.len()) {
                let next = self.next_segment();
                return next.map_or_else(|| self.plan_rest(false), begin);
            }
        } else if !draft.has_records() {
            return Plan::Finish(
                draft
                    .items
                    .into_iter()
                    .filter_map(|item| item.done)
                    .collect(),
            );
        }
        self.draft_committed(&mut draft);
        self.plan_batch(draft)
    }

    fn plan_rest(&mut self, wants_close: bool) -> Plan {
        if self.closing {
            self.stopped = Some(LogError::Closed {
                store: self.store(),
            });
            return Plan::Stop;
        }
        Plan::Wait(wants_close)
    }

    fn draft(&mut self) -> Draft {
        let mut draft = Draft::new(&self.segments, self.previous.repeats.len());
        while let Some(next) = self.queue.front() {
            if !draft.takes(next.record.as_ref()) {
                break;
            }
            let Some(item) = self.queue.pop() else { break };
            self.leave_queue(item.group);
            draft.push(item);
        }
        draft
    }

    fn leave_queue(&mut self, id: CopysetId) {
        let group = self
            .groups
            .get_mut(&id)
            .expect("invariant: a queued record keeps its group");
        group.queued -= 1;
        if group.is_gone() {
            self.groups.remove(&id);
        }
    }

    /// Adds committed ids of groups that have nothing else queued: an id may not become durable
    /// before the entry that it names.
    fn draft_committed(&mut self, draft: &mut Draft) {
        let groups = &self.groups;
        self.lazy.retain(|id| {
            let Some(group) = groups.get(id) else {
                return false;
            };
            let Some(committed) = group.front.facts.committed else {
                return false;
            };
            let record = Some(Record::Committed(committed));
            let is_early = group.queued > 0 && !seeded_bug!("commit-ahead-of-entry");
            if is_early || !draft.takes(record.as_ref()) {
                return true;
            }
            let payload = Payload::empty();
            draft.push(Queued {
                group: *id,
                record,
                payload,
                serial: 0,
                cost: 0,
                done: None,
            });
            false
        });
    }

    /// An empty batch for the end of the newest segment, if there is room: what it overwrites, a
    /// torn batch perhaps, can never be taken for a batch again.
    pub(crate) fn closing_batch(&mut self) -> Option<(Batch, Gather)> {
        let repeats = self.previous.repeats.len();
        let fits = self.segments.room() >= header_area_len(0, repeats);
        fits.then(|| self.build(Draft::new(&self.segments, repeats)))
    }

    fn plan_batch(&mut self, draft: Draft) -> Plan {
        let (batch, data) = self.build(draft);
        Plan::Write(batch, data)
    }

    fn build(&mut self, draft: Draft) -> (Batch, Gather) {
        let (_, segment, end) = self.segments.active();
        let sequence = self.sequence + 1;
        let place = BatchPlace {
            store: self.store(),
            segment,
            epoch: self.epoch,
            sequence,
            durable_upto: self.sequence,
            offset: end,
            previous_crc: self.segments.previous_crc(),
            previous_offset: self.previous.offset,
        };
        let records = draft.items.iter().filter_map(|item| {
            item.record
                .as_ref()
                .map(|record| (item.group, record, &item.payload))
        });
        let encoded = batch::encode(&place, records.clone(), &self.previous.repeats);
        let repeats = records.map(|(group, record, _)| Repeat::of(group, record));
        let repeats = repeats.collect();
        let placed: Vec<_> = draft.items.iter().flat_map(Queued::writes).collect();
        let shared: usize = placed.iter().map(|(_, data)| data.shared_len()).sum();
        let copied = draft.payload_len + draft.placed_len - encoded.data.shared_len() - shared;
        self.counters.bytes_copied += copied as u64;
        let batch = Batch {
            offset: self.segments.end_offset(),
            placed,
            items: draft.items,
            header_len: encoded.header_len,
            len: encoded.data.len(),
            crc: encoded.crc,
            sequence,
            previous: Previous {
                offset: end,
                repeats,
            },
        };
        (batch, encoded.data)
    }

    fn plan_segment(&mut self) -> Plan {
        self.next_segment().map_or(Plan::Blocked, begin)
    }

    /// The next segment's header, if a slot is free.
    pub(crate) fn next_segment(&self) -> Option<(SegmentHead, Buffer)> {
        let slot = self.segments.free_slot()?;
        let (_, sequence, end) = self.segments.active();
        let geometry = &self.segments.geometry;
        let durable = |(id, group): (&CopysetId, &Group)| {
            group.durable.exists.then_some((*id, group.durable.facts))
        };
        let mut head = SegmentHead {
            store: self.store(),
            slot,
            sequence: sequence + 1,
            epoch: self.epoch,
            first_batch: self.sequence + 1,
            previous: (sequence > 0).then_some((sequence, end as u64)),
            oldest_live: self.segments.oldest_live().unwrap_or(sequence + 1),
            region_len: geometry.region.len.get(),
            segment_len: geometry.segment_len as u64,
            groups: self.groups.iter().filter_map(durable).collect(),
            crc: 0,
        };
        let buffer = head.encode();
        Some((head, buffer))
    }
}

fn begin((head, buffer): (SegmentHead, Buffer)) -> Plan {
    Plan::Begin(head, buffer)
}
