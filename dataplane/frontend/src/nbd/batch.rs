//! Bytes to send with one system call.
//!
//! *Place*: filled by `reply`, sent by `writer`. *Owner*: the writer of one connection, which
//! reuses it. *Invariants*: bytes leave in the order in which they were put; payloads from
//! `UNCOPIED_LEN_MIN` on are not copied. Bounded by the requests under way, whose replies these are.
//! *On failure*: after a failed send, any prefix may have gone out.

use crate::limit::{REPLY_BUFFER_KEPT, UNCOPIED_LEN_MIN};
use ogee_runtime::Payload;
use ogee_runtime::net::WriteHalf;
use std::io::{self, IoSlice};
use std::ops::Range;

/// Whether a payload goes from its own memory to the socket.
pub(super) fn is_sent_uncopied(payload: &Payload) -> bool {
    payload.len() >= UNCOPIED_LEN_MIN
}

/// Bytes to send.
#[derive(Default)]
pub(super) struct Batch {
    /// Everything that is copied.
    copied: Vec<u8>,
    parts: Vec<Part>,
}

enum Part {
    Copied(Range<usize>),
    Shared(Payload),
}

impl Batch {
    /// Appends a copy.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        let end = self.copied.len();
        match self.parts.last_mut() {
            Some(Part::Copied(range)) => range.end = end,
            _ => self.parts.push(Part::Copied(start..end)),
        }
    }

    /// Appends a payload, uncopied if it is large.
    pub(super) fn put_payload(&mut self, payload: &Payload) {
        match is_sent_uncopied(payload) {
            true => self.parts.push(Part::Shared(payload.clone())),
            false => self.put(payload),
        }
    }

    /// Sends everything and starts over.
    pub(super) async fn send(&mut self, half: &mut WriteHalf) -> io::Result<()> {
        match self.parts[..] {
            [Part::Copied(_)] => half.write_all(&self.copied).await?,
            _ => half.write_vectored(&mut self.slices()).await?,
        }
        self.parts.clear();
        self.copied.clear();
        self.copied.shrink_to(REPLY_BUFFER_KEPT);
        Ok(())
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let parts = self.parts.iter().map(|part| match part {
            Part::Copied(range) => &self.copied[range.clone()],
            Part::Shared(payload) => payload,
        });
        parts.map(IoSlice::new).collect()
    }

    /// What would be sent.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[cfg(test)]
    fn copied_len(&self) -> usize {
        self.copied.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_payloads_keep_their_place_uncopied() {
        let mut batch = Batch::default();
        batch.put(b"ab");
        batch.put_payload(&Payload::from(vec![1; 100]));
        batch.put_payload(&Payload::from(vec![2; UNCOPIED_LEN_MIN]));
        batch.put(b"cd");
        let expected = [
            b"ab".to_vec(),
            vec![1; 100],
            vec![2; UNCOPIED_LEN_MIN],
            b"cd".to_vec(),
        ];
        assert_eq!(batch.bytes(), expected.concat());
        assert_eq!(batch.copied_len(), 2 + 100 + 2);
        assert_eq!(batch.parts.len(), 3);
    }
}
