//! Telling the VM's process that the disk has grown.
//!
//! *Place*: beside `control`: the `vhost` crate receives the socket for this and has no message for it, so the message
//! that brings it is looked at before that crate takes it. *Owner*: the connection; the shard tells.
//! *Invariants*: never blocks; the message wants no answer. *On failure*: the guest learns the size at its next start;
//! the log says so.
//!
//! vhost-user specification, `VHOST_USER_SET_BACKEND_REQ_FD`, `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a message before its body: request, flags, length of the body.
const HEADER_LEN: usize = 12;
const SET_BACKEND_REQ_FD: u32 = 21;
const CONFIG_CHANGE: u32 = 2;
const VERSION: u32 = 1;
/// Descriptors that a message may carry: the kernel's limit (`SCM_MAX_FD`). Those without room would have no owner.
const DESCRIPTORS_MAX: usize = 253;

/// Where to tell it, if the VM's process has said so.
#[derive(Clone, Default)]
pub(super) struct Notifier {
    socket: Arc<Mutex<Option<UnixStream>>>,
}

impl Notifier {
    /// Waits for the next message and keeps what it brings for us, without taking it.
    pub(super) fn watch(&self, stream: &UnixStream) -> io::Result<()> {
        let mut header = [0; HEADER_LEN];
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(&mut header)];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let len = message.bytes;
        // Peeking duplicates the descriptors: all of them have an owner here.
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(found) = control {
                // SAFETY: the kernel has just made these descriptors for us, nobody else knows them.
                descriptors.extend(
                    found
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        let [a, b, c, d, ..] = header;
        if len == HEADER_LEN
            && u32::from_le_bytes([a, b, c, d]) == SET_BACKEND_REQ_FD
            && let Some(descriptor) = descriptors.pop()
        {
            let socket = UnixStream::from(descriptor);
            socket.set_nonblocking(true)?;
            *self.lock() = Some(socket);
        }
        Ok(())
    }

    /// Tells that the configuration has changed, if somebody wants to know.
    pub(super) fn config_changed(&self) -> io::Result<bool> {
        let mut message = [0; HEADER_LEN];
        message[..4].copy_from_slice(&CONFIG_CHANGE.to_le_bytes());
        message[4..8].copy_from_slice(&VERSION.to_le_bytes());
        match &*self.lock() {
            Some(socket) => {
                let mut socket = socket;
                // It is shorter than any buffer: all of it or nothing is taken.
                socket.write_all(&message)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::io::{IoSlice, Read};

    fn send(to: &UnixStream, request: u32, descriptors: &[RawFd]) {
        let mut message = [0; HEADER_LEN];
        message[..4].copy_from_slice(&request.to_le_bytes());
        let slices = [IoSlice::new(&message)];
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() {
            &[][..]
        } else {
            &rights
        };
        let sent = sendmsg::<()>(to.as_raw_fd(), &slices, rights, MsgFlags::empty(), None);
        assert_eq!(sent.expect("a socket with room"), HEADER_LEN);
    }

    #[test]
    fn the_socket_is_found_and_the_message_left_in_place() {
        let (theirs, ours) = UnixStream::pair().expect("a pair of sockets");
        let (told, tells) = UnixStream::pair().expect("a pair of sockets");
        let notifier = Notifier::default();
        send(&theirs, 1, &[]);
        notifier.watch(&ours).expect("a message");
        assert!(!notifier.config_changed().expect("nobody to tell"));
        (&ours)
            .read_exact(&mut [0; HEADER_LEN])
            .expect("it is still there");
        send(&theirs, SET_BACKEND_REQ_FD, &[tells.as_raw_fd()]);
        drop(tells);
        notifier.watch(&ours).expect("a message");
        (&ours)
            .read_exact(&mut [0; HEADER_LEN])
            .expect("it is still there");
        assert!(notifier.config_changed().expect("room in the socket"));
        let mut message = [0; HEADER_LEN];
        (&told).read_exact(&mut message).expect("a message");
        assert_eq!(message, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        drop((told, theirs));
        assert!(notifier.config_changed().is_err());
    }
}
