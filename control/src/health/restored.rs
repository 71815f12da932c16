//! What a restore of the metadata leaves to do.

use super::assess::{Condition, Severity, Sight};

/// Metadata that only listens, and what it does not know.
pub(super) fn restored(sight: &Sight<'_>) -> [Condition; 2] {
    let mut listens = Condition::new(
        "OGEE-1020",
        Severity::Warn,
        "the metadata comes from a backup and was not accepted yet: volumes serve, and no replica is made, \
         moved or deleted",
        "ogee mds strangers shows what the backup does not know; when all is as it should be: ogee mds \
         accept-restore",
    );
    if sight.state.only_listens() {
        listens.count = 1;
    }
    let mut strange = Condition::new(
        "OGEE-1021",
        Severity::Warn,
        "volumes or replicas are held that the restored metadata does not know, or volumes that it knows \
         were removed; they are left as they are",
        "ogee mds strangers shows them; ogee mds discard VOLUME frees one, ogee volume rm NAME one that was \
         removed",
    );
    if sight.state.restored().is_some() {
        for (id, volume) in sight.strangers.volumes(sight.state) {
            let known = sight.state.volumes().get(&id);
            strange.add(|| match known {
                Some(known) => format!("volume \"{}\" (removed)", known.name),
                None => format!("volume {} ({} chunks)", id.get(), volume.chunks),
            });
        }
        for (_, replica) in sight.strangers.replicas(sight.state) {
            strange.add(|| format!("replica {} of {}", replica.replica, replica.copyset));
        }
    }
    [listens, strange]
}
