//! The first frame of each side.
//!
//! Its header carries the version. Its meta is: role `u8`, node `u64`, credits `u32`, name length
//! `u8`, name (UTF-8), all little endian, nothing behind.

use crate::frame::Frame;
use crate::limit::{CREDITS_DEFAULT, HELLO_META_MAX};
use bytes::Bytes;
use ogee_proto::id::RequestId;
use ogee_proto::limit::NAME_LEN_MAX;
use ogee_proto::wire::{FrameHeader, FrameKind, Reader, WireError, Writer};
use ogee_runtime::Payload;

/// What a process is to its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Role {
    /// Reads and writes volumes.
    Client = 1,
    /// Holds replicas.
    Chunkserver = 2,
    /// Looks and repairs.
    Admin = 3,
}

/// Who a process says it is, and how much it will take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What it is.
    pub role: Role,
    /// Its number: a chunkserver's or client's id, zero if it has none.
    pub node: u64,
    /// Its name, for logs; at most 63 bytes are sent.
    pub name: String,
    /// Requests that the peer may have in flight here. A pure client offers zero.
    pub credits: u32,
}

impl Hello {
    /// With [`CREDITS_DEFAULT`] for a chunkserver and none for the others, which take no requests.
    #[must_use]
    pub fn new(role: Role, node: u64, name: impl Into<String>) -> Self {
        let credits = if role == Role::Chunkserver {
            CREDITS_DEFAULT
        } else {
            0
        };
        Self {
            role,
            node,
            name: name.into(),
            credits,
        }
    }

    /// The same with other credits.
    #[must_use]
    pub fn with_credits(mut self, credits: u32) -> Self {
        self.credits = credits;
        self
    }

    /// The frame that says it.
    pub(crate) fn encode(&self) -> Frame {
        let name = short(&self.name);
        let len = u8::try_from(name.len()).expect("NAME_LEN_MAX fits in a byte");
        let mut meta = Vec::with_capacity(HELLO_META_MAX);
        Writer::new(&mut meta)
            .u8(self.role as u8)
            .u64(self.node)
            .u32(self.credits)
            .u8(len)
            .bytes(name.as_bytes());
        let header = FrameHeader::new(FrameKind::Hello, RequestId::new(0));
        Frame::of_parts(header, Bytes::from(meta), Payload::empty())
    }

    /// From a Hello frame's meta.
    pub(crate) fn decode(meta: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(meta);
        let role = Role::decode(reader.u8("hello role")?)?;
        let node = reader.u64("hello node")?;
        let credits = reader.u32("hello credits")?;
        let len = reader.u8("hello name length")?;
        let name = reader.bytes("hello name", usize::from(len))?;
        let invalid = WireError::Field {
            field: "hello name",
            value: u64::from(len),
        };
        let name = std::str::from_utf8(name).map_err(|_| invalid)?.to_owned();
        reader.finish("hello")?;
        Ok(Self {
            role,
            node,
            name,
            credits,
        })
    }
}

impl Role {
    const fn decode(raw: u8) -> Result<Self, WireError> {
        match raw {
            1 => Ok(Self::Client),
            2 => Ok(Self::Chunkserver),
            3 => Ok(Self::Admin),
            _ => Err(WireError::Field {
                field: "hello role",
                value: raw as u64,
            }),
        }
    }
}

fn short(name: &str) -> &str {
    let mut end = name.len().min(NAME_LEN_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.split_at(end).0
}

#[cfg(test)]
mod tests {
    use super::{Hello, Role};
    use ogee_proto::wire::WireError;

    #[test]
    fn there_and_back() {
        for role in [Role::Client, Role::Chunkserver, Role::Admin] {
            let hello = Hello::new(role, u64::MAX, "räck-1").with_credits(9);
            assert_eq!(Hello::decode(&hello.encode().meta).unwrap(), hello);
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let hello = Hello::new(Role::Client, 1, "ä".repeat(40));
        assert_eq!(
            Hello::decode(&hello.encode().meta).unwrap().name,
            "ä".repeat(31)
        );
    }

    #[test]
    fn every_cut_and_every_tail_is_refused() {
        let meta = Hello::new(Role::Admin, 3, "n").encode().meta;
        for len in 0..meta.len() {
            let error = Hello::decode(&meta[..len]).unwrap_err();
            assert!(
                matches!(error, WireError::Truncated { .. }),
                "{len}: {error}"
            );
        }
        let mut longer = meta.to_vec();
        longer.push(0);
        assert!(matches!(
            Hello::decode(&longer),
            Err(WireError::Field { field: "hello", .. })
        ));
    }

    #[test]
    fn an_unknown_role_is_refused() {
        let mut meta = Hello::new(Role::Admin, 3, "n").encode().meta.to_vec();
        meta[0] = 9;
        let error = Hello::decode(&meta).unwrap_err();
        assert_eq!(
            error,
            WireError::Field {
                field: "hello role",
                value: 9
            }
        );
    }

    #[test]
    fn golden_bytes() {
        let meta = Hello::new(Role::Chunkserver, 0x0102, "cs1").with_credits(0x0304);
        let golden = b"\x02\x02\x01\0\0\0\0\0\0\x04\x03\0\0\x03cs1";
        assert_eq!(meta.encode().meta[..], golden[..]);
    }
}
