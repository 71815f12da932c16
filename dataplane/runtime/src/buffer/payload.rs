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
    /// Memory of somebody who wants it back: a receive buffer that hardware has filled.
    Lent(Rc<dyn AsRef<[u8]>>, Range<usize>),
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
    pub fn from_owner(owner: impl AsRef<[u8]> + 'static, len: usize) -> Self {
        assert!(len <= owner.as_ref().len(), "as long as its owner says");
        Self(Source::Lent(Rc::new(owner), 0..len))
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
            Source::Lent(owner, all) => {
                let range = all.start + range.start..all.start + range.end;
                Source::Lent(Rc::clone(owner), range)
            }
        })
    }

    /// The same bytes as [`Bytes`], which may cross threads: shared if they already are, else
    /// copied.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Source::Network(bytes) => bytes.clone(),
            Source::Device(buffer) => Bytes::copy_from_slice(buffer),
            Source::Lent(..) => Bytes::copy_from_slice(self),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Network(bytes) => bytes,
            Source::Device(buffer) => buffer,
            Source::Lent(owner, range) => &(**owner).as_ref()[range.clone()],
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
