//! System calls that neither the standard library nor the engine offers.
//!
//! **Place.** Leaves under `executor`, `doorbell`, `file` and `net`. **Owner.** Stateless; descriptors
//! are borrowed for one call. **Invariants.** No call here blocks.
//! **Failure.** `errno` as `io::Error`.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::limit::SEND_SLICES_MAX;
use crate::net::PeerCredentials;

/// Size of `struct io_uring_params`.
const RING_PARAMS_LEN: usize = 120;

/// Whether this process may create rings at all; the engine would exit the process instead.
pub(super) fn check_io_uring() -> io::Result<()> {
    let mut params = [0_u64; RING_PARAMS_LEN / 8];
    let one_entry: libc::c_uint = 1;
    // SAFETY: the kernel fills `params`, which is ours, aligned and of the size it expects, before
    // the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, one_entry, params.as_mut_ptr()) };
    let fd = RawFd::try_from(fd)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call above returned this descriptor to us alone.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// A counter that is readable while it is not zero; reading resets it and does not wait.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes from several places to one; how many bytes.
pub(super) fn write_vectored_at(
    file: &impl AsRawFd,
    slices: &[IoSlice<'_>],
    offset: u64,
) -> io::Result<usize> {
    let count = libc::c_int::try_from(slices.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `IoSlice` has the layout of `iovec`, by its documentation; the kernel reads the `count` of them and what they
    // name, which is borrowed for the call.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), slices.as_ptr().cast(), count, offset) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// The soft `RLIMIT_MEMLOCK`: the engine would lose the reason why it refuses a low one.
pub(super) fn memlock_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is ours and outlives the call, which writes nothing else.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, ptr::from_mut(&mut limit)) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A clock's time since its epoch; clocks that this system does not have stand at zero.
pub(super) fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is ours and outlives the call, which writes nothing else.
    let _refused = unsafe { libc::clock_gettime(id, ptr::from_mut(&mut time)) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How often this thread has lost its processor to another one; zero if the kernel does not tell.
pub(super) fn preemptions() -> i64 {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `usage` is ours and outlives the call, which writes nothing else.
    let _refused = unsafe { libc::getrusage(libc::RUSAGE_THREAD, ptr::from_mut(&mut usage)) };
    usage.ru_nivcsw
}

/// Offset of the end, which is the size for files and block devices alike.
pub(super) fn seek_end(file: &impl AsRawFd) -> io::Result<u64> {
    // SAFETY: no memory is passed; the descriptor is open as long as `file` is borrowed.
    let end = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_END) };
    u64::try_from(end).map_err(|_negative| io::Error::last_os_error())
}

/// Whether the file's blocks are pages of memory.
pub(super) fn is_memory(file: &impl AsRawFd) -> io::Result<bool> {
    // SAFETY: all-zero is a valid statfs.
    let mut system: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: `system` is ours and outlives the call; the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::fstatfs(file.as_raw_fd(), ptr::from_mut(&mut system)) } {
        0 => Ok(system.f_type == libc::TMPFS_MAGIC),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Process at the other end of a Unix socket, as of its connect.
pub(super) fn peer_credentials(socket: RawFd) -> io::Result<PeerCredentials> {
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>())
        .expect("invariant: a ucred is 12 bytes");
    // SAFETY: `found` and `len` are ours, outlive the call, and `len` is the size of `found`.
    let done = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut found).cast(),
            ptr::from_mut(&mut len),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials {
        pid: found.pid,
        uid: found.uid,
        gid: found.gid,
    })
}

/// Sends what fits into the socket's buffer now; `WouldBlock` if nothing does.
pub(super) fn send_vectored(socket: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = slices.len().min(SEND_SLICES_MAX);
    // SAFETY: all-zero is a valid msghdr: no name, no control data, no slices.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // `IoSlice` has the layout of `iovec`; the kernel only reads through it.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = count;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `message` points at `count` slices that stay borrowed for the call; with MSG_DONTWAIT
    // the kernel keeps no reference to them after it returns.
    let sent = unsafe { libc::sendmsg(socket, ptr::from_ref(&message), flags) };
    usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
}
