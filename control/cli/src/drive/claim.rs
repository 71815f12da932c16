//! What holds a drive.
//!
//! *Place*: asked before a drive is taken from one driver for another. *Owner*: plain values. *Invariants*: nothing
//! is opened for writing. What cannot be looked at is a claim ([`Claim::Unknown`]). *On failure*: it is such a claim.

use super::controller::{Controller, path_of};
use crate::doctor::Tree;
use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::process::Command;

/// What stores of Ogee's begin with.
const STORE_MAGIC: [u8; 8] = ogee_shard::STORE_MAGIC;

/// One thing that holds a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A file system is mounted.
    Mounted { device: String, at: String },
    /// The kernel swaps to it.
    Swap { device: String },
    /// Another block device is made of it: LVM, RAID, encryption.
    Part { device: String, of: String },
    /// A process has it open.
    Open { device: String, by: String },
    /// It is divided.
    Partitioned { device: String, into: usize },
    /// Something is on it.
    Signature { device: String, what: String },
    /// A store of Ogee's is on it.
    Store { device: String },
    /// Nobody can tell.
    Unknown { device: String, why: String },
}

impl Claim {
    /// Whether a drive may be taken in spite of it.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self, Self::Store { .. })
    }

    /// What lets go of it.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Mounted { at, .. } => format!("umount {at}, and take it out of /etc/fstab"),
            Self::Swap { device } => {
                format!("swapoff /dev/{device}, and take it out of /etc/fstab")
            }
            Self::Part { device, of } => {
                format!(
                    "take /dev/{device} out of {of}: vgreduce, mdadm --remove, dmsetup, cryptsetup close"
                )
            }
            Self::Open { by, .. } => format!("stop process {by}"),
            Self::Partitioned { device, .. } | Self::Signature { device, .. } => {
                format!("if what is on it is wanted no more: wipefs --all /dev/{device}")
            }
            Self::Store { .. } => "nothing".to_owned(),
            Self::Unknown { .. } => "run it as root, where util-linux is installed".to_owned(),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { device, at } => write!(f, "{device} is mounted at {at}"),
            Self::Swap { device } => write!(f, "{device} is swap"),
            Self::Part { device, of } => write!(f, "{device} is part of {of}"),
            Self::Open { device, by } => write!(f, "{device} is open in process {by}"),
            Self::Partitioned { device, into } => write!(f, "{device} has {into} partitions"),
            Self::Signature { device, what } => write!(f, "{device} has {what} on it"),
            Self::Store { device } => write!(f, "{device} has a store of Ogee's on it"),
            Self::Unknown { device, why } => {
                write!(f, "nobody can tell what is on {device}: {why}")
            }
        }
    }
}

/// What is mounted, swapped to and open, on the whole host.
pub(super) struct Claims {
    /// `major:minor`, source and place of each mount.
    mounts: Vec<(String, String, String)>,
    swaps: Vec<String>,
    /// Path of an open file, and who has it.
    open: Vec<(String, String)>,
}

impl Claims {
    pub(super) fn look(tree: &Tree) -> Self {
        Self {
            mounts: mounts(&tree.read("proc/self/mountinfo").unwrap_or_default()),
            swaps: swaps(&tree.read("proc/swaps").unwrap_or_default()),
            open: open_files(tree),
        }
    }

    /// All that holds a controller's namespaces, or the controller itself. `signatures` tells what is on a device.
    pub(super) fn of(
        &self,
        tree: &Tree,
        controller: &Controller,
        signatures: &dyn Fn(&str) -> Result<Vec<String>, String>,
    ) -> Vec<Claim> {
        let mut claims: Vec<Claim> = self.of_user_space(tree, controller).into_iter().collect();
        for namespace in &controller.namespaces {
            let name = &namespace.name;
            self.of_device(tree, name, &mut claims);
            for partition in &namespace.partitions {
                self.of_device(tree, partition, &mut claims);
            }
            if !namespace.partitions.is_empty() {
                claims.push(Claim::Partitioned {
                    device: name.clone(),
                    into: namespace.partitions.len(),
                });
            }
            claims.extend(contents(tree, name, signatures));
        }
        claims
    }

    fn of_device(&self, tree: &Tree, name: &str, claims: &mut Vec<Claim>) {
        let device = || name.to_owned();
        let path = format!("/dev/{name}");
        let number = tree.read(format!("sys/class/block/{name}/dev"));
        for (mounted, source, at) in &self.mounts {
            if Some(mounted) == number.as_ref() || *source == path {
                claims.push(Claim::Mounted {
                    device: device(),
                    at: at.clone(),
                });
            }
        }
        if self.swaps.contains(&path) {
            claims.push(Claim::Swap { device: device() });
        }
        for of in tree.names(format!("sys/class/block/{name}/holders")) {
            claims.push(Claim::Part {
                device: device(),
                of,
            });
        }
        let by = self.open.iter().find(|(open, _)| *open == path);
        claims.extend(by.map(|(_, by)| Claim::Open {
            device: device(),
            by: by.clone(),
        }));
    }

    /// A process that drives a controller itself.
    pub(super) fn of_user_space(&self, tree: &Tree, controller: &Controller) -> Option<Claim> {
        let at = path_of(&controller.address);
        let group = controller
            .iommu_group
            .iter()
            .map(|group| format!("/dev/vfio/{group}"));
        let uio = tree
            .names(format!("{at}/uio"))
            .into_iter()
            .map(|name| format!("/dev/{name}"));
        let paths: Vec<String> = group.chain(uio).collect();
        // DPDK maps what the drive shows of itself by these.
        let shown = format!("/{}/resource", controller.address);
        let (_, by) = self
            .open
            .iter()
            .find(|(open, _)| paths.contains(open) || open.contains(&shown))?;
        Some(Claim::Open {
            device: controller.address.clone(),
            by: by.clone(),
        })
    }
}

fn mounts(mountinfo: &str) -> Vec<(String, String, String)> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let number = left.next()?.to_owned();
        let at = left.nth(1)?.to_owned();
        let source = right.split(' ').nth(1)?.to_owned();
        Some((number, source, at))
    };
    mountinfo.lines().filter_map(mount).collect()
}

fn swaps(text: &str) -> Vec<String> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect()
}

/// Open files under `/dev` and `/sys`, with who has them.
fn open_files(tree: &Tree) -> Vec<(String, String)> {
    let mut open = Vec::new();
    let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    for pid in tree.names("proc").into_iter().filter(is_process) {
        for fd in tree.names(format!("proc/{pid}/fd")) {
            let Some(path) = tree.link(format!("proc/{pid}/fd/{fd}")) else {
                continue;
            };
            if path.starts_with("/dev/nvme")
                || path.starts_with("/dev/vfio/")
                || path.starts_with("/dev/uio")
                || path.starts_with("/sys/")
            {
                let name = tree.read(format!("proc/{pid}/comm")).unwrap_or_default();
                open.push((path, format!("{pid} ({name})")));
            }
        }
    }
    open
}

fn contents(
    tree: &Tree,
    name: &str,
    signatures: &dyn Fn(&str) -> Result<Vec<String>, String>,
) -> Vec<Claim> {
    let device = || name.to_owned();
    let unknown = |why: String| {
        vec![Claim::Unknown {
            device: device(),
            why,
        }]
    };
    let mut head = [0; STORE_MAGIC.len()];
    let path = tree.path(format!("dev/{name}"));
    match File::open(&path).and_then(|mut file| file.read_exact(&mut head)) {
        Err(error) => return unknown(error.to_string()),
        // Whatever an old file system has left behind it: the store is what counts.
        Ok(()) if head == STORE_MAGIC => return vec![Claim::Store { device: device() }],
        Ok(()) => {}
    }
    match signatures(&format!("/dev/{name}")) {
        Err(why) => unknown(why),
        Ok(found) => found
            .into_iter()
            .map(|what| Claim::Signature {
                device: device(),
                what,
            })
            .collect(),
    }
}

#[derive(Deserialize)]
struct Wipefs {
    #[serde(default)]
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    r#type: String,
}

/// What is on a device, as util-linux knows it; it only looks.
pub(super) fn signatures(path: &str) -> Result<Vec<String>, String> {
    let output = Command::new("wipefs")
        .args(["--no-act", "--json", path])
        .output()
        .map_err(|error| format!("wipefs cannot be started: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("wipefs: {}", words.trim()));
    }
    parse(&output.stdout)
}

fn parse(text: &[u8]) -> Result<Vec<String>, String> {
    // It prints nothing at all where nothing is.
    if text.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let found: Wipefs =
        serde_json::from_slice(text).map_err(|error| format!("wipefs's answer: {error}"))?;
    Ok(found.signatures.into_iter().map(|one| one.r#type).collect())
}

#[cfg(test)]
mod tests {
    use super::{Claim, Claims, STORE_MAGIC, parse};
    use crate::doctor::{Tree, put};
    use crate::drive::controllers;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const ADDRESS: &str = "0000:00:04.0";

    /// A controller with one namespace of two partitions.
    fn drive(root: &Path) {
        let at = format!("sys/bus/pci/devices/{ADDRESS}");
        put(root, &format!("{at}/class"), "0x010802\n");
        put(root, &format!("{at}/nvme/nvme0/serial"), "S5XY  \n");
        put(root, &format!("{at}/nvme/nvme0/nvme0n1/nsid"), "1\n");
        let block = "sys/class/block/nvme0n1";
        put(root, &format!("{block}/size"), "2048\n");
        put(root, &format!("{block}/dev"), "259:0\n");
        put(root, "dev/nvme0n1", &"x".repeat(64));
    }

    fn claims(root: &Path, found: &[&str]) -> Vec<Claim> {
        let tree = Tree::at(root);
        let controller = &controllers(&tree)[0];
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Claims::look(&tree).of(&tree, controller, &|_| Ok(found.clone()))
    }

    fn words(root: &Path, found: &[&str]) -> Vec<String> {
        claims(root, found)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_drive_that_nobody_uses_may_be_taken() {
        let root = tempfile::tempdir().expect("a folder");
        drive(root.path());
        assert_eq!(claims(root.path(), &[]), []);
        fs::write(root.path().join("dev/nvme0n1"), STORE_MAGIC).expect("written");
        let found = claims(root.path(), &["ext4"]);
        assert_eq!(found.len(), 1);
        assert!(found[0].is_harmless(), "{found:?}");
    }

    #[test]
    fn everything_that_holds_a_drive_is_named() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        drive(root);
        let part = "sys/class/block/nvme0n1/nvme0n1p1";
        put(root, &format!("{part}/partition"), "1\n");
        put(root, "sys/class/block/nvme0n1p1/dev", "259:1\n");
        put(root, "sys/class/block/nvme0n1p1/holders/dm-0/x", "");
        put(
            root,
            "proc/self/mountinfo",
            "22 1 259:1 / /data rw shared:1 - ext4 /dev/root rw\n23 1 0:40 / /pool rw - btrfs /dev/nvme0n1 rw\n",
        );
        put(
            root,
            "proc/swaps",
            "Filename\tType\tSize\n/dev/nvme0n1p1 partition 8 0 -2\n",
        );
        put(root, "proc/77/comm", "postgres\n");
        fs::create_dir_all(root.join("proc/77/fd")).expect("made");
        symlink("/dev/nvme0n1", root.join("proc/77/fd/3")).expect("linked");
        let found = words(root, &["gpt"]);
        assert_eq!(
            found,
            [
                "nvme0n1 is mounted at /pool",
                "nvme0n1 is open in process 77 (postgres)",
                "nvme0n1p1 is mounted at /data",
                "nvme0n1p1 is swap",
                "nvme0n1p1 is part of dm-0",
                "nvme0n1 has 1 partitions",
                "nvme0n1 has gpt on it",
            ]
        );
        assert!(claims(root, &[]).iter().all(|claim| !claim.is_harmless()));
    }

    #[test]
    fn what_cannot_be_looked_at_is_held() {
        let root = tempfile::tempdir().expect("a folder");
        drive(root.path());
        let tree = Tree::at(root.path());
        let controller = &controllers(&tree)[0];
        let looked = Claims::look(&tree);
        let found = looked.of(&tree, controller, &|_| Err("not installed".to_owned()));
        assert!(matches!(found[..], [Claim::Unknown { .. }]), "{found:?}");
        fs::remove_file(root.path().join("dev/nvme0n1")).expect("removed");
        let found = looked.of(&tree, controller, &|_| Ok(Vec::new()));
        assert!(matches!(found[..], [Claim::Unknown { .. }]), "{found:?}");
    }

    #[test]
    fn a_process_that_drives_it_itself_is_found() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        drive(root);
        let at = root.join(format!("sys/bus/pci/devices/{ADDRESS}"));
        fs::remove_dir_all(at.join("nvme")).expect("removed");
        symlink("../../kernel/iommu_groups/7", at.join("iommu_group")).expect("linked");
        put(root, "proc/9/comm", "ogee\n");
        fs::create_dir_all(root.join("proc/9/fd")).expect("made");
        symlink("/dev/vfio/7", root.join("proc/9/fd/11")).expect("linked");
        assert_eq!(
            words(root, &[]),
            ["0000:00:04.0 is open in process 9 (ogee)"]
        );
    }

    #[test]
    fn what_wipefs_says_is_understood() {
        assert_eq!(parse(b"\n"), Ok(Vec::new()));
        let two = br#"{"signatures": [{"device":"nvme0n1","offset":"0x1fe","type":"dos","uuid":null,"label":null},
            {"device":"nvme0n1","offset":"0x438","type":"ext4","uuid":"a","label":null}]}"#;
        assert_eq!(parse(two), Ok(vec!["dos".to_owned(), "ext4".to_owned()]));
        assert!(parse(b"{").is_err());
    }
}
