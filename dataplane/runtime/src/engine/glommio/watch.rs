//! Readiness of descriptors that are no sockets.
//!
//! **Place.** Under `crate::readiness`. **Owner.** One task.
//!
//! **Invariants.** Each descriptor has at most one wait in the ring, for one event, put in when somebody waits; it stays
//! when that one gives up. What is readable by then counts, however long ago it came.
//! **Failure.** A wait that the kernel refuses is an error of [`Watch::changed`].

use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::driver::Driver;
use super::ring::Operation;

/// Descriptors of one watch.
const DESCRIPTORS_MAX: usize = 8;

pub(crate) struct Watch {
    descriptors: Vec<Watched>,
}

struct Watched {
    descriptor: Rc<OwnedFd>,
    waiting: Option<Operation>,
}

impl Watch {
    pub(crate) fn new(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX, "a few descriptors");
        let watched = |fd: &BorrowedFd<'_>| {
            Ok(Watched {
                descriptor: Rc::new(fd.try_clone_to_owned()?),
                waiting: None,
            })
        };
        Ok(Self {
            descriptors: descriptors.iter().map(watched).collect::<io::Result<_>>()?,
        })
    }

    /// A bit for each descriptor that is readable, by its place.
    pub(crate) async fn changed(&mut self) -> io::Result<u32> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
        let mut changed = 0;
        for (at, watched) in self.descriptors.iter_mut().enumerate() {
            let waiting = watched.waiting.get_or_insert_with(|| {
                Driver::current()
                    .ring()
                    .ready(&watched.descriptor, libc::POLLIN)
            });
            let Poll::Ready((result, _nothing)) = waiting.poll(cx) else {
                continue;
            };
            watched.waiting = None;
            if let Err(error) = result {
                return Poll::Ready(Err(error));
            }
            changed |= 1 << at;
        }
        match changed {
            0 => Poll::Pending,
            bits => Poll::Ready(Ok(bits)),
        }
    }
}
