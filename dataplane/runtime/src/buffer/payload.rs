//! The data of a request or reply, wherever it came from.
//!
//! **Place.** Travels from frontend and network through group and log to the device, and back.
//! **Owner.** Shared by its clones, on one thread.
//!
//! **Invariants.** Immutable; cloning and slicing never copy bytes. Equality is of the bytes.
//! **Failure.** A slice out of range panics.

use std::fmt;
use std::ops::{Deref, Range, RangeBounds};
use std::rc::Rc;

use bytes::Bytes;

use super::owned::Buffer;
use super::read::{ReadBuffer, resolve};

/// Immutable shared bytes from the network, a device or memory.
#[derive(Clone)]
pub struct Payload(Source);

#[derive(Clone)]
enum Source {
    Network(Bytes),
    Device(ReadBuffer),
    /// The part of it.
    Summed(Rc<Summed>, Range<usize>),
    /// Only where there is such memory: every look at a payload asks which it is.
    #[cfg(feature = "readiness")]
    Lent(Rc<Lent>),
}

/// Bytes, and the checksums of their blocks.
struct Summed {
    payload: Payload,
    block: usize,
    crcs: Vec<u32>,
}

/// Memory of somebody who wants it back: a receive buffer that hardware has filled.
#[cfg(feature = "readiness")]
struct Lent {
    owner: Rc<dyn Owner>,
    range: Range<usize>,
}

/// Who lends memory to a payload.
#[cfg(feature = "readiness")]
trait Owner: std::any::Any {
    fn bytes(&self) -> &[u8];
}

#[cfg(feature = "readiness")]
impl<T: AsRef<[u8]> + 'static> Owner for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

impl Payload {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Source::Network(Bytes::new()))
    }

    /// The first `len` bytes of `owner`, which is dropped behind the last clone of them.
    ///
    /// # Panics
    /// If there are fewer.
    #[cfg(feature = "readiness")]
    pub fn from_owner(owner: impl AsRef<[u8]> + 'static, len: usize) -> Self {
        assert!(len <= owner.as_ref().len(), "as long as its owner says");
        let (owner, range) = (Rc::new(owner), 0..len);
        Self(Source::Lent(Rc::new(Lent { owner, range })))
    }

    /// Who lends these bytes, if it is a `T`, and which of its bytes they are.
    #[cfg(feature = "readiness")]
    pub fn owner<T: 'static>(&self) -> Option<(&T, Range<usize>)> {
        match &self.0 {
            Source::Lent(lent) => {
                let owner: &dyn std::any::Any = &*lent.owner;
                Some((owner.downcast_ref()?, lent.range.clone()))
            }
            Source::Summed(summed, part) => {
                let (owner, all) = summed.payload.owner()?;
                Some((owner, all.start + part.start..all.start + part.end))
            }
            Source::Network(_) | Source::Device(_) => None,
        }
    }

    /// The same bytes, with the checksum of each of their blocks of so many bytes: who knows them saves others a pass.
    ///
    /// # Panics
    /// If there are not as many checksums as blocks.
    #[must_use]
    pub fn with_block_crcs(self, block: usize, crcs: Vec<u32>) -> Self {
        let len = self.len();
        assert_eq!(len, block * crcs.len(), "a checksum for each block");
        let summed = Summed {
            payload: self,
            block,
            crcs,
        };
        Self(Source::Summed(Rc::new(summed), 0..len))
    }

    /// The checksums of its blocks of so many bytes, if they are known.
    #[must_use]
    pub fn block_crcs(&self, block: usize) -> Option<&[u32]> {
        let Source::Summed(summed, range) = &self.0 else {
            return None;
        };
        let is_whole = range.start.is_multiple_of(block) && range.end.is_multiple_of(block);
        (summed.block == block && is_whole)
            .then(|| &summed.crcs[range.start / block..range.end / block])
    }

    /// The part `range` of these bytes, sharing the memory.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let range = resolve(&range, self.len());
        Self(match &self.0 {
            Source::Network(bytes) => Source::Network(bytes.slice(range)),
            Source::Device(buffer) => Source::Device(buffer.slice(range)),
            Source::Summed(summed, part) => {
                let start = part.start;
                let range = start + range.start..start + range.end;
                Source::Summed(Rc::clone(summed), range)
            }
            #[cfg(feature = "readiness")]
            Source::Lent(lent) => {
                let start = lent.range.start;
                Source::Lent(Rc::new(Lent {
                    owner: Rc::clone(&lent.owner),
                    range: start + range.start..start + range.end,
                }))
            }
        })
    }

    /// The same bytes as [`Bytes`], which may cross threads: shared if they already are, else
    /// copied.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Source::Network(bytes) => bytes.clone(),
            Source::Device(buffer) => Bytes::copy_from_slice(buffer),
            Source::Summed(summed, part) => summed.payload.slice(part.clone()).to_bytes(),
            #[cfg(feature = "readiness")]
            Source::Lent(_) => Bytes::copy_from_slice(self),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Network(bytes) => bytes,
            Source::Device(buffer) => buffer,
            Source::Summed(summed, part) => &summed.payload[part.clone()],
            #[cfg(feature = "readiness")]
            Source::Lent(lent) => &lent.owner.bytes()[lent.range.clone()],
        }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Network(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Network(bytes.into()))
    }
}

impl From<ReadBuffer> for Payload {
    fn from(buffer: ReadBuffer) -> Self {
        Self(Source::Device(buffer))
    }
}

impl From<Buffer> for Payload {
    fn from(buffer: Buffer) -> Self {
        Self(Source::Device(buffer.into()))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Payload;

    #[test]
    fn checksums_go_with_whole_blocks() {
        let bytes: Vec<u8> = (0..32).collect();
        let plain = Payload::from(bytes.clone());
        assert_eq!(plain.block_crcs(8), None);
        let summed = plain.with_block_crcs(8, vec![10, 11, 12, 13]);
        assert_eq!(
            (&summed[..], &summed.to_bytes()[..]),
            (&bytes[..], &bytes[..])
        );
        assert_eq!(summed.block_crcs(8), Some(&[10, 11, 12, 13][..]));
        assert_eq!(summed.block_crcs(4), None);
        let part = summed.slice(8..32).slice(8..16);
        assert_eq!(
            (&part[..], part.block_crcs(8)),
            (&bytes[16..24], Some(&[12][..]))
        );
        assert_eq!(&part.to_bytes()[..], &bytes[16..24]);
        assert_eq!(summed.slice(4..12).block_crcs(8), None);
        assert_eq!(summed.slice(8..8).block_crcs(8), Some(&[][..]));
    }

    #[test]
    #[should_panic(expected = "a checksum for each block")]
    fn as_many_checksums_as_blocks() {
        let _ = Payload::from(vec![0; 20]).with_block_crcs(8, vec![1, 2]);
    }
}
