//! The shared log of one store.
//!
//! *Place*: made by the shard that owns the store; its groups write through
//! [`GroupLog`]. *Owner*: the executor that opened it. *Invariants*: one log per
//! region at a time (the device's claim sees to that). *On failure*: see [`LogError`]; a failed
//! write stops the log for good, only opening it again tells what is on the medium.

use crate::completion::Completion;
use crate::core::Core;
use crate::counters::LogCounters;
use crate::error::LogError;
use crate::flusher;
use crate::group_log::GroupLog;
use crate::limit::SCAN_WINDOW;
use crate::options::{Geometry, LogOptions, LogRegion};
use crate::placed::Owner;
use crate::queue::entry_cost;
use crate::recovery;
use crate::segments::Segments;
use crate::state::{Previous, State};
use crate::usage::{LogUsage, Pressure};
use ogee_device::Device;
use ogee_proto::id::{CopysetId, StoreId};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::channel::watch;
use ogee_runtime::{Buffer, Gather, JoinHandle, spawn};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The shared log. Cloning gives another handle; when the last one (of logs and groups) is gone,
/// what is queued is written and the log stops.
#[derive(Clone)]
pub struct Log {
    handle: Rc<Handle>,
}

/// What keeps the flusher running.
pub(crate) struct Handle {
    pub core: Rc<Core>,
    flusher: RefCell<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.state.borrow_mut().close();
        self.core.work.raise();
    }
}

impl Log {
    /// Makes an empty log in `region`. Whatever log was there is gone.
    ///
    /// The region should have been written once (zeros do): a file system that allocates under a
    /// durable write makes it slow.
    ///
    /// # Errors
    /// `Bounds` or `Failed`.
    pub async fn format(
        device: &Device,
        region: LogRegion,
        options: LogOptions,
    ) -> Result<(), LogError> {
        let geometry = Geometry::new(region, options.segment_len)?;
        // As far as recovery looks for batches whose segment header is lost.
        let blank_len = SCAN_WINDOW.min(geometry.segment_len);
        for slot in 0..geometry.slots {
            let blank = Buffer::zeroed(blank_len);
            write(device, geometry.slot_start(slot), blank, options.store).await?;
        }
        let segments = Segments::new(geometry);
        let state = State::new(
            options,
            BTreeMap::new(),
            segments,
            1,
            0,
            Previous::default(),
        );
        let (head, buffer) = state
            .next_segment()
            .expect("invariant: all segments are free");
        write(
            device,
            geometry.slot_start(head.slot),
            buffer,
            options.store,
        )
        .await
    }

    /// Opens the log in `region`, recovers its groups, begins a segment of a new epoch and starts
    /// the flusher. What is lost of a group is told by [`GroupLog::damage`].
    ///
    /// # Errors
    /// `NotFormatted`, `ForeignStore`, `UnknownVersion`, `Geometry`, `Bounds` if this is no log of
    /// this store; `Damaged` if it is, and no segment header is readable.
    pub async fn open(
        device: &Device,
        region: LogRegion,
        options: LogOptions,
    ) -> Result<Self, LogError> {
        Self::open_with(device, region, options, &[]).await
    }

    /// Opens a log whose store has its data on another device.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_apart(
        device: &Device,
        data: &Device,
        region: LogRegion,
        options: LogOptions,
        groups: &[CopysetId],
    ) -> Result<Self, LogError> {
        let geometry = Geometry::new(region, options.segment_len)?;
        let state = recovery::recover((device, data), geometry, options, groups).await?;
        flush(data, &state).await?;
        Self::go_on(device.clone(), Some(data.clone()), state).await
    }

    /// Opens the log of a store that holds replicas of `groups`: records that are lost without a
    /// trace may have been of a group of which the log tells nothing at all.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        device: &Device,
        region: LogRegion,
        options: LogOptions,
        groups: &[CopysetId],
    ) -> Result<Self, LogError> {
        let geometry = Geometry::new(region, options.segment_len)?;
        let state = recovery::recover((device, device), geometry, options, groups).await?;
        Self::go_on(device.clone(), None, state).await
    }

    async fn go_on(
        device: Device,
        data: Option<Device>,
        mut state: State,
    ) -> Result<Self, LogError> {
        state.hold_recovered();
        begin_epoch(&device, &mut state).await?;
        let core = Core::new(device, data, state);
        let flusher = RefCell::new(Some(spawn(flusher::run(Rc::clone(&core)))));
        Ok(Self {
            handle: Rc::new(Handle { core, flusher }),
        })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.handle.core.state.borrow().store()
    }

    /// Groups that something was written to, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<CopysetId> {
        let state = self.handle.core.state.borrow();
        let exists = state.groups.iter().filter(|(_, group)| group.front.exists);
        exists.map(|(id, _)| *id).collect()
    }

    /// A handle of `group`.
    #[must_use]
    pub fn group(&self, group: CopysetId) -> GroupLog {
        GroupLog::new(Rc::clone(&self.handle), group)
    }

    /// Forgets everything of `group`; what is written to it later is a new group.
    pub fn remove_group(&self, group: CopysetId) -> Completion {
        self.handle.core.accept(|state, done| {
            state.check_running()?;
            state.remove_group(group, done);
            Ok(())
        })
    }

    /// The extents that live entries name: nobody else may write there.
    #[must_use]
    pub fn placed(&self) -> Vec<ByteOffset> {
        self.handle.core.state.borrow().extents()
    }

    /// Brings the log together with the store whose extents it names: from now on payloads may be
    /// placed, and `release` is called with each extent that no record names any more. It must not call
    /// the log. A log that has stopped gives nothing back.
    ///
    /// # Panics
    /// When called twice.
    pub fn attach(&self, release: impl Fn(ByteOffset) + 'static) {
        let owner = Owner::new(release);
        self.handle.core.state.borrow_mut().attach(owner);
    }

    /// Whether [`attach`](Self::attach) was called.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.handle.core.state.borrow().is_attached()
    }

    /// How full the log is.
    #[must_use]
    pub fn usage(&self) -> LogUsage {
        self.handle.core.state.borrow().usage()
    }

    /// Follows whether the log is above its threshold.
    #[must_use]
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.handle.core.watch_pressure()
    }

    /// Whether entries with these payloads fit now. Ask before entries are proposed or accepted
    /// from a leader: an append that is refused is fatal to its group.
    #[must_use]
    pub fn has_space(&self, payload_lens: impl IntoIterator<Item = usize>) -> bool {
        let needed = payload_lens.into_iter().map(entry_cost).sum();
        self.handle.core.state.borrow().check_room(needed).is_ok()
    }

    /// Waits until an entry with a payload of `len` fits.
    ///
    /// # Errors
    /// When the log has stopped.
    pub async fn wait_space(&self, len: ByteLen) -> Result<(), LogError> {
        let core = &self.handle.core;
        loop {
            let freed = core.space.notified();
            core.state.borrow().check_running()?;
            if self.has_space([len.as_usize()]) {
                return Ok(());
            }
            freed.await;
        }
    }

    /// Bytes that an entry with a payload of `payload_len` may take.
    #[must_use]
    pub const fn entry_cost(payload_len: usize) -> ByteLen {
        ByteLen::new(entry_cost(payload_len))
    }

    /// What the log has done.
    #[must_use]
    pub fn counters(&self) -> LogCounters {
        self.handle.core.state.borrow().counters
    }

    /// Why the log accepts nothing more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.handle.core.state.borrow().check_running().err()
    }

    /// Accepts nothing more, writes what is queued, and stops.
    ///
    /// # Errors
    /// The failure, if the log had failed or fails on the way.
    pub async fn close(&self) -> Result<(), LogError> {
        let core = &self.handle.core;
        core.state.borrow_mut().close();
        core.work.raise();
        let flusher = self.handle.flusher.borrow_mut().take();
        if let Some(flusher) = flusher {
            // A cancelled flusher belongs to an executor that is ending.
            let _cancelled = flusher.await;
        }
        match self.failure() {
            Some(LogError::Closed { .. }) | None => Ok(()),
            Some(failure) => Err(failure),
        }
    }
}

/// Makes what was recovered final, and begins a segment that no earlier write can reach.
///
/// In this order: the batches that were found may not have been durable (the process died, the
/// power did not fail), so they are flushed; a torn batch after them is overwritten, or it might
/// pass for a batch once the next segment, which tells where this one ends, is gone; then the next
/// segment is begun.
async fn begin_epoch(device: &Device, state: &mut State) -> Result<(), LogError> {
    let store = state.store();
    flush(device, state).await?;
    let offset = state.segments.end_offset();
    if let Some((batch, data)) = state.closing_batch() {
        write(device, offset, data, store).await?;
        state.written(batch);
    }
    state.next_epoch();
    let (head, buffer) = state.next_segment().ok_or(LogError::Full {
        store,
        needed: state.options.segment_len,
        free: ByteLen::ZERO,
    })?;
    let offset = state.segments.geometry.slot_start(head.slot);
    write(device, offset, buffer, store).await?;
    state.begun(&head);
    state.counters = LogCounters::default();
    Ok(())
}

async fn flush(device: &Device, state: &State) -> Result<(), LogError> {
    let flushed = device.flush().await;
    flushed.map_err(|source| LogError::Failed {
        store: state.store(),
        offset: state.segments.end_offset(),
        source,
    })
}

async fn write(
    device: &Device,
    offset: ByteOffset,
    data: impl Into<Gather>,
    store: StoreId,
) -> Result<(), LogError> {
    let written = device.write_durable(offset, data).await;
    written.map_err(|source| LogError::Failed {
        store,
        offset,
        source,
    })
}
