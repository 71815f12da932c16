//! What the fuzz targets do with their input, one module each, and the tools they share.
//!
//! *Place*: beside the data plane, above all of it and the metadata server; nothing imports it.
//! *Owner*: one process per target; libFuzzer calls `run` again and again on one thread.
//! *Invariants*: a run depends on its input only: executors are the deterministic ones
//! (`--cfg ogee_sim`), seeded from the input; those of the metadata server need none. Every count taken from an input is bounded.
//! *On failure*: a panic, which libFuzzer turns into a file under `artifacts/`.
//!
//! | module | input | must hold |
//! |---|---|---|
//! | `frames` | bytes of a peer, in any pieces | no panic; pieces do not matter; what is decoded encodes to the same bytes |
//! | `group_messages` | bytes of each message between replicas | no panic; decoded and encoded again it stands still |
//! | `log_recovery` | calls of a log, and damage to its medium | what was durable is found, or said to be lost |
//! | `store_open` | calls of a store, and damage to its medium | no byte is returned that was not written there |
//! | `store_pages` | bytes of each kind of metadata page | no panic; what is decoded encodes to what it was |
//! | `rdma_heads` | what a message over RDMA says of itself | no panic; it is taken if and only if checksum, kind and flags are right, and encodes to the same bytes |
//! | `nbd` | bytes, or requests, of an NBD client | no panic, no hang; the disk is what the answers said |
//! | `virtqueue` | a guest's memory, and what it writes there between our turns | no panic; what is asked lies within disk and memory; the record of requests under way is what is under way |
//! | `mds_records` | bytes of each record of a metadata server | no panic, nor of what is asked of a state so decoded |
//! | `mds_commands` | commands | a refusal changes nothing; ids and epochs grow; maps stand still |

mod script;

#[cfg(ogee_sim)]
mod damage;
pub mod kept;
#[cfg(feature = "control")]
pub mod mds_commands;
#[cfg(feature = "control")]
pub mod mds_records;

#[cfg(ogee_sim)]
pub mod frames;
#[cfg(ogee_sim)]
pub mod group_messages;
#[cfg(ogee_sim)]
pub mod log_recovery;
#[cfg(ogee_sim)]
pub mod nbd;
#[cfg(ogee_sim)]
pub mod rdma_heads;
#[cfg(ogee_sim)]
pub mod store_open;
#[cfg(ogee_sim)]
pub mod store_pages;
#[cfg(ogee_sim)]
pub mod virtqueue;
