//! Why no placement was found.

use ogee_proto::name::Name;

/// A placement that the topology does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Replicas must be in distinct zones, and there are too few.
    #[error("{needed} replicas need {needed} zones, and {} are online: {}", zones.len(), list(zones))]
    TooFewZones {
        /// Zones needed.
        needed: usize,
        /// Zones that have a usable store.
        zones: Vec<Name>,
    },
}

fn list(zones: &[Name]) -> String {
    if zones.is_empty() {
        return "none".into();
    }
    let names: Vec<&str> = zones.iter().map(Name::as_str).collect();
    names.join(", ")
}
