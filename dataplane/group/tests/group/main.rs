//! Groups of three replicas in one executor: the real log, store and transport on devices in
//! memory, so that a node can lose power at any moment and come back from what its device kept.

mod common;

mod compare;
mod crash;
mod damage;
mod fencing;
mod lease;
mod members;
mod quiet;
mod redirect;
mod repair;
mod requests;
mod reset;
mod snapshot;
mod succession;
mod volumes;
