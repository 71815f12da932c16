//! Devices that limp, and what is done about them.

use super::assess::{Condition, Severity, Sight, Subject};
use crate::scheduler::{Hindrance, hindrance, is_overdue};
use crate::state::SickStage;

/// Limping, ejected, worn, and those that should be emptied and cannot.
pub(super) fn sick_conditions(sight: &Sight<'_>) -> [Condition; 4] {
    let mut limping = Condition::new(
        "OGEE-1025",
        Severity::Warn,
        "devices are much slower than their peers: they lead nothing, and nothing new is placed there",
        limping_remedy(sight),
    );
    let mut ejected = Condition::new(
        "OGEE-1026",
        Severity::Warn,
        "devices limped for too long and are emptied",
        "replace them: ogee device replace OLD NEW; one that is well again: ogee device reinstate STORE",
    );
    let mut stuck = Condition::new(
        "OGEE-1029",
        Severity::Warn,
        "devices limp or are worn, and cannot be emptied",
        "add a device with free space in their zone, or wait until the other one of the zone is empty; or \
         replace them by hand: ogee device replace OLD NEW",
    );
    let mut worn = Condition::new(
        "OGEE-1028",
        Severity::Warn,
        "devices have too many places that did not take what was written; they are emptied",
        "replace them: ogee device replace OLD NEW; the kernel's log and SMART say more",
    );
    for (id, place) in &sight.picture.places {
        let name = || named(sight, *id);
        match place.sick.map(|sick| sick.stage) {
            _ if place.is_worn => worn.add_of(Subject::Store(*id), name),
            Some(SickStage::Ejected) => ejected.add_of(Subject::Store(*id), name),
            Some(SickStage::Limping) => limping.add_of(Subject::Store(*id), name),
            None => continue,
        }
        if is_overdue(place, sight.picture.now_ms, &sight.rules.sick) {
            match hindrance(sight.state, sight.picture, *id) {
                Some(Hindrance::NoTarget) => {
                    stuck.add_of(Subject::Store(*id), || {
                        format!("{} (replicas have nowhere to go)", named(sight, *id))
                    });
                }
                Some(Hindrance::ZoneBusy) => {
                    stuck.add_of(Subject::Store(*id), || {
                        format!("{} (another of its zone goes first)", named(sight, *id))
                    });
                }
                None => {}
            }
        }
    }
    [limping, ejected, worn, stuck]
}

fn limping_remedy(sight: &Sight<'_>) -> String {
    let when = match sight.rules.sick.eject_after_ms {
        0 => "sick.eject_after_ms is 0: nothing is emptied by itself".to_owned(),
        ms => format!("emptied by itself after {} s", ms / 1000),
    };
    format!(
        "look at the device (SMART, the kernel's log, who else uses it); {when}; it is taken back when it is well for \
         {} s, or at once: ogee device reinstate STORE",
        sight.rules.sick.well_after_ms / 1000
    )
}

/// Where it is, and how it fares.
fn named(sight: &Sight<'_>, id: ogee_proto::id::StoreId) -> String {
    let store = sight.state.stores().get(&id);
    let server = store.and_then(|s| sight.state.chunkservers().get(&s.chunkserver));
    let (server, path) = (
        server.map_or_else(String::new, |s| s.name.to_string()),
        store.map_or("", |s| s.path.as_str()),
    );
    let paces = &sight.liveness.paces;
    let [write, _, read] = paces.latencies(id).map(millis);
    match paces.usual_write_ns(id).map(millis) {
        Some(usual) => {
            format!("{server}:{path} (writes {write} ms, usual {usual}; reads {read} ms)")
        }
        None => format!("{server}:{path} (writes {write} ms; reads {read} ms)"),
    }
}

/// With one digit behind the point.
fn millis(ns: u64) -> String {
    format!("{}.{}", ns / 1_000_000, ns / 100_000 % 10)
}
