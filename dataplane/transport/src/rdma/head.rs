//! What a message says of itself: the first 32 bytes of its head. The table is in docs/rdma.md.
//!
//! *Place*: written by `outgoing`, read by `incoming`. *Owner*: plain values. *Invariants*: decoding checks
//! checksum, kind and flags; whether the rest fits the connection is `incoming`'s to judge. *On failure*:
//! [`WireError`] names the field.

use super::limit::PREFIX_LEN;
use ogee_proto::checksum::crc32c;
use ogee_proto::wire::{Reader, WireError};
use ogee_rdma::RemoteMemory;

const CRC_AT: usize = PREFIX_LEN - 4;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// A frame, or the last of it.
    Frame = 1,
    /// Bytes of the frame to come.
    Part = 2,
    /// Nothing but receive buffers given back.
    Credit = 3,
    /// A loan was read, and is not needed any more.
    Taken = 4,
}

/// The part is of the meta.
pub(super) const OF_META: u8 = 1;
/// The payload is in lent memory, to be read.
pub(super) const LENT: u8 = 2;
/// Memory is lent for the answer.
pub(super) const FOR_ANSWER: u8 = 4;
/// The loan comes back, with the payload in it.
pub(super) const WRITTEN: u8 = 8;
/// The loan comes back as it was.
pub(super) const UNTOUCHED: u8 = 16;
const KNOWN: u8 = OF_META | LENT | FOR_ANSWER | WRITTEN | UNTOUCHED;

/// What a message says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// Receive buffers given back.
    pub(super) credits: u16,
    /// Which loan, if one is spoken of.
    pub(super) loan: u32,
    /// Its memory; of a written one only the length counts.
    pub(super) remote: RemoteMemory,
    /// Bytes behind the head.
    pub(super) body_len: u32,
}

impl Prefix {
    /// One that speaks of no loan and has no body.
    pub(super) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            flags: 0,
            credits: 0,
            loan: 0,
            remote: RemoteMemory {
                address: 0,
                key: 0,
                len: 0,
            },
            body_len: 0,
        }
    }

    pub(super) fn encode(&self) -> [u8; PREFIX_LEN] {
        let mut bytes = [0; PREFIX_LEN];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.credits.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.loan.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.remote.key.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.remote.len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.remote.address.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_len.to_le_bytes());
        let crc = crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From the front of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let prefix = reader.bytes("message", PREFIX_LEN)?;
        let (fields, crc) = prefix.split_at(CRC_AT);
        let (expected, found) = (crc32c(fields), Reader::new(crc).u32("message crc")?);
        if expected != found {
            return Err(WireError::HeaderCrc { expected, found });
        }
        let mut reader = Reader::new(fields);
        let kind = Kind::decode(reader.u8("message kind")?)?;
        let flags = reader.u8("message flags")?;
        if flags & !KNOWN != 0 {
            return Err(WireError::Field {
                field: "message flags",
                value: flags.into(),
            });
        }
        let credits = reader.u16("message credits")?;
        let loan = reader.u32("message loan")?;
        let key = reader.u32("message key")?;
        let len = reader.u32("message length")?;
        let address = reader.u64("message address")?;
        let body_len = reader.u32("message body")?;
        Ok(Self {
            kind,
            flags,
            credits,
            loan,
            remote: RemoteMemory { address, key, len },
            body_len,
        })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Kind {
    const fn decode(raw: u8) -> Result<Self, WireError> {
        match raw {
            1 => Ok(Self::Frame),
            2 => Ok(Self::Part),
            3 => Ok(Self::Credit),
            4 => Ok(Self::Taken),
            _ => Err(WireError::Field {
                field: "message kind",
                value: raw as u64,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, LENT, Prefix};
    use ogee_proto::checksum::crc32c;
    use ogee_proto::wire::WireError;
    use ogee_rdma::RemoteMemory;

    fn prefix() -> Prefix {
        Prefix {
            flags: LENT,
            credits: 0x0102,
            loan: 0x0304_0506,
            remote: RemoteMemory {
                address: 0x0708_090a_0b0c_0d0e,
                key: 0x0f10_1112,
                len: 0x1314_1516,
            },
            body_len: 0x1718_191a,
            ..Prefix::new(Kind::Frame)
        }
    }

    #[test]
    fn golden_bytes() {
        let golden = b"\x01\x02\x02\x01\x06\x05\x04\x03\x12\x11\x10\x0f\x16\x15\x14\x13\
            \x0e\x0d\x0c\x0b\x0a\x09\x08\x07\x1a\x19\x18\x17";
        let bytes = prefix().encode();
        assert_eq!(bytes[..28], golden[..]);
        assert_eq!(bytes[28..], crc32c(golden).to_le_bytes());
        assert_eq!(Prefix::decode(&bytes).unwrap(), prefix());
    }

    #[test]
    fn damage_and_what_is_unknown_are_refused() {
        let bytes = prefix().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            let error = Prefix::decode(&damaged).unwrap_err();
            assert!(
                matches!(error, WireError::HeaderCrc { .. }),
                "{at}: {error}"
            );
            assert!(Prefix::decode(&bytes[..at]).is_err());
        }
        for (at, value) in [(0, 0), (0, 5), (1, 0x20)] {
            let mut unknown = bytes;
            unknown[at] = value;
            let crc = crc32c(&unknown[..28]).to_le_bytes();
            unknown[28..].copy_from_slice(&crc);
            let error = Prefix::decode(&unknown).unwrap_err();
            assert!(matches!(error, WireError::Field { .. }), "{error}");
        }
    }
}
