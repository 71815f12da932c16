//! Reads one segment from the medium, batch by batch.
//!
//! *Place*: below `recovery`. *Owner*: the task that opens the log. *Invariants*: reads within the
//! segment only, in windows, so that small batches do not cost a read each. *On failure*: whatever
//! does not parse, or cannot be read, is reported as no batch, never guessed at; `LogError::Read` if
//! nothing can be read.

use crate::batch::BatchHead;
use crate::chain::Segment;
use crate::error::LogError;
use crate::limit::{PAGE, SCAN_WINDOW};
use crate::options::Geometry;
use crate::record::{Decoded, Record};
use ogee_device::Device;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, ReadBuffer};

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

    /// Whether the payloads of all `records` of `batch` match their checksums; `data` is where those
    /// that lie outside of the batch are.
    pub(crate) async fn verify_payloads(
        &mut self,
        data: &Device,
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
            if let Some(placed) = &entry.placed {
                if !placed.is_sound(data).await {
                    return Ok(false);
                }
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

    /// The first batch of `segment` and its epoch at or after `from` that ends by `end`, looked for
    /// page by page.
    pub(crate) async fn batch_from(
        &mut self,
        from: usize,
        end: Option<usize>,
        segment: &Segment,
    ) -> Result<Option<FoundBatch>, LogError> {
        let end = end.map_or(self.len, |end| end.min(self.len));
        for at in (from..end).step_by(PAGE) {
            if let Some(found) = self.batch_at(at).await?
                && (found.head.place.segment, found.head.place.epoch)
                    == (segment.sequence, segment.epoch)
                && at + found.head.len() <= end
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

    /// Reads; pages that the device cannot give, asked for twice, count as zeros: nothing is there.
    async fn read(&self, at: usize, len: usize) -> Result<ReadBuffer, LogError> {
        let offset = self.offset(at);
        let read = self.device.read(offset, ByteLen::from_usize(len)).await;
        let Err(source) = read else {
            return read.map_err(|source| LogError::Read { offset, source });
        };
        let mut buffer = Buffer::zeroed(len);
        let mut pages_read = 0;
        for (number, page) in buffer.chunks_exact_mut(PAGE).enumerate() {
            let offset = self.offset(at + number * PAGE);
            match self.device.read(offset, ByteLen::from_usize(PAGE)).await {
                Ok(data) => {
                    page.copy_from_slice(&data);
                    pages_read += 1;
                }
                Err(error) => tracing::error!(%offset, %error, "a page of the log is unreadable"),
            }
        }
        // Not a bad sector, but a bad device.
        if pages_read == 0 && len > PAGE {
            return Err(LogError::Read { offset, source });
        }
        Ok(buffer.into())
    }
}
