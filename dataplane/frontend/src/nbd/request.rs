//! Requests: what a client asks during transmission.
//!
//! *Place*: decoded from the wire by `transmit`, run by `execute`. *Owner*: none, plain values.
//! *Invariants*: a [`Command`] fits its session: the range is within the export, the length within
//! the limits, the flags known. *On failure*: a wrong magic ends the connection, since requests
//! cannot be told apart any more; everything else is a [`Refusal`].

use super::error::ConnectionError;
use super::fields::{Fields, Truncated};
use super::refusal::Refusal;
use super::session::Session;
use super::wire::{REQUEST_LEN, REQUEST_MAGIC, command, command_flag as flag};
use crate::disk::Disk;
use crate::limit::{PAYLOAD_MAX, STATUS_RUN_BYTES, STATUS_SPAN_MAX};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};

/// The fixed part of a request, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    flags: u16,
    kind: u16,
    /// The client's name for it.
    pub(super) cookie: u64,
    at: ByteOffset,
    len: u32,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    Read {
        at: ByteOffset,
        len: ByteLen,
        /// Answer in one piece.
        is_whole: bool,
    },
    Write {
        at: ByteOffset,
        is_durable: bool,
    },
    WriteZeroes {
        at: ByteOffset,
        len: ByteLen,
        may_unmap: bool,
        is_durable: bool,
    },
    Discard {
        at: ByteOffset,
        len: ByteLen,
        is_durable: bool,
    },
    Flush,
    /// There is no cache to fill.
    Cache,
    Status {
        at: ByteOffset,
        len: ByteLen,
        /// One run is all that may be answered.
        is_one: bool,
    },
}

impl Request {
    pub(super) fn decode(raw: [u8; REQUEST_LEN]) -> Result<Self, ConnectionError> {
        let mut fields = Fields::new(&raw);
        let mut decode = || {
            let magic = fields.u32()?;
            let request = Self {
                flags: fields.u16()?,
                kind: fields.u16()?,
                cookie: fields.u64()?,
                at: ByteOffset::new(fields.u64()?),
                len: fields.u32()?,
            };
            Ok((magic, request))
        };
        let (found, request) = decode().map_err(|Truncated| ConnectionError::Truncated)?;
        match found == REQUEST_MAGIC {
            true => Ok(request),
            false => Err(ConnectionError::RequestMagic { found }),
        }
    }

    /// Whether the client takes its leave.
    pub(super) fn is_disconnect(self) -> bool {
        self.kind == command::DISC
    }

    /// Bytes that follow the fixed part, wanted or not.
    pub(super) fn payload_len(self) -> usize {
        match self.kind {
            command::WRITE => self.len().as_usize(),
            _ => 0,
        }
    }

    /// Bytes that the request may hold while it is under way. For what [`Self::check`] passed.
    pub(super) fn held_bytes(self) -> usize {
        let len = self.len().as_usize();
        match self.kind {
            command::READ | command::WRITE => len,
            command::BLOCK_STATUS => {
                let blocks = len.min(STATUS_SPAN_MAX) / BLOCK_SIZE;
                blocks * STATUS_RUN_BYTES
            }
            _ => 0,
        }
    }

    /// What to do, if it may be done.
    pub(super) fn check<D: Disk>(self, session: &Session<D>) -> Result<Command, Refusal> {
        let at = self.at;
        let len = self.len();
        self.check_flags(session.is_structured)?;
        if self.is_mutation() && session.export.disk.disk().read_only() {
            return Err(Refusal::ReadOnly);
        }
        self.check_range(session)?;
        let is_durable = self.has(flag::FUA);
        match self.kind {
            command::READ => self.read(session.is_structured),
            command::WRITE if len.as_usize() > PAYLOAD_MAX => Err(Refusal::WriteTooLong),
            command::WRITE => Ok(Command::Write { at, is_durable }),
            command::WRITE_ZEROES => self.write_zeroes(session),
            command::TRIM => Ok(Command::Discard {
                at,
                len,
                is_durable,
            }),
            command::FLUSH if at != ByteOffset::ZERO || self.len != 0 => Err(Refusal::FlushRange),
            command::FLUSH => Ok(Command::Flush),
            command::CACHE => Ok(Command::Cache),
            command::BLOCK_STATUS => self.status(session.has_status),
            kind => Err(Refusal::Unknown(kind)),
        }
    }

    fn read(self, is_structured: bool) -> Result<Command, Refusal> {
        if self.len().as_usize() > PAYLOAD_MAX {
            return Err(Refusal::ReadTooLong { is_structured });
        }
        Ok(Command::Read {
            at: self.at,
            len: self.len(),
            is_whole: self.has(flag::DF),
        })
    }

    fn write_zeroes<D: Disk>(self, session: &Session<D>) -> Result<Command, Refusal> {
        let (at, len) = (self.at, self.len());
        if self.has(flag::FAST_ZERO) && !session.export.disk.is_fast_to_zero(at, len) {
            return Err(Refusal::NotFast);
        }
        Ok(Command::WriteZeroes {
            at,
            len,
            may_unmap: !self.has(flag::NO_HOLE),
            is_durable: self.has(flag::FUA),
        })
    }

    fn status(self, has_status: bool) -> Result<Command, Refusal> {
        if !has_status {
            return Err(Refusal::NoContext);
        }
        if self.len == 0 {
            return Err(Refusal::StatusOfNothing);
        }
        Ok(Command::Status {
            at: self.at,
            len: self.len().min(ByteLen::from_usize(STATUS_SPAN_MAX)),
            is_one: self.has(flag::REQ_ONE),
        })
    }

    fn check_flags(self, is_structured: bool) -> Result<(), Refusal> {
        let allowed = match self.kind {
            command::READ if is_structured => flag::DF,
            command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
            command::BLOCK_STATUS => flag::REQ_ONE,
            _ => 0,
        };
        // Clients are known to set FUA on commands that write nothing, and may.
        match self.flags & !(allowed | flag::FUA) {
            0 => Ok(()),
            flags => Err(Refusal::Flags {
                kind: self.kind,
                flags,
            }),
        }
    }

    fn check_range<D: Disk>(self, session: &Session<D>) -> Result<(), Refusal> {
        let size = session.export.disk.disk().size();
        let (at, len) = (self.at, self.len());
        match at.checked_add(len) {
            Some(end) if end.get() <= size.get() => Ok(()),
            _ => Err(Refusal::BeyondEnd {
                at,
                len,
                size,
                is_write: matches!(self.kind, command::WRITE | command::WRITE_ZEROES),
            }),
        }
    }

    fn is_mutation(self) -> bool {
        matches!(
            self.kind,
            command::WRITE | command::WRITE_ZEROES | command::TRIM
        )
    }

    fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn len(self) -> ByteLen {
        ByteLen::new(u64::from(self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::super::export::Exports;
    use super::super::wire::Errno;
    use super::*;
    use crate::disk::MemoryDisk;
    use proptest::prelude::*;
    use std::rc::Rc;

    const SIZE: u64 = 1 << 30;

    fn session(is_read_only: bool) -> Session<MemoryDisk> {
        let exports = Exports::new();
        let size = ByteLen::new(SIZE);
        let disk = match is_read_only {
            true => MemoryDisk::read_only(size),
            false => MemoryDisk::new(size),
        };
        exports.add("disk", "", Rc::new(disk)).expect("a free name");
        Session {
            export: exports.find("disk").expect("just added"),
            is_structured: true,
            has_status: true,
        }
    }

    fn request(kind: u16, flags: u16, at: u64, len: u32) -> Request {
        Request {
            flags,
            kind,
            cookie: 1,
            at: ByteOffset::new(at),
            len,
        }
    }

    fn errno(session: &Session<MemoryDisk>, request: Request) -> Option<Errno> {
        let refusal = request.check(session).err();
        refusal.map(|refusal| refusal.errno())
    }

    #[test]
    fn what_reaches_past_the_end_has_the_specified_errno() {
        let session = session(false);
        let past = |kind| errno(&session, request(kind, 0, SIZE - 1, 2));
        assert_eq!(past(command::READ), Some(Errno::Inval));
        assert_eq!(past(command::TRIM), Some(Errno::Inval));
        assert_eq!(past(command::BLOCK_STATUS), Some(Errno::Inval));
        assert_eq!(past(command::WRITE), Some(Errno::NoSpc));
        assert_eq!(past(command::WRITE_ZEROES), Some(Errno::NoSpc));
        let wraps = request(command::READ, 0, u64::MAX, u32::MAX);
        assert_eq!(errno(&session, wraps), Some(Errno::Inval));
        assert_eq!(
            errno(&session, request(command::READ, 0, SIZE - 2, 2)),
            None
        );
    }

    #[test]
    fn lengths_are_bounded_where_data_moves() {
        let session = session(false);
        let long = u32::try_from(PAYLOAD_MAX + 1).expect("far below 4 GiB");
        assert_eq!(
            errno(&session, request(command::WRITE, 0, 0, long)),
            Some(Errno::Inval)
        );
        assert_eq!(
            errno(&session, request(command::READ, 0, 0, long)),
            Some(Errno::Overflow)
        );
        assert_eq!(errno(&session, request(command::TRIM, 0, 0, long)), None);
        assert_eq!(
            errno(&session, request(command::BLOCK_STATUS, 0, 0, long)),
            None
        );
        assert_eq!(
            errno(&session, request(command::BLOCK_STATUS, 0, 0, 0)),
            Some(Errno::Inval)
        );
        assert_eq!(
            errno(&session, request(command::FLUSH, 0, 0, 1)),
            Some(Errno::Inval)
        );
    }

    #[test]
    fn flags_go_with_their_commands_only() {
        let session = session(false);
        for kind in 0..8 {
            let is_known = errno(&session, request(kind, flag::FUA, 0, 0));
            let expected =
                (kind == command::DISC || kind == command::BLOCK_STATUS).then_some(Errno::Inval);
            assert_eq!(is_known, expected, "FUA goes with all: {kind}");
        }
        for (bit, owner) in [
            (flag::DF, command::READ),
            (flag::NO_HOLE, command::WRITE_ZEROES),
            (flag::FAST_ZERO, command::WRITE_ZEROES),
            (flag::REQ_ONE, command::BLOCK_STATUS),
            (1 << 5, 99),
        ] {
            for kind in [0, 1, 4, 5, 6, 7] {
                let found = errno(&session, request(kind, bit, 0, 4096));
                assert_eq!(found.is_none(), kind == owner, "flag {bit:#x} on {kind}");
            }
        }
    }

    #[test]
    fn only_whole_blocks_are_zeroed_fast() {
        let session = session(false);
        let ragged = request(command::WRITE_ZEROES, flag::FAST_ZERO, 0, 4097);
        assert_eq!(errno(&session, ragged), Some(Errno::NotSup));
    }

    #[test]
    fn a_read_only_export_refuses_mutations() {
        let session = session(true);
        for kind in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
            assert_eq!(
                errno(&session, request(kind, 0, 0, 4096)),
                Some(Errno::Perm)
            );
        }
        assert_eq!(errno(&session, request(command::FLUSH, 0, 0, 0)), None);
    }

    proptest! {
        #[test]
        fn what_passes_fits(kind in 0_u16..9, flags in 0_u16..64, at: u64, near: bool, len: u32) {
            let session = session(false);
            let at = if near { at % SIZE } else { at };
            let request = request(kind, flags, at, len);
            if request.check(&session).is_ok() {
                prop_assert!(request.held_bytes() <= crate::limit::REQUEST_BYTES_MAX);
                prop_assert!(request.payload_len() <= PAYLOAD_MAX);
                prop_assert!(at + u64::from(len) <= SIZE);
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(raw in any::<[u8; REQUEST_LEN]>()) {
            let is_request = raw[..4] == REQUEST_MAGIC.to_be_bytes();
            prop_assert_eq!(Request::decode(raw).is_ok(), is_request);
        }
    }
}
