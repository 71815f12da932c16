//! Memory that the caller has registered.
//!
//! *Place*: under `request`. *Owner*: the registry and the requests on it; the bytes are the caller's.
//! *Invariants*: it cannot be unregistered while a request is on it. The client's thread announces it
//! (`ogee_runtime::area`), so that RDMA registers it, sends from it and has chunkservers write to it; when it is
//! unregistered here, nothing of that is left. Over TCP there is nothing to prepare: payloads of more than 16 KiB
//! leave from where they lie, registered or not.
//! *On failure*: a request that is not within it is refused. What RDMA cannot register is copied, and told of in
//! the log.

use crate::abi::OgeeStatus;
use crate::client::{Announcement, ClientUse};
use crate::failure::Failure;
use crate::handle::{self, Kind};
use crate::uses::Uses;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// A range of the caller's memory.
pub(crate) struct Memory {
    /// Whose thread may touch it.
    client: u64,
    start: usize,
    len: usize,
    /// Requests on it.
    uses: Uses,
    /// With the client's thread.
    announced: Mutex<Option<Announcement>>,
    /// It stays open meanwhile.
    _client: Option<ClientUse>,
}

/// A request is on it.
pub(crate) struct MemoryUse(Arc<Memory>);

impl Memory {
    /// `len` bytes at `start`, for volumes of a client.
    fn new(client: u64, start: usize, len: usize) -> Result<Self, Failure> {
        if len == 0 || start.checked_add(len).is_none() {
            let what = format!("{len} bytes at {start:#x} are no range of memory");
            return Err(Failure::invalid(
                &what,
                "register at least one byte that exists",
            ));
        }
        Ok(Self {
            client,
            start,
            len,
            uses: Uses::new(),
            announced: Mutex::default(),
            _client: None,
        })
    }

    /// The same, announced by its client, which stays open until it goes.
    ///
    /// # Safety
    /// The memory is mapped until [`Self::withdraw`] has returned.
    pub(crate) unsafe fn of(
        client: ClientUse,
        start: NonNull<c_void>,
        len: usize,
    ) -> Result<Self, Failure> {
        let memory = Self::new(client.number(), start.addr().get(), len)?;
        // SAFETY: the caller's promise.
        let announced = unsafe { client.announce(start.cast(), len)? };
        Ok(Self {
            announced: Mutex::new(Some(announced)),
            _client: Some(client),
            ..memory
        })
    }

    /// Waits until nothing knows of it; after [`Self::retire`].
    pub(crate) fn withdraw(&self) {
        // Nothing that may panic runs under the lock.
        let mut announced = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let announced = announced.take();
        if let Some(announced) = announced {
            announced.withdraw();
        }
    }

    /// For a request of a client on `len` bytes at `start`.
    pub(crate) fn take(
        self: &Arc<Self>,
        client: u64,
        start: usize,
        len: usize,
    ) -> Result<MemoryUse, Failure> {
        if client != self.client {
            let what = "the memory is registered with another client than the volume's";
            return Err(Failure::invalid(what, "register it with this one, too"));
        }
        let within = start
            .checked_sub(self.start)
            .and_then(|offset| offset.checked_add(len))
            .is_some_and(|end| end <= self.len);
        if !within {
            let what = format!(
                "{len} bytes at {start:#x} are not within the registered {} at {:#x}",
                self.len, self.start
            );
            return Err(Failure::invalid(
                &what,
                "pass the memory that was registered, or NULL",
            ));
        }
        if !self.uses.take() {
            return Err(handle::gone(Kind::Memory));
        }
        Ok(MemoryUse(Arc::clone(self)))
    }

    /// From here on no request may be on it.
    pub(crate) fn retire(&self) -> Result<(), Failure> {
        self.uses.retire().map_err(|uses| {
            let what = format!("{uses} requests are under way on the memory");
            Failure::new(OgeeStatus::Busy, &what, "take their completions first")
        })
    }
}

impl Drop for MemoryUse {
    fn drop(&mut self) {
        self.0.uses.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Memory, OgeeStatus};

    #[test]
    fn requests_stay_within_what_was_registered() {
        let memory = Arc::new(Memory::new(1, 0x1000, 0x2000).expect("a range"));
        for (start, len) in [(0x1000, 0x2000), (0x1000, 0), (0x3000, 0), (0x2fff, 1)] {
            assert!(memory.take(1, start, len).is_ok(), "{len} at {start}");
        }
        for (start, len) in [
            (0xfff, 1),
            (0x1000, 0x2001),
            (0x3000, 1),
            (0x2000, usize::MAX),
        ] {
            let refused = memory.take(1, start, len).err().expect("refused");
            assert_eq!(refused.status, OgeeStatus::Invalid);
        }
        let foreign = memory.take(2, 0x1000, 1).err().expect("refused");
        assert!(foreign.text.contains("another client"), "{}", foreign.text);
        assert!(Memory::new(1, 0x1000, 0).is_err() && Memory::new(1, usize::MAX, 2).is_err());
    }

    #[test]
    fn memory_in_use_stays_and_retired_memory_takes_no_more() {
        let memory = Arc::new(Memory::new(1, 0x1000, 0x1000).expect("a range"));
        let used = memory.take(1, 0x1000, 1).expect("within");
        assert_eq!(memory.retire().unwrap_err().status, OgeeStatus::Busy);
        drop(used);
        assert_eq!(memory.retire(), Ok(()));
        assert!(memory.take(1, 0x1000, 1).is_err());
    }
}
