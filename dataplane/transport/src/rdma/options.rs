//! What may be set of an executor's RDMA port.

use super::limit::GRANT_MIN;
use crate::options::RdmaOptions;
use std::cell::RefCell;

impl RdmaOptions {
    /// With what the port cannot do without.
    pub(super) fn checked(mut self) -> Self {
        self.connections_max = self.connections_max.clamp(1, 1 << 15);
        // Each connection finds a few, and as many again are for those that are there.
        let receives = 2 * GRANT_MIN * self.connections_max;
        self.receives = self.receives.clamp(receives, 1 << 20);
        self.mediums = self.mediums.clamp(4, 1 << 18);
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
