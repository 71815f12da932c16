//! Which drive: never by a number that another boot may give to another.

use ogee_spdk::PciAddress;
use std::fmt;

/// A namespace of a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NvmeName {
    /// Where its controller is.
    pub address: PciAddress,
    /// The serial number that must be found there: addresses move when cards are added.
    pub serial: Option<String>,
    /// The namespace; the first one if not given.
    pub namespace: Option<u32>,
}

impl fmt::Display for NvmeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nvme:{}", self.address)?;
        match self.namespace {
            Some(namespace) => write!(f, "/n{namespace}"),
            None => Ok(()),
        }
    }
}
