//! What this client knows of one copyset.
//!
//! *Place*: `routes` keeps one for each copyset of the volume; `core` consults it for each attempt.
//! *Owner*: the shard of the volume.
//! *Invariants*: no mutation of ours is sent before the copyset has committed our seal. While no
//! leader is confirmed at most `PROBES_MAX` requests are out looking for one.
//! *On failure*: everything here is a hint or a cache; losing it costs a round trip.

use crate::belief::Belief;
use crate::limit::PROBES_MAX;
use crate::map::{CopysetView, ReplicaView};
use crate::window::Window;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_runtime::channel::{Mutex, MutexGuard, Permit, Semaphore};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// One copyset of a volume.
pub(crate) struct Copyset {
    id: CopysetId,
    belief: RefCell<Belief>,
    sealed: Cell<bool>,
    seal_turn: Mutex<()>,
    probes: Semaphore,
    pub(crate) window: Rc<Window>,
}

impl Copyset {
    /// As the control plane describes it; nothing confirmed, nothing sealed.
    pub(crate) fn new(view: &CopysetView) -> Self {
        Self {
            id: view.id,
            belief: RefCell::new(Belief::new(view.replicas.clone(), view.leader)),
            sealed: Cell::new(false),
            seal_turn: Mutex::new(()),
            probes: Semaphore::new(PROBES_MAX),
            window: Window::new(),
        }
    }

    /// Its id.
    pub(crate) const fn id(&self) -> CopysetId {
        self.id
    }

    /// Takes a newer description.
    pub(crate) fn update(&self, view: &CopysetView) {
        self.belief.borrow_mut().update(&view.replicas, view.leader);
    }

    /// Where to send now.
    pub(crate) fn target(&self) -> ReplicaView {
        self.belief.borrow().target().clone()
    }

    /// A turn to send: at once while the leader is known, else among the first few.
    pub(crate) async fn turn(&self) -> Option<Permit> {
        if self.belief.borrow().is_confirmed() {
            return None;
        }
        let permit = self.probes.acquire(1).await;
        // Found while we waited: let the whole queue go.
        Some(permit).filter(|_| !self.belief.borrow().is_confirmed())
    }

    /// `from` answered as a leader.
    pub(crate) fn confirm(&self, from: ReplicaId) {
        self.belief.borrow_mut().confirm(from);
    }

    /// `from` gave no usable answer.
    pub(crate) fn doubt(&self, from: ReplicaId) {
        self.belief.borrow_mut().doubt(from);
    }

    /// `from` names `hint` as the leader; false when that is no replica we know.
    pub(crate) fn redirect(&self, from: ReplicaId, hint: ReplicaId) -> bool {
        self.belief.borrow_mut().redirect(from, hint)
    }

    /// `from` is of no use.
    pub(crate) fn rotate(&self, from: ReplicaId) {
        self.belief.borrow_mut().rotate(from);
    }

    /// Whether our seal is committed there.
    pub(crate) const fn is_sealed(&self) -> bool {
        self.sealed.get()
    }

    /// Notes whether our seal is committed there.
    pub(crate) fn set_sealed(&self, sealed: bool) {
        self.sealed.set(sealed);
    }

    /// The right to seal: one request does it, those behind it find it done.
    pub(crate) async fn seal_turn(&self) -> MutexGuard<'_, ()> {
        self.seal_turn.lock().await
    }
}
