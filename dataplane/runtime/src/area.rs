//! Memory that network adapters are told of once, instead of a copy for each transfer.
//!
//! **Place.** Announced by whoever has it: this crate for what devices read into ([`crate::transfer`]), a frontend for a
//! guest's memory, the C interface for its caller's. A carrier that can send from where bytes lie registers it with its
//! adapter, and finds it again by the address of what it is to send. **Owner.** The list is the thread's; an area is its
//! announcer's, and what was registered of it the carrier's.
//!
//! **Invariants.** Memory of an area stays mapped while the area's owner lives. A registration that is attached holds that
//! owner as long as it needs; it is dropped as soon as the area is withdrawn, and what is still under way of it keeps it
//! alive by itself. Areas that overlap are each other's neighbours in the list: bytes are looked for in the one that begins
//! closest before them, and what is not found is copied.
//!
//! **Failure.** Nothing fails here: who finds no area copies.

use std::any::Any;
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::channel::watch;

thread_local! {
    static AREAS: RefCell<Vec<Rc<Area>>> = const { RefCell::new(Vec::new()) };
    static CHANGES: watch::Sender<u64> = watch::channel(0).0;
}

/// Memory that network adapters are told of once.
pub struct Area {
    start: NonNull<u8>,
    len: usize,
    name: &'static str,
    owner: Rc<dyn Any>,
    /// By who has them.
    attached: RefCell<Vec<(usize, Rc<dyn Any>)>>,
}

/// An area is announced as long as this lives.
pub struct Announced(Rc<Area>);

/// Announces `len` bytes at `start`, which messages call `name`.
///
/// # Panics
/// When `len` is 0.
///
/// # Safety
/// The memory is mapped until `owner` and all its clones are dropped.
#[must_use]
pub unsafe fn announce(
    start: NonNull<u8>,
    len: usize,
    name: &'static str,
    owner: Rc<dyn Any>,
) -> Announced {
    assert!(len > 0, "an area has bytes");
    let area = Rc::new(Area {
        start,
        len,
        name,
        owner,
        attached: RefCell::default(),
    });
    AREAS.with_borrow_mut(|areas| {
        let at = areas.partition_point(|other| other.start.addr() <= start.addr());
        areas.insert(at, Rc::clone(&area));
    });
    changed();
    Announced(area)
}

/// Where these bytes lie, if that was announced.
#[must_use]
pub fn find(bytes: &[u8]) -> Option<Rc<Area>> {
    find_at(bytes.as_ptr().addr(), bytes.len())
}

/// Where `len` bytes from `start` on lie, if that was announced.
#[must_use]
pub fn find_at(start: usize, len: usize) -> Option<Rc<Area>> {
    AREAS.with_borrow(|areas| {
        let behind = areas.partition_point(|area| area.start.addr().get() <= start);
        let area = areas.get(behind.checked_sub(1)?)?;
        let end = start.checked_add(len)?;
        (end <= area.start.addr().get() + area.len).then(|| Rc::clone(area))
    })
}

/// All that are announced now.
#[must_use]
pub fn all() -> Vec<Rc<Area>> {
    // At the end of the thread the list may be gone.
    let all = AREAS.try_with(|areas| areas.borrow().clone());
    all.unwrap_or_default()
}

/// Changes when one is announced or withdrawn.
#[must_use]
pub fn changes() -> watch::Receiver<u64> {
    CHANGES.with(watch::Sender::subscribe)
}

fn changed() {
    // At the end of the thread nobody looks any more.
    let _gone = CHANGES.try_with(|changes| {
        changes.send_if_modified(|count| {
            *count += 1;
            true
        })
    });
}

impl Area {
    /// Where it begins.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it is called in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What keeps it mapped.
    #[must_use]
    pub fn owner(&self) -> Rc<dyn Any> {
        Rc::clone(&self.owner)
    }

    /// Whether somebody can send from there, or have others write there.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        !self.attached.borrow().is_empty()
    }

    /// Keeps `registration` of `holder` with it, until it is withdrawn or the holder detaches it.
    pub fn attach(&self, holder: usize, registration: Rc<dyn Any>) {
        let before = self.take(holder);
        self.attached.borrow_mut().push((holder, registration));
        drop(before);
    }

    /// What `holder` has attached.
    #[must_use]
    pub fn attached(&self, holder: usize) -> Option<Rc<dyn Any>> {
        let attached = self.attached.borrow();
        let found = attached.iter().find(|(by, _)| *by == holder)?;
        Some(Rc::clone(&found.1))
    }

    /// Drops what `holder` has attached.
    pub fn detach(&self, holder: usize) {
        drop(self.take(holder));
    }

    fn take(&self, holder: usize) -> Option<Rc<dyn Any>> {
        let mut attached = self.attached.borrow_mut();
        let at = attached.iter().position(|(by, _)| *by == holder)?;
        Some(attached.swap_remove(at).1)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // At the end of the thread the list may be gone first, and nobody looks any more.
        let _gone = AREAS.try_with(|areas| {
            let mut areas = areas.borrow_mut();
            areas.retain(|area| !Rc::ptr_eq(area, &self.0));
        });
        let attached = self.0.attached.take();
        drop(attached);
        changed();
    }
}

#[cfg(test)]
mod tests {
    use super::{Announced, all, announce, changes, find};
    use std::ptr::NonNull;
    use std::rc::Rc;

    fn announced(bytes: &Rc<Vec<u8>>, from: usize, len: usize) -> Announced {
        let start = NonNull::from_ref(&bytes[from]);
        let owner = Rc::clone(bytes);
        // SAFETY: the vector is not changed, and held by its clone.
        unsafe { announce(start, len, "a test's memory", owner) }
    }

    #[test]
    fn bytes_are_found_in_the_area_that_they_lie_in() {
        let bytes = Rc::new(vec![0; 1000]);
        let (later, first) = (announced(&bytes, 500, 500), announced(&bytes, 0, 400));
        for (range, is_found) in [
            (0..400, true),
            (0..0, true),
            (399..400, true),
            (399..401, false),
            (400..500, false),
            (450..550, false),
            (500..1000, true),
        ] {
            let found = find(&bytes[range.clone()]);
            assert_eq!(found.is_some(), is_found, "{range:?}");
        }
        let other = vec![0; 10];
        assert!(find(&other).is_none());
        assert_eq!(all().len(), 2);
        drop(first);
        assert!(find(&bytes[0..10]).is_none() && find(&bytes[600..700]).is_some());
        drop(later);
        assert!(all().is_empty());
        assert_eq!(Rc::strong_count(&bytes), 1);
    }

    #[test]
    fn what_is_attached_goes_with_its_area_or_its_holder() {
        let bytes = Rc::new(vec![0; 100]);
        let mut seen = changes();
        let area = announced(&bytes, 0, 100);
        assert!(seen.has_changed());
        seen.borrow_and_update();
        let found = find(&bytes).expect("announced");
        let (one, other) = (Rc::new(1_u8), Rc::new(2_u8));
        found.attach(1, Rc::clone(&one) as Rc<dyn std::any::Any>);
        found.attach(2, Rc::clone(&other) as Rc<dyn std::any::Any>);
        assert!(found.attached(3).is_none());
        let attached = found.attached(2).and_then(|any| any.downcast::<u8>().ok());
        assert_eq!(attached.as_deref(), Some(&2));
        found.detach(1);
        assert_eq!((Rc::strong_count(&one), Rc::strong_count(&other)), (1, 3));
        drop((area, attached));
        // Whoever still looks at the area finds nothing that was registered of it.
        assert_eq!(Rc::strong_count(&other), 1);
        let is_announced = all().iter().any(|area| Rc::ptr_eq(area, &found));
        assert!(seen.has_changed() && !is_announced && found.attached(2).is_none());
        drop(found);
        assert_eq!(Rc::strong_count(&bytes), 1);
    }
}
