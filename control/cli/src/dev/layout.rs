//! Where a dev cluster keeps its things.

use crate::error::CliError;
use std::path::{Path, PathBuf};

/// A dev cluster's directory.
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directory.
    pub(super) fn create(dir: &Path) -> Result<Self, CliError> {
        for part in ["conf", "data", "logs", "pids"] {
            let path = dir.join(part);
            std::fs::create_dir_all(&path).map_err(|error| {
                let doing = format!("cannot make {}", path.display());
                CliError::io(&doing, &error, "choose a directory that you may write to")
            })?;
        }
        Self::open(dir)
    }

    /// The directory of an existing cluster.
    pub(super) fn open(dir: &Path) -> Result<Self, CliError> {
        let root = dir.canonicalize().map_err(|error| {
            let doing = format!("no dev cluster in {}", dir.display());
            CliError::io(&doing, &error, "give the --dir of ogee dev up")
        })?;
        Ok(Self { root })
    }

    pub(super) fn conf(&self, name: &str) -> PathBuf {
        self.root.join("conf").join(format!("{name}.toml"))
    }

    pub(super) fn pid(&self, name: &str) -> PathBuf {
        self.root.join("pids").join(format!("{name}.pid"))
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    pub(super) fn ready(&self, name: &str) -> PathBuf {
        self.root.join("pids").join(format!("{name}.ready"))
    }

    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.root.join("data").join(name)
    }

    pub(super) fn env(&self) -> PathBuf {
        self.root.join("ogee.env")
    }

    /// Names of the processes, in starting order: metadata servers first.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("conf"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_suffix(".toml").map(str::to_owned)
            })
            .collect();
        names.sort_by_key(|name| (!name.starts_with("mds"), name.len(), name.clone()));
        names
    }
}

/// Writes a file of the cluster.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|error| {
        let doing = format!("cannot write {}", path.display());
        CliError::io(&doing, &error, "check free space and permissions")
    })
}
