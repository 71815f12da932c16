//! NVMe without the kernel: a namespace, polled in the shard's turns.
//!
//! *Place*: a backend, above `ogee_spdk`. *Owner*: the shard that opened it: the controller, its one I/O queue pair and its
//! memory are of that thread; a second device on the same controller is refused.
//! *Invariants*: no command is longer than the drive takes, or has more pieces of memory. Memory that the drive has is
//! reached by nobody. What is asked for waits for memory while it holds none of it, so none waits for one that waits.
//! A turn takes a bounded number of completions; without requests in flight nothing is polled but, every second, the
//! controller's own state.
//! *On failure*: of a command, that request fails with the drive's words. A controller that hangs, was reset or is gone
//! ends the device: everything in flight and everything later fails with [`NvmeFault`], since nobody can say what became
//! of what was in flight; the stores on it retire.
//!
//! | module | holds |
//! |---|---|
//! | `name` | [`NvmeName`]: which drive |
//! | `open` | from a name to a drive that may be used |
//! | `device` | requests: split, copied, carried out |
//! | `port` | a drive in use: queue, memory, who waits for what |
//! | `pump` | the task that polls, or waits for interrupts |
//! | `bell` | waiting for interrupts |
//! | `vitals` | asking it for its health |
//! | `fault` | [`NvmeFault`] |

mod bell;
mod device;
mod fault;
mod name;
mod open;
mod port;
mod pump;
mod vitals;

pub(crate) use device::NvmeDevice;
pub use fault::NvmeFault;
pub use name::NvmeName;
pub use ogee_spdk::Notice;
pub(crate) use open::environment;
pub use open::{NvmeOptions, memory_mib, start};
pub use vitals::NvmeVitals;
