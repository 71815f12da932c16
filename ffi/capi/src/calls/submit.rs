//! Calls that end on a completion queue.

use crate::abi::{OGEE_BLOCK_SIZE, OgeeCq, OgeeMemory, OgeeStatus, OgeeVolume};
use crate::entry::entry;
use crate::failure::Failure;
use crate::lease::{Sink, Source};
use crate::limit::IO_BYTES_MAX;
use crate::registry::registry;
use crate::request::{Operation, Reply, Request};
use std::ffi::c_void;
use std::sync::Arc;

/// Reads length bytes at offset into buffer; memory is what buffer is part of, or NULL. OK: there will be one
/// completion on cq. Anything else: there will be none. The buffer is the library's until the completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_submit_read(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    memory: *mut OgeeMemory,
    offset: u64,
    buffer: *mut c_void,
    length: usize,
    user_data: u64,
) -> OgeeStatus {
    entry(|| {
        check_data(offset, buffer, length)?;
        let place = (memory, buffer.addr(), length);
        submit(volume, cq, user_data, Some(place), |reply| {
            // SAFETY: the caller's promise, until the completion.
            let into = unsafe { Sink::new(buffer.cast(), length, Arc::clone(reply)) };
            Operation::Read { offset, into }
        })
    })
}

/// Writes length bytes of buffer at offset; memory is what buffer is part of, or NULL. The buffer must not change
/// until the completion, which waits until nothing of the library refers to it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_submit_write(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    memory: *mut OgeeMemory,
    offset: u64,
    buffer: *const c_void,
    length: usize,
    user_data: u64,
) -> OgeeStatus {
    entry(|| {
        check_data(offset, buffer, length)?;
        let place = (memory, buffer.addr(), length);
        submit(volume, cq, user_data, Some(place), |reply| {
            // SAFETY: the caller's promise, until the completion.
            let data = unsafe { Source::new(buffer.cast(), length, Arc::clone(reply)) };
            Operation::Write { offset, data }
        })
    })
}

/// As ogee_discard.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_submit_discard(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    offset: u64,
    length: u64,
    user_data: u64,
) -> OgeeStatus {
    entry(|| {
        check_range(offset, length)?;
        submit(volume, cq, user_data, None, |_| Operation::Discard {
            offset,
            len: length,
        })
    })
}

/// As ogee_write_zeroes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_submit_write_zeroes(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    offset: u64,
    length: u64,
    user_data: u64,
) -> OgeeStatus {
    entry(|| {
        check_range(offset, length)?;
        submit(volume, cq, user_data, None, |_| Operation::WriteZeroes {
            offset,
            len: length,
        })
    })
}

/// As ogee_flush. It speaks for the requests whose completions were there when it was submitted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_submit_flush(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    user_data: u64,
) -> OgeeStatus {
    entry(|| submit(volume, cq, user_data, None, |_| Operation::Flush))
}

/// Ends, once, when the volume's size is not known_size any more: at once if it is not; the new size is the
/// completion's value. It ends with CANCELLED when the volume is closed, and keeps nothing else from ending.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_submit_resize_notice(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    known_size: u64,
    user_data: u64,
) -> OgeeStatus {
    entry(|| {
        submit(volume, cq, user_data, None, |_| Operation::AwaitResize {
            known: known_size,
        })
    })
}

/// A range of memory, and what it was registered as, if it was.
type Place = (*mut OgeeMemory, usize, usize);

fn submit(
    volume: *mut OgeeVolume,
    cq: *mut OgeeCq,
    user_data: u64,
    place: Option<Place>,
    make: impl FnOnce(&Arc<Reply>) -> Operation,
) -> Result<(), Failure> {
    let volume = registry().volumes.get(volume)?;
    let queue = registry().queues.get(cq)?;
    let memory = match place {
        Some((memory, start, length)) if !memory.is_null() => {
            let memory = registry().memories.get(memory)?;
            Some(memory.take(volume.facts.client, start, length)?)
        }
        _ => None,
    };
    let reply = Reply::to_queue(queue, user_data, memory)?;
    let operation = make(&reply);
    volume.submit(Request { operation, reply })
}

/// Checks a request that carries data.
pub(super) fn check_data(offset: u64, buffer: *const c_void, length: usize) -> Result<(), Failure> {
    check_range(offset, length as u64)?;
    if length > IO_BYTES_MAX {
        let what = format!("length {length} is more than {IO_BYTES_MAX}");
        let remedy = "cut it into requests of at most OGEE_IO_BYTES_MAX";
        return Err(Failure::new(OgeeStatus::TooLong, &what, remedy));
    }
    if buffer.is_null() && length > 0 {
        return Err(Failure::null("buffer"));
    }
    Ok(())
}

/// Checks where a request is. Its end is compared with the volume's when its turn comes.
pub(super) fn check_range(offset: u64, length: u64) -> Result<(), Failure> {
    for (name, value) in [("offset", offset), ("length", length)] {
        if !value.is_multiple_of(u64::from(OGEE_BLOCK_SIZE)) {
            let what = format!("{name} {value} is not a multiple of {OGEE_BLOCK_SIZE}");
            let remedy = "read and write whole blocks";
            return Err(Failure::new(OgeeStatus::Unaligned, &what, remedy));
        }
    }
    Ok(())
}
