//! A controller and what it has.
//!
//! *Place*: above the environment, under queue pairs. *Owner*: the thread that opened it; held by all that is made from
//! it, and detached behind the last. *Invariants*: there is at most one [`Admin`], which is who polls admin completions and
//! resets. *On failure*: an error; the drive is left to who comes next.

use crate::abi::{self, ControllerInfo, Table};
use crate::address::PciAddress;
use crate::env::Env;
use crate::error::{SpdkError, Status};
use crate::page::{HealthPage, PageSlot};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

/// Those in use by this process. SPDK would give the same one to a second thread.
static OPEN: Mutex<BTreeSet<PciAddress>> = Mutex::new(BTreeSet::new());

/// A controller in use by this thread.
#[derive(Clone)]
pub struct Controller {
    pub(crate) inner: Rc<ControllerInner>,
}

pub(crate) struct ControllerInner {
    pub(crate) raw: NonNull<libc::c_void>,
    pub(crate) table: &'static Table,
    pub(crate) address: PciAddress,
    info: ControllerInfo,
    pub(crate) notice: Notice,
    has_admin: Cell<bool>,
    /// Last: given up behind the controller.
    _claim: Claim,
}

/// That a controller is in use.
struct Claim(PciAddress);

impl Claim {
    fn take(address: PciAddress) -> Option<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(address).then(|| Self(address))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.0);
    }
}

/// How it is learnt that commands have completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Notice {
    /// By looking.
    #[default]
    Polling,
    /// The controller interrupts: a queue has a descriptor that becomes readable.
    Interrupts,
}

/// How a controller does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It works.
    Ready,
    /// It has failed, or was reset by somebody else: it wants a reset.
    Failed,
    /// It was taken away.
    Gone,
}

/// A namespace: what there is to read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Its number.
    pub id: u32,
    /// How many sectors it has.
    pub sectors: u64,
    /// How long each is.
    pub sector_size: u32,
    /// Bytes beside each sector.
    pub metadata_size: u32,
    /// Type of protection information in them; 0: none.
    pub protection_type: u32,
    features: u32,
}

impl Namespace {
    /// It has the command.
    #[must_use]
    pub const fn has_write_zeroes(&self) -> bool {
        self.features & abi::HAS_WRITE_ZEROES != 0
    }

    /// Of write-zeroes it takes that the blocks need not be kept.
    #[must_use]
    pub const fn write_zeroes_may_deallocate(&self) -> bool {
        self.features & abi::WRITE_ZEROES_MAY_DEALLOCATE != 0
    }

    /// It has the command, which is a hint: a drive may keep the data.
    #[must_use]
    pub const fn has_deallocate(&self) -> bool {
        self.features & abi::HAS_DEALLOCATE != 0
    }

    /// What is deallocated reads as zeros.
    #[must_use]
    pub const fn deallocated_reads_zero(&self) -> bool {
        self.features & abi::DEALLOCATED_READS_ZERO != 0
    }
}

impl Controller {
    /// Takes the controller at `address`. This waits until it is ready, up to seconds.
    ///
    /// # Errors
    /// [`SpdkError::InUse`], [`SpdkError::NoController`] when there is none, or another process has it;
    /// [`SpdkError::NoInterrupts`] when the installed SPDK has none, [`SpdkError::NotInterrupting`] when the controller or its
    /// driver may have none.
    pub fn open(env: Env, address: PciAddress, notice: Notice) -> Result<Self, SpdkError> {
        let flags = match notice {
            Notice::Polling => 0,
            Notice::Interrupts if env.can_interrupt() => abi::WITH_INTERRUPTS,
            Notice::Interrupts => {
                let (year, month) = env.version();
                return Err(SpdkError::NoInterrupts {
                    address,
                    year,
                    month,
                });
            }
        };
        let claim = Claim::take(address).ok_or(SpdkError::InUse { address })?;
        let table = env.table;
        let name = CString::new(address.to_string()).expect("invariant: digits");
        let mut raw = ptr::null_mut();
        // SAFETY: the name is ended and lives until it returns; the pointer is written to if it succeeds.
        let code = unsafe { (table.controller_open)(name.as_ptr(), flags, &raw mut raw) };
        let raw = NonNull::new(raw).filter(|_| code == 0);
        let raw = raw.ok_or(match notice {
            Notice::Polling => SpdkError::NoController { address, code },
            Notice::Interrupts => SpdkError::NotInterrupting { address, code },
        })?;
        let mut info = ControllerInfo {
            serial: [0; 24],
            model: [0; 48],
            firmware: [0; 16],
            transfer_max: 0,
            segments_max: 0,
            first_namespace: 0,
            features: 0,
        };
        // SAFETY: an open controller, and room for what is told.
        unsafe { (table.controller_info)(raw.as_ptr(), &raw mut info) };
        Ok(Self {
            inner: Rc::new(ControllerInner {
                raw,
                table,
                address,
                info,
                notice,
                has_admin: Cell::new(false),
                _claim: claim,
            }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.inner.address
    }

    /// Serial number.
    #[must_use]
    pub fn serial(&self) -> String {
        text(&self.inner.info.serial)
    }

    /// Model.
    #[must_use]
    pub fn model(&self) -> String {
        text(&self.inner.info.model)
    }

    /// Firmware's revision.
    #[must_use]
    pub fn firmware(&self) -> String {
        text(&self.inner.info.firmware)
    }

    /// Longest transfer of a command, in bytes.
    #[must_use]
    pub fn transfer_max(&self) -> usize {
        self.inner.info.transfer_max as usize
    }

    /// Most pieces of memory of a command; at least one.
    #[must_use]
    pub fn segments_max(&self) -> usize {
        (self.inner.info.segments_max as usize).max(1)
    }

    /// What was written may be in a cache that forgets.
    #[must_use]
    pub fn has_volatile_cache(&self) -> bool {
        self.inner.info.features & abi::HAS_VOLATILE_CACHE != 0
    }

    /// The lowest number of a namespace that is there; 0: none.
    #[must_use]
    pub fn first_namespace(&self) -> u32 {
        self.inner.info.first_namespace
    }

    /// How it does: reads a register.
    #[must_use]
    pub fn health(&self) -> Health {
        // SAFETY: an open controller.
        let state = unsafe { (self.inner.table.controller_state)(self.inner.raw.as_ptr()) };
        match state {
            abi::READY => Health::Ready,
            abi::GONE => Health::Gone,
            _ => Health::Failed,
        }
    }

    /// A namespace.
    ///
    /// # Errors
    /// [`SpdkError::NoNamespace`].
    pub fn namespace(&self, id: u32) -> Result<Namespace, SpdkError> {
        let mut found = abi::NamespaceInfo::default();
        // SAFETY: an open controller, and room for what is told.
        let code = unsafe {
            (self.inner.table.namespace_info)(self.inner.raw.as_ptr(), id, &raw mut found)
        };
        let address = self.inner.address;
        if code != 0 {
            return Err(SpdkError::NoNamespace { address, id });
        }
        Ok(Namespace {
            id,
            sectors: found.sectors,
            sector_size: found.sector_size,
            metadata_size: found.metadata_size,
            protection_type: found.protection_type,
            features: found.features,
        })
    }

    /// What polls admin completions and resets; `None` while somebody has it.
    #[must_use]
    pub fn admin(&self) -> Option<Admin> {
        let is_taken = self.inner.has_admin.replace(true);
        (!is_taken).then(|| Admin {
            page: PageSlot::new(),
            controller: self.clone(),
        })
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

impl Drop for ControllerInner {
    fn drop(&mut self) {
        // SAFETY: open, and nothing that was made from it is left.
        unsafe { (self.table.controller_close)(self.raw.as_ptr()) };
    }
}

/// The one owner of a controller's admin queue.
pub struct Admin {
    page: PageSlot,
    /// Behind the page: it may be ended only when the controller is.
    controller: Controller,
}

impl Admin {
    /// Looks for completions; to be called every second or so.
    ///
    /// # Errors
    /// When the controller has failed.
    pub fn poll(&self) -> Result<(), SpdkError> {
        let inner = &self.controller.inner;
        // SAFETY: an open controller, and this is the only one who polls it.
        let code = unsafe { (inner.table.controller_poll)(inner.raw.as_ptr()) };
        self.check("polling", code.min(0))
    }

    /// Asks for the page of the controller's health: it is there after a later [`Self::poll`], in [`Self::take_health`].
    ///
    /// # Errors
    /// When one that was asked for is still to come, or the controller does not take the command.
    pub fn start_health(&self) -> Result<(), SpdkError> {
        let inner = &self.controller.inner;
        let Some(page) = self.page.arm() else {
            return self.check("asking for the health page", -libc::EBUSY);
        };
        // SAFETY: an open controller, and this is the only one who asks. The page stays where it is until it was told to
        // be there, for ever if need be: see `PageSlot`.
        let code = unsafe { (inner.table.health_start)(inner.raw.as_ptr(), page) };
        if code != 0 {
            self.page.disarm();
        }
        self.check("asking for the health page", code)
    }

    /// The page that was asked for, once it is there; or how that ended.
    #[must_use]
    pub fn take_health(&self) -> Option<Result<HealthPage, Status>> {
        self.page.take()
    }

    /// Begins a reset: what is in flight is given up, and the drive touches no memory of it any more.
    ///
    /// # Errors
    /// When the controller is gone.
    pub fn start_reset(&self) -> Result<(), SpdkError> {
        let inner = &self.controller.inner;
        // SAFETY: an open controller, and this is the only one who resets it.
        let code = unsafe { (inner.table.reset_start)(inner.raw.as_ptr()) };
        self.check("reset", code)
    }

    /// Goes on with it; whether it is done.
    ///
    /// # Errors
    /// When the controller does not come up again.
    pub fn poll_reset(&self) -> Result<bool, SpdkError> {
        let inner = &self.controller.inner;
        // SAFETY: as above.
        let code = unsafe { (inner.table.reset_poll)(inner.raw.as_ptr()) };
        match code {
            code if code == -libc::EAGAIN => Ok(false),
            code => self.check("reset", code).map(|()| true),
        }
    }

    fn check(&self, call: &'static str, code: i32) -> Result<(), SpdkError> {
        let address = self.controller.inner.address;
        match code {
            0 => Ok(()),
            code => Err(SpdkError::Call {
                call,
                address,
                code,
            }),
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.controller.inner.has_admin.set(false);
    }
}
