//! Why a request to a drive failed.

use ogee_spdk::Status;

/// What happened to a request, or to the drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NvmeFault {
    /// The drive carried it out, and failed.
    #[error("{0}")]
    Command(Status),
    /// The drive did not answer; the device has ended.
    #[error(
        "the drive did not answer for {seconds} s, and is not used any more until the process starts again"
    )]
    TimedOut {
        /// For how long.
        seconds: u16,
    },
    /// The controller failed, or somebody reset it; the device has ended.
    #[error(
        "the controller failed or was reset, and is not used any more until the process starts again"
    )]
    Reset,
    /// The drive was taken out; the device has ended.
    #[error("the drive is gone")]
    Gone,
    /// The driver did not take it.
    #[error("the driver has no room for the command")]
    Refused,
}

impl NvmeFault {
    /// Whether the device is of no more use.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Reset | Self::Gone)
    }
}
