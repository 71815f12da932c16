//! What becomes of devices that limp.
//!
//! Pure: state and picture in, a note out. A device that was slow beside its peers for a while is limping: `heal` moves its
//! leaders, and nothing new goes there. One that limps for long is ejected: `heal` moves its replicas, one device in a
//! zone at a time, and only where all of them have somewhere to go. Both end when it has been well for a while, which its
//! chunkserver is asked to try, or by an operator's hand. A device that is worn, that is, did not take too much of what
//! was written to it, is ejected at once, and stays so. Between slow and well lies half of what makes a device slow, so
//! that one on the border stays what it is.

use std::time::Duration;

use ogee_proto::id::StoreId;
use ogee_proto::name::Name;

use super::loads::Loads;
use super::picture::{Bytes, Picture, Place, Presence};
use crate::limit::STORES_PER_COMMAND_MAX;
use crate::liveness::Bounds;
use crate::state::{NoteSick, SickStage, State};

/// What an operator has set about devices that limp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SickRules {
    /// A device is slow that takes so many times as long as is usual among its peers; 0: none ever is.
    pub factor: u64,
    /// And at least so long, in milliseconds; forty times that of a flush.
    pub floor_ms: u64,
    /// Slow for so long it limps, in milliseconds: from the first heartbeat that says so to another one.
    pub limping_after_ms: u64,
    /// Well for so long it does not limp any more, in milliseconds.
    pub well_after_ms: u64,
    /// Limping for so long it is ejected, in milliseconds; 0: never.
    pub eject_after_ms: u64,
    /// Ejected, and well for so long, it is taken back, in milliseconds; 0: only by hand.
    pub reinstate_after_ms: u64,
}

impl Default for SickRules {
    fn default() -> Self {
        Self {
            factor: 5,
            floor_ms: 30,
            limping_after_ms: 900,
            well_after_ms: 30_000,
            eject_after_ms: 600_000,
            reinstate_after_ms: 3_600_000,
        }
    }
}

impl SickRules {
    pub(crate) const fn bounds(&self, window_max: Duration) -> Bounds {
        Bounds {
            factor: self.factor,
            floor_ms: self.floor_ms,
            window_max,
        }
    }
}

/// Why a device that limped for long enough is not ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// Another device of its zone is being emptied.
    ZoneBusy,
    /// Some of its replicas have nowhere to go.
    NoTarget,
}

/// What the metadata does not say yet about who limps.
pub(crate) fn note(state: &State, picture: &Picture, rules: &SickRules) -> Option<NoteSick> {
    let mut note = NoteSick {
        at_ms: picture.now_ms,
        ..NoteSick::default()
    };
    for (id, place) in &picture.places {
        match next(place, picture.now_ms, rules) {
            Next::Limping => note.sick.push((*id, SickStage::Limping)),
            Next::Well => note.well.push(*id),
            Next::Ejected
                if note
                    .sick
                    .iter()
                    .all(|(_, stage)| *stage != SickStage::Ejected) =>
            {
                // One of all at a time, so that what is left is known before the next.
                if hindrance(state, picture, *id).is_none() {
                    note.sick.push((*id, SickStage::Ejected));
                }
            }
            Next::Ejected | Next::Same => {}
        }
    }
    note.sick.truncate(STORES_PER_COMMAND_MAX / 2);
    note.well.truncate(STORES_PER_COMMAND_MAX / 2);
    (!note.sick.is_empty() || !note.well.is_empty()).then_some(note)
}

enum Next {
    Same,
    Limping,
    Ejected,
    Well,
}

fn next(place: &Place, now_ms: u64, rules: &SickRules) -> Next {
    let verdict = place.verdict;
    if place.is_worn {
        let is_ejected = place
            .sick
            .is_some_and(|sick| sick.stage == SickStage::Ejected);
        return if is_ejected {
            Next::Same
        } else {
            Next::Ejected
        };
    }
    let Some(sick) = place.sick else {
        let is_there = !matches!(place.presence, Presence::Away { .. });
        let limps = is_there && verdict.slow_ms > 0 && verdict.slow_ms >= rules.limping_after_ms;
        return if limps { Next::Limping } else { Next::Same };
    };
    let been = |ms: u64| ms > 0 && verdict.well_ms >= ms;
    match sick.stage {
        // Nothing is slow any more: then nothing limps either.
        _ if rules.factor == 0 => Next::Well,
        SickStage::Limping if been(rules.well_after_ms.max(1)) => Next::Well,
        SickStage::Ejected if been(rules.reinstate_after_ms) => Next::Well,
        SickStage::Limping if is_overdue(place, now_ms, rules) => Next::Ejected,
        SickStage::Limping | SickStage::Ejected => Next::Same,
    }
}

/// Whether it is to be ejected: it has limped for long enough, and does still, or is worn.
pub(crate) fn is_overdue(place: &Place, now_ms: u64, rules: &SickRules) -> bool {
    let limping = place.sick.filter(|sick| sick.stage == SickStage::Limping);
    let since_ms = limping.map(|sick| now_ms.saturating_sub(sick.since_ms));
    if place.is_worn {
        return place
            .sick
            .is_none_or(|sick| sick.stage != SickStage::Ejected);
    }
    let is_long = since_ms.is_some_and(|ms| rules.eject_after_ms > 0 && ms >= rules.eject_after_ms);
    is_long && place.verdict.well_ms == 0
}

/// What keeps a device from being ejected.
pub(crate) fn hindrance(state: &State, picture: &Picture, store: StoreId) -> Option<Hindrance> {
    let zone = zone_of(state, store);
    let carries = |other: StoreId| {
        let mut hosted = state.hosted_beside(other);
        hosted.any(|(_, copyset)| copyset.members().any(|r| r.store == other))
    };
    let mut emptied = picture
        .places
        .keys()
        .filter(|id| **id != store && picture.is_draining(**id));
    if emptied.any(|other| zone_of(state, *other) == zone && carries(*other)) {
        return Some(Hindrance::ZoneBusy);
    }
    let bytes = Bytes::of(state, picture);
    let loads = Loads::of(state, picture);
    let has_nowhere = state
        .voters_on(store)
        .any(|(id, copyset, r)| !loads.has_target(copyset, r, bytes.of_one(id, copyset)));
    has_nowhere.then_some(Hindrance::NoTarget)
}

fn zone_of(state: &State, store: StoreId) -> Option<&Name> {
    state
        .stores()
        .get(&store)
        .and_then(|s| state.zone_of(s.chunkserver))
}

/// Whether its chunkserver is to try it out, so that it shows when it is well.
pub(crate) fn is_tried(state: &State, store: StoreId) -> bool {
    state.sick(store).is_some()
}
