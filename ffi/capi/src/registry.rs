//! What handles stand for.
//!
//! *Place*: under the calls. *Owner*: the process; one per process of a family of forks.
//! *Invariants*: at most `HANDLES_MAX` of a kind; a handle that was removed finds nothing, also when its
//! slot is used again. An object lives until the last call that found it has returned.
//! *On failure*: [`handle::gone`], or the limit.

use crate::abi::OgeeStatus;
use crate::client::Client;
use crate::failure::Failure;
use crate::fork;
use crate::handle::{self, Handle, Kind};
use crate::limit::HANDLES_MAX;
use crate::memory::Memory;
use crate::queue::Queue;
use crate::volume::Volume;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// All tables.
pub(crate) struct Registry {
    pub(crate) clients: Table<Client>,
    pub(crate) volumes: Table<Volume>,
    pub(crate) queues: Table<Queue>,
    pub(crate) memories: Table<Memory>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

/// This process's registry.
pub(crate) fn registry() -> &'static Registry {
    let found = REGISTRY.load(Ordering::Acquire);
    // SAFETY: null, or a registry that was published below and is never freed.
    if let Some(registry) = unsafe { found.as_ref() } {
        return registry;
    }
    fork::watch();
    let made = Box::into_raw(Box::new(Registry {
        clients: Table::new(Kind::Client),
        volumes: Table::new(Kind::Volume),
        queues: Table::new(Kind::Queue),
        memories: Table::new(Kind::Memory),
    }));
    let published =
        REGISTRY.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
    let kept = published.map_or_else(
        |other| {
            // SAFETY: ours, made above, and nobody has seen it.
            drop(unsafe { Box::from_raw(made) });
            other
        },
        |_null| made,
    );
    // SAFETY: published, by us or by another thread, and never freed.
    unsafe { &*kept }
}

/// In a child of fork: the parent's registry may be locked for ever, and is left where it is.
pub(crate) fn forget() {
    REGISTRY.store(ptr::null_mut(), Ordering::Release);
}

/// Objects of one kind.
pub(crate) struct Table<T> {
    kind: Kind,
    slots: RwLock<Slots<T>>,
}

struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
}

struct Slot<T> {
    generation: u32,
    value: Option<Arc<T>>,
}

impl<T> Table<T> {
    const fn new(kind: Kind) -> Self {
        let slots = Slots {
            slots: Vec::new(),
            free: Vec::new(),
        };
        Self {
            kind,
            slots: RwLock::new(slots),
        }
    }

    /// Keeps `value`, and tells the handle for it.
    pub(crate) fn add<P>(&self, value: Arc<T>) -> Result<*mut P, Failure> {
        // Every change is complete before the lock is left, also by a panic; here and below.
        let mut guard = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let Slots { slots, free } = &mut *guard;
        let at = match free.pop() {
            Some(at) => at,
            None if slots.len() < HANDLES_MAX => {
                slots.push(Slot {
                    generation: 0,
                    value: None,
                });
                u16::try_from(slots.len() - 1).expect("invariant: HANDLES_MAX fits")
            }
            None => {
                let what = format!("{HANDLES_MAX} handles of this kind are open");
                let remedy = "close those that are not needed";
                return Err(Failure::new(OgeeStatus::Limit, &what, remedy));
            }
        };
        let slot = slots
            .get_mut(usize::from(at))
            .expect("invariant: free slots exist");
        slot.value = Some(value);
        Ok(Handle::new(self.kind, slot.generation, at).pointer())
    }

    /// What is behind a handle.
    pub(crate) fn get<P>(&self, pointer: *const P) -> Result<Arc<T>, Failure> {
        let handle = Handle::read(pointer, self.kind)?;
        let guard = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = guard.slots.get(usize::from(handle.slot));
        slot.filter(|slot| slot.generation == handle.generation)
            .and_then(|slot| slot.value.clone())
            .ok_or_else(|| handle::gone(self.kind))
    }

    /// Takes away what is behind a handle, if `may_go` agrees: of many only one call does.
    pub(crate) fn remove<P>(
        &self,
        pointer: *const P,
        may_go: impl FnOnce(&T) -> Result<(), Failure>,
    ) -> Result<Arc<T>, Failure> {
        let handle = Handle::read(pointer, self.kind)?;
        let mut guard = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let Slots { slots, free } = &mut *guard;
        let slot = slots
            .get_mut(usize::from(handle.slot))
            .filter(|slot| slot.generation == handle.generation)
            .ok_or_else(|| handle::gone(self.kind))?;
        let value = slot.value.as_ref().ok_or_else(|| handle::gone(self.kind))?;
        may_go(value)?;
        slot.generation = Handle::next_generation(slot.generation);
        free.push(handle.slot);
        slot.value.take().ok_or_else(|| handle::gone(self.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, HANDLES_MAX, Kind, OgeeStatus, Table};
    use crate::abi::OgeeCq;

    #[test]
    fn a_handle_finds_its_object_until_it_is_removed() {
        let table = Table::new(Kind::Queue);
        let first: *mut OgeeCq = table.add(Arc::new(1)).expect("room");
        let second: *mut OgeeCq = table.add(Arc::new(2)).expect("room");
        assert_eq!(table.get(first).as_deref(), Ok(&1));
        assert_eq!(table.remove(first, |_| Ok(())).as_deref(), Ok(&1));
        let again = table.remove(first, |_| Ok(())).unwrap_err();
        assert_eq!(again.status, OgeeStatus::BadHandle, "{}", again.text);
        // Its slot is used again, and the old handle does not find the new object.
        let third: *mut OgeeCq = table.add(Arc::new(3)).expect("room");
        assert!(table.get(first).is_err());
        assert_eq!(table.get(second).as_deref(), Ok(&2));
        assert_eq!(table.get(third).as_deref(), Ok(&3));
    }

    #[test]
    fn what_may_not_go_stays() {
        let table = Table::new(Kind::Queue);
        let handle: *mut OgeeCq = table.add(Arc::new(1)).expect("room");
        let busy = super::Failure::new(OgeeStatus::Busy, "in use", "wait");
        assert_eq!(table.remove(handle, |_| Err(busy.clone())), Err(busy));
        assert_eq!(table.get(handle).as_deref(), Ok(&1));
    }

    #[test]
    fn handles_are_bounded() {
        let table = Table::new(Kind::Queue);
        let handles: Vec<*mut OgeeCq> = (0..HANDLES_MAX)
            .map(|number| table.add(Arc::new(number)).expect("room"))
            .collect();
        let over = table.add::<OgeeCq>(Arc::new(0)).unwrap_err();
        assert_eq!(over.status, OgeeStatus::Limit);
        table.remove(handles[7], |_| Ok(())).expect("it is there");
        assert!(table.add::<OgeeCq>(Arc::new(0)).is_ok());
    }
}
