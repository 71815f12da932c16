//! libogee: volumes for programs in C, and in whatever calls C.
//!
//! *Place*: above `ogee_client`; nothing of the workspace imports it. Its contract is the header
//! (`include/ogee.h`, made from `abi` and `calls`) with docs/client.md.
//! *Owner*: each [`client`] has one thread that does its I/O and one for the metadata servers. Calls come
//! from any thread, and cross to the first over bounded queues.
//! *Invariants*: a handle is a number that is looked up, never an address: a closed or foreign one is an
//! error. Memory of the caller is touched from the call on until its completion, and never after, since
//! the completion is what the last reference to it leaves behind. A completion queue has room for
//! whatever was accepted on it.
//! *On failure*: a status, and a text with a remedy for this thread or in the completion. No call panics
//! by design; should one, it becomes `INTERNAL` where panics unwind, and ends the process in release
//! builds, which abort.
//!
//! | module | holds |
//! |---|---|
//! | `abi` | what the header declares beside calls: statuses, handles, structs |
//! | `calls` | the calls, each a check of its arguments and one call inwards |
//! | `entry` | the border: panics, errors, pointers, structs that may grow |
//! | `registry`, `handle`, `fork` | handles → objects, also after a fork |
//! | `client`, `volume` | the I/O thread; one volume's task on it |
//! | `request`, `lease` | a request, where its outcome goes, and the caller's memory meanwhile |
//! | `queue`, `memory` | completion queues; registered memory |
//! | `uses` | what must not go while it is used |
//! | `threads` | waiting for the I/O thread; signals |
//! | `failure` | an error as C sees it |
//! | `limit` | bounds |

mod abi;
mod calls;
mod client;
mod entry;
mod failure;
mod fork;
mod handle;
mod lease;
mod limit;
mod memory;
mod queue;
mod registry;
mod request;
mod threads;
mod uses;
mod volume;
