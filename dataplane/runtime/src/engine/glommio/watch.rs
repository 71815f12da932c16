//! Readiness of descriptors, by a ring of our own.
//!
//! **Place.** Under `crate::readiness`. **Owner.** One task. The engine can wait for sockets and read files, no more;
//! so a small ring polls the descriptors and signals an eventfd, which the engine reads like a file.
//!
//! **Invariants.** Each descriptor has one poll in the ring, which stays (multishot) and is put in again when the kernel
//! ends it. Completions of the ring are taken after each read of the eventfd, so the next event signals anew. There is
//! one read at a time, whoever waits for it: one that was given up would take the signal of the next.
//! **Failure.** A poll that the kernel refuses is an error of [`Watch::changed`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use std::rc::Rc;

use ::glommio::io::BufferedFile;
use futures_util::future::{FutureExt, LocalBoxFuture, TryFutureExt};
use io_uring::{IoUring, cqueue, opcode, types};

use super::error::into_io;
use super::sys;

/// Descriptors of one watch; the ring has as many entries.
const DESCRIPTORS_MAX: usize = 8;

pub(crate) struct Watch {
    ring: IoUring,
    descriptors: Vec<OwnedFd>,
    events: Rc<BufferedFile>,
    /// The read of the eventfd that is under way.
    reading: Option<LocalBoxFuture<'static, io::Result<()>>>,
}

impl Watch {
    pub(crate) fn new(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX, "a few descriptors");
        let entries = u32::try_from(DESCRIPTORS_MAX).expect("invariant: a small constant");
        let ring = IoUring::new(entries)?;
        let events = sys::eventfd()?;
        ring.submitter().register_eventfd(events.as_raw_fd())?;
        let descriptors = descriptors.iter().map(|fd| fd.try_clone_to_owned());
        // SAFETY: the descriptor is ours and `into_raw_fd` gives it up, so it has one owner.
        let events = unsafe { BufferedFile::from_raw_fd(events.into_raw_fd()) };
        let mut watch = Self {
            ring,
            descriptors: descriptors.collect::<io::Result<_>>()?,
            events: Rc::new(events),
            reading: None,
        };
        for at in 0..watch.descriptors.len() {
            watch.poll(at)?;
        }
        watch.ring.submit()?;
        Ok(watch)
    }

    /// Puts the poll of a descriptor into the ring.
    fn poll(&mut self, at: usize) -> io::Result<()> {
        let fd: RawFd = self.descriptors[at].as_fd().as_raw_fd();
        let mask = u32::try_from(libc::POLLIN).expect("invariant: a flag");
        let poll = opcode::PollAdd::new(types::Fd(fd), mask).multi(true);
        let entry = poll.build().user_data(at as u64);
        // SAFETY: a poll refers to no memory; its descriptor is open as long as the ring.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_full| io::ErrorKind::OutOfMemory.into())
    }

    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        // If this was dropped before, the read may have ended meanwhile, or another call taken what it announced.
        if self.ring.completion().is_empty() {
            let events = &self.events;
            let reading = self.reading.get_or_insert_with(|| {
                let events = Rc::clone(events);
                let read = async move { events.read_at(0, size_of::<u64>()).await.map(drop) };
                read.map_err(into_io).boxed_local()
            });
            let outcome = reading.as_mut().await;
            self.reading = None;
            outcome?;
        }
        let found: Vec<(u64, i32, bool)> = self
            .ring
            .completion()
            .map(|event| {
                (
                    event.user_data(),
                    event.result(),
                    cqueue::more(event.flags()),
                )
            })
            .collect();
        let mut is_ended = false;
        for (at, result, stays) in found {
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
            if !stays {
                is_ended = true;
                self.poll(usize::try_from(at).expect("invariant: as put in"))?;
            }
        }
        if is_ended {
            self.ring.submit()?;
        }
        Ok(())
    }
}
