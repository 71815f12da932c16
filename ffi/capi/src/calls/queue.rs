//! Calls about completion queues.

use crate::abi::{OGEE_DETAIL_SIZE, OGEE_FOREVER, OgeeCompletion, OgeeCq, OgeeStatus};
use crate::entry::{Out, entry};
use crate::failure::Failure;
use crate::limit::QUEUE_CAPACITY_MAX;
use crate::queue::{Completion, Queue};
use crate::registry::registry;
use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::time::Duration;

/// Makes a completion queue, for volumes of any clients. Requests under way on it and completions that were not
/// taken are together at most its capacity; a request beyond that is refused with AGAIN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_cq_create(capacity: u32, cq: *mut *mut OgeeCq) -> OgeeStatus {
    entry(|| {
        let out = Out::new(cq, "cq")?;
        if !(1..=QUEUE_CAPACITY_MAX).contains(&capacity) {
            let what = format!("the capacity is {capacity}");
            let remedy = format!("1 to {QUEUE_CAPACITY_MAX}");
            return Err(Failure::invalid(&what, &remedy));
        }
        let queue = Arc::new(Queue::new(capacity as usize));
        let handle = registry().queues.add(queue)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handle) };
        Ok(())
    })
}

/// Destroys a completion queue, with the completions on it. BUSY while requests are under way on it. Threads that
/// wait on it return CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_cq_destroy(cq: *mut OgeeCq) -> OgeeStatus {
    entry(|| registry().queues.remove(cq, Queue::close).map(drop))
}

/// A descriptor for poll, epoll or io_uring: it can be read while completions wait. Take them until there are
/// none, then wait on it again; there is no need to read it. It is the queue's, and closed with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_cq_eventfd(cq: *mut OgeeCq, descriptor: *mut c_int) -> OgeeStatus {
    entry(|| {
        let out = Out::new(descriptor, "descriptor")?;
        let event = registry().queues.get(cq)?.event()?;
        // SAFETY: the caller's promise.
        unsafe { out.set(event) };
        Ok(())
    })
}

/// Takes at most capacity completions, and never waits. Their number is stored, and may be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_cq_poll(
    cq: *mut OgeeCq,
    completions: *mut OgeeCompletion,
    capacity: usize,
    count: *mut usize,
) -> OgeeStatus {
    // SAFETY: the caller's promise.
    entry(|| unsafe {
        taken(completions, capacity, count, || {
            Ok(registry().queues.get(cq)?.poll(capacity))
        })
    })
}

/// As ogee_cq_poll, and waits for the first one, for timeout_ms at most; a number of 0 means that the time is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_cq_wait(
    cq: *mut OgeeCq,
    completions: *mut OgeeCompletion,
    capacity: usize,
    timeout_ms: u64,
    count: *mut usize,
) -> OgeeStatus {
    let timeout = (timeout_ms != OGEE_FOREVER).then(|| Duration::from_millis(timeout_ms));
    // SAFETY: the caller's promise.
    entry(|| unsafe {
        taken(completions, capacity, count, || {
            registry().queues.get(cq)?.wait(capacity, timeout)
        })
    })
}

/// # Safety
/// `completions` has room for `capacity`, and `count` for a number, both for us alone.
unsafe fn taken(
    completions: *mut OgeeCompletion,
    capacity: usize,
    count: *mut usize,
    take: impl FnOnce() -> Result<Vec<Completion>, Failure>,
) -> Result<(), Failure> {
    let out = Out::new(count, "count")?;
    if completions.is_null() || capacity == 0 {
        let what = "there is no room for completions";
        return Err(Failure::invalid(what, "pass an array, and its length"));
    }
    let taken = take()?;
    let number = taken.len();
    for (at, completion) in taken.into_iter().enumerate() {
        // SAFETY: at most `capacity` were taken.
        let place = unsafe { completions.add(at) };
        // SAFETY: room for one, for us alone.
        unsafe { place.write_unaligned(shown(completion)) };
    }
    // SAFETY: the caller's promise.
    unsafe { out.set(number) };
    Ok(())
}

fn shown(completion: Completion) -> OgeeCompletion {
    let mut shown = OgeeCompletion {
        user_data: completion.user_data,
        value: 0,
        status: OgeeStatus::Ok,
        reserved: 0,
        detail: [0; OGEE_DETAIL_SIZE],
    };
    match completion.outcome {
        Ok(value) => shown.value = value,
        Err(failure) => {
            shown.status = failure.status;
            // The last byte stays zero.
            let room = shown.detail.split_last_mut();
            let places = room.map(|(_zero, places)| places).unwrap_or_default();
            for (place, byte) in places.iter_mut().zip(failure.text.bytes()) {
                *place = c_char::from_ne_bytes([byte]);
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Completion, OGEE_DETAIL_SIZE, OgeeStatus, shown};
    use crate::failure::Failure;

    #[test]
    fn long_texts_are_cut_and_end_with_a_zero() {
        let failure = Failure::invalid(&"x".repeat(1000), "y");
        let completion = shown(Completion {
            user_data: 3,
            outcome: Err(failure),
        });
        assert_eq!((completion.user_data, completion.value), (3, 0));
        assert_eq!(completion.status, OgeeStatus::Invalid);
        assert_eq!(completion.detail[OGEE_DETAIL_SIZE - 1], 0);
        assert!(
            completion.detail[..OGEE_DETAIL_SIZE - 1]
                .iter()
                .all(|byte| *byte != 0)
        );
    }
}
