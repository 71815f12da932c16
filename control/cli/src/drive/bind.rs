//! From one driver to another.
//!
//! *Place*: under `prepare` and `release`. *Owner*: plain values. *Invariants*: a step is the same whether it is printed or
//! done. *On failure*: the drive is offered to the kernel's driver again, and the error says which step failed.

use super::controller::{Controller, path_of};
use crate::doctor::Tree;
use crate::error::CliError;
use std::fmt;
use std::fs;
use std::process::Command;

/// How long a driver may take to accept a drive that was offered to it.
const PROBE: std::time::Duration = std::time::Duration::from_secs(30);
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Have the kernel know a driver.
    Load { module: String },
    /// Write to a file of the kernel's.
    Write { path: String, text: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { module } => write!(f, "modprobe {module}"),
            Self::Write { path, text } => write!(f, "echo '{text}' > /{path}"),
        }
    }
}

impl Step {
    fn write(path: impl Into<String>, text: &str) -> Self {
        Self::Write {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    fn run(&self, tree: &Tree) -> Result<(), String> {
        match self {
            // Also one that is built into the kernel.
            Self::Load { module }
                if tree.path(format!("sys/bus/pci/drivers/{module}")).exists() =>
            {
                Ok(())
            }
            Self::Load { module } => {
                let output = Command::new("modprobe")
                    .arg(module)
                    .output()
                    .map_err(|error| error.to_string())?;
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                output.status.success().then_some(()).ok_or(words)
            }
            Self::Write { path, text } => {
                fs::write(tree.path(path), format!("{text}\n")).map_err(|error| error.to_string())
            }
        }
    }
}

/// What gives a drive to a driver for user space.
pub(super) fn to_user_space(controller: &Controller, driver: &str) -> Vec<Step> {
    rebind(controller, driver, driver)
}

/// What gives it back.
pub(super) fn to_kernel(controller: &Controller) -> Vec<Step> {
    if controller.is_with("nvme") {
        return Vec::new();
    }
    // No driver is preferred any more.
    rebind(controller, "nvme", "")
}

fn rebind(controller: &Controller, module: &str, preferred: &str) -> Vec<Step> {
    let (address, at) = (&controller.address, path_of(&controller.address));
    let mut steps = vec![Step::Load {
        module: module.to_owned(),
    }];
    if controller.driver.is_some() {
        steps.push(Step::write(format!("{at}/driver/unbind"), address));
    }
    steps.push(Step::write(format!("{at}/driver_override"), preferred));
    steps.push(Step::write("sys/bus/pci/drivers_probe", address));
    steps
}

/// Does it, and looks whether the driver has the drive.
pub(super) fn carry_out(
    tree: &Tree,
    controller: &Controller,
    driver: &str,
    steps: &[Step],
) -> Result<(), CliError> {
    for step in steps {
        if let Err(why) = step.run(tree) {
            let back = give_back(tree, controller, step);
            return Err(CliError::new(
                "OGEE-3013",
                &format!("cannot give {} to {driver}: {step}", controller.names()),
                &format!("{why}{back}"),
                "run it as root; the kernel's log (dmesg) may say more",
            ));
        }
    }
    let link = format!("{}/driver", path_of(&controller.address));
    let until = std::time::Instant::now() + PROBE;
    loop {
        let bound = tree.link_name(&link);
        if bound.as_deref() == Some(driver) {
            return Ok(());
        }
        if std::time::Instant::now() > until {
            let bound = bound.unwrap_or_else(|| "no driver".to_owned());
            let back = steps
                .last()
                .map(|step| give_back(tree, controller, step))
                .unwrap_or_default();
            return Err(CliError::new(
                "OGEE-3013",
                &format!("{} is not with {driver}", controller.names()),
                &format!(
                    "it was offered, and after {} s is with {bound}{back}",
                    PROBE.as_secs()
                ),
                "the kernel's log (dmesg) says why the driver did not take it",
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Offers a drive that was taken from its driver to the kernel's again, as far as that goes. Says so.
fn give_back(tree: &Tree, controller: &Controller, failed: &Step) -> String {
    // Before that step nothing was changed.
    if matches!(failed, Step::Load { .. }) || !controller.is_with("nvme") {
        return String::new();
    }
    let address = &controller.address;
    let override_path = format!("{}/driver_override", path_of(address));
    let results = [
        Step::write(override_path, ""),
        Step::write("sys/bus/pci/drivers_probe", address),
    ]
    .map(|step| step.run(tree));
    match results.iter().all(Result::is_ok) {
        true => "; it was offered to the kernel's driver again".to_owned(),
        false => format!("; and it has no driver now: echo {address} > /sys/bus/pci/drivers_probe"),
    }
}

/// Devices of its IOMMU group that a driver of the kernel has. Bridges may stay.
pub(super) fn others_of_group(tree: &Tree, controller: &Controller) -> Vec<String> {
    let Some(group) = &controller.iommu_group else {
        return Vec::new();
    };
    let devices = tree.names(format!("sys/kernel/iommu_groups/{group}/devices"));
    let in_the_way = |address: &String| {
        let driver = tree.link_name(format!("{}/driver", path_of(address)));
        *address != controller.address
            && driver.is_some_and(|driver| !matches!(driver.as_str(), "vfio-pci" | "pcieport"))
    };
    devices.into_iter().filter(in_the_way).collect()
}

#[cfg(test)]
mod tests {
    use super::{others_of_group, to_kernel, to_user_space};
    use crate::doctor::{Tree, put};
    use crate::drive::controllers;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn steps_are_what_an_operator_would_type() {
        let root = tempfile::tempdir().expect("a folder");
        let at = "sys/bus/pci/devices/0000:65:00.0";
        put(root.path(), &format!("{at}/class"), "0x010802\n");
        symlink("../../drivers/nvme", root.path().join(at).join("driver")).expect("linked");
        let tree = Tree::at(root.path());
        let words = |steps: Vec<super::Step>| {
            let lines = steps.iter().map(ToString::to_string);
            lines.collect::<Vec<_>>()
        };
        let controller = &controllers(&tree)[0];
        assert_eq!(
            words(to_user_space(controller, "vfio-pci")),
            [
                "modprobe vfio-pci",
                "echo '0000:65:00.0' > /sys/bus/pci/devices/0000:65:00.0/driver/unbind",
                "echo 'vfio-pci' > /sys/bus/pci/devices/0000:65:00.0/driver_override",
                "echo '0000:65:00.0' > /sys/bus/pci/drivers_probe",
            ]
        );
        assert_eq!(to_kernel(controller), []);
        let mut other = controller.clone();
        other.driver = None;
        assert_eq!(
            words(to_kernel(&other)),
            [
                "modprobe nvme",
                "echo '' > /sys/bus/pci/devices/0000:65:00.0/driver_override",
                "echo '0000:65:00.0' > /sys/bus/pci/drivers_probe",
            ]
        );
    }

    #[test]
    fn a_group_is_taken_whole_or_not_at_all() {
        let root = tempfile::tempdir().expect("a folder");
        let device = |address: &str, driver: &str| {
            let at = format!("sys/bus/pci/devices/{address}");
            put(root.path(), &format!("{at}/class"), "0x010802\n");
            let at = root.path().join(at);
            symlink(format!("../../drivers/{driver}"), at.join("driver")).expect("linked");
            symlink("../../iommu_groups/3", at.join("iommu_group")).expect("linked");
            let group = root.path().join("sys/kernel/iommu_groups/3/devices");
            fs::create_dir_all(group.join(address)).expect("made");
        };
        device("0000:65:00.0", "nvme");
        device("0000:66:00.0", "pcieport");
        let tree = Tree::at(root.path());
        assert!(others_of_group(&tree, &controllers(&tree)[0]).is_empty());
        device("0000:67:00.0", "ixgbe");
        assert_eq!(
            others_of_group(&tree, &controllers(&tree)[0]),
            ["0000:67:00.0"]
        );
    }
}
