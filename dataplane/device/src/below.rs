//! Which block device a path stands on, as the kernel tells it.
//!
//! *Place*: for whoever wants to know more of it: its class, its drive. *Owner*: nobody; nothing is opened or kept.
//! *Invariants*: the tree that is looked at is the caller's, mostly `/sys`. *On failure*: none where the kernel does not say.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The number of a block device; of a file, that of the device under its file system.
#[must_use]
pub fn number_below(found: &Metadata) -> u64 {
    match found.file_type().is_block_device() {
        true => found.rdev(),
        false => found.dev(),
    }
}

/// The disk of that number, or the one that the partition of that number is of, in the kernel's tree.
#[must_use]
pub fn disk_of(sys: &Path, number: u64) -> Option<PathBuf> {
    let (major, minor) = (libc::major(number), libc::minor(number));
    whole_disk(&sys.join(format!("dev/block/{major}:{minor}")))
}

/// The disk that a link of the kernel's tree leads to, or to a partition of which.
#[must_use]
pub fn whole_disk(link: &Path) -> Option<PathBuf> {
    let at = fs::canonicalize(link).ok()?;
    // A partition has no queue of its own: its disk is one level up.
    match at.join("queue").is_dir() {
        true => Some(at),
        false => at.parent().map(PathBuf::from),
    }
}
