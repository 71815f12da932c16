//! Where a drive is that is known by its serial number alone.
//!
//! *Place*: at a chunkserver's start, before anything is opened. *Owner*: plain values. *Invariants*: only files are read; no drive is
//! touched to find another. In user space a drive does not tell its serial number before it is opened, so the record
//! of `ogee device prepare` says where it is; whoever opens it there compares what the drive says. Drives of the same number, or a record
//! that cannot be right, are an error, never a choice. *On failure*: what was found, and what to do.

use super::controller::{Controller, controllers};
use super::record::{Record, Records};
use crate::doctor::Tree;
use crate::error::{CliError, Exit};
use std::path::Path;

/// The PCI address of a drive that is in user space.
pub(crate) fn locate(serial: &str, records: &Path) -> Result<String, CliError> {
    let known = Records::at(records).read()?;
    locate_in(&Tree::host(), &known, serial, records)
}

fn locate_in(
    tree: &Tree,
    known: &[Record],
    serial: &str,
    records: &Path,
) -> Result<String, CliError> {
    let all = controllers(tree);
    let refused = |cause: &str, remedy: &str| {
        let what = format!("cannot find the NVMe drive with serial number {serial}");
        CliError::new("OGEE-3011", &what, cause, remedy).with_exit(Exit::NotFound)
    };
    let told: Vec<&Controller> = all
        .iter()
        .filter(|one| one.serial.as_deref() == Some(serial))
        .collect();
    match told.as_slice() {
        [] => {}
        [one] => {
            return Err(refused(
                &format!("it is at {}, and the kernel drives it", one.address),
                &format!(
                    "ogee device prepare {serial}; or use it through the kernel: path = \"/dev/disk/by-id/nvme-…\""
                ),
            ));
        }
        several => {
            let addresses: Vec<&str> = several.iter().map(|one| one.address.as_str()).collect();
            return Err(refused(
                &format!("several drives have it: {}", addresses.join(", ")),
                "name the one that is meant by its address: pci = \"…\"",
            ));
        }
    }
    let recorded: Vec<&Record> = known.iter().filter(|one| one.serial == serial).collect();
    let record = match recorded.as_slice() {
        [] => {
            return Err(refused(
                &unknown(&all, known, records),
                "prepare it (ogee device prepare), or name it by its address: pci = \"…\" beside serial",
            ));
        }
        [one] => one,
        _ => {
            return Err(refused(
                &format!("{} has it {} times", records.display(), recorded.len()),
                "leave only the right one in it, or name the drive by its address: pci = \"…\" beside serial",
            ));
        }
    };
    let there = all.iter().find(|one| one.address == record.pci);
    match there {
        Some(one) if one.is_in_user_space() => Ok(record.pci.clone()),
        Some(one) => Err(refused(
            &format!(
                "by {} it was last at {}, where now {} is, with {}",
                records.display(),
                record.pci,
                one.serial
                    .as_deref()
                    .unwrap_or("a drive that does not tell its number"),
                one.driver.as_deref().unwrap_or("no driver")
            ),
            "ogee device prepare --recorded, before the chunkserver starts",
        )),
        None => Err(refused(
            &format!(
                "by {} it was last at {}, where there is no NVMe controller now",
                records.display(),
                record.pci
            ),
            "look at ogee device ls --local; if it was put into another slot: ogee device prepare --recorded",
        )),
    }
}

/// What there is instead.
fn unknown(all: &[Controller], known: &[Record], records: &Path) -> String {
    let named = |one: &Controller| match (&one.serial, one.is_in_user_space()) {
        (Some(serial), _) => format!("{} ({serial})", one.address),
        (None, true) => {
            let record = known.iter().find(|record| record.pci == one.address);
            match record {
                Some(record) => format!("{} ({} by the record)", one.address, record.serial),
                None => format!("{} (in user space, number not recorded)", one.address),
            }
        }
        (None, false) => format!("{} (does not tell its number)", one.address),
    };
    let named: Vec<String> = all.iter().map(named).collect();
    let there = match named.is_empty() {
        true => "this host has no NVMe controller".to_owned(),
        false => format!("this host has {}", named.join(", ")),
    };
    format!(
        "no controller that the kernel drives has it, and {} does not know it; {there}",
        records.display()
    )
}

#[cfg(test)]
mod tests {
    use super::locate_in;
    use crate::doctor::{Tree, put};
    use crate::drive::find_recorded;
    use crate::drive::record::record;
    use crate::error::Exit;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// A controller at an address; the kernel's driver tells its serial number.
    fn plug(root: &Path, address: &str, driver: &str, serial: &str) {
        let at = format!("sys/bus/pci/devices/{address}");
        put(root, &format!("{at}/class"), "0x010802\n");
        symlink(
            format!("../../drivers/{driver}"),
            root.join(&at).join("driver"),
        )
        .expect("linked");
        if driver == "nvme" {
            put(
                root,
                &format!("{at}/nvme/nvme0/serial"),
                &format!("{serial}  \n"),
            );
        }
    }

    #[test]
    fn a_drive_in_user_space_is_where_the_record_has_it() {
        let root = tempfile::tempdir().expect("a folder");
        plug(root.path(), "0000:01:00.0", "vfio-pci", "");
        plug(root.path(), "0000:02:00.0", "uio_pci_generic", "");
        plug(root.path(), "0000:03:00.0", "nvme", "C");
        let tree = Tree::at(root.path());
        let known = [
            record("A", "0000:02:00.0"),
            record("B", "0000:01:00.0"),
            record("D", "0000:03:00.0"),
            record("E", "0000:04:00.0"),
        ];
        let file = Path::new("drives.toml");
        let at = |serial: &str| locate_in(&tree, &known, serial, file);
        assert_eq!(at("A").expect("found"), "0000:02:00.0");
        assert_eq!(at("B").expect("found"), "0000:01:00.0");
        for (serial, words) in [
            // Not prepared, and in whose slot another one is, or none.
            (
                "C",
                vec!["0000:03:00.0", "kernel drives it", "ogee device prepare C"],
            ),
            (
                "D",
                vec!["0000:03:00.0", "where now C is, with nvme", "--recorded"],
            ),
            (
                "E",
                vec!["0000:04:00.0", "no NVMe controller", "--recorded"],
            ),
            (
                "F",
                vec![
                    "0000:01:00.0 (B by the record)",
                    "0000:03:00.0 (C)",
                    "drives.toml does not know it",
                    "pci = ",
                ],
            ),
        ] {
            let error = at(serial).expect_err(serial);
            assert_eq!(error.exit(), Exit::NotFound);
            for words in words {
                assert!(error.to_string().contains(words), "{words}: {error}");
            }
        }
        let alone = locate_in(&tree, &[], "A", file).expect_err("no record");
        let said = alone.to_string();
        assert!(
            said.contains("0000:01:00.0 (in user space, number not recorded)"),
            "{said}"
        );
    }

    #[test]
    fn a_command_finds_a_drive_in_user_space_by_its_number() {
        let root = tempfile::tempdir().expect("a folder");
        plug(root.path(), "0000:01:00.0", "vfio-pci", "");
        plug(root.path(), "0000:02:00.0", "nvme", "B");
        let tree = Tree::at(root.path());
        let known = [record("A", "0000:01:00.0"), record("B", "0000:01:00.0")];
        let at = |name: &str| find_recorded(&tree, &known, name).map(|one| one.address);
        assert_eq!(at("A").expect("recorded"), "0000:01:00.0");
        assert_eq!(at("B").expect("the kernel tells"), "0000:02:00.0");
        assert_eq!(at("0000:01:00.0").expect("its address"), "0000:01:00.0");
        assert_eq!(at("C").expect_err("nowhere").exit(), Exit::NotFound);
        // A record of a drive that the kernel has again says nothing.
        let known = [record("A", "0000:02:00.0")];
        assert!(find_recorded(&tree, &known, "A").is_err());
    }

    #[test]
    fn two_of_a_number_are_no_choice() {
        let root = tempfile::tempdir().expect("a folder");
        plug(root.path(), "0000:01:00.0", "vfio-pci", "");
        plug(root.path(), "0000:02:00.0", "vfio-pci", "");
        let tree = Tree::at(root.path());
        let known = [record("A", "0000:01:00.0"), record("A", "0000:02:00.0")];
        let file = Path::new("drives.toml");
        let said = locate_in(&tree, &known, "A", file).expect_err("two records");
        assert!(said.to_string().contains("has it 2 times"), "{said}");
        plug(root.path(), "0000:03:00.0", "nvme", "A");
        plug(root.path(), "0000:04:00.0", "nvme", "A");
        let said = locate_in(&tree, &[], "A", file).expect_err("two drives");
        let said = said.to_string();
        assert!(said.contains("0000:03:00.0, 0000:04:00.0"), "{said}");
        let said = locate_in(&Tree::at(Path::new("/nowhere")), &[], "A", file);
        let said = said.expect_err("nothing").to_string();
        assert!(said.contains("no NVMe controller"), "{said}");
    }
}
