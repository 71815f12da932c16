//! The conformance suite, run against every backend of this crate.

use crate::conformance::{DEVICE_LEN, Subject};
use crate::{
    Device, FaultPlan, MemoryControl, Notice, NvmeName, NvmeOptions, OpenOptions, Survivors,
};
use ogee_spdk::{DriveOptions, EmulatedDrive, Env};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Real files with direct I/O.
struct Files {
    dir: TempDir,
    made: Cell<u32>,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            made: Cell::new(0),
        }
    }
}

impl Subject for Files {
    async fn fresh(&self) -> Device {
        self.made.set(self.made.get() + 1);
        let path = self.dir.path().join(format!("disk-{}", self.made.get()));
        let options = OpenOptions {
            create: Some(DEVICE_LEN),
        };
        Device::open(&path, options).await.expect("a fresh file")
    }

    async fn restart(&self, device: Device) -> Device {
        let path = PathBuf::from(device.name());
        drop(device);
        Device::open(&path, OpenOptions::default())
            .await
            .expect("the claim was given up")
    }
}

/// Memory; a restart loses all that was not durable.
#[derive(Default)]
struct Memory {
    control: RefCell<Option<MemoryControl>>,
}

impl Memory {
    fn keep(&self, (device, control): (Device, MemoryControl)) -> Device {
        *self.control.borrow_mut() = Some(control);
        device
    }
}

impl Subject for Memory {
    async fn fresh(&self) -> Device {
        self.keep(Device::memory_with_control(DEVICE_LEN))
    }

    async fn restart(&self, _: Device) -> Device {
        let control = self.control.borrow().clone().expect("a fresh device first");
        self.keep(control.crash(Survivors::None))
    }
}

/// A decorator without rules changes nothing.
#[derive(Default)]
struct Decorated(Memory);

impl Subject for Decorated {
    async fn fresh(&self) -> Device {
        Device::fault(self.0.fresh().await, FaultPlan::new()).0
    }

    async fn restart(&self, device: Device) -> Device {
        Device::fault(self.0.restart(device).await, FaultPlan::new()).0
    }
}

/// An NVMe drive in memory; a restart loses what was in its cache.
struct Nvme {
    name: NvmeName,
    drive: EmulatedDrive,
    notice: Notice,
}

impl Nvme {
    fn new(options: DriveOptions) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let address = format!("5000:{number:02x}:00.0").parse();
        let address = address.expect("an address");
        let len = DEVICE_LEN.as_usize();
        Self {
            name: NvmeName {
                address,
                serial: None,
                namespace: None,
            },
            drive: EmulatedDrive::plug(address, DriveOptions { len, ..options }),
            notice: Notice::Polling,
        }
    }

    /// It is waited for.
    fn interrupting() -> Self {
        Self {
            notice: Notice::Interrupts,
            ..Self::new(DriveOptions::default())
        }
    }

    /// Short commands, and nothing that a drive need not have.
    fn plain() -> Self {
        Self::new(DriveOptions {
            sector_size: 4096,
            transfer_max: 20 << 10,
            segments_max: 1,
            has_force_unit_access: false,
            has_write_zeroes: false,
            has_deallocate: true,
            deallocated_reads_zero: false,
            ..DriveOptions::default()
        })
    }

    /// A drive whose cache does not forget, and which writes zeros but keeps them.
    fn safe() -> Self {
        Self::new(DriveOptions {
            has_volatile_cache: false,
            write_zeroes_may_deallocate: false,
            ..DriveOptions::default()
        })
    }

    fn open(&self) -> Device {
        let options = NvmeOptions {
            notice: self.notice,
            ..NvmeOptions::default()
        };
        Device::open_nvme_on(Env::emulated(), &self.name, options).expect("a drive that nobody has")
    }
}

impl Subject for Nvme {
    async fn fresh(&self) -> Device {
        self.open()
    }

    async fn restart(&self, device: Device) -> Device {
        drop(device);
        self.drive.cut_power();
        self.open()
    }
}

crate::conformance_tests!(nvme, super::Nvme::new(super::DriveOptions::default()));
crate::conformance_tests!(nvme_interrupts, super::Nvme::interrupting());
crate::conformance_tests!(nvme_plain, super::Nvme::plain());
crate::conformance_tests!(nvme_safe, super::Nvme::safe());
crate::conformance_tests!(uring, super::Files::new());
crate::conformance_tests!(memory, super::Memory::default());
crate::conformance_tests!(fault, super::Decorated::default());
