//! What a frontend needs of a volume, and who offers it.

mod contract;
mod error;
mod limited;
#[cfg(any(test, feature = "test-utils"))]
mod memory;
mod volume;

pub use contract::{BlockRun, Disk};
pub use error::DiskError;
pub use limited::{LimitedDisk, Rates};
#[cfg(any(test, feature = "test-utils"))]
pub use memory::{MemoryDisk, MemoryFault, MemoryStats};
