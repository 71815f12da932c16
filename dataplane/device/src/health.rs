//! What an NVMe drive says of its own health.
//!
//! *Place*: beside the backends; of drives that the kernel drives asked by operators' commands, of others by the task
//! that polls them, never on the I/O path. *Owner*: a plain value.
//! *Invariants*: the drive is asked for its log page 02h (NVM Express Base Specification 2.0, 5.16.1.3), nothing else.
//! *On failure*: the kernel's or the drive's words.

use ogee_proto::drive::DriveWarnings;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Length of the page.
const PAGE: usize = 512;
/// `NVME_IOCTL_ADMIN_CMD`: `_IOWR('N', 0x41, struct nvme_admin_cmd)`.
const ADMIN_COMMAND: u32 = 3 << 30 | (COMMAND_LEN << 16) | (b'N' as u32) << 8 | 0x41;
const COMMAND_LEN: u32 = 72;
const GET_LOG_PAGE: u8 = 0x02;
const HEALTH_PAGE: u32 = 0x02;
/// Of the whole controller.
const ALL_NAMESPACES: u32 = u32::MAX;
const TIMEOUT_MS: u32 = 10_000;
/// What counters of data count: thousands of 512 bytes.
const DATA_UNIT: u128 = 512_000;
const KELVIN: i32 = 273;
/// The kernel's `struct nvme_admin_cmd`.
#[repr(C)]
#[derive(Default)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<AdminCommand>() == COMMAND_LEN as usize);

/// A drive's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveHealth {
    /// What it warns of.
    pub warnings: DriveWarnings,
    /// Temperature.
    pub celsius: i32,
    /// Spare blocks that are left, of those it had.
    pub spare_percent: u8,
    /// Below so many it warns.
    pub spare_threshold_percent: u8,
    /// Of the life that its maker gives it; may be beyond 100.
    pub used_percent: u8,
    /// By hosts.
    pub bytes_read: u64,
    /// By hosts.
    pub bytes_written: u64,
    /// Times that it was powered on.
    pub power_cycles: u64,
    /// Hours that it was.
    pub power_on_hours: u64,
    /// Times that it lost power without being told.
    pub unsafe_shutdowns: u64,
    /// Times that it found data it could not read.
    pub media_errors: u64,
    /// Entries that its error log has had.
    pub error_log_entries: u64,
}

impl DriveHealth {
    /// Asks a controller, `/dev/nvme0`. Blocks for as long as it takes, 10 s at most.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, or the drive's.
    pub fn ask(controller: &File) -> io::Result<Self> {
        let mut page = [0; PAGE];
        let words = u32::try_from(PAGE / 4 - 1).unwrap_or(0);
        let mut command = AdminCommand {
            opcode: GET_LOG_PAGE,
            namespace: ALL_NAMESPACES,
            address: page.as_mut_ptr().expose_provenance() as u64,
            data_len: u32::try_from(PAGE).unwrap_or(0),
            cdw10: words << 16 | HEALTH_PAGE,
            timeout_ms: TIMEOUT_MS,
            ..AdminCommand::default()
        };
        // SAFETY: the kernel reads and writes `command`, which has its layout, and writes `data_len` bytes to `page`; both
        // are ours and outlive the call, which returns when the drive is done with them.
        let answer = unsafe {
            libc::ioctl(
                controller.as_raw_fd(),
                libc::Ioctl::from(ADMIN_COMMAND),
                &raw mut command,
            )
        };
        match answer {
            0 => Ok(Self::parse(&page)),
            status @ 1.. => Err(io::Error::other(format!(
                "the drive answers with status {status:#x}"
            ))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// From the page, as the drive gives it.
    pub(crate) fn parse(page: &[u8; PAGE]) -> Self {
        let [critical, low, high, spare, threshold, used, ..] = *page;
        let counter = |at: usize| {
            let bytes = page
                .get(at..at + 16)
                .and_then(|bytes| bytes.try_into().ok());
            u128::from_le_bytes(bytes.unwrap_or_default())
        };
        let short = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let bytes = |at| short(counter(at).saturating_mul(DATA_UNIT));
        Self {
            warnings: DriveWarnings::new(critical),
            celsius: i32::from(u16::from_le_bytes([low, high])) - KELVIN,
            spare_percent: spare,
            spare_threshold_percent: threshold,
            used_percent: used,
            bytes_read: bytes(32),
            bytes_written: bytes(48),
            power_cycles: short(counter(112)),
            power_on_hours: short(counter(128)),
            unsafe_shutdowns: short(counter(144)),
            media_errors: short(counter(160)),
            error_log_entries: short(counter(176)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DriveHealth, PAGE};
    use std::fs::File;

    #[test]
    fn a_page_is_read_as_the_specification_has_it() {
        let mut page = [0; PAGE];
        page[0] = 0b1001;
        page[1..3].copy_from_slice(&318_u16.to_le_bytes());
        page[3..6].copy_from_slice(&[7, 10, 103]);
        page[32] = 2;
        page[48..64].copy_from_slice(&[0xff; 16]);
        page[112] = 3;
        page[128] = 4;
        page[144] = 5;
        page[160] = 6;
        page[176..184].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        let health = DriveHealth::parse(&page);
        assert_eq!(
            health.warnings.words(),
            ["few spare blocks are left", "it takes no writes any more"]
        );
        assert_eq!((health.celsius, health.spare_percent), (45, 7));
        assert_eq!(
            (health.spare_threshold_percent, health.used_percent),
            (10, 103)
        );
        assert_eq!(
            (health.bytes_read, health.bytes_written),
            (1_024_000, u64::MAX)
        );
        assert_eq!((health.power_cycles, health.power_on_hours), (3, 4));
        assert_eq!((health.unsafe_shutdowns, health.media_errors), (5, 6));
        assert_eq!(health.error_log_entries, 1 << 40);
    }

    #[test]
    fn what_is_no_drive_says_so() {
        let file = File::open("/dev/null").expect("open");
        DriveHealth::ask(&file).expect_err("no drive");
    }
}
