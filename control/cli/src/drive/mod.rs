//! `ogee device ls --local|prepare|release|health`: this host's NVMe drives, and who drives them.
//!
//! *Place*: beside the other commands; asks the kernel, and the cluster only for the health of a drive that a chunkserver
//! uses without it. *Owner*: the process.
//! *Invariants*: a drive that anything uses, or that has anything on it but a store of Ogee's, is not taken from the
//! kernel; what cannot be looked at counts as used. Nothing on a drive is written, ever. What a command would do, it
//! can print instead (`--dry-run`). Drives are remembered by serial number, since addresses move.
//! *On failure*: an error that names the drive, what holds it and what to do; a drive that was taken from one driver and
//! is not taken by the other goes back.
//!
//! | module | holds |
//! |---|---|
//! | `controller` | controllers and their namespaces, as the kernel shows them |
//! | `claim` | what holds a drive |
//! | `bind` | from one driver to another |
//! | `locate` | where a drive is that is known by its serial number alone |
//! | `record` | drives that are to be prepared at each boot |
//! | `health` | the drive's own health page |
//! | `used` | the same of drives that chunkservers use, as the metadata servers heard it |

mod bind;
mod claim;
mod controller;
mod health;
mod locate;
mod record;
mod used;

pub(crate) use controller::{Controller, controllers};
pub(crate) use health::report_json;
pub(crate) use locate::locate;

use crate::args::{Format, HealthArgs, PrepareArgs, ReleaseArgs};
use crate::doctor::Tree;
use crate::error::{CliError, Exit};
use crate::output::{line, print};
use bind::{Step, carry_out};
use claim::{Claim, Claims};
use record::{Record, Records};
use serde_json::{Value, json};
use std::process::ExitCode;
use used::Wanted;

/// Lists controllers: what drives each, what holds it, how it is.
pub(crate) fn ls(format: Format) -> Result<ExitCode, CliError> {
    let tree = Tree::host();
    let looked = Claims::look(&tree);
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for controller in controllers(&tree) {
        let claims = looked.of(&tree, &controller, &claim::signatures);
        let health = health::read(&tree, &controller);
        rows.push(row(&controller, &claims, health.as_ref().ok()));
        values.push(in_json(&controller, &claims, health.as_ref()));
    }
    let header = [
        "PCI", "SERIAL", "MODEL", "DRIVER", "SIZE", "NUMA", "TEMP", "WEAR", "SPARE", "ERRORS",
        "HELD BY",
    ];
    print(format, &Value::Array(values), &header, rows);
    Ok(ExitCode::SUCCESS)
}

fn row(
    controller: &Controller,
    claims: &[Claim],
    health: Option<&ogee_device::DriveHealth>,
) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let of_health = |show: &dyn Fn(&ogee_device::DriveHealth) -> String| {
        health.map_or_else(|| "-".to_owned(), show)
    };
    let held: Vec<String> = claims.iter().map(ToString::to_string).collect();
    vec![
        controller.address.clone(),
        or_dash(&controller.serial),
        or_dash(&controller.model),
        or_dash(&controller.driver),
        controller
            .size()
            .map_or_else(|| "-".to_owned(), crate::output::human),
        or_dash(&controller.numa_node),
        of_health(&|health| format!("{} °C", health.celsius)),
        of_health(&|health| format!("{} %", health.used_percent)),
        of_health(&|health| format!("{} %", health.spare_percent)),
        of_health(&|health| health.media_errors.to_string()),
        if held.is_empty() {
            "-".to_owned()
        } else {
            held.join("; ")
        },
    ]
}

fn in_json(
    controller: &Controller,
    claims: &[Claim],
    health: Result<&ogee_device::DriveHealth, &String>,
) -> Value {
    let namespaces: Vec<&str> = controller
        .namespaces
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    json!({
        "pci": controller.address, "serial": controller.serial, "model": controller.model,
        "driver": controller.driver, "numa_node": controller.numa_node, "iommu_group": controller.iommu_group,
        "namespaces": namespaces, "bytes": controller.size(),
        "held_by": claims.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "may_be_taken": claims.iter().all(Claim::is_harmless),
        "health": health.ok().map(health::in_json),
        "health_unknown": health.err(),
    })
}

/// Gives a drive to a driver for user space.
pub(crate) fn prepare(args: &PrepareArgs, format: Format) -> Result<ExitCode, CliError> {
    let tree = Tree::host();
    if args.recorded {
        return prepare_recorded(&tree, args);
    }
    let name = args.name.as_deref().unwrap_or_default();
    let controller = find(&tree, name)?;
    let wanted = driver(&controller, args)?;
    let records = Records::at(&args.records);
    let mut known = records.read()?;
    let record = match &controller.serial {
        Some(serial) => Some(Record {
            serial: serial.clone(),
            pci: controller.address.clone(),
            driver: wanted.to_owned(),
        }),
        // It is in user space already, and only the kernel's driver tells the serial number.
        None => known
            .iter()
            .find(|record| record.pci == controller.address)
            .map(|record| Record {
                driver: wanted.to_owned(),
                ..record.clone()
            }),
    };
    hand_over(&tree, &controller, wanted, args.dry_run)?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let is_kept = !args.once && record.is_some();
    if let Some(record) = record.filter(|_| is_kept) {
        Records::put(&mut known, record);
        records.write(&known)?;
    }
    let json = json!({
        "pci": controller.address, "serial": controller.serial, "driver": wanted, "at_each_boot": is_kept,
        "config": {"pci": controller.address, "serial": controller.serial},
    });
    match format {
        Format::Json => line(&format!("{json:#}")),
        Format::Table => {
            line(&format!("{} is with {wanted} now", controller.address));
            line("for a chunkserver's configuration:");
            line(&format!("  [[device]]\n  pci = \"{}\"", controller.address));
            if let Some(serial) = &controller.serial {
                line(&format!("  serial = \"{serial}\""));
            }
            let boot = if is_kept {
                "after a boot: ogee device prepare --recorded, before the chunkserver starts"
            } else {
                "after a boot it is the kernel's again"
            };
            line(boot);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All drives of the record: what a unit runs at boot. One that is not there does not keep the others from it.
fn prepare_recorded(tree: &Tree, args: &PrepareArgs) -> Result<ExitCode, CliError> {
    let records = Records::at(&args.records);
    let mut known = records.read()?;
    let mut failures = Vec::new();
    let mut has_moved = false;
    for record in &mut known {
        match prepare_one(tree, record, args) {
            Ok(at) => {
                has_moved |= at != record.pci;
                record.pci = at;
            }
            Err(error) => failures.push(error),
        }
    }
    if has_moved && !args.dry_run {
        records.write(&known)?;
    }
    for failure in &failures {
        line(&failure.to_string());
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Failed as u8)
    })
}

fn prepare_one(tree: &Tree, record: &Record, args: &PrepareArgs) -> Result<String, CliError> {
    let all = controllers(tree);
    let serial = &record.serial;
    let found = all
        .iter()
        .find(|one| one.serial.as_deref() == Some(serial.as_str()));
    let Some(controller) = found else {
        let is_done = all
            .iter()
            .any(|one| one.address == record.pci && one.is_with(&record.driver));
        if is_done {
            line(&format!("{serial}: is with {} already", record.driver));
            return Ok(record.pci.clone());
        }
        return Err(CliError::new(
            "OGEE-3011",
            &format!("there is no NVMe drive {serial}"),
            "no controller that the kernel drives has this serial number, and what is at its last address is not prepared",
            &format!(
                "look at ogee device ls --local; if the drive is gone, take it out of {}",
                args.records.display()
            ),
        )
        .with_exit(Exit::NotFound));
    };
    hand_over(tree, controller, &record.driver, args.dry_run)?;
    if !args.dry_run {
        line(&format!(
            "{serial}: {} is with {} now",
            controller.address, record.driver
        ));
    }
    Ok(controller.address.clone())
}

/// Gives a drive back to the kernel.
pub(crate) fn release(args: &ReleaseArgs) -> Result<ExitCode, CliError> {
    let tree = Tree::host();
    let records = Records::at(&args.records);
    let mut known = records.read()?;
    // Only the record knows the serial number of a drive in user space.
    let by_record = known.iter().find(|record| record.serial == args.name);
    let name = by_record.map_or(args.name.as_str(), |record| record.pci.as_str());
    let controller = find(&tree, name)?;
    let looked = Claims::look(&tree);
    if let Some(claim) = looked.of_user_space(&tree, &controller) {
        return Err(held(
            "give back",
            &controller,
            &[claim],
            "stop that process first",
        ));
    }
    let steps = bind::to_kernel(&controller);
    if args.dry_run {
        show(&steps);
        return Ok(ExitCode::SUCCESS);
    }
    carry_out(&tree, &controller, "nvme", &steps)?;
    let before = known.len();
    known.retain(|record| record.pci != controller.address);
    if known.len() != before {
        records.write(&known)?;
    }
    line(&format!("{} is the kernel's now", controller.address));
    Ok(ExitCode::SUCCESS)
}

/// Shows what a drive says of its own health. Exit code 1 if it warns.
pub(crate) fn health(
    mds: &[String],
    args: &HealthArgs,
    format: Format,
) -> Result<ExitCode, CliError> {
    let tree = Tree::host();
    if args.name.parse::<uuid::Uuid>().is_ok() {
        return used::health(mds, &Wanted::Store(&args.name), format);
    }
    let known = Records::at(&args.records).read()?;
    let controller = find_recorded(&tree, &known, &args.name)?;
    if controller.is_in_user_space() {
        return used::health(mds, &Wanted::Address(&controller.address), format);
    }
    let health = health::read(&tree, &controller).map_err(|why| {
        CliError::new(
            "OGEE-3014",
            &format!("no health page of {}", controller.address),
            &why,
            "run it as root, on a drive that the kernel or a chunkserver drives (ogee device ls --local)",
        )
    })?;
    let json = health::of_controller(&controller, &health);
    health::show(&controller.address, &json, &health, &[], format);
    Ok(verdict(&health))
}

fn verdict(health: &ogee_device::DriveHealth) -> ExitCode {
    match health.warnings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Exit::Failed as u8),
    }
}

/// By what the kernel tells, or by the record: of a drive in user space only that knows the serial number.
fn find_recorded(tree: &Tree, known: &[Record], name: &str) -> Result<Controller, CliError> {
    let by_record = known.iter().find(|record| record.serial == name);
    let recorded = by_record.and_then(|record| find(tree, &record.pci).ok());
    // The kernel knows better.
    let found = find(tree, name);
    match (found, recorded) {
        (Err(_), Some(recorded)) if recorded.is_in_user_space() => Ok(recorded),
        (found, _) => found,
    }
}

fn find(tree: &Tree, name: &str) -> Result<Controller, CliError> {
    let all = controllers(tree);
    let wanted = tree.device_name(name);
    let found = all
        .iter()
        .find(|one| one.is_called(name, wanted.as_deref()));
    found.cloned().ok_or_else(|| {
        let there: Vec<String> = all.iter().map(Controller::names).collect();
        let there = if there.is_empty() {
            "this host has no NVMe controller".to_owned()
        } else {
            format!("there are {}", there.join(", "))
        };
        CliError::new(
            "OGEE-3011",
            &format!("there is no NVMe drive {name}"),
            &there,
            "name it by PCI address, serial number, /dev/nvme… or /dev/disk/by-id/…",
        )
        .with_exit(Exit::NotFound)
    })
}

/// The driver that was asked for, or the one that an IOMMU makes safe.
fn driver<'a>(controller: &Controller, args: &'a PrepareArgs) -> Result<&'a str, CliError> {
    match (args.driver.as_deref(), &controller.iommu_group) {
        (Some(driver), _) if driver != "vfio-pci" => Ok(driver),
        (_, Some(_)) => Ok("vfio-pci"),
        (_, None) => Err(CliError::new(
            "OGEE-3013",
            &format!("{} is behind no IOMMU", controller.address),
            "vfio-pci wants one: without it a drive can write to all memory of the host",
            "turn it on in the firmware (VT-d, AMD-Vi) and with intel_iommu=on or amd_iommu=on in the kernel's command \
             line; or, where all that runs here may be trusted, --driver uio_pci_generic",
        )),
    }
}

/// Gives a drive to a driver for user space, or prints how.
fn hand_over(
    tree: &Tree,
    controller: &Controller,
    driver: &str,
    dry_run: bool,
) -> Result<(), CliError> {
    let steps = take(tree, controller, driver)?;
    if dry_run {
        show(&steps);
        return Ok(());
    }
    carry_out(tree, controller, driver, &steps)
}

/// What takes a drive from the kernel, if nothing else has it.
fn take(tree: &Tree, controller: &Controller, driver: &str) -> Result<Vec<Step>, CliError> {
    if controller.is_with(driver) {
        return Ok(Vec::new());
    }
    let looked = Claims::look(tree);
    let claims = looked.of(tree, controller, &claim::signatures);
    let holds: Vec<Claim> = claims
        .into_iter()
        .filter(|claim| !claim.is_harmless())
        .collect();
    if !holds.is_empty() {
        let remedy = holds[0].remedy();
        return Err(held("take", controller, &holds, &remedy));
    }
    if driver == "vfio-pci" {
        let others = bind::others_of_group(tree, controller);
        if !others.is_empty() {
            return Err(CliError::new(
                "OGEE-3013",
                &format!(
                    "{} shares its IOMMU group with {}",
                    controller.address,
                    others.join(", ")
                ),
                "a group belongs to one user as a whole: the kernel's drivers and vfio-pci cannot both be in it",
                "put the drive into another slot, or give the others to vfio-pci too",
            ));
        }
    }
    Ok(bind::to_user_space(controller, driver))
}

fn held(verb: &str, controller: &Controller, claims: &[Claim], remedy: &str) -> CliError {
    let words: Vec<String> = claims.iter().map(ToString::to_string).collect();
    CliError::new(
        "OGEE-3012",
        &format!("cannot {verb} {}: it is in use", controller.names()),
        &words.join("; "),
        remedy,
    )
}

fn show(steps: &[Step]) {
    if steps.is_empty() {
        line("# nothing is to be done");
    }
    for step in steps {
        line(&step.to_string());
    }
}
