//! Files under a root: the kernel's own, or a folder that a test has made.
//!
//! *Place*: under `host` and `rdma`. *Owner*: plain values. *Invariants*: only reads.
//! *On failure*: what cannot be read is not there.

use std::fs;
use std::path::{Path, PathBuf};

/// A root.
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// This host's.
    pub(crate) fn host() -> Self {
        Self(PathBuf::from("/"))
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Where a file or folder of it is.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// A file's text, without the line end.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// Names in a folder, in order; numbers by their value.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| (name.parse::<u32>().unwrap_or(u32::MAX), name.clone()));
        names
    }

    /// The last part of where a link leads.
    pub(crate) fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Where a link leads.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.to_str()?.to_owned())
    }

    /// The name of the device file that a path of a user's leads to.
    pub(crate) fn device_name(&self, path: &str) -> Option<String> {
        let at = path.strip_prefix('/')?;
        let target = fs::canonicalize(self.path(at)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// A soft limit of this process, as `/proc/self/limits` calls it; `u64::MAX` if there is none.
    pub(crate) fn limit(&self, name: &str) -> Option<u64> {
        let limits = self.read("proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }

    /// Whether this process has a capability.
    pub(crate) fn is_capable(&self, capability: u32) -> bool {
        let status = self.read("proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> capability & 1 == 1)
    }
}

/// A file of a root that a test makes.
#[cfg(test)]
pub(crate) fn put(root: &Path, path: &str, text: &str) {
    let at = root.join(path);
    fs::create_dir_all(at.parent().expect("a folder")).expect("made");
    fs::write(at, text).expect("written");
}

/// `CAP_IPC_LOCK`: the limit of locked memory does not count.
pub(crate) const CAP_IPC_LOCK: u32 = 14;
