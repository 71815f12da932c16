//! The conformance suite, run against every backend of this crate.

use crate::conformance::{DEVICE_LEN, Subject};
use crate::{Device, FaultPlan, MemoryControl, OpenOptions, Survivors};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
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

crate::conformance_tests!(uring, super::Files::new());
crate::conformance_tests!(memory, super::Memory::default());
crate::conformance_tests!(fault, super::Decorated::default());
