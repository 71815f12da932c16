//! Drives that are to be prepared at each boot, by serial number.
//!
//! *Place*: a file of this host, which `prepare` and `release` keep, and people may edit. *Owner*: the process for as long as a
//! command takes. *Invariants*: a serial number is in it once. It is replaced as a whole. *On failure*: an error that
//! names the file; a file that is not there is an empty one.

use crate::error::CliError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) serial: String,
    /// Where it was last: in user space a drive does not tell its serial number.
    pub(super) pci: String,
    pub(super) driver: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drives {
    #[serde(default)]
    drive: Vec<Record>,
}

/// The file.
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn read(&self) -> Result<Vec<Record>, CliError> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read", &error)),
        };
        let drives: Drives = toml::from_str(&text).map_err(|error| {
            CliError::new(
                "OGEE-3015",
                &format!("{} is no list of drives", self.0.display()),
                error.message(),
                "mend it: [[drive]] with serial, pci and driver; or remove it, and prepare the drives again",
            )
        })?;
        Ok(drives.drive)
    }

    /// Puts a drive in, in the place of what was known of it or of its address.
    pub(super) fn put(known: &mut Vec<Record>, record: Record) {
        known.retain(|one| one.serial != record.serial && one.pci != record.pci);
        known.push(record);
    }

    pub(super) fn write(&self, known: &[Record]) -> Result<(), CliError> {
        let drives = Drives {
            drive: known.to_vec(),
        };
        let text = toml::to_string(&drives).map_err(|error| {
            CliError::new(
                "OGEE-3015",
                &format!("cannot write {}", self.0.display()),
                &error.to_string(),
                "report it: a record of a drive cannot be put into words",
            )
        })?;
        self.replace(&text)
            .map_err(|error| self.failed("write", &error))
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let folder = self.0.parent().filter(|at| !at.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let new = self.0.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(b"# NVMe drives of `ogee device prepare --recorded`\n")?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        File::open(folder)?.sync_all()
    }

    fn failed(&self, verb: &str, error: &std::io::Error) -> CliError {
        let doing = format!("cannot {verb} {}", self.0.display());
        CliError::io(
            &doing,
            error,
            "run it as root, or name another file with --records",
        )
    }
}

/// One of a drive, for tests.
#[cfg(test)]
pub(super) fn record(serial: &str, pci: &str) -> Record {
    Record {
        serial: serial.to_owned(),
        pci: pci.to_owned(),
        driver: "vfio-pci".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Records, record};

    #[test]
    fn a_drive_is_remembered_once_wherever_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::at(&folder.path().join("etc/drives.toml"));
        assert_eq!(records.read().expect("read"), []);
        let mut known = Vec::new();
        Records::put(&mut known, record("A", "0000:01:00.0"));
        Records::put(&mut known, record("B", "0000:02:00.0"));
        // Into another slot, which was another drive's.
        Records::put(&mut known, record("A", "0000:02:00.0"));
        records.write(&known).expect("written");
        assert_eq!(records.read().expect("read"), [record("A", "0000:02:00.0")]);
    }

    #[test]
    fn a_file_that_is_no_list_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("drives.toml");
        std::fs::write(&at, "[[drive]]\nserial = 7\n").expect("written");
        let error = Records::at(&at).read().expect_err("no list");
        assert!(error.to_string().contains("drives.toml"), "{error}");
    }
}
