//! The log through its public API, on memory devices that crash, fail and rot.

mod api;
mod crash;
mod crash_points;
mod damage;
mod failure;
mod file;
mod golden;
mod model;
mod mutation;
mod placed;
mod property;
mod ring;
mod support;
