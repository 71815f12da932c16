//! Event descriptors of a guest: kicks in, interrupts out.
//!
//! *Place*: under `queue`. *Owner*: the queue; they come from the VM's process, which may give anything.
//! *Invariants*: nothing here blocks, unless that process makes its eventfd block again and fills it: descriptors are made non-blocking as they arrive. *On failure*: nothing to do:
//! a counter that is full has been signalled.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

/// Makes a descriptor that has just arrived safe to use on a shard.
///
/// Anything but an eventfd could block there, whatever its flags say.
pub(super) fn adopt(file: &File) -> io::Result<()> {
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if kind.as_os_str() != "anon_inode:[eventfd]" {
        let text = format!("{} is no eventfd", kind.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let flags = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Tells whoever waits.
pub(super) fn raise(mut event: &File) {
    // Full means that it is signalled already; anything else only hurts the guest that gave it.
    let _ = event.write(&1_u64.to_ne_bytes());
}

/// Forgets what was signalled: it is looked at now.
pub(super) fn clear(mut event: &File) {
    let mut count = [0; 8];
    // Nothing there means that it was cleared already.
    let _ = event.read(&mut count);
}
