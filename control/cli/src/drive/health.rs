//! What a drive says of its own health.
//!
//! *Place*: `ogee device ls --local` and `health`. *Owner*: plain values. *Invariants*: the drive is asked for a log page,
//! nothing else. *On failure*: words for people.

use super::controller::Controller;
use crate::args::Format;
use crate::doctor::Tree;
use crate::output::{human, print};
use ogee_device::DriveHealth;
use serde_json::{Value, json};
use std::fs::File;

/// Asks a drive that the kernel drives.
pub(super) fn read(tree: &Tree, controller: &Controller) -> Result<DriveHealth, String> {
    let Some(name) = &controller.kernel_name else {
        return Err(format!(
            "the kernel does not drive it: its driver is {}",
            controller.driver.as_deref().unwrap_or("none")
        ));
    };
    let path = tree.path(format!("dev/{name}"));
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    DriveHealth::ask(&file).map_err(|error| format!("{}: {error}", path.display()))
}

pub(super) fn in_json(health: &DriveHealth) -> Value {
    json!({
        "warnings": health.warnings(), "celsius": health.celsius, "used_percent": health.used_percent,
        "spare_percent": health.spare_percent, "spare_threshold_percent": health.spare_threshold_percent,
        "media_errors": health.media_errors, "error_log_entries": health.error_log_entries,
        "unsafe_shutdowns": health.unsafe_shutdowns, "power_on_hours": health.power_on_hours,
        "power_cycles": health.power_cycles, "bytes_read": health.bytes_read, "bytes_written": health.bytes_written,
    })
}

pub(super) fn show(controller: &Controller, health: &DriveHealth, format: Format) {
    let mut json = in_json(health);
    json["pci"] = controller.address.clone().into();
    json["serial"] = controller.serial.clone().into();
    let warnings = health.warnings();
    let warnings = if warnings.is_empty() {
        "none".to_owned()
    } else {
        warnings.join(", ")
    };
    let spare = format!(
        "{} % (warns below {} %)",
        health.spare_percent, health.spare_threshold_percent
    );
    let rows = [
        ("warnings", warnings),
        ("temperature", format!("{} °C", health.celsius)),
        (
            "wear",
            format!("{} % of its rated life", health.used_percent),
        ),
        ("spare blocks", spare),
        ("media errors", health.media_errors.to_string()),
        (
            "entries in its error log",
            health.error_log_entries.to_string(),
        ),
        ("unsafe shutdowns", health.unsafe_shutdowns.to_string()),
        ("hours powered on", health.power_on_hours.to_string()),
        ("power cycles", health.power_cycles.to_string()),
        ("read", human(health.bytes_read)),
        ("written", human(health.bytes_written)),
    ];
    let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
    let header = [controller.address.as_str(), ""];
    print(format, &json, &header, rows.to_vec());
}
