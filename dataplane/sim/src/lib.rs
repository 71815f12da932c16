//! What judges the data plane from outside: a simulator of whole clusters, histories of clients, and
//! the checker for them.
//!
//! *Place*: above everything of the data plane, below nothing: only tests and scripts use it.
//! *Owner*: `history` is plain data and functions, for any thread; a simulation owns its thread.
//! *Invariants*: the judge shares no code with what it judges: it sees only what clients saw.
//! *On failure*: a history that no correct store can have produced is named, with the operations
//! that contradict each other.
//!
//! | module | holds |
//! |---|---|
//! | `history` | operations of clients on blocks, and the check that each block is a register |
//! | `simulator` | with `--cfg ogee_sim`: a cluster on the deterministic engine, and its enemies |

pub mod history;
#[cfg(ogee_sim)]
pub mod simulator;
