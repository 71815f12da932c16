//! Readiness of descriptors, by a ring of our own.
//!
//! **Place.** Under `crate::readiness`. **Owner.** One task. The engine can wait for sockets and read files, no more;
//! so a small ring polls the descriptors and signals an eventfd, which the engine reads like a file.
//!
//! **Invariants.** Each descriptor has at most one poll in the ring, for one event, put in when somebody waits: so the
//! ring never has more completions than it has room for (those that it keeps beside it, nobody would see), and what is
//! readable by then counts, however long ago it came. There is one read of the eventfd at a time, whoever waits for it:
//! one that was given up would take the signal of the next.
//! **Failure.** A poll that the kernel refuses is an error of [`Watch::changed`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use std::rc::Rc;

use ::glommio::io::BufferedFile;
use futures_util::future::{FutureExt, LocalBoxFuture, TryFutureExt};
use io_uring::{IoUring, opcode, types};

use super::error::into_io;
use super::sys;

/// Descriptors of one watch; the ring has as many entries.
const DESCRIPTORS_MAX: usize = 8;

pub(crate) struct Watch {
    ring: IoUring,
    descriptors: Vec<Watched>,
    events: Rc<BufferedFile>,
    /// The read of the eventfd that is under way.
    reading: Option<LocalBoxFuture<'static, io::Result<()>>>,
}

struct Watched {
    fd: OwnedFd,
    /// Its poll is in the ring.
    is_polled: bool,
}

impl Watch {
    pub(crate) fn new(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX, "a few descriptors");
        let entries = u32::try_from(DESCRIPTORS_MAX).expect("invariant: a small constant");
        let ring = IoUring::new(entries)?;
        let events = sys::eventfd()?;
        ring.submitter().register_eventfd(events.as_raw_fd())?;
        // SAFETY: the descriptor is ours and `into_raw_fd` gives it up, so it has one owner.
        let events = unsafe { BufferedFile::from_raw_fd(events.into_raw_fd()) };
        let watched = |fd: &BorrowedFd<'_>| {
            Ok(Watched {
                fd: fd.try_clone_to_owned()?,
                is_polled: false,
            })
        };
        Ok(Self {
            ring,
            descriptors: descriptors.iter().map(watched).collect::<io::Result<_>>()?,
            events: Rc::new(events),
            reading: None,
        })
    }

    /// Puts the missing polls into the ring.
    fn poll(&mut self) -> io::Result<()> {
        let mask = u32::try_from(libc::POLLIN).expect("invariant: a flag");
        for (at, watched) in (0..).zip(&mut self.descriptors) {
            if std::mem::replace(&mut watched.is_polled, true) {
                continue;
            }
            let fd: RawFd = watched.fd.as_raw_fd();
            let poll = opcode::PollAdd::new(types::Fd(fd), mask);
            let entry = poll.build().user_data(at);
            // SAFETY: a poll refers to no memory; its descriptor is open as long as the ring.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.map_err(|_full| io::Error::from(io::ErrorKind::OutOfMemory))?;
        }
        self.ring.submit()?;
        Ok(())
    }

    /// Takes what the ring has completed; whether there was something.
    fn take(&mut self) -> io::Result<bool> {
        let mut any = false;
        for event in self.ring.completion() {
            if event.result() < 0 {
                return Err(io::Error::from_raw_os_error(-event.result()));
            }
            let at = usize::try_from(event.user_data()).ok();
            if let Some(watched) = at.and_then(|at| self.descriptors.get_mut(at)) {
                watched.is_polled = false;
            }
            any = true;
        }
        Ok(any)
    }

    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        while !self.take()? {
            self.poll()?;
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
        Ok(())
    }
}
