//! What was found damaged on devices and was put right, as events: what rots must be seen, though it is repaired.
//!
//! A look notes at most one event for each device, and after that none for [`REPAIR_EVENT_PAUSE`]: what is repaired meanwhile is
//! told together when it is over. What was repaired before the first look of a leader at a device is told by none, as
//! everything between two leaders.

use std::collections::BTreeMap;
use std::time::Instant;

use ogee_proto::id::StoreId;
use ogee_proto::service::RepairReport;

use super::assess::Sight;
use super::change::Events;
use crate::limit::REPAIR_EVENT_PAUSE;

/// By device.
#[derive(Clone, Debug, Default)]
pub(super) struct Repairs(BTreeMap<StoreId, Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// As it was told last.
    seen: RepairReport,
    /// Of that no event tells yet.
    untold: RepairReport,
    told_at: Option<Instant>,
}

impl Repairs {
    pub(super) fn look(&mut self, sight: &Sight<'_>, events: &mut Events) {
        let stores = sight.state.stores();
        self.0.retain(|store, _| stores.contains_key(store));
        for (id, server) in sight.state.chunkservers() {
            let heard = sight.liveness.heard(*id).into_iter();
            for (store, usage) in heard.flat_map(|heard| &heard.stores) {
                let Some(path) = stores.get(store).map(|store| &store.path) else {
                    continue;
                };
                let known = self.0.entry(*store).or_insert_with(|| Known {
                    seen: usage.repairs,
                    ..Known::default()
                });
                if let Some(what) = known.news(usage.repairs, sight.now) {
                    let device = format!("{}:{path}", server.name);
                    let text = format!(
                        "chunkserver \"{}\", device {path}: {what}; replace the device if that goes on",
                        server.name
                    );
                    events.warn("damage_repaired", &device, text);
                }
            }
        }
    }
}

impl Known {
    /// What there is to tell, if it is time to.
    fn news(&mut self, now_is: RepairReport, now: Instant) -> Option<String> {
        let before = std::mem::replace(&mut self.seen, now_is);
        self.untold.blocks += more(before.blocks, now_is.blocks);
        self.untold.pages += more(before.pages, now_is.pages);
        self.untold.pages_anew += more(before.pages_anew, now_is.pages_anew);
        let is_over = |told: Instant| now.saturating_duration_since(told) >= REPAIR_EVENT_PAUSE;
        if self.untold == RepairReport::default() || !self.told_at.is_none_or(is_over) {
            return None;
        }
        self.told_at = Some(now);
        Some(words(&std::mem::take(&mut self.untold)))
    }
}

/// A chunkserver that was started anew counts from nothing.
const fn more(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

fn words(repairs: &RepairReport) -> String {
    let named = [
        (
            repairs.blocks,
            "damaged blocks were repaired from other replicas",
        ),
        (
            repairs.pages,
            "damaged copies of metadata pages were repaired from the other one",
        ),
        (
            repairs.pages_anew,
            "metadata pages of which both copies were damaged were written anew",
        ),
    ];
    let named = named.iter().filter(|(count, _)| *count > 0);
    let named = named.map(|(count, what)| format!("{count} {what}"));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Known, words};
    use crate::limit::REPAIR_EVENT_PAUSE;
    use ogee_proto::service::RepairReport;
    use std::time::{Duration, Instant};

    fn repairs(blocks: u64, pages: u64) -> RepairReport {
        RepairReport {
            blocks,
            pages,
            ..RepairReport::default()
        }
    }

    #[test]
    fn a_rot_of_a_thousand_blocks_is_told_by_few_events_and_each_block_once() {
        let (start, mut known) = (Instant::now(), Known::default());
        let mut told = Vec::new();
        for second in 1..=1000 {
            let now = start + Duration::from_secs(second);
            told.extend(known.news(repairs(second, 0), now));
        }
        let end = start + Duration::from_secs(1000) + REPAIR_EVENT_PAUSE;
        told.extend(known.news(repairs(1000, 0), end));
        assert!(told.len() <= 1001 / 60 + 2, "{told:?}");
        let count = |text: &String| {
            let (count, _) = text.split_once(' ').expect("a number first");
            count.parse::<u64>().expect("a number")
        };
        assert_eq!(told.iter().map(count).sum::<u64>(), 1000);
        assert_eq!(
            told.first().map(count),
            Some(1),
            "the first is told at once"
        );
        assert_eq!(known.news(repairs(1000, 0), end + REPAIR_EVENT_PAUSE), None);
    }

    #[test]
    fn a_chunkserver_that_was_started_anew_counts_from_nothing() {
        let (start, mut known) = (Instant::now(), Known::default());
        assert!(known.news(repairs(7, 0), start).is_some());
        let later = start + REPAIR_EVENT_PAUSE;
        assert_eq!(known.news(repairs(0, 0), later), None);
        assert_eq!(
            known.news(repairs(0, 2), later),
            Some(words(&repairs(0, 2)))
        );
    }

    #[test]
    fn what_was_damaged_is_named() {
        assert_eq!(
            words(&repairs(3, 2)),
            "3 damaged blocks were repaired from other replicas, \
             2 damaged copies of metadata pages were repaired from the other one"
        );
        let anew = RepairReport {
            pages_anew: 1,
            ..RepairReport::default()
        };
        assert_eq!(
            words(&anew),
            "1 metadata pages of which both copies were damaged were written anew"
        );
    }
}
