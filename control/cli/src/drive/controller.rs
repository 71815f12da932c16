//! NVMe controllers, as the kernel tells of them without asking the drive.
//!
//! *Place*: under the module's commands and `ogee doctor`. *Owner*: plain values. *Invariants*: only files of the kernel are
//! read. *On failure*: what cannot be read is not there.

use crate::doctor::Tree;

const DEVICES: &str = "sys/bus/pci/devices";
/// Class, subclass and interface of NVMe controllers.
const NVME_CLASS: &str = "0x010802";
/// The kernel counts sizes in them.
const SECTOR: u64 = 512;

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controller {
    pub(crate) address: String,
    pub(crate) driver: Option<String>,
    /// Only the kernel's driver shows it; so with the next two.
    pub(crate) serial: Option<String>,
    pub(crate) model: Option<String>,
    /// `nvme0`, and its block devices.
    pub(crate) kernel_name: Option<String>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) numa_node: Option<String>,
    pub(crate) iommu_group: Option<String>,
}

/// A block device of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// `nvme0n1`
    pub(crate) name: String,
    /// `nvme0n1p1` and so on.
    pub(crate) partitions: Vec<String>,
    bytes: Option<u64>,
}

impl Controller {
    pub(crate) fn is_in_user_space(&self) -> bool {
        matches!(
            self.driver.as_deref(),
            Some("vfio-pci" | "uio_pci_generic" | "igb_uio")
        )
    }

    pub(crate) fn is_with(&self, driver: &str) -> bool {
        self.driver.as_deref() == Some(driver)
    }

    /// All namespaces together.
    pub(crate) fn size(&self) -> Option<u64> {
        let sizes: Option<Vec<u64>> = self.namespaces.iter().map(|one| one.bytes).collect();
        sizes
            .filter(|sizes| !sizes.is_empty())
            .map(|sizes| sizes.iter().sum())
    }

    /// Address, and what else people call it.
    pub(crate) fn names(&self) -> String {
        match (&self.serial, &self.kernel_name) {
            (Some(serial), Some(name)) => format!("{} ({serial}, /dev/{name})", self.address),
            _ => self.address.clone(),
        }
    }

    /// Whether somebody may mean it by this: an address, a serial number, or `device`, the block or character device
    /// that a path leads to.
    pub(crate) fn is_called(&self, name: &str, device: Option<&str>) -> bool {
        let is_device = |device: &str| {
            self.kernel_name.as_deref() == Some(device)
                || self.namespaces.iter().any(|one| one.name == device)
        };
        self.address == name
            || self.address.strip_prefix("0000:") == Some(name)
            || self.serial.as_deref() == Some(name)
            || device.is_some_and(is_device)
    }
}

/// Where the kernel shows it.
pub(super) fn path_of(address: &str) -> String {
    format!("{DEVICES}/{address}")
}

/// All of this host, by address.
pub(crate) fn controllers(tree: &Tree) -> Vec<Controller> {
    let addresses = tree.names(DEVICES).into_iter();
    let is_nvme = |address: &String| {
        tree.read(format!("{DEVICES}/{address}/class")).as_deref() == Some(NVME_CLASS)
    };
    addresses
        .filter(is_nvme)
        .map(|address| controller(tree, address))
        .collect()
}

fn controller(tree: &Tree, address: String) -> Controller {
    let at = path_of(&address);
    let kernel_name = tree.names(format!("{at}/nvme")).into_iter().next();
    let of_nvme = |what: &str| {
        let name = kernel_name.as_ref()?;
        let text = tree.read(format!("{at}/nvme/{name}/{what}"))?;
        Some(text.trim().to_owned())
    };
    let parts = kernel_name
        .iter()
        .flat_map(|name| tree.names(format!("{at}/nvme/{name}")));
    let node = tree.read(format!("{at}/numa_node"));
    Controller {
        driver: tree.link_name(format!("{at}/driver")),
        serial: of_nvme("serial"),
        model: of_nvme("model"),
        namespaces: parts
            .filter_map(|part| block_device(&part))
            .map(|name| namespace(tree, name))
            .collect(),
        numa_node: node.filter(|node| !node.starts_with('-')),
        iommu_group: tree.link_name(format!("{at}/iommu_group")),
        kernel_name,
        address,
    }
}

/// The block device of an entry `nvme0n1`, or `nvme0c1n1` where paths are bundled, which is `nvme0n1`.
fn block_device(part: &str) -> Option<String> {
    let (instance, rest) = part.strip_prefix("nvme")?.split_once('n')?;
    let number = instance.split('c').next()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(rest)).then(|| format!("nvme{number}n{rest}"))
}

fn namespace(tree: &Tree, name: String) -> Namespace {
    let at = format!("sys/class/block/{name}");
    let is_partition = |part: &String| tree.read(format!("{at}/{part}/partition")).is_some();
    let sectors = tree
        .read(format!("{at}/size"))
        .and_then(|text| text.parse::<u64>().ok());
    Namespace {
        partitions: tree.names(&at).into_iter().filter(is_partition).collect(),
        bytes: sectors.map(|sectors| sectors.saturating_mul(SECTOR)),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::block_device;

    #[test]
    fn bundled_paths_lead_to_their_block_device() {
        assert_eq!(block_device("nvme0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(block_device("nvme3c1n12").as_deref(), Some("nvme3n12"));
        for other in ["ng0n1", "hwmon2", "nvme0", "nvmen1", "nvme0nx", "power"] {
            assert_eq!(block_device(other), None, "{other}");
        }
    }
}
