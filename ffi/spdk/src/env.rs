//! What must be there before any drive can be: SPDK's environment, or the emulated one.
//!
//! *Place*: the first call of a process that uses drives. *Owner*: the process; it is never ended, since SPDK's cannot be
//! started twice. *Invariants*: SPDK sees the addresses given and no others, so it touches no other drive of the host. It
//! starts in a thread of its own, since it binds the thread that calls to a processor.
//! *On failure*: an error; a second try is the same one again.

use crate::abi::{self, Table};
use crate::address::PciAddress;
use crate::error::SpdkError;

/// One of the implementations.
#[derive(Clone, Copy)]
pub struct Env {
    pub(crate) table: &'static Table,
}

/// Whether this program has SPDK in it.
#[must_use]
pub const fn has_spdk() -> bool {
    cfg!(feature = "spdk")
}

impl Env {
    /// SPDK's, for the controllers at `allowed`, with `memory_mib` of hugepages for all of them. A second call gets the
    /// same, if it asks for nothing more.
    ///
    /// # Errors
    /// [`SpdkError::NotBuilt`], [`SpdkError::Hugepages`], [`SpdkError::Environment`], [`SpdkError::NotNamed`].
    pub fn start(allowed: &[PciAddress], memory_mib: u32) -> Result<Self, SpdkError> {
        #[cfg(feature = "spdk")]
        return real::start(allowed, memory_mib);
        #[cfg(not(feature = "spdk"))]
        {
            let _ = (allowed, memory_mib);
            Err(SpdkError::NotBuilt)
        }
    }

    /// Drives in memory, those that [`EmulatedDrive`](crate::EmulatedDrive) plugged in.
    #[cfg(any(test, feature = "emulated"))]
    #[must_use]
    pub fn emulated() -> Self {
        Self {
            table: crate::emulated::table(),
        }
    }

    /// Whether controllers can tell of completions by interrupts.
    #[must_use]
    pub fn can_interrupt(&self) -> bool {
        self.table.abilities & abi::CAN_INTERRUPT != 0
    }

    /// Version of the installed SPDK that the shim was compiled against: year and month.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        (self.table.version >> 16, self.table.version & 0xffff)
    }
}

#[cfg(feature = "spdk")]
mod real {
    use super::Env;
    use crate::abi::{ABI, EnvOptions, Table};
    use crate::address::PciAddress;
    use crate::error::SpdkError;
    use std::ffi::CString;
    use std::fs;
    use std::sync::OnceLock;
    use std::thread;

    unsafe extern "C" {
        fn ogee_nvme_spdk() -> *const Table;
    }

    struct Started {
        outcome: Result<Env, SpdkError>,
        allowed: Vec<PciAddress>,
    }

    static STARTED: OnceLock<Started> = OnceLock::new();

    pub(super) fn start(allowed: &[PciAddress], memory_mib: u32) -> Result<Env, SpdkError> {
        let started = STARTED.get_or_init(|| {
            let allowed = allowed.to_vec();
            let outcome = first(&allowed, memory_mib);
            Started { outcome, allowed }
        });
        let unknown = allowed.iter().find(|one| !started.allowed.contains(one));
        match (&started.outcome, unknown) {
            (Ok(_), Some(&address)) => Err(SpdkError::NotNamed { address }),
            (outcome, _) => outcome.clone(),
        }
    }

    fn first(allowed: &[PciAddress], memory_mib: u32) -> Result<Env, SpdkError> {
        check_hugepages(memory_mib)?;
        // SAFETY: returns the address of a static.
        let table = unsafe { ogee_nvme_spdk() };
        // SAFETY: a static of the shim, never changed. Its first word says whether the rest is what we think.
        let table: &'static Table = unsafe { &*table };
        if table.abi != ABI {
            return Err(SpdkError::Abi {
                found: table.abi,
                wanted: ABI,
            });
        }
        let names: Vec<CString> = allowed
            .iter()
            .map(|address| CString::new(address.to_string()).expect("invariant: digits"))
            .collect();
        let thread = thread::Builder::new().name("spdk-start".into());
        let started = thread.spawn(move || call(table, &names, memory_mib));
        let code = started
            .map_err(|_| SpdkError::Environment {
                code: -libc::EAGAIN,
            })?
            .join()
            .map_err(|_| SpdkError::Environment {
                code: -libc::EFAULT,
            })?;
        match code {
            0 => Ok(Env { table }),
            code => Err(SpdkError::Environment { code }),
        }
    }

    fn call(table: &Table, names: &[CString], memory_mib: u32) -> i32 {
        let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let options = EnvOptions {
            name: c"ogee".as_ptr(),
            allowed: pointers.as_ptr(),
            allowed_count: u32::try_from(pointers.len()).unwrap_or(u32::MAX),
            memory_mib,
        };
        // SAFETY: the options and all they point to live until it returns; it keeps none of them.
        unsafe { (table.env_start)(&raw const options) }
    }

    /// Before SPDK looks, whose words would not say how many.
    fn check_hugepages(wanted_mib: u32) -> Result<(), SpdkError> {
        let folder = "/sys/kernel/mm/hugepages/hugepages-2048kB";
        let count = |name| {
            let text = fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
            text.trim().parse::<u32>().unwrap_or(0)
        };
        let large = "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages";
        let large = fs::read_to_string(large).unwrap_or_default();
        let large: u32 = large.trim().parse().unwrap_or(0);
        let (free, total) = (count("free_hugepages"), count("nr_hugepages"));
        match large > 0 || free >= wanted_mib.div_ceil(2) {
            true => Ok(()),
            false => Err(SpdkError::Hugepages {
                wanted_mib,
                free,
                total,
            }),
        }
    }
}
