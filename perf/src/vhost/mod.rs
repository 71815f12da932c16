//! A native vhost-user-blk driver: a ring for each job, many requests under way, no VM.
//!
//! *Place*: a kind of target. *Owner*: one shard; a task for each ring ends with the last handle.
//! *Invariants*: what the server says is checked before it is believed; a ring has a slot for each request under way,
//! whose memory nobody else touches; after the connection is made a request allocates nothing here but, in a run that
//! verifies, the memory of what it reads.
//! *On failure*: a server that breaks the protocol, stops a ring or goes away fails every request under way and every
//! later one.
//!
//! | file | holds |
//! |---|---|
//! | `connect` | what is agreed with the server before rings run |
//! | `layout`, `memory` | where everything lies in the memory that is shared; that memory |
//! | `ring` | a split ring, from the driver's side |
//! | `queue` | requests on it, and who waits for them |
//! | `error` | what can go wrong |
//!
//! "Virtual I/O Device (VIRTIO) Version 1.2" of OASIS, sections 2.7 and 5.2; QEMU's "Vhost-user Protocol". Messages and
//! mapped memory are rust-vmm's (`vhost`, `vm-memory`).

mod connect;
mod error;
mod layout;
mod memory;
mod queue;
mod ring;

pub use error::VhostError;

use crate::workload::Workload;
use connect::{Agreed, Events};
use layout::Layout;
use memory::Memory;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Payload, ScopedTask, spawn_scoped};
use queue::{Doing, Queue};
use std::path::Path;
use std::rc::Rc;
use vhost::vhost_user::Frontend;

/// A connection to a disk. Clones share it; each job has a ring of its own.
#[derive(Clone)]
pub struct VhostClient {
    shared: Rc<Shared>,
    job: usize,
}

struct Shared {
    size: ByteLen,
    is_read_only: bool,
    is_durable: bool,
    keeps_data: bool,
    queues: Vec<Rc<Queue>>,
    _reapers: Vec<ScopedTask<()>>,
    /// Behind the tasks: while it stands the server serves the rings.
    _frontend: Frontend,
}

impl VhostClient {
    /// Connects, with a ring for each job of `workload` and as many slots as its depth; with `is_durable` a flush follows
    /// each write, and both count as one.
    ///
    /// # Errors
    /// If nobody answers, or the server lacks something: the error says what.
    pub async fn connect(
        socket: &Path,
        workload: &Workload,
        is_durable: bool,
    ) -> Result<Self, VhostError> {
        let layout = Layout::of(workload)?;
        let (memory, file) = Memory::shared(layout.len())?;
        let memory = Rc::new(memory);
        let events: Vec<Events> = (0..layout.queues())
            .map(|_| Events::new())
            .collect::<Result<_, _>>()?;
        let agreed = connect::agree(socket, layout, file, &events).await?;
        if is_durable && !agreed.flushes {
            return Err(VhostError::NoFlush);
        }
        let Agreed {
            frontend,
            socket,
            size,
            is_read_only,
            has_event_index,
            ..
        } = agreed;
        let (mut queues, mut reapers) = (Vec::new(), Vec::new());
        for (index, events) in events.into_iter().enumerate() {
            let watched = events.watch(&socket)?;
            let queue = Queue::new(&memory, layout, index, has_event_index, events);
            let queue = Rc::new(queue);
            reapers.push(spawn_scoped(queue::reap(Rc::clone(&queue), watched)));
            queues.push(queue);
        }
        Ok(Self {
            shared: Rc::new(Shared {
                size,
                is_read_only,
                is_durable,
                keeps_data: workload.verify,
                queues,
                _reapers: reapers,
                _frontend: frontend,
            }),
            job: 0,
        })
    }

    /// Its size, cut to whole blocks.
    #[must_use]
    pub fn size(&self) -> ByteLen {
        self.shared.size
    }

    /// The handle of one job: its requests go to a ring of their own.
    pub(crate) fn of_job(&self, job: usize) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            job,
        }
    }

    /// Reads. What comes is left where the server has put it, as in a guest, unless the run verifies.
    pub(crate) async fn read(
        &self,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Option<Payload>, VhostError> {
        let keeps = self.shared.keeps_data;
        let data = self.queue().call(Doing::Read { offset, len, keeps });
        Ok(data.await?.map(Payload::from))
    }

    pub(crate) async fn write(&self, offset: ByteOffset, data: &[u8]) -> Result<(), VhostError> {
        if self.shared.is_read_only {
            return Err(VhostError::ReadOnly);
        }
        let queue = self.queue();
        queue.call(Doing::Write { offset, data }).await?;
        if self.shared.is_durable {
            queue.call(Doing::Flush).await?;
        }
        Ok(())
    }

    fn queue(&self) -> &Rc<Queue> {
        let queues = &self.shared.queues;
        queues
            .get(self.job)
            .expect("invariant: a workload has as many jobs as it said when rings were made")
    }
}
