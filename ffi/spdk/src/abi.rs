//! The shim's functions and types, as `csrc/shim.h` has them.
//!
//! *Place*: raw symbols, under everything here. *Owner*: nobody; two tables implement them: SPDK's, in C, and the
//! emulated one. *Invariants*: sizes are checked on both sides when they are compiled, and the number of the ABI when a
//! table is taken into use. *On failure*: a negative errno.

use libc::{c_char, c_int, c_void, size_t};

/// Changed with every change of a type or function.
pub(crate) const ABI: u32 = 3;

pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const FLUSH: u32 = 3;
pub(crate) const WRITE_ZEROES: u32 = 4;
pub(crate) const DEALLOCATE: u32 = 5;

pub(crate) const FORCE_UNIT_ACCESS: u32 = 1;
pub(crate) const MAY_DEALLOCATE: u32 = 2;

pub(crate) const HAS_VOLATILE_CACHE: u32 = 1;
pub(crate) const HAS_WRITE_ZEROES: u32 = 2;
pub(crate) const HAS_DEALLOCATE: u32 = 4;
pub(crate) const DEALLOCATED_READS_ZERO: u32 = 8;
pub(crate) const WRITE_ZEROES_MAY_DEALLOCATE: u32 = 16;

pub(crate) const CAN_INTERRUPT: u32 = 1;

pub(crate) const WITH_INTERRUPTS: u32 = 1;

pub(crate) const READY: c_int = 0;
pub(crate) const GONE: c_int = 2;

#[repr(C)]
pub(crate) struct EnvOptions {
    pub(crate) name: *const c_char,
    pub(crate) allowed: *const *const c_char,
    pub(crate) allowed_count: u32,
    pub(crate) memory_mib: u32,
}

#[repr(C)]
pub(crate) struct ControllerInfo {
    pub(crate) serial: [u8; 24],
    pub(crate) model: [u8; 48],
    pub(crate) firmware: [u8; 16],
    pub(crate) transfer_max: u32,
    pub(crate) segments_max: u32,
    pub(crate) first_namespace: u32,
    pub(crate) features: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct NamespaceInfo {
    pub(crate) sectors: u64,
    pub(crate) sector_size: u32,
    pub(crate) metadata_size: u32,
    pub(crate) protection_type: u32,
    pub(crate) features: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) address: *mut c_void,
    pub(crate) length: u64,
}

pub(crate) type Done = unsafe extern "C" fn(context: *mut c_void, status: u16);

#[repr(C)]
pub(crate) struct Command {
    pub(crate) kind: u32,
    pub(crate) namespace_id: u32,
    pub(crate) first_sector: u64,
    pub(crate) sectors: u32,
    pub(crate) flags: u32,
    pub(crate) segments: *const Segment,
    pub(crate) segment_count: u32,
    pub(crate) at_segment: u32,
    pub(crate) at_offset: u64,
    pub(crate) done: Option<Done>,
    pub(crate) context: *mut c_void,
}

/// Length of a log page that is asked for.
pub(crate) const PAGE_LENGTH: usize = 512;

#[repr(C)]
pub(crate) struct Page {
    pub(crate) bytes: [u8; PAGE_LENGTH],
    pub(crate) done: Option<Done>,
    pub(crate) context: *mut c_void,
}

/// Of one implementation.
#[repr(C)]
pub(crate) struct Table {
    pub(crate) abi: u32,
    /// Of SPDK: year in the upper half, month in the lower one.
    pub(crate) version: u32,
    pub(crate) abilities: u32,
    pub(crate) reserved: u32,
    pub(crate) env_start: unsafe extern "C" fn(*const EnvOptions) -> c_int,
    pub(crate) memory_take: unsafe extern "C" fn(size_t, size_t) -> *mut c_void,
    pub(crate) memory_give: unsafe extern "C" fn(*mut c_void),
    pub(crate) memory_reach: unsafe extern "C" fn(*const c_void, size_t) -> size_t,
    pub(crate) controller_open: unsafe extern "C" fn(*const c_char, u32, *mut *mut c_void) -> c_int,
    pub(crate) controller_close: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) controller_info: unsafe extern "C" fn(*mut c_void, *mut ControllerInfo) -> c_int,
    pub(crate) controller_state: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) controller_poll: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) health_start: unsafe extern "C" fn(*mut c_void, *mut Page) -> c_int,
    pub(crate) reset_start: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) reset_poll: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) namespace_info: unsafe extern "C" fn(*mut c_void, u32, *mut NamespaceInfo) -> c_int,
    pub(crate) queue_open: unsafe extern "C" fn(*mut c_void, u32, *mut *mut c_void) -> c_int,
    pub(crate) queue_close: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) queue_submit: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut Command) -> c_int,
    pub(crate) queue_poll: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
    pub(crate) queue_descriptor: unsafe extern "C" fn(*mut c_void) -> c_int,
}

const _: () = assert!(size_of::<Command>() == 64);
const _: () = assert!(size_of::<ControllerInfo>() == 104);
const _: () = assert!(size_of::<NamespaceInfo>() == 24);
const _: () = assert!(size_of::<EnvOptions>() == 24);
const _: () = assert!(size_of::<Page>() == 528);
