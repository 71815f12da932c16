//! From the medium to groups.
//!
//! *Place*: the first half of `Log::open`. *Owner*: the task that opens the log; it only reads.
//! *Invariants*: what was acknowledged is found, or is a loss of the groups that it could concern; a
//! torn tail is dropped only where `format` allows; running it again on the same medium gives the
//! same result.
//! *On failure*: nothing was written. Damage is no failure: it is passed over, logged, and told
//! per group.

use crate::batch::Contents;
use crate::chain::{self, Segment};
use crate::error::LogError;
use crate::limit::PAGE;
use crate::options::{Geometry, LogOptions};
use crate::repeat::Repeat;
use crate::replay::Replay;
use crate::scan::{FoundBatch, SegmentReader};
use crate::segments::Segments;
use crate::state::{Previous, State};
use ogee_device::Device;
use ogee_proto::id::{CopysetId, StoreId};
use ogee_proto::unit::ByteLen;
use ogee_runtime::seeded_bug;

/// The log as the medium tells it, at the end of its newest segment. `groups` are known to exist.
pub(crate) async fn recover(
    (device, data): (&Device, &Device),
    geometry: Geometry,
    options: LogOptions,
    groups: &[CopysetId],
) -> Result<State, LogError> {
    let chain = chain::find(device, &geometry, options).await?;
    let mut walk = Walk {
        device,
        data,
        geometry,
        store: options.store,
        replay: Replay::default(),
    };
    let mut end = Tail::default();
    for (position, segment) in chain.iter().enumerate() {
        let before = position.checked_sub(1).and_then(|before| chain.get(before));
        let follows = before.is_some_and(|before| before.sequence + 1 == segment.sequence);
        let before = follows.then(|| std::mem::take(&mut end));
        let successor = chain.get(position + 1);
        end = walk.segment(segment, successor, before).await?;
    }
    if walk.replay.is_torn() {
        groups.iter().for_each(|group| walk.replay.expect(*group));
    }
    let newest = chain
        .last()
        .expect("invariant: a chain has at least one segment");
    let groups = walk.replay.settle();
    let mut segments = Segments::new(geometry);
    chain
        .iter()
        .for_each(|segment| segments.found(segment.slot, segment.sequence));
    for group in groups.values() {
        let places = group.durable.places.iter().filter_map(|(_, place)| *place);
        places.for_each(|place| segments.occupy(place));
    }
    segments.settle(newest.slot, end.len, end.crc);
    let epoch = chain.iter().map(|segment| segment.epoch).max().unwrap_or(0);
    Ok(State::new(
        options,
        groups,
        segments,
        epoch,
        end.sequence,
        end.previous,
    ))
}

/// Where a segment ends.
#[derive(Default)]
struct Tail {
    /// Bytes of the segment: header and batches.
    len: usize,
    /// The last batch.
    sequence: u64,
    /// Its checksum, or the segment header's: what the next batch repeats.
    crc: u32,
    /// What it said; nothing if that is not known.
    previous: Previous,
}

/// The walk over the chain.
struct Walk<'a> {
    device: &'a Device,
    /// Where placed payloads are.
    data: &'a Device,
    geometry: Geometry,
    store: StoreId,
    replay: Replay,
}

/// The position in one segment.
struct Cursor {
    at: usize,
    /// Sequence of the batch that belongs there.
    expected: u64,
    /// What that batch repeats, if it is known.
    previous_crc: Option<u32>,
    /// Highest batch known durable.
    proven: u64,
    /// Where batches end, if it is known.
    end: Option<usize>,
    /// The last batch passed, in this segment or before it.
    previous: Previous,
}

impl Cursor {
    fn follows(&self, batch: &FoundBatch) -> bool {
        let place = &batch.head.place;
        let is_next = place.offset == self.at && place.sequence == self.expected;
        is_next && self.previous_crc == Some(place.previous_crc)
    }

    /// Whether `batch`, which does not follow, repeats all that was lost before it.
    fn is_repeated(&self, batch: &FoundBatch, contents: &Contents) -> bool {
        let place = &batch.head.place;
        match (place.sequence - self.expected, self.previous_crc) {
            // The segment's header is lost, and with it where its first batch begins.
            (0, None) => true,
            // The lost one stood in the segment before. If nothing is said of it, it said nothing, or
            // it was not known to the open that wrote this one.
            (1, None) => place.previous_offset > 0 || !contents.repeats.is_empty(),
            (1, Some(_)) => place.previous_offset == self.at,
            _ => false,
        }
    }

    fn pass(&mut self, batch: &FoundBatch, repeats: Vec<Repeat>) {
        self.at = batch.at + batch.head.len();
        self.expected = batch.head.place.sequence + 1;
        self.previous_crc = Some(batch.head.crc);
        self.proven = self.proven.max(batch.head.place.durable_upto);
        self.previous = Previous {
            offset: batch.at,
            repeats,
        };
    }
}

impl Walk<'_> {
    /// Replays one segment; `successor` is the next one that is left, `None` for the newest;
    /// `before` is the end of the segment before it, if that was there.
    async fn segment(
        &mut self,
        segment: &Segment,
        successor: Option<&Segment>,
        before: Option<Tail>,
    ) -> Result<Tail, LogError> {
        let mut reader = SegmentReader::new(self.device, self.store, &self.geometry, segment.slot);
        let mut cursor = self.begin(segment, before, &mut reader).await?;
        if let Some(successor) = successor {
            // Another segment was begun, so all batches of this one are durable.
            cursor.proven = u64::MAX;
            let previous = successor.head.as_ref().and_then(|head| head.previous);
            let ours = previous.filter(|(sequence, _)| *sequence == segment.sequence);
            cursor.end = ours.map(|(_, len)| ByteLen::new(len).as_usize());
        }
        while cursor.end != Some(cursor.at) {
            let Some((batch, contents)) = self.next(&mut reader, segment, &cursor).await? else {
                break;
            };
            if !self
                .is_whole(&mut reader, &cursor, segment, &batch, &contents)
                .await?
            {
                break;
            }
            self.pass_to(segment, &cursor, &batch, &contents);
            let said = contents.records.iter();
            let repeats = said.map(|one| Repeat::of(one.group, &one.record)).collect();
            cursor.pass(&batch, repeats);
            self.apply(segment, &reader, &batch, contents);
        }
        self.end(segment, successor, cursor)
    }

    async fn begin(
        &mut self,
        segment: &Segment,
        before: Option<Tail>,
        reader: &mut SegmentReader<'_>,
    ) -> Result<Cursor, LogError> {
        let is_first = before.is_none();
        let (expected, repeats) = before.map_or((0, Vec::new()), |before| {
            (before.sequence + 1, before.previous.repeats)
        });
        let mut cursor = Cursor {
            at: 2 * PAGE,
            expected,
            previous_crc: None,
            proven: 0,
            end: None,
            previous: Previous { offset: 0, repeats },
        };
        if let Some(head) = &segment.head {
            self.replay.begin_segment(head);
            if cursor.expected != head.first_batch {
                // The batch before this segment's first is not the one that was found last.
                cursor.previous = Previous::default();
            }
            cursor.at = head.len();
            cursor.expected = head.first_batch;
            cursor.previous_crc = Some(head.crc);
        } else {
            tracing::error!(store = %self.store, segment = segment.sequence, "both copies of a segment header of the log are lost");
            if is_first {
                // Nor is the segment before it there: what its header said is unknown.
                self.replay.lose();
                let first = reader.batch_from(cursor.at, None, segment).await?;
                // If one stood before it here, that one is lost, and this one repeats it. So it may if that one
                // stood in the segment before, which is gone: then nothing else names what it named.
                cursor.expected = first.map_or(0, |first| {
                    let place = &first.head.place;
                    let contents = first.head.contents(&first.area);
                    let repeats = contents.is_some_and(|contents| !contents.repeats.is_empty());
                    let is_second = place.previous_offset > 0 || repeats;
                    place.sequence - u64::from(place.sequence > 0 && is_second)
                });
            }
        }
        cursor.proven = cursor.expected.saturating_sub(1);
        Ok(cursor)
    }

    /// The next readable batch, at the cursor or later.
    async fn next(
        &self,
        reader: &mut SegmentReader<'_>,
        segment: &Segment,
        cursor: &Cursor,
    ) -> Result<Option<(FoundBatch, Contents)>, LogError> {
        let mut from = cursor.at;
        while let Some(batch) = reader.batch_from(from, cursor.end, segment).await? {
            if seeded_bug!("truncate-at-first-bad-batch") && batch.at != cursor.at {
                return Ok(None);
            }
            from = batch.at + PAGE;
            if batch.head.place.sequence < cursor.expected {
                continue;
            }
            if let Some(contents) = batch.head.contents(&batch.area) {
                return Ok(Some((batch, contents)));
            }
        }
        Ok(None)
    }

    /// Takes from the next batch what it says of those between the cursor and it.
    fn pass_to(
        &mut self,
        segment: &Segment,
        cursor: &Cursor,
        batch: &FoundBatch,
        contents: &Contents,
    ) {
        let slot = slot_number(segment);
        if cursor.follows(batch) {
            if batch.head.place.previous_offset == 0 {
                let repeats = contents.repeats.iter();
                repeats.for_each(|repeat| self.replay.name(*repeat, slot));
            }
            return;
        }
        let is_repeated = cursor.is_repeated(batch, contents);
        let (expected, found) = (cursor.expected, batch.head.place.sequence);
        if expected < found || !is_repeated {
            tracing::error!(
                store = %self.store, segment = segment.sequence, at = cursor.at, expected, found,
                is_repeated, "batches of the log are lost"
            );
        }
        if !is_repeated {
            self.replay.lose();
        }
        if expected < found || !is_repeated {
            let repeats = contents.repeats.iter();
            repeats.for_each(|repeat| self.replay.say(*repeat, slot));
        }
    }

    /// Whether the payloads of a batch are there too. Only a batch that nothing proves durable may
    /// lack them; the payloads of the others are verified when they are read.
    async fn is_whole(
        &self,
        reader: &mut SegmentReader<'_>,
        cursor: &Cursor,
        segment: &Segment,
        batch: &FoundBatch,
        contents: &Contents,
    ) -> Result<bool, LogError> {
        if seeded_bug!("truncate-at-first-bad-batch") {
            return reader
                .verify_payloads(self.data, batch, &contents.records)
                .await;
        }
        let sequence = batch.head.place.sequence;
        let is_later = |later: &FoundBatch| {
            let place = &later.head.place;
            let is_here = (place.segment, place.epoch) == (segment.sequence, segment.epoch);
            is_here && place.sequence > sequence
        };
        let next_at = batch.at + batch.head.len();
        // Mostly the next batch follows at once: what lies outside of the log need not be read.
        if seeded_bug!("torn-payload-counts")
            || sequence <= cursor.proven
            || reader
                .batch_at(next_at)
                .await?
                .as_ref()
                .is_some_and(is_later)
            || reader
                .verify_payloads(self.data, batch, &contents.records)
                .await?
        {
            return Ok(true);
        }
        // A later batch was begun only when this one was durable.
        let later = reader.batch_from(next_at, None, segment).await?;
        Ok(later.as_ref().is_some_and(is_later))
    }

    fn apply(
        &mut self,
        segment: &Segment,
        reader: &SegmentReader<'_>,
        batch: &FoundBatch,
        contents: Contents,
    ) {
        let slot = slot_number(segment);
        let payloads = batch.at + batch.head.header_len;
        for decoded in contents.records {
            let at = reader.offset(payloads + decoded.payload_page as usize * PAGE);
            self.replay.apply(decoded, slot, at);
        }
    }

    /// Nothing readable follows the cursor: either the segment ends there, or its rest is lost, or
    /// (in the newest) the batch that belongs there is torn.
    fn end(
        &mut self,
        segment: &Segment,
        successor: Option<&Segment>,
        cursor: Cursor,
    ) -> Result<Tail, LogError> {
        let is_cut = match successor {
            Some(_) => cursor.end.is_some_and(|end| end != cursor.at),
            None => cursor.expected <= cursor.proven,
        };
        if is_cut && !seeded_bug!("truncate-at-first-bad-batch") {
            tracing::error!(
                store = %self.store, segment = segment.sequence, at = cursor.at,
                expected = cursor.expected, "the rest of a segment of the log is lost"
            );
            self.replay.lose();
        }
        Ok(Tail {
            len: cursor.at,
            sequence: cursor.expected.saturating_sub(1),
            crc: cursor.previous_crc.unwrap_or(0),
            previous: cursor.previous,
        })
    }
}

fn slot_number(segment: &Segment) -> u32 {
    u32::try_from(segment.slot).expect("invariant: at most SEGMENTS_MAX slots")
}
