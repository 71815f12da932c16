//! NVMe controllers, and what those in user space need.
//!
//! *Place*: checks of `ogee doctor`. *Owner*: plain values. *Invariants*: only files of the kernel are read; no drive is
//! touched. A host whose drives are all the kernel's is fine: memory, IOMMU and build are of interest only where a drive is
//! bound to a driver for user space. *On failure*: a finding.

use super::check::{CheckName, Finding, Fix, Verdict};
use super::tree::Tree;
use crate::drive::{Controller, controllers};
use ogee_device::nvme::memory_mib;

const HUGEPAGE_KIB: &str = "2048";

/// All findings, for a program that has SPDK in it, or not.
pub(crate) fn findings(tree: &Tree, has_spdk: bool) -> Vec<Finding> {
    let controllers = controllers(tree);
    let has_iommu = !tree.names("sys/kernel/iommu_groups").is_empty();
    let mut findings: Vec<_> = controllers
        .iter()
        .map(|controller| driver(controller, has_iommu))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            CheckName::NvmeDriver,
            "no NVMe controller",
            "none",
        ));
    }
    let in_user_space = controllers
        .iter()
        .filter(|one| one.is_in_user_space())
        .count();
    if in_user_space > 0 {
        findings.push(iommu(&controllers, has_iommu));
        findings.push(hugepages(tree, in_user_space));
        findings.push(build(in_user_space, has_spdk));
    }
    findings
}

fn driver(controller: &Controller, has_iommu: bool) -> Finding {
    let words = match controller.driver.as_deref() {
        Some("nvme") => "nvme, the kernel's: use it by path",
        Some("vfio-pci") => "vfio-pci: use it by pci",
        Some("uio_pci_generic") => "uio_pci_generic: use it by pci, as root",
        Some(other) => other,
        None => "no driver",
    };
    let serial = controller
        .serial
        .iter()
        .map(|serial| format!(", serial {serial}"));
    let node = controller
        .numa_node
        .iter()
        .map(|node| format!(", NUMA node {node}"));
    let found: String = std::iter::once(words.to_owned())
        .chain(serial)
        .chain(node)
        .collect();
    let needed = "nvme, or vfio-pci";
    let finding = Finding::ok(CheckName::NvmeDriver, found, needed).of(&controller.address);
    if controller.is_with("nvme") || controller.is_with("vfio-pci") {
        return finding;
    }
    let verb = if has_iommu { "prepare" } else { "release" };
    let command = format!("ogee device {verb} {}", controller.address);
    let text = match has_iommu {
        true => "bind it to vfio-pci: the IOMMU then keeps the drive from all memory but its own",
        false => {
            "give it back to the kernel, or turn on the IOMMU and bind it to vfio-pci: without one a drive can \
                  write to all memory"
        }
    };
    finding.but(Verdict::Warning, Fix::new(text).by(&[command]))
}

fn iommu(controllers: &[Controller], has_iommu: bool) -> Finding {
    let found = if has_iommu { "on" } else { "off" };
    let finding = Finding::ok(CheckName::NvmeIommu, found, "on, for vfio-pci");
    if has_iommu {
        return finding;
    }
    let text = "turn it on in the firmware (VT-d, AMD-Vi), and with intel_iommu=on or amd_iommu=on in the kernel's command line";
    let needs_it = controllers.iter().any(|one| one.is_with("vfio-pci"));
    let verdict = if needs_it {
        Verdict::Failed
    } else {
        Verdict::Warning
    };
    finding.but(verdict, Fix::new(text))
}

fn hugepages(tree: &Tree, drives: usize) -> Finding {
    let folder = format!("hugepages/hugepages-{HUGEPAGE_KIB}kB");
    let count = |at: String| tree.read(at).and_then(|text| text.parse::<u32>().ok());
    let free = count(format!("sys/kernel/mm/{folder}/free_hugepages")).unwrap_or(0);
    let total = count(format!("sys/kernel/mm/{folder}/nr_hugepages")).unwrap_or(0);
    let nodes = tree
        .names("sys/devices/system/node")
        .into_iter()
        .filter_map(|node| {
            let free = count(format!(
                "sys/devices/system/node/{node}/{folder}/free_hugepages"
            ))?;
            Some(format!("{node}: {free}"))
        });
    let nodes: Vec<_> = nodes.collect();
    let by_node = if nodes.len() > 1 {
        format!(" ({})", nodes.join(", "))
    } else {
        String::new()
    };
    let wanted = memory_mib(drives).div_ceil(2);
    let found = format!("{free} of {total} free{by_node}");
    let needed = format!("{wanted} of 2 MiB, for {drives} drives of one process");
    let finding = Finding::ok(CheckName::NvmeHugepages, found, needed);
    if free >= wanted {
        return finding;
    }
    let pages = total + (wanted - free);
    let text = "reserve them, as early after boot as can be, and for each boot in /etc/sysctl.d";
    let commands = [format!("echo {pages} > /proc/sys/vm/nr_hugepages")];
    // A chunkserver that runs has taken its own already.
    finding.but(Verdict::Warning, Fix::new(text).by(&commands))
}

fn build(drives: usize, has_spdk: bool) -> Finding {
    let found = if has_spdk {
        "built with SPDK"
    } else {
        "built without SPDK"
    };
    let finding = Finding::ok(CheckName::NvmeBuild, found, "built with SPDK");
    if has_spdk {
        return finding;
    }
    let text = format!(
        "{drives} drives are in user space, where this program cannot use them: build it with the feature spdk where SPDK is \
         installed (docs/spdk.md), or give the drives back to the kernel"
    );
    let commands = ["cargo build --release -p ogee-cli --features spdk".to_owned()];
    finding.but(Verdict::Warning, Fix::new(text).by(&commands))
}

#[cfg(test)]
mod tests {
    use super::{CheckName, Finding, Tree, Verdict, findings};
    use crate::doctor::tree::put;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn drive(root: &Path, address: &str, driver: Option<&str>) {
        let at = format!("sys/bus/pci/devices/{address}");
        put(root, &format!("{at}/class"), "0x010802\n");
        put(root, &format!("{at}/numa_node"), "1\n");
        match driver {
            Some("nvme") => put(root, &format!("{at}/nvme/nvme0/serial"), "S5XY  \n"),
            _ => put(root, &format!("{at}/vendor"), "0x1b36\n"),
        }
        if let Some(driver) = driver {
            let link = root.join(&at).join("driver");
            symlink(format!("../../../bus/pci/drivers/{driver}"), link).expect("linked");
        }
    }

    fn pages(root: &Path, free: u32, total: u32) {
        let folder = "sys/kernel/mm/hugepages/hugepages-2048kB";
        put(
            root,
            &format!("{folder}/free_hugepages"),
            &format!("{free}\n"),
        );
        put(
            root,
            &format!("{folder}/nr_hugepages"),
            &format!("{total}\n"),
        );
    }

    fn of(findings: &[Finding], name: CheckName) -> Finding {
        let found = findings.iter().find(|finding| finding.name == name);
        found.expect("there is one").clone()
    }

    #[test]
    fn a_host_whose_drives_are_the_kernels_is_fine() {
        let root = tempfile::tempdir().expect("a folder");
        let tree = Tree::at(root.path());
        assert_eq!(findings(&tree, false)[0].found, "no NVMe controller");
        put(
            root.path(),
            "sys/bus/pci/devices/0000:00:01.0/class",
            "0x060000\n",
        );
        drive(root.path(), "0000:00:04.0", Some("nvme"));
        let found = findings(&tree, false);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Ok));
        assert_eq!(found[0].subject, "0000:00:04.0");
        assert!(
            found[0].found.contains("serial S5XY, NUMA node 1"),
            "{found:?}"
        );
    }

    #[test]
    fn a_drive_in_user_space_wants_iommu_memory_and_a_build() {
        let root = tempfile::tempdir().expect("a folder");
        drive(root.path(), "0000:00:04.0", Some("vfio-pci"));
        pages(root.path(), 10, 12);
        let found = findings(&Tree::at(root.path()), false);
        assert_eq!(of(&found, CheckName::NvmeIommu).verdict, Verdict::Failed);
        let memory = of(&found, CheckName::NvmeHugepages);
        let fix = memory.fix.expect("a fix");
        // 48 MiB, and 16 for the drive.
        assert_eq!(fix.commands, ["echo 34 > /proc/sys/vm/nr_hugepages"]);
        assert_eq!(of(&found, CheckName::NvmeBuild).verdict, Verdict::Warning);
        fs::create_dir_all(root.path().join("sys/kernel/iommu_groups/0")).expect("made");
        pages(root.path(), 32, 32);
        let found = findings(&Tree::at(root.path()), true);
        assert!(
            found.iter().all(|finding| finding.verdict == Verdict::Ok),
            "{found:?}"
        );
    }

    #[test]
    fn a_drive_that_nobody_has_is_told_with_what_binds_it() {
        let root = tempfile::tempdir().expect("a folder");
        drive(root.path(), "0000:00:04.0", None);
        fs::create_dir_all(root.path().join("sys/kernel/iommu_groups/0")).expect("made");
        let found = of(
            &findings(&Tree::at(root.path()), true),
            CheckName::NvmeDriver,
        );
        let fix = found.fix.expect("a fix");
        assert!(
            fix.commands == ["ogee device prepare 0000:00:04.0"],
            "{fix:?}"
        );
    }
}
