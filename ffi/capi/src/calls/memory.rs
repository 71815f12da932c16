//! Calls about registered memory.

use crate::abi::{OgeeClient, OgeeMemory, OgeeStatus};
use crate::entry::{Out, entry};
use crate::failure::Failure;
use crate::memory::Memory;
use crate::registry::registry;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

/// Registers memory for requests of a client's volumes: to be done once, before I/O, not per request. It must stay
/// mapped until ogee_memory_unregister. Over RDMA it is pinned (while I/O goes on, 64 MiB at a time), and requests on
/// it are sent from there, and parts of more than 16 KiB read into it, without a copy; what cannot be pinned, for want
/// of locked memory, is copied, and the log says so. Over TCP nothing has to be prepared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_memory_register(
    client: *mut OgeeClient,
    start: *mut c_void,
    length: usize,
    memory: *mut *mut OgeeMemory,
) -> OgeeStatus {
    entry(|| {
        let out = Out::new(memory, "memory")?;
        let client = registry().clients.get(client)?.take()?;
        let start = NonNull::new(start).ok_or_else(|| Failure::null("start"))?;
        // SAFETY: the caller's promise, until ogee_memory_unregister has returned.
        let registered = Arc::new(unsafe { Memory::of(client, start, length)? });
        let handle = registry().memories.add(Arc::clone(&registered));
        let handle = handle.inspect_err(|_| registered.withdraw())?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handle) };
        Ok(())
    })
}

/// Ends a registration. BUSY while requests are under way on it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_memory_unregister(memory: *mut OgeeMemory) -> OgeeStatus {
    entry(|| {
        let memory = registry().memories.remove(memory, Memory::retire)?;
        memory.withdraw();
        Ok(())
    })
}
