//! The engine under the contract: the real one, or the deterministic one under `--cfg ogee_sim`.
//!
//! Both export the same names; nothing outside this folder knows which is chosen.

#[cfg(not(ogee_sim))]
mod glommio;
#[cfg(all(feature = "readiness", not(ogee_sim)))]
pub(crate) use self::glommio::Watch;
#[cfg(not(ogee_sim))]
pub use self::glommio::random_u64;
#[cfg(not(ogee_sim))]
pub(crate) use self::glommio::{
    Config, Executor, File, Home, Listener, Memory, OpenMode, ReadMemory, Scope, Socket, Timer,
    current_scope, home, now, spawn, suspended_time, yield_now,
};

#[cfg(ogee_sim)]
pub mod sim;
#[cfg(ogee_sim)]
pub use self::sim::block_on_seeded;
#[cfg(ogee_sim)]
pub use self::sim::random_u64;
#[cfg(ogee_sim)]
pub(crate) use self::sim::{
    Config, Executor, File, Home, Listener, Memory, OpenMode, ReadMemory, Scope, Socket, Timer,
    current_scope, home, now, spawn, suspended_time, yield_now,
};
