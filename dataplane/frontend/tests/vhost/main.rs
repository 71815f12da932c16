//! The vhost-user-blk server, under a driver of its own making and under a real one.
#![cfg(feature = "vhost-user")]

mod driver;
mod hostile;
mod native;
mod requests;
mod restart;
mod served;
