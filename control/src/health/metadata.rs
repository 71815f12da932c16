//! Stores of which metadata pages have one good copy only, or could not be read in either copy.

use ogee_proto::service::LightReport;

use super::assess::{Condition, Severity, Sight};

/// Each by its chunkserver and device.
pub(super) fn metadata_conditions(sight: &Sight<'_>) -> [Condition; 2] {
    let mut bad = Condition::new(
        "OGEE-1065",
        Severity::Warn,
        "metadata pages of stores have one good copy only",
        "the device does not take what is written there: replace it (ogee device replace OLD NEW) before the other copies go",
    );
    let mut unread = Condition::new(
        "OGEE-1066",
        Severity::Warn,
        "metadata pages of stores could be read in neither copy",
        "the device fails reads: replace it (ogee device replace OLD NEW) before its chunkserver is started anew",
    );
    for (id, server) in sight.state.chunkservers() {
        if !sight.liveness.is_online(sight.now, *id) {
            continue;
        }
        let stores = sight.liveness.heard(*id).into_iter();
        for (store, usage) in stores.flat_map(|heard| &heard.stores) {
            let LightReport {
                bad: copies,
                unread: pages,
                ..
            } = usage.light.unwrap_or_default();
            for (condition, count) in [(&mut bad, copies), (&mut unread, pages)] {
                if count == 0 {
                    continue;
                }
                condition.add(|| {
                    let path = sight.state.stores().get(store);
                    let path = path.map_or("", |store| &store.path);
                    format!("{}:{path} ({count} pages)", server.name)
                });
            }
        }
    }
    [bad, unread]
}
