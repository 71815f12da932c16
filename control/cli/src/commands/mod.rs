//! One file per noun.

pub(crate) mod attach;
pub(crate) mod bench;
pub(crate) mod chunkserver;
pub(crate) mod copyset;
pub(crate) mod dir;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod job;
pub(crate) mod mds;
pub(crate) mod members;
pub(crate) mod place;
pub(crate) mod quota;
mod replace;
mod scrub;
mod show;
pub(crate) mod status;
pub(crate) mod topology;
pub(crate) mod volume;

mod ask;
mod backup;
mod confirm;
mod digest;
mod export_vhost;
mod keep;
mod maintenance;
mod reset;
mod signal;
mod strangers;

pub(crate) use ask::ask;
