//! Handles: numbers that look like pointers, so that C's compiler tells their kinds apart.
//!
//! *Place*: between the calls and `registry`. *Owner*: plain values. *Invariants*: no handle is a valid
//! address; a number is not given out again until its slot was used 2^28 times. *On failure*: a failure that
//! says what the number is instead.

use crate::abi::OgeeStatus;
use crate::failure::Failure;
use crate::fork;

/// What a handle is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Client = 1,
    Volume = 2,
    Queue = 3,
    Memory = 4,
}

/// A handle, taken apart: | 1110 | kind: 4 | forks: 8 | generation: 28 | slot: 16 | 0000 |.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle {
    kind: u8,
    forks: u8,
    pub(crate) generation: u32,
    pub(crate) slot: u16,
}

/// In the upper four bits: no address of a user's memory begins so.
const MARK: usize = 0xe;
const GENERATION_BITS: u32 = 28;

const _: () = assert!(usize::BITS == 64, "handles are 64 bits");

impl Handle {
    pub(crate) fn new(kind: Kind, generation: u32, slot: u16) -> Self {
        Self {
            kind: kind as u8,
            forks: fork::count(),
            generation: generation & ((1 << GENERATION_BITS) - 1),
            slot,
        }
    }

    /// The generation after this one.
    pub(crate) const fn next_generation(generation: u32) -> u32 {
        (generation + 1) & ((1 << GENERATION_BITS) - 1)
    }

    /// As C has it.
    pub(crate) const fn pointer<T>(self) -> *mut T {
        let value = (MARK << 60)
            | ((self.kind as usize) << 56)
            | ((self.forks as usize) << 48)
            | ((self.generation as usize) << 20)
            | ((self.slot as usize) << 4);
        std::ptr::without_provenance_mut(value)
    }

    /// What C gave us.
    pub(crate) fn read<T>(pointer: *const T, wanted: Kind) -> Result<Self, Failure> {
        let value = pointer.addr();
        if value == 0 {
            return Err(bad(wanted, "NULL"));
        }
        let field = |shift: u32, bits: u32| (value >> shift) & ((1 << bits) - 1);
        if field(60, 4) != MARK || field(0, 4) != 0 {
            return Err(bad(wanted, "no handle of this library"));
        }
        let found = field(56, 4);
        if found != wanted as usize {
            return Err(bad(wanted, name(found)));
        }
        let forks = u8::try_from(field(48, 8)).unwrap_or(0);
        if forks != fork::count() {
            let what = format!("the {} was opened before a fork", name(found));
            let remedy = "open a client and what else is needed in this process";
            return Err(Failure::new(OgeeStatus::Forked, &what, remedy));
        }
        Ok(Self {
            kind: wanted as u8,
            forks,
            generation: u32::try_from(field(20, GENERATION_BITS)).unwrap_or(0),
            slot: u16::try_from(field(4, 16)).unwrap_or(0),
        })
    }
}

/// The handle is of this kind, and nothing is behind it.
pub(crate) fn gone(kind: Kind) -> Failure {
    bad(kind, "closed already")
}

fn bad(wanted: Kind, found: &str) -> Failure {
    let what = format!("not a {}: {found}", name(wanted as usize));
    let remedy = "pass what opening returned, until it is closed";
    Failure::new(OgeeStatus::BadHandle, &what, remedy)
}

fn name(kind: usize) -> &'static str {
    match kind {
        1 => "client",
        2 => "volume",
        3 => "completion queue",
        4 => "registered memory",
        _ => "handle of a kind that this library does not know",
    }
}

#[cfg(test)]
mod tests {
    use super::{Handle, Kind};
    use crate::abi::{OgeeStatus, OgeeVolume};

    #[test]
    fn a_handle_is_read_as_it_was_made() {
        for (generation, slot) in [(0, 0), (1, 7), ((1 << 28) - 1, u16::MAX)] {
            let handle = Handle::new(Kind::Volume, generation, slot);
            let pointer: *mut OgeeVolume = handle.pointer();
            assert_eq!(Handle::read(pointer, Kind::Volume), Ok(handle));
            // Not in the half of the address space that programs have.
            assert!(pointer.addr() >> 63 == 1);
        }
    }

    #[test]
    fn what_is_no_handle_of_the_kind_is_named() {
        let queue: *mut OgeeVolume = Handle::new(Kind::Queue, 3, 4).pointer();
        let local = 5_u64;
        for (pointer, named) in [
            (std::ptr::null_mut(), "NULL"),
            (queue, "completion queue"),
            ((&raw const local).cast_mut().cast(), "no handle"),
        ] {
            let failure = Handle::read(pointer, Kind::Volume).unwrap_err();
            assert_eq!(failure.status, OgeeStatus::BadHandle);
            assert!(failure.text.contains(named), "{}", failure.text);
        }
    }
}
