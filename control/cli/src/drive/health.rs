//! What a drive says of its own health.
//!
//! *Place*: `ogee device ls --local` and `health`. *Owner*: plain values. *Invariants*: the drive is asked for a log page,
//! nothing else. *On failure*: words for people.

use super::controller::Controller;
use crate::args::Format;
use crate::doctor::Tree;
use crate::output::{human, print};
use ogee_device::DriveHealth;
use ogee_proto::drive::DriveWarnings;
use ogee_proto::service::DriveReport;
use serde_json::{Value, json};
use std::fs::File;

/// Asks a drive that the kernel drives.
pub(super) fn read(tree: &Tree, controller: &Controller) -> Result<DriveHealth, String> {
    let Some(name) = &controller.kernel_name else {
        return Err(format!(
            "the kernel does not drive it: its driver is {}. If a chunkserver uses it: ogee device health {}",
            controller.driver.as_deref().unwrap_or("none"),
            controller.address
        ));
    };
    let path = tree.path(format!("dev/{name}"));
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    DriveHealth::ask(&file).map_err(|error| format!("{}: {error}", path.display()))
}

pub(super) fn in_json(health: &DriveHealth) -> Value {
    json!({
        "warnings": health.warnings.words(), "celsius": health.celsius, "used_percent": health.used_percent,
        "spare_percent": health.spare_percent, "spare_threshold_percent": health.spare_threshold_percent,
        "media_errors": health.media_errors, "error_log_entries": health.error_log_entries,
        "unsafe_shutdowns": health.unsafe_shutdowns, "power_on_hours": health.power_on_hours,
        "power_cycles": health.power_cycles, "bytes_read": health.bytes_read, "bytes_written": health.bytes_written,
    })
}

/// The same as the metadata servers heard it.
pub(crate) fn report_json(report: &DriveReport) -> Value {
    let mut json = in_json(&of_report(report));
    json["refusals"] = report.refusals.into();
    json["is_old"] = report.is_old.into();
    json
}

pub(super) fn of_report(report: &DriveReport) -> DriveHealth {
    let percent = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    DriveHealth {
        // More bits than there are is a chunkserver that is newer.
        warnings: DriveWarnings::new(u8::try_from(report.warnings & 0xff).unwrap_or_default()),
        celsius: report.celsius,
        spare_percent: percent(report.spare_percent),
        spare_threshold_percent: percent(report.spare_threshold_percent),
        used_percent: percent(report.used_percent),
        bytes_read: report.bytes_read,
        bytes_written: report.bytes_written,
        power_cycles: report.power_cycles,
        power_on_hours: report.power_on_hours,
        unsafe_shutdowns: report.unsafe_shutdowns,
        media_errors: report.media_errors,
        error_log_entries: report.error_log_entries,
    }
}

/// What is printed of a drive that the kernel drives.
pub(super) fn of_controller(controller: &Controller, health: &DriveHealth) -> Value {
    let mut json = in_json(health);
    json["pci"] = controller.address.clone().into();
    json["serial"] = controller.serial.clone().into();
    json
}

pub(super) fn show(
    title: &str,
    json: &Value,
    health: &DriveHealth,
    more: &[(&str, String)],
    format: Format,
) {
    let spare = format!(
        "{} % (warns below {} %)",
        health.spare_percent, health.spare_threshold_percent
    );
    let rows = [
        ("warnings", health.warnings.to_string()),
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
    let rows = rows.iter().chain(more);
    let rows = rows.map(|(what, value)| vec![(*what).to_owned(), value.clone()]);
    print(format, json, &[title, ""], rows.collect());
}
