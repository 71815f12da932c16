//! System calls that neither the standard library nor the engine offers.
//!
//! **Place.** Leaves under `executor`, `file`, `net` and `nudge`. **Owner.** Stateless; descriptors
//! are borrowed for one call, timers belong to their handle. **Invariants.** No call here blocks.
//! **Failure.** `errno` as `io::Error`.

use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
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

/// A descriptor that another part of the kernel signals; reading it waits for that.
#[cfg(feature = "readiness")]
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// Offset of the end, which is the size for files and block devices alike.
pub(super) fn seek_end(file: &impl AsRawFd) -> io::Result<u64> {
    // SAFETY: no memory is passed; the descriptor is open as long as `file` is borrowed.
    let end = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_END) };
    u64::try_from(end).map_err(|_negative| io::Error::last_os_error())
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

/// Ends one or both directions of a connection.
pub(super) fn shutdown(socket: RawFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is passed; a stale descriptor would be an error, not a fault.
    match unsafe { libc::shutdown(socket, how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives a signal an action that does nothing, if the process has none for it: unlike a signal that is
/// ignored it ends the system call that its thread waits in.
pub(super) fn disarm_signal(signal: libc::c_int) -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: all-zero is a valid sigaction: the default action, no flags, an empty mask.
    let (mut before, mut action): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    // SAFETY: `before` is ours and outlives the call, which changes no action.
    if unsafe { libc::sigaction(signal, ptr::null(), ptr::from_mut(&mut before)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction) {
        return Ok(());
    }
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the action is a function that does nothing, which any thread may run at any moment.
    match unsafe { libc::sigaction(signal, ptr::from_ref(&action), ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A timer of the kernel that signals the thread that started it.
pub(super) struct ThreadTimer(libc::timer_t);

impl ThreadTimer {
    /// Nobody minds this one when it comes for no reason: that is what it is for.
    pub(super) const SIGNAL: libc::c_int = libc::SIGURG;

    pub(super) fn start(first: Duration, every: Duration) -> io::Result<Self> {
        // SAFETY: all-zero is a valid sigevent.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = Self::SIGNAL;
        // SAFETY: no memory is passed, and the call cannot fail.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut id = ptr::null_mut();
        // SAFETY: both are ours and outlive the call.
        let made = unsafe {
            libc::timer_create(
                libc::CLOCK_MONOTONIC,
                ptr::from_mut(&mut event),
                ptr::from_mut(&mut id),
            )
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        let timer = Self(id);
        let times = libc::itimerspec {
            it_interval: timespec(every),
            it_value: timespec(first),
        };
        // SAFETY: the timer is ours; `times` outlives the call.
        match unsafe { libc::timer_settime(timer.0, 0, ptr::from_ref(&times), ptr::null_mut()) } {
            0 => Ok(timer),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: the timer was made by us and is deleted once; its signal, if one is pending, goes
        // with it or meets an action that does nothing.
        let _deleted = unsafe { libc::timer_delete(self.0) };
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    }
}
