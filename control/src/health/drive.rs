//! Drives that warn of their own health.

use ogee_proto::drive::DriveWarnings;
use ogee_proto::service::DriveReport;

use super::assess::{Condition, Severity, Sight, Subject};

/// Each by its chunkserver and device, with its words.
pub(super) fn drive_condition(sight: &Sight<'_>) -> Condition {
    let mut warning = Condition::new(
        "OGEE-1054",
        Severity::Warn,
        "drives warn of their own health",
        "look at them: ogee device health STORE (ogee device ls names it); cool one that is hot, and replace the others \
         before they fail: ogee device replace OLD NEW",
    );
    for (id, server) in sight.state.chunkservers() {
        if !sight.liveness.is_online(sight.now, *id) {
            continue;
        }
        let stores = sight.liveness.heard(*id).into_iter();
        for (store, usage) in stores.flat_map(|heard| &heard.stores) {
            let Some(drive) = usage.drive.filter(|drive| !warnings(drive).is_empty()) else {
                continue;
            };
            warning.add_of(Subject::Store(*store), || {
                let path = sight.state.stores().get(store);
                let path = path.map_or("", |store| &store.path);
                format!("{}:{path} ({})", server.name, named(&drive))
            });
        }
    }
    warning
}

fn warnings(drive: &DriveReport) -> DriveWarnings {
    // More bits than there are is a chunkserver that is newer.
    DriveWarnings::new(u8::try_from(drive.warnings & 0xff).unwrap_or_default())
}

fn named(drive: &DriveReport) -> String {
    format!(
        "{}; {} °C, {} % spare, {} % worn, {} media errors",
        warnings(drive),
        drive.celsius,
        drive.spare_percent,
        drive.used_percent,
        drive.media_errors
    )
}
