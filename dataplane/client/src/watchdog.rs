//! Says which request waits too long, and for what.
//!
//! *Place*: one task for each open volume; reads the slot table.
//! *Owner*: the shard of the volume; ends with the last handle.
//! *Invariants*: at most one report per `SLOW_REPORT_GAP`, however many requests wait.
//! *On failure*: it only reports; a block device waits.

use crate::core::Core;
use crate::inflight::Entry;
use crate::limit::{SLOW_AFTER, SLOW_REPORT_GAP, WATCHDOG_PERIOD};
use ogee_runtime::{Instant, now, sleep};
use std::rc::Rc;
use std::time::Duration;

/// Runs until cancelled.
pub(crate) async fn run(core: Rc<Core>) {
    let mut reported: Option<Instant> = None;
    loop {
        sleep(WATCHDOG_PERIOD).await;
        let now = now();
        let oldest = core.inflight.oldest();
        if let Some((entry, age)) = oldest.and_then(|entry| is_due(entry, now, reported)) {
            report(&core, &entry, age);
            reported = Some(now);
        }
    }
}

/// The entry and its age, if it is old enough and the last report is too.
fn is_due(entry: Entry, now: Instant, reported: Option<Instant>) -> Option<(Entry, Duration)> {
    let since = |then| now.saturating_duration_since(then);
    let age = since(entry.since);
    let quiet = reported.is_none_or(|then| since(then) >= SLOW_REPORT_GAP);
    (age > SLOW_AFTER && quiet).then_some((entry, age))
}

fn report(core: &Core, entry: &Entry, age: Duration) {
    core.metrics.slow_report();
    tracing::warn!(
        volume = %core.attachment.volume,
        kind = ?entry.kind,
        chunk = %entry.part.chunk,
        offset = entry.part.offset,
        length = entry.part.len,
        copyset = %entry.copyset,
        age_ms = age.as_millis(),
        under_way = core.inflight.count(),
        "slow request: waits for {}", entry.waiting,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::Waiting;
    use crate::split::Part;
    use ogee_proto::id::{ChunkIndex, CopysetId};
    use ogee_proto::wire::FrameKind;

    #[test]
    fn reports_old_requests_now_and_then() {
        let since = now();
        let part = Part {
            chunk: ChunkIndex::new(0),
            offset: 0,
            len: 4096,
            at: 0,
        };
        let (kind, copyset) = (FrameKind::Write, CopysetId::new(1));
        let entry = Entry {
            kind,
            part,
            copyset,
            since,
            waiting: Waiting::Seal,
        };
        let at = |seconds| since + Duration::from_secs(seconds);
        assert!(is_due(entry, at(5), None).is_none());
        assert!(is_due(entry, at(6), None).is_some());
        assert!(is_due(entry, at(15), Some(at(6))).is_none());
        assert!(is_due(entry, at(16), Some(at(6))).is_some());
    }
}
