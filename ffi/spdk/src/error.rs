//! What can go wrong, each with what to do.

use crate::address::PciAddress;
use std::fmt;
use std::io;

/// SPDK could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpdkError {
    /// The program cannot: it was built without.
    #[error(
        "this program was built without SPDK: build it with the feature `spdk` where SPDK is installed (docs/spdk.md), or \
         give the device by its path, which goes through the kernel"
    )]
    NotBuilt,
    /// What was said is no address.
    #[error("{text:?} is no PCI address: write one as 0000:65:00.0 (`lspci -D` shows them)")]
    Address {
        /// As given.
        text: String,
    },
    /// Hugepages are missing.
    #[error(
        "NVMe without the kernel wants {wanted_mib} MiB in hugepages of 2 MiB, and {free} of {} are free: \
         echo {} > /proc/sys/vm/nr_hugepages (and vm.nr_hugepages in /etc/sysctl.d for the next start)",
        wanted_mib / 2,
        total + (wanted_mib / 2).saturating_sub(*free)
    )]
    Hugepages {
        /// Memory that is wanted.
        wanted_mib: u32,
        /// Hugepages that nobody has.
        free: u32,
        /// All of them.
        total: u32,
    },
    /// The environment does not start.
    #[error(
        "SPDK does not start: {}; its words are above. It wants root, or /dev/vfio and hugetlbfs for this user",
        Reason(*code)
    )]
    Environment {
        /// Negative errno.
        code: i32,
    },
    /// A drive that the process was not given when it started.
    #[error(
        "the NVMe controller at {address} is not among those that this process was started with: name it in the \
         configuration, and start again"
    )]
    NotNamed {
        /// The controller.
        address: PciAddress,
    },
    /// The controller does not come up.
    #[error(
        "the NVMe controller at {address} cannot be used: {}. Is it there, bound to vfio-pci or uio_pci_generic, and of no \
         other process? `ogee doctor --check nvme-driver` tells",
        Reason(*code)
    )]
    NoController {
        /// The controller.
        address: PciAddress,
        /// Negative errno.
        code: i32,
    },
    /// The installed SPDK is too old for interrupts.
    #[error(
        "the NVMe controller at {address} cannot be waited for by interrupts: the program was built with SPDK {year}.{month:02}, \
         and they came with 25.05. Install a later one and build again, or set nvme.wait = \"poll\""
    )]
    NoInterrupts {
        /// The controller.
        address: PciAddress,
        /// Of SPDK.
        year: u32,
        /// Of SPDK.
        month: u32,
    },
    /// The controller does not come up, and that may be for the interrupts.
    #[error(
        "the NVMe controller at {address} cannot be used with interrupts: {}; SPDK's words are above. Is it there, and of no \
         other process? Interrupts want vfio-pci (uio_pci_generic has none for queues) and a controller with MSI-X: bind \
         it so, or set nvme.wait = \"poll\"",
        Reason(*code)
    )]
    NotInterrupting {
        /// The controller.
        address: PciAddress,
        /// Negative errno.
        code: i32,
    },
    /// This process has it already.
    #[error(
        "the NVMe controller at {address} is in use by this process: give each device its own controller"
    )]
    InUse {
        /// The controller.
        address: PciAddress,
    },
    /// There is no such namespace.
    #[error(
        "the NVMe controller at {address} has no active namespace {id}: `nvme list-ns` shows those it has"
    )]
    NoNamespace {
        /// The controller.
        address: PciAddress,
        /// The namespace.
        id: u32,
    },
    /// No memory that drives can reach.
    #[error(
        "no {bytes} bytes are left of the memory that drives can reach: give the process more hugepages"
    )]
    Memory {
        /// How much was asked for.
        bytes: usize,
    },
    /// Memory was given out, and the drive would not reach it.
    #[error(
        "the drive cannot reach {missing} of {bytes} bytes of its memory: with uio_pci_generic it must be hugepages; bind \
         vfio-pci, with the IOMMU on"
    )]
    Unreachable {
        /// How much was asked for.
        bytes: usize,
        /// Of those.
        missing: usize,
    },
    /// A call failed.
    #[error("{call} of the NVMe controller at {address} failed: {}", Reason(*code))]
    Call {
        /// What was asked.
        call: &'static str,
        /// The controller.
        address: PciAddress,
        /// Negative errno.
        code: i32,
    },
    /// The other side of the shim is another version.
    #[error("the shim has ABI {found}, this program {wanted}: build it again, all of it")]
    Abi {
        /// The table's.
        found: u32,
        /// Ours.
        wanted: u32,
    },
}

/// Words for a negative errno.
struct Reason(i32);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(-self.0).fmt(f)
    }
}

/// How a command ended, if not well: the controller's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Status code type.
    pub kind: u8,
    /// Status code.
    pub code: u8,
}

impl Status {
    /// A field of the command is invalid: also, of a flag, that the controller does not have it.
    pub const INVALID_FIELD: Self = Self::generic(0x02);
    /// The command was given up because the controller was reset, or its queue deleted.
    pub const ABORTED: Self = Self::generic(0x08);

    pub(crate) const fn generic(code: u8) -> Self {
        Self { kind: 0, code }
    }

    /// `None` if it ended well.
    pub(crate) fn of(raw: u16) -> Option<Self> {
        let [kind, code] = raw.to_be_bytes();
        (raw != 0).then_some(Self { kind, code })
    }

    #[cfg(any(test, feature = "emulated"))]
    pub(crate) const fn raw(self) -> u16 {
        u16::from_be_bytes([self.kind, self.code])
    }

    const fn words(self) -> &'static str {
        match (self.kind, self.code) {
            (0, 0x02) => "invalid field in the command",
            (0, 0x04) => "data transfer error",
            (0, 0x05) => "aborted, power is lost",
            (0, 0x06) => "internal error of the drive",
            (0, 0x07 | 0x08) => "aborted",
            (0, 0x0b) => "invalid namespace or format",
            (0, 0x20) => "the namespace is write protected",
            (0, 0x80) => "past the end of the namespace",
            (0, 0x81) => "no space left in the drive",
            (0, 0x82) => "the namespace is not ready",
            (2, 0x80) => "write fault of the medium",
            (2, 0x81) => "unrecovered read error of the medium",
            (2, 0x82..=0x84) => "end-to-end check of the data failed",
            (2, 0x86) => "access denied",
            (2, 0x87) => "the block is deallocated or not written",
            _ => "see the NVMe specification",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, code } = self;
        write!(f, "NVMe status {kind:x}/{code:02x}: {}", self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::{SpdkError, Status};

    #[test]
    fn hugepages_that_are_missing_are_counted_with_the_command() {
        let error = SpdkError::Hugepages {
            wanted_mib: 128,
            free: 10,
            total: 16,
        };
        let said = error.to_string();
        assert!(said.contains("10 of 64 are free"), "{said}");
        assert!(
            said.contains("echo 70 > /proc/sys/vm/nr_hugepages"),
            "{said}"
        );
    }

    #[test]
    fn statuses_are_taken_apart() {
        assert_eq!(Status::of(0), None);
        let status = Status::of(0x0281).expect("an error");
        assert_eq!((status.kind, status.code), (2, 0x81));
        assert_eq!(status.raw(), 0x0281);
        assert!(status.to_string().contains("unrecovered read"), "{status}");
    }
}
