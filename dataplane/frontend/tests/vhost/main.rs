//! The vhost-user-blk server, under a driver of its own making and under a real one.
#![cfg(feature = "vhost-user")]
// Drivers stand outside of the data plane, on threads that may block.
#![allow(clippy::disallowed_methods)]

mod driver;
mod hostile;
mod native;
mod requests;
mod restart;
mod served;
