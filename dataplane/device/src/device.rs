//! The handle that everything above uses.

use crate::backend::Backend;
use crate::counters::{CounterCell, DeviceCounters};
use crate::error::DeviceError;
use crate::fault::{FaultControl, FaultDevice, FaultPlan};
use crate::limit::{IO_ALIGNMENT, ZERO_FILL_STEP};
use crate::memory::{MemoryControl, MemoryDevice};
use crate::nvme::{self, NvmeDevice, NvmeName, NvmeOptions, NvmeVitals};
use crate::operation::Operation;
use crate::pace::{Meters, Pace};
use crate::request::Request;
use crate::target::OpenOptions;
use crate::uring::UringDevice;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Gather, ReadBuffer};
use ogee_spdk::Env;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// A block device. Cloning gives another handle to the same one; the last one closes it.
///
/// *Atomicity*: a write that is cut by power loss may leave any of its 512-byte sectors old or new.
/// Requests that overlap in time and range have no order among each other.
/// *Durability*: said per method. *Cancellation*: a request whose future is dropped may still take
/// effect at any time before the device is closed; its memory stays alive until then.
/// *Bound*: none of its own. The callers (one log writer, paced write-back, admitted reads) bound
/// what is in flight.
#[derive(Clone)]
pub struct Device {
    inner: Rc<Inner>,
}

struct Inner {
    name: Arc<str>,
    len: ByteLen,
    counters: CounterCell,
    meters: Meters,
    backend: Backend,
}

impl Device {
    /// Opens a file or a block device for direct I/O and claims it for this process.
    ///
    /// # Errors
    /// When nothing usable stands at the path, it is mounted, or someone else has claimed it.
    pub async fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        #[cfg(ogee_sim)]
        if let Some(disk) = crate::memory::SimulatedDisk::at(&path.to_string_lossy()) {
            let (len, user) = (disk.len(), disk.user());
            let name = path.to_string_lossy().into();
            return Ok(Self::with_backend(name, len, Backend::Simulated(user)));
        }
        let (uring, len) = UringDevice::open(path, options).await?;
        Ok(Self::with_backend(
            path.to_string_lossy().into(),
            len,
            Backend::Uring(uring),
        ))
    }

    /// Takes an NVMe namespace from the kernel's hands into this shard's. It waits for the controller, up to seconds.
    ///
    /// # Errors
    /// When the program was built without SPDK, or the drive cannot be taken: the error says what to do.
    pub fn open_nvme(name: &NvmeName, options: NvmeOptions) -> Result<Self, DeviceError> {
        let env = nvme::environment(std::slice::from_ref(name));
        let env = env.map_err(|source| DeviceError::NvmeOpen {
            device: name.to_string().into(),
            source: Arc::new(source),
        })?;
        Self::open_nvme_on(env, name, options)
    }

    /// The same in an environment that is not the process's: drives in memory.
    ///
    /// # Errors
    /// As of [`Self::open_nvme`].
    pub fn open_nvme_on(
        env: Env,
        name: &NvmeName,
        options: NvmeOptions,
    ) -> Result<Self, DeviceError> {
        let (nvme, len) = NvmeDevice::open(env, name, options)?;
        let name = name.to_string().into();
        Ok(Self::with_backend(name, len, Backend::Nvme(nvme)))
    }

    /// A device of zeros in memory.
    ///
    /// # Panics
    /// When `len` is zero or not a multiple of [`IO_ALIGNMENT`].
    #[must_use]
    pub fn memory(len: ByteLen) -> Self {
        Self::memory_with_control(len).0
    }

    /// A device of zeros in memory, and the handle that makes it crash.
    ///
    /// # Panics
    /// When `len` is zero or not a multiple of [`IO_ALIGNMENT`].
    #[must_use]
    pub fn memory_with_control(len: ByteLen) -> (Self, MemoryControl) {
        assert!(
            len > ByteLen::ZERO && len.is_multiple_of(IO_ALIGNMENT),
            "length of {len}"
        );
        Self::over_memory(Rc::new(MemoryDevice::new(len)))
    }

    pub(crate) fn over_memory(memory: Rc<MemoryDevice>) -> (Self, MemoryControl) {
        let control = MemoryControl::new(Rc::clone(&memory));
        (
            Self::with_backend("memory".into(), memory.len(), Backend::Memory(memory)),
            control,
        )
    }

    /// Puts a decorator before `inner` that fails requests as `plan` says. The plan may be changed
    /// through the control.
    #[must_use]
    pub fn fault(inner: Self, plan: FaultPlan) -> (Self, FaultControl) {
        let (name, len) = (Arc::clone(&inner.inner.name), inner.len());
        let (fault, control) = FaultDevice::new(inner, plan);
        (
            Self::with_backend(name, len, Backend::Fault(fault)),
            control,
        )
    }

    fn with_backend(name: Arc<str>, len: ByteLen, backend: Backend) -> Self {
        let counters = CounterCell::default();
        Self {
            inner: Rc::new(Inner {
                name,
                len,
                counters,
                meters: Meters::default(),
                backend,
            }),
        }
    }

    /// What the user calls it: its path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its length: fixed while it is open.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        self.inner.len
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> DeviceCounters {
        self.inner.counters.snapshot()
    }

    /// How long its requests have taken since it was opened.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.inner.meters.pace()
    }

    /// Of an NVMe drive without the kernel what it says of its own health; `None` of all others.
    #[must_use]
    pub fn vitals(&self) -> Option<NvmeVitals> {
        self.inner.backend.vitals()
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Errors
    /// When the range is unaligned or not within the device, or the device fails.
    pub async fn read(&self, offset: ByteOffset, len: ByteLen) -> Result<ReadBuffer, DeviceError> {
        let request = self.request(Operation::Read, offset, len)?;
        let _under_way = self.inner.meters.enter(Operation::Read, len.get());
        let result = self.inner.backend.read(request).await;
        self.inner.counters.count(Operation::Read, len, result)
    }

    /// Writes `data`. Visible to reads when it returns, durable only after a [`Self::flush`].
    ///
    /// # Errors
    /// As for [`Self::read`]; the range's contents are then unknown.
    pub async fn write(
        &self,
        offset: ByteOffset,
        data: impl Into<Gather>,
    ) -> Result<(), DeviceError> {
        let data = data.into();
        let len = ByteLen::from_usize(data.len());
        let request = self.request(Operation::Write, offset, len)?;
        let _under_way = self.inner.meters.enter(Operation::Write, len.get());
        let result = self.inner.backend.write(request, data).await;
        self.inner.counters.count(Operation::Write, len, result)
    }

    /// Writes `data`. Durable when it returns; says nothing about earlier plain writes.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn write_durable(
        &self,
        offset: ByteOffset,
        data: impl Into<Gather>,
    ) -> Result<(), DeviceError> {
        let data = data.into();
        let len = ByteLen::from_usize(data.len());
        let request = self.request(Operation::WriteDurable, offset, len)?;
        let _under_way = self.inner.meters.enter(Operation::WriteDurable, len.get());
        let result = self.inner.backend.write_durable(request, data).await;
        self.inner
            .counters
            .count(Operation::WriteDurable, len, result)
    }

    /// Makes durable every write and discard that had returned before this was called.
    ///
    /// # Errors
    /// When the device fails. Whatever was not durable before may then be lost, and a later flush
    /// that succeeds does not bring it back.
    pub async fn flush(&self) -> Result<(), DeviceError> {
        let request = Request::flush(&self.inner.name, self.inner.len);
        let _under_way = self.inner.meters.enter(Operation::Flush, 0);
        let result = self.inner.backend.flush(request).await;
        self.inner
            .counters
            .count(Operation::Flush, ByteLen::ZERO, result)
    }

    /// Gives a range back: it reads as zeros. Durable only after a [`Self::flush`].
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub async fn discard(&self, offset: ByteOffset, len: ByteLen) -> Result<(), DeviceError> {
        let request = Request::discard(&self.inner.name, self.inner.len, offset, len)?;
        let result = self.inner.backend.discard(request).await;
        self.inner.counters.count(Operation::Discard, len, result)
    }

    /// Writes zeros over a range, durably, so that later writes to it need no allocation by a file
    /// system. `progress` is told the bytes done after each step.
    ///
    /// # Errors
    /// As for [`Self::write`]; the range is then zeroed in part.
    pub async fn zero_fill(
        &self,
        offset: ByteOffset,
        len: ByteLen,
        mut progress: impl FnMut(ByteLen),
    ) -> Result<(), DeviceError> {
        Request::discard(&self.inner.name, self.inner.len, offset, len)?;
        let mut done = ByteLen::ZERO;
        while done < len {
            let step = (len.get() - done.get()).min(ZERO_FILL_STEP as u64);
            let zeros = Buffer::zeroed(ByteLen::new(step).as_usize());
            self.write(offset.add(done), zeros).await?;
            done = ByteLen::new(done.get() + step);
            progress(done);
        }
        self.flush().await
    }

    fn request(
        &self,
        operation: Operation,
        offset: ByteOffset,
        len: ByteLen,
    ) -> Result<Request<'_>, DeviceError> {
        Request::checked(&self.inner.name, self.inner.len, operation, offset, len)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.inner.name)
            .field("len", &self.inner.len)
            .finish_non_exhaustive()
    }
}
