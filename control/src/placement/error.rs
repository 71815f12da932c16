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
    /// A device meets at most `replicas - 1` others with each copyset that it carries.
    #[error(
        "{copysets} copysets on {devices} devices cannot have a scatter width of {wanted}: it takes {needed}"
    )]
    TooFewCopysets {
        /// As asked for.
        copysets: usize,
        /// Devices that they are spread over.
        devices: usize,
        /// As asked for, or how many others there are.
        wanted: usize,
        /// The fewest copysets with which each device can have it.
        needed: usize,
    },
}

fn list(zones: &[Name]) -> String {
    if zones.is_empty() {
        return "none".into();
    }
    let names: Vec<&str> = zones.iter().map(Name::as_str).collect();
    names.join(", ")
}
