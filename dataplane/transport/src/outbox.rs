//! Frames on their way out, already as bytes.
//!
//! *Place*: filled by senders, emptied by the writer task, whole. *Owner*: one connection's
//! `Link`. *Invariants*: bytes leave in the order in which frames were added; a part of at most
//! 16 KiB is copied (and counted), a longer one is only referred to; what is being written still
//! counts against the bounds. *On failure*: nothing fails here; a full outbox refuses.

use crate::frame::Frame;
use crate::limit::{COPY_MAX, OUT_KEEP_MAX};
use crate::metrics::count;
use ogee_runtime::Payload;
use std::io::IoSlice;

/// What is queued, and what is being written.
#[derive(Default)]
pub(crate) struct Outbox {
    batch: Batch,
    /// Frames as they were queued, for a carrier that takes them whole.
    #[cfg(feature = "rdma")]
    whole: Option<std::collections::VecDeque<Frame>>,
    frames: usize,
    bytes: usize,
}

/// A run of frames that goes out in one write.
#[derive(Default)]
pub(crate) struct Batch {
    /// Headers and copied parts.
    small: Vec<u8>,
    /// Parts to be written from where they lie.
    large: Vec<Large>,
    frames: usize,
    bytes: usize,
}

struct Large {
    /// Goes out when this much of `small` has.
    after: usize,
    data: Payload,
}

impl Outbox {
    /// One that keeps frames whole.
    #[cfg(feature = "rdma")]
    pub(crate) fn of_frames() -> Self {
        Self {
            whole: Some(std::collections::VecDeque::new()),
            ..Self::default()
        }
    }

    /// The next frame of one that keeps them whole.
    #[cfg(feature = "rdma")]
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        let frame = self.whole.as_mut()?.pop_front()?;
        self.frames -= 1;
        self.bytes -= frame.wire_len();
        Some(frame)
    }

    /// Frames queued or being written.
    pub(crate) const fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes queued or being written.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits to be taken (something may still be being written).
    pub(crate) const fn is_empty(&self) -> bool {
        self.batch.frames == 0
    }

    /// Whether `len` more bytes fit. An empty outbox takes any single frame.
    pub(crate) const fn fits(&self, len: usize, frames_max: usize, bytes_max: usize) -> bool {
        self.frames == 0 || (self.frames < frames_max && self.bytes + len <= bytes_max)
    }

    /// Adds a frame whose lengths have been checked.
    pub(crate) fn add(&mut self, frame: Frame) {
        #[cfg(feature = "rdma")]
        if let Some(whole) = &mut self.whole {
            self.frames += 1;
            self.bytes += frame.wire_len();
            whole.push_back(frame.in_one_piece());
            return;
        }
        let len = self.batch.add(frame);
        self.frames += 1;
        self.bytes += len;
    }

    /// Takes everything queued and leaves `spare`, an empty batch whose memory is reused.
    pub(crate) const fn take(&mut self, spare: Batch) -> Batch {
        assert!(spare.frames == 0, "a spare batch is empty");
        std::mem::replace(&mut self.batch, spare)
    }

    /// A batch taken before has been written.
    pub(crate) const fn written(&mut self, batch: &Batch) {
        self.frames -= batch.frames;
        self.bytes -= batch.bytes;
    }
}

impl Batch {
    /// Frames in it.
    pub(crate) const fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes in it.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The copied bytes, when they are all there is.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        self.large.is_empty().then_some(self.small.as_slice())
    }

    /// Every piece, in order.
    pub(crate) fn pieces(&self) -> Vec<IoSlice<'_>> {
        let mut pieces = Vec::with_capacity(2 * self.large.len() + 1);
        let (mut rest, mut gone) = (self.small.as_slice(), 0);
        for large in &self.large {
            let (before, behind) = rest.split_at(large.after - gone);
            if !before.is_empty() {
                pieces.push(IoSlice::new(before));
            }
            pieces.push(IoSlice::new(&large.data));
            (rest, gone) = (behind, large.after);
        }
        if !rest.is_empty() {
            pieces.push(IoSlice::new(rest));
        }
        pieces
    }

    /// The same memory, empty; what a burst took is given back.
    pub(crate) fn recycled(mut self) -> Self {
        self.small.clear();
        self.large.clear();
        if self.small.capacity() > OUT_KEEP_MAX {
            self.small = Vec::new();
        }
        (self.frames, self.bytes) = (0, 0);
        self
    }

    fn add(&mut self, frame: Frame) -> usize {
        let len = frame.wire_len();
        self.small
            .extend_from_slice(&frame.sealed_header().encode());
        frame.into_body(|part| self.add_part(part));
        self.frames += 1;
        self.bytes += len;
        len
    }

    fn add_part(&mut self, data: Payload) {
        if data.len() > COPY_MAX {
            self.large.push(Large {
                after: self.small.len(),
                data,
            });
        } else {
            self.small.extend_from_slice(&data);
            count(|metrics| metrics.bytes_copied.add(data.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Outbox};
    use crate::frame::Frame;
    use crate::limit::COPY_MAX;
    use crate::metrics::metrics;
    use ogee_proto::id::RequestId;
    use ogee_proto::limit::FRAME_HEADER_SIZE;
    use ogee_proto::wire::{FrameHeader, FrameKind};
    use ogee_runtime::Payload;

    fn frame(payload: Vec<u8>) -> Frame {
        Frame::with_payload(
            FrameHeader::new(FrameKind::Write, RequestId::new(1)),
            payload,
        )
    }

    #[test]
    fn pieces_keep_the_order_and_only_small_ones_are_copied() {
        let (mut outbox, before) = (Outbox::default(), metrics().bytes_copied);
        outbox.add(frame(vec![1; COPY_MAX]));
        outbox.add(frame(vec![2; COPY_MAX + 1]));
        outbox.add(frame(vec![3; COPY_MAX + 2]));
        outbox.add(frame(vec![4; 1]));
        let batch = outbox.take(Batch::default());
        let lens: Vec<usize> = batch.pieces().iter().map(|piece| piece.len()).collect();
        let head = FRAME_HEADER_SIZE;
        assert_eq!(
            lens,
            [
                2 * head + COPY_MAX,
                COPY_MAX + 1,
                head,
                COPY_MAX + 2,
                head + 1
            ]
        );
        assert_eq!(lens.iter().sum::<usize>(), batch.bytes());
        assert_eq!(metrics().bytes_copied - before, (COPY_MAX + 1) as u64);
    }

    #[test]
    fn parts_go_out_as_one_payload() {
        let parts = [vec![1; 3], vec![2; COPY_MAX + 1], vec![3; 5]];
        let (mut outbox, mut many) = (Outbox::default(), frame(Vec::new()));
        let payloads = parts.iter().map(|part| Payload::from(part.clone()));
        many.set_parts(payloads.collect(), None);
        outbox.add(many);
        outbox.add(frame(parts.concat()));
        let batch = outbox.take(Batch::default());
        let lens: Vec<usize> = batch.pieces().iter().map(|piece| piece.len()).collect();
        let (head, whole) = (FRAME_HEADER_SIZE, COPY_MAX + 1 + 8);
        assert_eq!(lens, [head + 3, COPY_MAX + 1, 5 + head, whole]);
        let sent: Vec<u8> = batch
            .pieces()
            .iter()
            .flat_map(|piece| piece.to_vec())
            .collect();
        let (many, one) = sent.split_at(head + whole);
        assert!(many == one);
    }

    #[test]
    fn what_is_being_written_still_counts() {
        let mut outbox = Outbox::default();
        assert!(
            outbox.fits(usize::MAX, 1, 1),
            "an empty outbox takes any single frame"
        );
        outbox.add(frame(vec![0; 100]));
        let batch = outbox.take(Batch::default());
        assert!(outbox.is_empty());
        assert!(!outbox.fits(1, 1, usize::MAX), "by frames");
        assert!(!outbox.fits(1, 2, outbox.bytes()), "by bytes");
        outbox.written(&batch);
        assert_eq!((outbox.frames(), outbox.bytes()), (0, 0));
        assert!(batch.recycled().pieces().is_empty());
    }
}
