//! Room in the log that is promised to entries on their way.
//!
//! *Place*: taken by `group/` before entries are proposed, or accepted from a leader. *Owner*: the
//! caller. *Invariants*: what is promised and what is queued together fit log and queue, so that an
//! append is never refused; one group holds at most its share of the queue, so that the others find
//! room. *On failure*: waits; the error when the log has stopped.

use crate::core::Core;
use crate::error::LogError;
use crate::limit::{QUEUE_BYTES_MAX, QUEUE_GROUP_BYTES_MAX};
use crate::log::Handle;
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteLen;
use std::rc::Rc;

/// Room in the log, promised until it is dropped.
#[must_use = "dropping it gives the room away"]
pub struct Reservation {
    handle: Rc<Handle>,
    group: CopysetId,
    cost: ByteLen,
}

impl Reservation {
    /// Waits for room for entries of `group` that cost so much.
    pub(crate) async fn wait(
        handle: &Rc<Handle>,
        group: CopysetId,
        cost: ByteLen,
    ) -> Result<Self, LogError> {
        let core = &handle.core;
        loop {
            let freed = core.space.notified();
            core.state.borrow().check_running()?;
            if core.has_promisable(group, cost.get()) {
                core.promised.set(core.promised.get() + cost.get());
                *core.promised_to.borrow_mut().entry(group).or_default() += cost.get();
                return Ok(Self {
                    handle: Rc::clone(handle),
                    group,
                    cost,
                });
            }
            freed.await;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let core = &self.handle.core;
        core.promised.set(core.promised.get() - self.cost.get());
        let mut promised_to = core.promised_to.borrow_mut();
        if let Some(promised) = promised_to.get_mut(&self.group) {
            *promised -= self.cost.get();
            if *promised == 0 {
                promised_to.remove(&self.group);
            }
        }
        drop(promised_to);
        core.space.notify_all();
    }
}

impl Core {
    /// What is alone in its way always fits, however large.
    fn has_promisable(&self, group: CopysetId, cost: u64) -> bool {
        let state = self.state.borrow();
        let queued = state.usage().queued.get();
        let all = self.promised.get() + cost;
        let queue_ok = self.promised.get() == 0 || queued + all <= QUEUE_BYTES_MAX / 2;
        let promised = self.promised_to.borrow().get(&group).copied().unwrap_or(0);
        let queued = state.queued_by(group);
        let share_ok = promised == 0 || queued + promised + cost <= QUEUE_GROUP_BYTES_MAX;
        queue_ok && share_ok && state.is_unpromised(cost)
    }
}
