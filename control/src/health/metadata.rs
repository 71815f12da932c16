//! Stores of which metadata pages have one good copy only.

use super::assess::{Condition, Severity, Sight};

/// Each by its chunkserver and device.
pub(super) fn metadata_condition(sight: &Sight<'_>) -> Condition {
    let mut bad = Condition::new(
        "OGEE-1065",
        Severity::Warn,
        "metadata pages of stores have one good copy only",
        "the device does not take what is written there: replace it (ogee device replace OLD NEW) before the other copies go",
    );
    for (id, server) in sight.state.chunkservers() {
        if !sight.liveness.is_online(sight.now, *id) {
            continue;
        }
        let stores = sight.liveness.heard(*id).into_iter();
        for (store, usage) in stores.flat_map(|heard| &heard.stores) {
            let copies = usage.light.map_or(0, |light| light.bad);
            if copies == 0 {
                continue;
            }
            bad.add(|| {
                let path = sight.state.stores().get(store);
                let path = path.map_or("", |store| &store.path);
                format!("{}:{path} ({copies} pages)", server.name)
            });
        }
    }
    bad
}
