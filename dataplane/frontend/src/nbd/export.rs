//! Disks by the names that clients ask for.
//!
//! *Place*: filled by the user, read by negotiations. *Owner*: one shard; clones are the same
//! registry. *Invariants*: a name has one disk; a disk has one lock table, so all connections to
//! it merge partial blocks against each other. *On failure*: an export that is removed stays
//! usable for the connections that have it.

use super::error::ExportError;
use super::metrics::{ExportMetrics, ExportSnapshot};
use crate::align::AlignedDisk;
use crate::disk::Disk;
use crate::limit::{EXPORTS_MAX, STRING_LEN_MAX};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One disk under one name.
pub(super) struct Export<D> {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) disk: AlignedDisk<D>,
    pub(super) metrics: ExportMetrics,
}

/// Disks by name.
pub struct Exports<D> {
    by_name: Rc<RefCell<BTreeMap<String, Rc<Export<D>>>>>,
}

impl<D> Clone for Exports<D> {
    fn clone(&self) -> Self {
        Self {
            by_name: Rc::clone(&self.by_name),
        }
    }
}

impl<D> Default for Exports<D> {
    fn default() -> Self {
        Self {
            by_name: Rc::default(),
        }
    }
}

impl<D: Disk> Exports<D> {
    /// No disks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers `disk` as `name`. Nobody else should write it from now on.
    ///
    /// # Errors
    /// If the name cannot be used, or the disk does not end with a block.
    pub fn add(&self, name: &str, description: &str, disk: Rc<D>) -> Result<(), ExportError> {
        let size = disk.size();
        if !size.is_multiple_of(disk.block_size().as_usize()) {
            return Err(ExportError::Ragged { size });
        }
        let export = Export {
            name: name.to_owned(),
            description: description.to_owned(),
            disk: AlignedDisk::new(disk),
            metrics: ExportMetrics::default(),
        };
        self.check_name(&export)?;
        let mut by_name = self.by_name.borrow_mut();
        by_name.insert(name.to_owned(), Rc::new(export));
        Ok(())
    }

    /// Withdraws the export from new clients; false if there is none.
    pub fn remove(&self, name: &str) -> bool {
        self.by_name.borrow_mut().remove(name).is_some()
    }

    /// All names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.by_name.borrow().keys().cloned().collect()
    }

    /// Counters of an export.
    #[must_use]
    pub fn metrics(&self, name: &str) -> Option<ExportSnapshot> {
        let by_name = self.by_name.borrow();
        let export = by_name.get(name)?;
        Some(export.metrics.snapshot(export.disk.merged_blocks()))
    }

    /// The export that a client means: the empty name stands for the only one.
    pub(super) fn find(&self, name: &str) -> Option<Rc<Export<D>>> {
        let by_name = self.by_name.borrow();
        match name {
            "" if by_name.len() == 1 => by_name.values().next().cloned(),
            _ => by_name.get(name).cloned(),
        }
    }

    pub(super) fn all(&self) -> Vec<Rc<Export<D>>> {
        self.by_name.borrow().values().cloned().collect()
    }

    fn check_name(&self, export: &Export<D>) -> Result<(), ExportError> {
        let by_name = self.by_name.borrow();
        if export.name.is_empty() {
            return Err(ExportError::Unnamed);
        }
        if export.name.len().max(export.description.len()) > STRING_LEN_MAX {
            let max = STRING_LEN_MAX;
            return Err(ExportError::TooLong { max });
        }
        if by_name.contains_key(&export.name) {
            let name = export.name.clone();
            return Err(ExportError::Exists { name });
        }
        if by_name.len() >= EXPORTS_MAX {
            return Err(ExportError::Full { max: EXPORTS_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use ogee_proto::unit::ByteLen;

    fn disk(size: u64) -> Rc<MemoryDisk> {
        Rc::new(MemoryDisk::new(ByteLen::new(size)))
    }

    #[test]
    fn the_empty_name_means_the_only_export() {
        let exports = Exports::new();
        assert!(exports.find("").is_none());
        exports.add("one", "", disk(4096)).expect("a free name");
        assert_eq!(
            exports.find("").map(|e| e.name.clone()),
            Some("one".to_owned())
        );
        exports.add("two", "", disk(4096)).expect("a free name");
        assert!(exports.find("").is_none());
        assert!(exports.remove("one"));
        assert!(exports.find("one").is_none() && exports.find("").is_some());
    }

    #[test]
    fn names_and_sizes_are_checked() {
        let exports = Exports::new();
        let long = "x".repeat(STRING_LEN_MAX + 1);
        assert_eq!(exports.add("", "", disk(0)), Err(ExportError::Unnamed));
        let max = STRING_LEN_MAX;
        assert_eq!(
            exports.add(&long, "", disk(0)),
            Err(ExportError::TooLong { max })
        );
        assert_eq!(
            exports.add("a", &long, disk(0)),
            Err(ExportError::TooLong { max })
        );
        let size = ByteLen::new(4097);
        assert_eq!(
            exports.add("a", "", disk(4097)),
            Err(ExportError::Ragged { size })
        );
        exports.add("a", "", disk(0)).expect("a free name");
        let name = "a".to_owned();
        assert_eq!(
            exports.add("a", "", disk(0)),
            Err(ExportError::Exists { name })
        );
        for index in 1..EXPORTS_MAX {
            exports.add(&index.to_string(), "", disk(0)).expect("room");
        }
        let max = EXPORTS_MAX;
        assert_eq!(
            exports.add("b", "", disk(0)),
            Err(ExportError::Full { max })
        );
    }
}
