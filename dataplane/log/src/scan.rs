//! Reads one segment from the medium, batch by batch.
//!
//! *Place*: below `recovery`. *Owner*: the task that opens the log. *Invariants*: reads within the
//! segment only, in windows, so that small batches do not cost a read each. *On failure*:
//! `LogError::Read`; whatever does not parse is reported as no batch, never guessed at.

use crate::batch::BatchHead;
use crate::error::LogError;
use crate::limit::{PAGE, SCAN_WINDOW};
use crate::options::Geometry;
use crate::record::{Decoded, Record};
use ogee_device::Device;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::ReadBuffer;

/// Reader of one slot.
pub(crate) struct SegmentReader<'a> {
    device: &'a Device,
    store: StoreId,
    start: ByteOffset,
    len: usize,
    window_at: usize,
    window: Option<ReadBuffer>,
}

/// A batch whose header area is whole.
pub(crate) struct FoundBatch {
    pub head: BatchHead,
    pub area: ReadBuffer,
    /// Where it begins, from the segment's start.
    pub at: usize,
}

impl<'a> SegmentReader<'a> {
    pub(crate) const fn new(
        device: &'a Device,
        store: StoreId,
        geometry: &Geometry,
        slot: usize,
    ) -> Self {
        Self {
            device,
            store,
            start: geometry.slot_start(slot),
            len: geometry.segment_len,
            window_at: 0,
            window: None,
        }
    }

    /// The place `at` on the device.
    pub(crate) const fn offset(&self, at: usize) -> ByteOffset {
        self.start.add(ByteLen::from_usize(at))
    }

    /// The first window: what holds the header, however many groups it lists.
    pub(crate) async fn first_window(&mut self) -> Result<ReadBuffer, LogError> {
        self.read(0, SCAN_WINDOW.min(self.len)).await
    }

    /// The batch that begins at `at`, if its header area is whole and it ends in the segment.
    pub(crate) async fn batch_at(&mut self, at: usize) -> Result<Option<FoundBatch>, LogError> {
        let Some(page) = self.bytes(at, PAGE).await? else {
            return Ok(None);
        };
        let Ok(area_len) = BatchHead::area_len(&page) else {
            return Ok(None);
        };
        let Some(area) = self.bytes(at, area_len).await? else {
            return Ok(None);
        };
        let Ok(head) = BatchHead::parse(&area, self.store) else {
            return Ok(None);
        };
        let whole = head.place.offset == at && at + head.len() <= self.len;
        Ok(whole.then_some(FoundBatch { head, area, at }))
    }

    /// Whether the payloads of all `records` of `batch` match their checksums.
    pub(crate) async fn verify_payloads(
        &mut self,
        batch: &FoundBatch,
        records: &[Decoded],
    ) -> Result<bool, LogError> {
        for decoded in records {
            let (Record::Entry(entry) | Record::Moved(entry)) = &decoded.record else {
                continue;
            };
            let at = batch.at + batch.head.header_len + decoded.payload_page as usize * PAGE;
            let len = entry.payload_len as usize;
            if len == 0 {
                continue;
            }
            let Some(data) = self.bytes(at, len).await? else {
                return Ok(false);
            };
            if crc32c(&data) != entry.payload_crc {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first batch of this segment and epoch at or after `from`, looked for page by page.
    pub(crate) async fn batch_after(
        &mut self,
        from: usize,
        segment: u64,
        epoch: u64,
    ) -> Result<Option<FoundBatch>, LogError> {
        for at in (from..self.len).step_by(PAGE) {
            if let Some(found) = self.batch_at(at).await?
                && (found.head.place.segment, found.head.place.epoch) == (segment, epoch)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn bytes(&mut self, at: usize, len: usize) -> Result<Option<ReadBuffer>, LogError> {
        if at + len > self.len {
            return Ok(None);
        }
        if let Some(window) = &self.window
            && at >= self.window_at
            && at + len <= self.window_at + window.len()
        {
            let start = at - self.window_at;
            return Ok(Some(window.slice(start..start + len)));
        }
        let window = self
            .read(at, SCAN_WINDOW.max(len).min(self.len - at))
            .await?;
        let bytes = window.slice(..len);
        self.window_at = at;
        self.window = Some(window);
        Ok(Some(bytes))
    }

    async fn read(&self, at: usize, len: usize) -> Result<ReadBuffer, LogError> {
        let offset = self.offset(at);
        let read = self.device.read(offset, ByteLen::from_usize(len)).await;
        read.map_err(|source| LogError::Read { offset, source })
    }
}
