//! Calls about registered memory.

use crate::abi::{OgeeClient, OgeeMemory, OgeeStatus};
use crate::entry::{Out, entry};
use crate::failure::Failure;
use crate::memory::Memory;
use crate::registry::registry;
use std::ffi::c_void;
use std::sync::Arc;

/// Registers memory for requests of a client's volumes: to be done once, before I/O, not per request. It must stay
/// mapped until ogee_memory_unregister. Over TCP, which is all that this version has, nothing has to be prepared,
/// and requests without it cost the same: it is where RDMA will pin memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_memory_register(
    client: *mut OgeeClient,
    start: *mut c_void,
    length: usize,
    memory: *mut *mut OgeeMemory,
) -> OgeeStatus {
    entry(|| {
        let out = Out::new(memory, "memory")?;
        if start.is_null() {
            return Err(Failure::null("start"));
        }
        let client = registry().clients.get(client)?.take()?;
        let registered = Memory::of(client, start.addr(), length)?;
        let handle = registry().memories.add(Arc::new(registered))?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handle) };
        Ok(())
    })
}

/// Ends a registration. BUSY while requests are under way on it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_memory_unregister(memory: *mut OgeeMemory) -> OgeeStatus {
    entry(|| registry().memories.remove(memory, Memory::retire).map(drop))
}
