//! Memory that the server maps as well.
//!
//! *Place*: under ring and queue. *Owner*: the connection; the server has a mapping of its own. *Invariants*: what is
//! addressed lies within (`layout` sees to that); every access is a volatile copy, since the server may write at any time.
//! It cannot shrink: it is sealed. *On failure*: memory that cannot be had is an error of the connection.

use super::error::VhostError;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const WITHIN: &str = "invariant: the layout lies within the memory";

/// See the module.
pub(super) struct Memory {
    mapped: GuestMemoryMmap<()>,
}

impl Memory {
    /// So many bytes of zeros, and the file that the server maps.
    pub(super) fn shared(bytes: u64) -> Result<(Self, File), VhostError> {
        let refused = |source: io::Error| VhostError::Memory {
            bytes,
            source: Arc::new(source),
        };
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"ogee-bench", flags).map_err(|error| refused(error.into()))?;
        let file = File::from(file);
        file.set_len(bytes).map_err(refused)?;
        // The server would die of memory that is gone, and says so.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|error| refused(error.into()))?;
        let len = usize::try_from(bytes).map_err(|error| refused(io::Error::other(error)))?;
        let ours = FileOffset::new(file.try_clone().map_err(refused)?, 0);
        let range = (GuestAddress(0), len, Some(ours));
        let mapped = GuestMemoryMmap::from_ranges_with_files([range])
            .map_err(|error| refused(io::Error::other(error)))?;
        Ok((Self { mapped }, file))
    }

    pub(super) fn load(&self, at: u64) -> u16 {
        let loaded = self.mapped.load(GuestAddress(at), Ordering::Acquire);
        loaded.map(u16::from_le).expect(WITHIN)
    }

    pub(super) fn store(&self, at: u64, value: u16) {
        let at = GuestAddress(at);
        let stored = self.mapped.store(value.to_le(), at, Ordering::Release);
        stored.expect(WITHIN);
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        let written = self.mapped.write_slice(bytes, GuestAddress(at));
        written.expect(WITHIN);
    }

    pub(super) fn read(&self, at: u64, into: &mut [u8]) {
        let read = self.mapped.read_slice(into, GuestAddress(at));
        read.expect(WITHIN);
    }
}
