//! Calls that wait for their end.

use super::submit::{check_data, check_range};
use crate::abi::{OgeeStatus, OgeeVolume};
use crate::entry::entry;
use crate::lease::{Sink, Source};
use crate::registry::registry;
use crate::request::Operation;
use std::ffi::c_void;
use std::sync::Arc;

/// Reads length bytes at offset into buffer. Both are multiples of OGEE_BLOCK_SIZE; the buffer may lie anywhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_read(
    volume: *mut OgeeVolume,
    offset: u64,
    buffer: *mut c_void,
    length: usize,
) -> OgeeStatus {
    entry(|| {
        let volume = registry().volumes.get(volume)?;
        check_data(offset, buffer, length)?;
        let ended = volume.call(|reply| {
            // SAFETY: the caller's promise, until this call returns: after the completion.
            let into = unsafe { Sink::new(buffer.cast(), length, Arc::clone(reply)) };
            Operation::Read { offset, into }
        });
        ended.map(drop)
    })
}

/// Writes length bytes of buffer at offset. When it returns OK they are on stable media of a majority.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_write(
    volume: *mut OgeeVolume,
    offset: u64,
    buffer: *const c_void,
    length: usize,
) -> OgeeStatus {
    entry(|| {
        let volume = registry().volumes.get(volume)?;
        check_data(offset, buffer, length)?;
        let ended = volume.call(|reply| {
            // SAFETY: the caller's promise, until this call returns: after the completion.
            let data = unsafe { Source::new(buffer.cast(), length, Arc::clone(reply)) };
            Operation::Write { offset, data }
        });
        ended.map(drop)
    })
}

/// Gives length bytes at offset back: they read as zeros afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_discard(
    volume: *mut OgeeVolume,
    offset: u64,
    length: u64,
) -> OgeeStatus {
    entry(|| {
        let volume = registry().volumes.get(volume)?;
        check_range(offset, length)?;
        let ended = volume.call(|_| Operation::Discard {
            offset,
            len: length,
        });
        ended.map(drop)
    })
}

/// Makes length bytes at offset read as zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_write_zeroes(
    volume: *mut OgeeVolume,
    offset: u64,
    length: u64,
) -> OgeeStatus {
    entry(|| {
        let volume = registry().volumes.get(volume)?;
        check_range(offset, length)?;
        let ended = volume.call(|_| Operation::WriteZeroes {
            offset,
            len: length,
        });
        ended.map(drop)
    })
}

/// Waits until what was written before is durable. It is as soon as its write has ended with OK, so this costs
/// next to nothing; it fails when the attachment is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_flush(volume: *mut OgeeVolume) -> OgeeStatus {
    entry(|| {
        let volume = registry().volumes.get(volume)?;
        volume.call(|_| Operation::Flush).map(drop)
    })
}
