//! What each side says while a connection is made: its private data. The table is in docs/rdma.md.
//!
//! *Place*: in the request to connect, its answer, or its refusal. *Owner*: plain values. *Invariants*: the
//! peer's bytes may be followed by zeros, which the connection manager adds. *On failure*: the side that
//! finds something it does not know refuses, and says its own.

use super::fault::{RdmaFault, wrong};
use super::limit::{BODY_LEN, GRANT_MIN, HEAD_LEN};
use crate::error::TransportError;
use ogee_proto::checksum::crc32c;
use ogee_proto::wire::{Reader, WIRE_VERSION, WireError, Writer};

const MAGIC: &[u8; 8] = b"OGEERDMA";
/// Of the protocol on RDMA.
const RDMA_VERSION: u16 = 1;
const LEN: usize = 32;
const CRC_AT: usize = LEN - 4;

/// Why a request to connect is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(super) enum Reason {
    None = 0,
    Version = 1,
    Busy = 2,
}

/// What a side offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offer {
    pub(super) wire_version: u16,
    pub(super) rdma_version: u16,
    pub(super) head_len: u32,
    /// The largest body of a message that it receives.
    pub(super) body_len: u32,
    /// Receive buffers that the peer may use.
    pub(super) receives: u16,
    /// Of a refusal, as it stands there: a newer peer may have more of them.
    pub(super) reason: u16,
}

impl Offer {
    /// Ours.
    pub(super) fn ours(receives: u32) -> Self {
        Self {
            wire_version: WIRE_VERSION,
            rdma_version: RDMA_VERSION,
            head_len: u32::try_from(HEAD_LEN).expect("invariant: a small constant"),
            body_len: u32::try_from(BODY_LEN).expect("invariant: a small constant"),
            receives: u16::try_from(receives).unwrap_or(u16::MAX),
            reason: Reason::None as u16,
        }
    }

    /// Ours, in a refusal.
    pub(super) fn refusal(reason: Reason) -> Self {
        Self {
            reason: reason as u16,
            ..Self::ours(0)
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEN);
        Writer::new(&mut bytes)
            .bytes(MAGIC)
            .u16(self.wire_version)
            .u16(self.rdma_version)
            .u32(0)
            .u32(self.head_len)
            .u32(self.body_len)
            .u16(self.receives)
            .u16(self.reason);
        let crc = crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    /// The peer's, whatever its version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, TransportError> {
        let foreign = |_| TransportError::Rdma(RdmaFault::Foreign);
        let mut reader = Reader::new(bytes);
        let offer = reader.bytes("offer", LEN).map_err(foreign)?;
        let (fields, crc) = offer.split_at(CRC_AT);
        let found = Reader::new(crc).u32("offer crc")?;
        let mut reader = Reader::new(fields);
        if reader.bytes("offer magic", MAGIC.len())? != MAGIC || crc32c(fields) != found {
            return Err(TransportError::Rdma(RdmaFault::Foreign));
        }
        let (wire_version, rdma_version) =
            (reader.u16("offer version")?, reader.u16("offer version")?);
        reader.u32("offer capabilities")?;
        Ok(Self {
            wire_version,
            rdma_version,
            head_len: reader.u32("offer head")?,
            body_len: reader.u32("offer body")?,
            receives: reader.u16("offer receives")?,
            reason: reader.u16("offer reason")?,
        })
    }

    /// Whether this process can speak with who offers that.
    pub(super) fn check(&self) -> Result<(), TransportError> {
        let ours = Self::ours(0);
        if self.wire_version != ours.wire_version {
            return Err(TransportError::Wire(WireError::Version {
                peer: self.wire_version,
                ours: ours.wire_version,
            }));
        }
        if self.rdma_version != ours.rdma_version {
            return Err(TransportError::Rdma(RdmaFault::Version {
                peer: self.rdma_version,
                ours: ours.rdma_version,
            }));
        }
        if self.head_len != ours.head_len {
            return Err(wrong("offer head", self.head_len));
        }
        if self.body_len < ours.head_len || !self.body_len.is_multiple_of(64) {
            return Err(wrong("offer body", self.body_len));
        }
        Ok(())
    }

    /// The same of one that accepts, or wants to be accepted.
    pub(super) fn check_credits(&self) -> Result<(), TransportError> {
        if u32::from(self.receives) < GRANT_MIN {
            return Err(wrong("offer receives", self.receives));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Offer, Reason};
    use crate::error::TransportError;
    use crate::rdma::RdmaFault;
    use ogee_proto::checksum::crc32c;
    use ogee_proto::wire::{WIRE_VERSION, WireError};

    #[test]
    fn golden_bytes() {
        let golden = b"OGEERDMA\x03\0\x01\0\0\0\0\0\0\x01\0\0\0\x40\0\0\x20\0\x02\0";
        let offer = Offer {
            receives: 32,
            ..Offer::refusal(Reason::Busy)
        };
        let mut bytes = offer.encode();
        assert_eq!(bytes[..28], golden[..]);
        assert_eq!(bytes[28..], crc32c(golden).to_le_bytes());
        // As the connection manager brings it.
        bytes.resize(56, 0);
        assert_eq!(Offer::decode(&bytes).unwrap(), offer);
    }

    #[test]
    fn other_versions_are_named_and_strangers_refused() {
        let mut offer = Offer::ours(8);
        assert_eq!(offer.check(), Ok(()));
        offer.wire_version = WIRE_VERSION + 1;
        let error = Offer::decode(&offer.encode()).unwrap().check().unwrap_err();
        let (peer, ours) = (WIRE_VERSION + 1, WIRE_VERSION);
        assert_eq!(
            error,
            TransportError::Wire(WireError::Version { peer, ours })
        );
        let mut offer = Offer::ours(8);
        offer.rdma_version = 2;
        let error = offer.check().unwrap_err().to_string();
        assert!(
            error.contains("version 2") && error.contains("speaks 1"),
            "{error}"
        );
        let mut offer = Offer::ours(3);
        assert!(offer.check_credits().is_err());
        offer.head_len = 128;
        assert!(offer.check().is_err());
        let bytes = offer.encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let foreign = TransportError::Rdma(RdmaFault::Foreign);
            assert_eq!(Offer::decode(&damaged), Err(foreign.clone()));
            assert_eq!(Offer::decode(&bytes[..at]), Err(foreign));
        }
    }
}
