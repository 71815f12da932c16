//! Answers to requests, and their form on the wire.
//!
//! *Place*: made by `transmit` and `execute`, encoded by `writer`. *Owner*: moves from the
//! request's task to the writer. *Invariants*: it holds its request's admission until it is on the
//! wire. Without structured replies all are simple; with them, reads, block status and errors are
//! structured. *On failure*: none.

use super::batch::{Batch, is_sent_uncopied};
use super::refusal::Refusal;
use super::sparse::{Chunk, Content};
use super::wire::{
    BASE_ALLOCATION_ID, SIMPLE_REPLY_MAGIC, STATE_HOLE, STATE_ZERO, STRUCTURED_REPLY_MAGIC, chunk,
};
use crate::disk::BlockRun;
use crate::limit::ERROR_TEXT_MAX;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::Payload;
use ogee_runtime::channel::Permit;

/// The places that a request takes in its connection while it is under way.
pub(super) struct Admission {
    pub(super) _slot: Permit,
    pub(super) _bytes: Option<Permit>,
}

/// The answer to one request.
pub(super) struct Reply {
    /// The client's name for the request.
    pub(super) cookie: u64,
    pub(super) body: Body,
    pub(super) admission: Admission,
}

/// What is answered.
pub(super) enum Body {
    /// It is done.
    Done,
    /// The bytes read, for a simple reply.
    Data(Vec<Payload>),
    /// The bytes read, for a structured reply.
    Chunks(Vec<Chunk>),
    /// Runs of a block status, at least one.
    Status(Vec<BlockRun>),
    /// It is not done.
    Failed(Refusal),
}

impl Body {
    /// Bytes of the payload that encoding will copy.
    pub(super) fn copied_len(&self) -> u64 {
        let copied = |pieces: &[Payload]| -> u64 {
            let copied = pieces.iter().filter(|piece| !is_sent_uncopied(piece));
            copied.map(|piece| piece.len() as u64).sum()
        };
        let chunk_copied = |chunk: &Chunk| match &chunk.content {
            Content::Data(pieces) => copied(pieces),
            Content::Hole(_) => 0,
        };
        match self {
            Self::Data(pieces) => copied(pieces),
            Self::Chunks(chunks) => chunks.iter().map(chunk_copied).sum(),
            Self::Done | Self::Status(_) | Self::Failed(_) => 0,
        }
    }

    /// Appends the reply to the request named `cookie`.
    pub(super) fn encode(&self, cookie: u64, is_structured: bool, batch: &mut Batch) {
        let mut reply = Encoder { cookie, batch };
        match self {
            Self::Done => reply.simple(0),
            Self::Data(pieces) => {
                reply.simple(0);
                pieces
                    .iter()
                    .for_each(|piece| reply.batch.put_payload(piece));
            }
            Self::Chunks(chunks) => reply.chunks(chunks),
            Self::Status(runs) => reply.status(runs),
            Self::Failed(refusal) if is_structured => reply.error(refusal),
            Self::Failed(refusal) => reply.simple(refusal.errno().code()),
        }
    }
}

struct Encoder<'a> {
    cookie: u64,
    batch: &'a mut Batch,
}

impl Encoder<'_> {
    fn simple(&mut self, errno: u32) {
        self.batch.put(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        self.batch.put(&errno.to_be_bytes());
        self.batch.put(&self.cookie.to_be_bytes());
    }

    fn head(&mut self, kind: u16, is_last: bool, len: usize) {
        let flags = if is_last { chunk::FLAG_DONE } else { 0 };
        self.batch.put(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
        self.batch.put(&flags.to_be_bytes());
        self.batch.put(&kind.to_be_bytes());
        self.batch.put(&self.cookie.to_be_bytes());
        self.batch.put(&field(len).to_be_bytes());
    }

    fn chunks(&mut self, chunks: &[Chunk]) {
        let Some((last, before)) = chunks.split_last() else {
            return self.head(chunk::NONE, true, 0);
        };
        before.iter().for_each(|chunk| self.chunk(chunk, false));
        self.chunk(last, true);
    }

    fn chunk(&mut self, chunk: &Chunk, is_last: bool) {
        match &chunk.content {
            Content::Data(pieces) => self.data(chunk.at, pieces, is_last),
            Content::Hole(len) => self.hole(chunk.at, *len, is_last),
        }
    }

    fn data(&mut self, at: ByteOffset, pieces: &[Payload], is_last: bool) {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.head(chunk::OFFSET_DATA, is_last, 8 + len);
        self.batch.put(&at.get().to_be_bytes());
        pieces
            .iter()
            .for_each(|piece| self.batch.put_payload(piece));
    }

    fn hole(&mut self, at: ByteOffset, len: usize, is_last: bool) {
        self.head(chunk::OFFSET_HOLE, is_last, 12);
        self.batch.put(&at.get().to_be_bytes());
        self.batch.put(&field(len).to_be_bytes());
    }

    fn status(&mut self, runs: &[BlockRun]) {
        self.head(chunk::BLOCK_STATUS, true, 4 + 8 * runs.len());
        self.batch.put(&BASE_ALLOCATION_ID.to_be_bytes());
        for run in runs {
            let state = match run.is_allocated {
                true => 0,
                false => STATE_HOLE | STATE_ZERO,
            };
            self.batch.put(&field(run.len.as_usize()).to_be_bytes());
            self.batch.put(&state.to_be_bytes());
        }
    }

    fn error(&mut self, refusal: &Refusal) {
        let text = refusal.to_string();
        let text = &text[..text.floor_char_boundary(ERROR_TEXT_MAX)];
        let len = u16::try_from(text.len()).expect("invariant: ERROR_TEXT_MAX is far below 64 KiB");
        self.head(chunk::ERROR, true, 6 + text.len());
        self.batch.put(&refusal.errno().code().to_be_bytes());
        self.batch.put(&len.to_be_bytes());
        self.batch.put(text.as_bytes());
    }
}

/// A length as a field: requests are shorter than 4 GiB, so their replies' parts are too.
fn field(len: usize) -> u32 {
    u32::try_from(len).expect("invariant: a reply is bounded by PAYLOAD_MAX and STATUS_SPAN_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::unit::ByteLen;

    fn encoded(body: &Body, is_structured: bool) -> Vec<u8> {
        let mut batch = Batch::default();
        body.encode(0x0102_0304_0506_0708, is_structured, &mut batch);
        batch.bytes()
    }

    #[test]
    fn simple_replies() {
        let done = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(encoded(&Body::Done, false), done);
        assert_eq!(encoded(&Body::Done, true), done);
        let data = Body::Data(vec![vec![9, 9].into(), vec![8].into()]);
        assert_eq!(encoded(&data, false)[16..], [9, 9, 8]);
        let failed = Body::Failed(Refusal::ReadOnly);
        assert_eq!(encoded(&failed, false)[4..8], [0, 0, 0, 1]);
    }

    #[test]
    fn structured_reads_end_with_their_last_chunk() {
        let chunk = |at, content| Chunk {
            at: ByteOffset::new(at),
            content,
        };
        let body = Body::Chunks(vec![
            chunk(5, Content::Data(vec![vec![7; 3].into()])),
            chunk(8, Content::Hole(4096)),
        ]);
        let cookie = [1, 2, 3, 4, 5, 6, 7, 8];
        let data = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 1][..],
            &cookie,
            &[0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 5, 7, 7, 7],
        ];
        let hole = [
            &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2][..],
            &cookie,
            &[0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 16, 0],
        ];
        assert_eq!(encoded(&body, true), [data, hole].concat().concat());
        let nothing = encoded(&Body::Chunks(Vec::new()), true);
        assert_eq!(nothing[4..8], [0, 1, 0, 0]);
        assert_eq!(nothing[16..], [0; 4]);
    }

    #[test]
    fn block_status_names_context_lengths_and_states() {
        let run = |len, is_allocated| BlockRun {
            len: ByteLen::new(len),
            is_allocated,
        };
        let body = encoded(&Body::Status(vec![run(4096, true), run(512, false)]), true);
        assert_eq!(body[4..8], [0, 1, 0, 5]);
        let runs = [
            0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3,
        ];
        assert_eq!(body[16..], runs);
    }

    #[test]
    fn a_structured_error_carries_its_text() {
        let body = encoded(&Body::Failed(Refusal::ReadOnly), true);
        assert_eq!(body[4..8], [0, 1, 0x80, 1]);
        assert_eq!(body[20..26], [0, 0, 0, 1, 0, 23]);
        assert_eq!(body[26..], *b"the export is read-only");
    }
}
