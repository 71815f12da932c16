//! Memory that emulated drives can reach: what was taken here and not yet given back.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Start and layout of each.
static TAKEN: Mutex<BTreeMap<usize, Layout>> = Mutex::new(BTreeMap::new());

fn taken() -> MutexGuard<'static, BTreeMap<usize, Layout>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn take(length: usize, alignment: usize) -> *mut u8 {
    let layout = Layout::from_size_align(length, alignment).ok();
    let Some(layout) = layout.filter(|layout| layout.size() > 0) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    if !memory.is_null() {
        taken().insert(memory.addr(), layout);
    }
    memory
}

/// # Safety
/// It was taken here, and nothing uses it any more.
pub(super) unsafe fn give(memory: *mut u8) {
    let layout = taken()
        .remove(&memory.addr())
        .expect("invariant: taken here");
    // SAFETY: taken here with that layout; as the caller says, nothing uses it.
    unsafe { dealloc(memory, layout) };
}

/// How many bytes of those from `address` on can be reached.
pub(super) fn reach(address: usize, length: usize) -> usize {
    let taken = taken();
    let Some((start, layout)) = taken.range(..=address).next_back() else {
        return 0;
    };
    (start + layout.size()).saturating_sub(address).min(length)
}
