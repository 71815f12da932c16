//! What may be set of an executor's RDMA port.

use crate::options::RdmaOptions;
use std::cell::RefCell;

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
