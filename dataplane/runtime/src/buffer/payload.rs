//! The data of a request or reply, wherever it came from.
//!
//! **Place.** Travels from frontend and network through group and log to the device, and back.
//! **Owner.** Shared by its clones, on one thread.
//!
//! **Invariants.** Immutable; cloning and slicing never copy bytes. Equality is of the bytes.
//! **Failure.** A slice out of range panics.

use std::fmt;
use std::ops::{Deref, RangeBounds};

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
    /// Only where there is such memory: every look at a payload asks which it is.
    #[cfg(feature = "readiness")]
    Lent(std::rc::Rc<Lent>),
}

/// Memory of somebody who wants it back: a receive buffer that hardware has filled.
#[cfg(feature = "readiness")]
struct Lent {
    owner: std::rc::Rc<dyn Owner>,
    range: std::ops::Range<usize>,
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
        let (owner, range) = (std::rc::Rc::new(owner), 0..len);
        Self(Source::Lent(std::rc::Rc::new(Lent { owner, range })))
    }

    /// Who lends these bytes, if it is a `T`, and which of its bytes they are.
    #[cfg(feature = "readiness")]
    pub fn owner<T: 'static>(&self) -> Option<(&T, std::ops::Range<usize>)> {
        let Source::Lent(lent) = &self.0 else {
            return None;
        };
        let owner: &dyn std::any::Any = &*lent.owner;
        Some((owner.downcast_ref()?, lent.range.clone()))
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
            #[cfg(feature = "readiness")]
            Source::Lent(lent) => {
                let start = lent.range.start;
                Source::Lent(std::rc::Rc::new(Lent {
                    owner: std::rc::Rc::clone(&lent.owner),
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
