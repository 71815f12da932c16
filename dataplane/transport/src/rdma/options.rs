//! What may be set of an executor's RDMA port.

use super::limit::GRANT_MIN;
use std::cell::RefCell;
use std::time::Duration;

/// Of the RDMA port of an executor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RdmaOptions {
    /// The device; the first one if not named.
    pub device: Option<String>,
    /// Connections at a time; what the device must have queues for.
    pub connections_max: u32,
    /// Receive buffers, of 16 KiB. As many again hold what users have not given back.
    pub receives: u32,
    /// Pieces of 1 MiB for large payloads.
    pub larges: u32,
    /// How long the pump looks for completions before it sleeps.
    pub spin: Duration,
    /// Never sleep: the lowest latency, at the price of a core.
    pub busy_poll: bool,
}

impl Default for RdmaOptions {
    fn default() -> Self {
        Self {
            device: None,
            connections_max: 256,
            receives: 1024,
            larges: 32,
            spin: Duration::from_micros(20),
            busy_poll: false,
        }
    }
}

impl RdmaOptions {
    /// With what the port cannot do without.
    pub(super) fn checked(mut self) -> Self {
        self.connections_max = self.connections_max.clamp(1, 1 << 15);
        self.receives = self.receives.clamp(GRANT_MIN, 1 << 20);
        self.larges = self.larges.clamp(4, 1 << 16);
        self
    }
}

thread_local! {
    static OPTIONS: RefCell<Option<RdmaOptions>> = const { RefCell::new(None) };
}

/// Sets the options of this thread's port, before its first use.
pub fn configure(options: RdmaOptions) {
    OPTIONS.set(Some(options));
}

pub(super) fn configured() -> RdmaOptions {
    OPTIONS.with_borrow(|options| options.clone().unwrap_or_default().checked())
}
