//! What a device writes from: pieces of memory whose bytes come to lie one behind the other.
//!
//! **Place.** Filled by the log with buffers of its own and with payloads as they came from the network; consumed by a
//! file's `write_at`. **Owner.** Whoever holds it; a write takes it away until its completion, and with it a share of each
//! payload's memory.
//!
//! **Invariants.** Each piece begins at a multiple of `BUFFER_ALIGNMENT` and is a multiple of `DIRECT_IO_UNIT` long, so
//! that a device may take it from where it is. The simulation has no such devices, and lays memory out differently in each
//! run: there only lengths count.
//!
//! **Failure.** A payload that does not qualify is a bug of who pushes it, and panics; [`Payload::is_transferable`] says.

use std::fmt;
use std::ops::Range;

use super::owned::Buffer;
use super::payload::Payload;
use crate::limit::{BUFFER_ALIGNMENT, DIRECT_IO_UNIT};

/// Bytes for one write, in pieces.
#[derive(Default)]
pub struct Gather {
    first: Option<Piece>,
    /// Hardly ever anything: then nothing is allocated for it.
    rest: Vec<Piece>,
    len: usize,
    shared: usize,
}

/// A piece of memory.
pub(crate) enum Piece {
    Own(Buffer),
    Shared(Payload),
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(buffer) => buffer,
            Self::Shared(payload) => payload,
        }
    }
}

impl Gather {
    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in all.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are written from payloads, where they are.
    #[must_use]
    pub const fn shared_len(&self) -> usize {
        self.shared
    }

    /// Appends the bytes of `buffer`.
    pub fn push(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.append(Piece::Own(buffer));
        }
    }

    /// Appends `payload`, from where it is.
    ///
    /// # Panics
    /// If it is not [transferable](Payload::is_transferable).
    fn push_shared(&mut self, payload: Payload) {
        assert!(
            payload.is_transferable(),
            "a device cannot take {payload:?}"
        );
        self.shared += payload.len();
        self.append(Piece::Shared(payload));
    }

    /// Appends `payload`: from where it is if a device can take it from there, else a copy.
    pub fn push_payload(&mut self, payload: Payload) {
        match payload.is_transferable() {
            true => self.push_shared(payload),
            false => self.push(Buffer::copy_from(&payload)),
        }
    }

    /// Of `payloads`, the bytes that [`Self::behind`] copies.
    pub fn copied_len<'a>(payloads: impl Iterator<Item = &'a Payload>) -> usize {
        let copied = payloads.filter(|payload| !payload.is_transferable());
        copied.map(|payload| payload.len()).sum()
    }

    /// The bytes of `first`, and behind them those of `payloads`. What a device can take from where it is stays there; the
    /// rest, `copied` bytes in all, is copied behind `first` while that has room, or together with its neighbours.
    #[must_use]
    pub fn behind<'a>(
        first: Buffer,
        payloads: impl Iterator<Item = &'a Payload>,
        mut copied: usize,
    ) -> Self {
        let (mut all, mut own) = (Self::new(), first);
        for payload in payloads {
            if payload.is_transferable() {
                all.push(std::mem::replace(&mut own, Buffer::with_capacity(0)));
                all.push_shared(payload.clone());
                continue;
            }
            if own.capacity() - own.len() < payload.len() {
                all.push(std::mem::replace(&mut own, Buffer::with_capacity(copied)));
            }
            own.extend_from_slice(payload);
            copied -= payload.len();
        }
        all.push(own);
        all
    }

    fn append(&mut self, piece: Piece) {
        self.len += piece.bytes().len();
        match &self.first {
            None => self.first = Some(piece),
            Some(_) => self.rest.push(piece),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Piece> {
        self.first.iter().chain(&self.rest)
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.all().map(Piece::bytes)
    }

    /// The bytes of `range`, in order, piece by piece.
    ///
    /// # Panics
    /// If it reaches past the end.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range {range:?} of {} bytes",
            self.len
        );
        let mut at = 0;
        self.pieces().filter_map(move |piece| {
            let begin = at;
            at += piece.len();
            let part = range.start.max(begin)..range.end.min(at);
            (part.start < part.end).then(|| &piece[part.start - begin..part.end - begin])
        })
    }

    /// All bytes in one buffer: copied, unless they are one already.
    #[must_use]
    pub fn into_buffer(mut self) -> Buffer {
        if self.rest.is_empty()
            && let Some(Piece::Own(buffer)) = self.first.take_if(|piece| piece.is_own())
        {
            return buffer;
        }
        let mut joined = Buffer::with_capacity(self.len);
        self.pieces()
            .for_each(|piece| joined.extend_from_slice(piece));
        joined
    }

    /// The one buffer that it is, or its pieces.
    pub(crate) fn into_parts(mut self) -> Result<Buffer, Vec<Piece>> {
        match self.first.take() {
            None => Ok(Buffer::with_capacity(0)),
            Some(Piece::Own(buffer)) if self.rest.is_empty() => Ok(buffer),
            Some(first) => {
                self.rest.insert(0, first);
                Err(self.rest)
            }
        }
    }

    /// How many pieces.
    pub(crate) const fn count(&self) -> usize {
        self.rest.len() + self.first.is_some() as usize
    }
}

impl Piece {
    const fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

impl Payload {
    /// Whether a device can take these bytes from where they are.
    #[must_use]
    pub fn is_transferable(&self) -> bool {
        let is_aligned = cfg!(ogee_sim) || self.as_ptr().addr().is_multiple_of(BUFFER_ALIGNMENT);
        !self.is_empty() && (self.len() as u64).is_multiple_of(DIRECT_IO_UNIT) && is_aligned
    }
}

impl From<Buffer> for Gather {
    fn from(buffer: Buffer) -> Self {
        let mut gather = Self::new();
        gather.push(buffer);
        gather
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("len", &self.len)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8, len: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(len);
        buffer.fill(byte);
        buffer
    }

    /// An own page, two pages of somebody else's, half a page of our own.
    fn gathered() -> (Gather, *const u8) {
        let shared = Payload::from(filled(2, 8192));
        let at = shared.as_ptr();
        let mut gather = Gather::from(filled(1, 4096));
        gather.push_payload(shared);
        gather.push(Buffer::with_capacity(0));
        gather.push(filled(3, 2048));
        (gather, at)
    }

    #[test]
    fn shared_pieces_stay_where_they_are() {
        let (gather, at) = gathered();
        assert_eq!(
            (gather.len(), gather.shared_len()),
            (4096 + 8192 + 2048, 8192)
        );
        let pieces: Vec<&[u8]> = gather.pieces().collect();
        assert_eq!(
            pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(),
            [4096, 8192, 2048]
        );
        assert_eq!(pieces[1].as_ptr(), at);
    }

    #[test]
    fn what_no_device_can_take_is_copied() {
        let shared = Payload::from(filled(2, 8192));
        let cases = [
            (1..8192, false),
            (512..1024, false),
            (0..100, false),
            (4096..8192, true),
        ];
        for (range, is_shared) in cases {
            let part = shared.slice(range.clone());
            assert_eq!(part.is_transferable(), is_shared, "{range:?}");
            let mut gather = Gather::new();
            gather.push_payload(part);
            let all = if is_shared { range.len() } else { 0 };
            assert_eq!((gather.len(), gather.shared_len()), (range.len(), all));
        }
        assert!(!Payload::empty().is_transferable());
    }

    #[test]
    fn what_is_copied_is_copied_together() {
        let odd = |byte| Payload::from(filled(byte, 2048)).slice(512..1024);
        let page = |byte| Payload::from(filled(byte, 4096));
        let payloads = [odd(2), odd(3), page(4), odd(5), odd(6), page(7)];
        let copied = Gather::copied_len(payloads.iter());
        assert_eq!(copied, 4 * 512);
        for room in [0, copied] {
            let mut first = Buffer::with_capacity(4096 + room);
            first.extend_from_slice(&filled(1, 4096));
            let all = Gather::behind(first, payloads.iter(), copied);
            let found: Vec<(u8, usize)> = all.pieces().map(|p| (p[0], p.len())).collect();
            let expected: &[(u8, usize)] = match room {
                0 => &[(1, 4096), (2, 1024), (4, 4096), (5, 1024), (7, 4096)],
                _ => &[(1, 5120), (4, 4096), (5, 1024), (7, 4096)],
            };
            assert_eq!(found, expected);
            assert_eq!(all.len() - all.shared_len(), 4096 + copied);
        }
        let alone = Gather::behind(Buffer::with_capacity(0), payloads[2..3].iter(), 0);
        assert_eq!((alone.count(), alone.shared_len()), (1, 4096));
    }

    #[test]
    fn any_range_is_found_in_order() {
        let (gather, _) = gathered();
        let flat: Vec<u8> = gather.pieces().flatten().copied().collect();
        for range in [
            0..0,
            0..14336,
            4095..4097,
            100..200,
            4096..12288,
            12000..14336,
            14336..14336,
        ] {
            let found: Vec<u8> = gather.range(range.clone()).flatten().copied().collect();
            assert_eq!(found, flat[range.clone()], "{range:?}");
        }
        assert_eq!(gather.into_buffer()[..], flat[..]);
    }

    #[test]
    fn one_buffer_is_not_copied() {
        let buffer = filled(7, 4096);
        let at = buffer.as_ptr();
        assert_eq!(Gather::from(buffer).into_buffer().as_ptr(), at);
        let parts = Gather::from(filled(7, 4096)).into_parts();
        assert!(parts.is_ok_and(|buffer| buffer.len() == 4096));
        let (gather, _) = gathered();
        assert_eq!(gather.count(), 3);
        assert!(gather.into_parts().is_err_and(|pieces| pieces.len() == 3));
        assert!(Gather::new().into_buffer().is_empty());
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_range_past_the_end_is_a_bug() {
        let (gather, _) = gathered();
        let _ = gather.range(0..14337).count();
    }
}
