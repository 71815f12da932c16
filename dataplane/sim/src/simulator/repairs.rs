//! What was damaged, and who has put it right.
//!
//! *Place*: told by the processes' own counters, in each of their reports; damage by the disks. *Owner*: one node, and the run
//! for all. *Invariants*: what a process repairs after its last report is counted by nobody, so these are for the table;
//! whether anything is left is judged on the disks (`wholeness`). *On failure*: none.

use ogee_shard::simulated::ShardReport;
use std::collections::BTreeMap;
use std::fmt;

/// Counters of a shard, and what they are called here.
const TOLD: [(&str, &str); 10] = [
    ("blocks_repaired_by_read", "blocks-by-read"),
    ("blocks_repaired_by_scrub", "blocks-by-scrub"),
    ("blocks_repaired_by_compare", "blocks-by-compare"),
    ("blocks_repaired_by_copy", "blocks-by-copy"),
    ("blocks_repaired_by_peer", "blocks-by-peer"),
    // Replicas differed, with checksums that fit.
    ("blocks_rewritten", "blocks-by-vote"),
    ("metadata_copies_repaired_at_start", "pages-by-start"),
    ("metadata_copies_repaired_in_use", "pages-by-light"),
    ("metadata_pages_rewritten", "pages-anew"),
    ("metadata_pages_unread", "pages-unread"),
];

/// How many of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs(BTreeMap<&'static str, u64>);

impl Repairs {
    /// What a process has told since it began.
    #[must_use]
    pub fn of(report: &ShardReport) -> Self {
        let mut repairs = Self::default();
        for (name, _, count) in &report.metrics.counters {
            if let Some((_, what)) = TOLD.iter().find(|(told, _)| told == name) {
                repairs.add(what, *count);
            }
        }
        repairs
    }

    /// So many of these.
    pub fn add(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What has come between two reports of one process.
    pub fn add_since(&mut self, before: &Self, now: &Self) {
        for (what, count) in &now.0 {
            let told = before.0.get(what).copied().unwrap_or(0);
            self.add(what, count.saturating_sub(told));
        }
    }

    /// All of these as well.
    pub fn add_all(&mut self, other: &Self) {
        self.add_since(&Self::default(), other);
    }
}

impl fmt::Display for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            write!(f, " {what}={count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Repairs;

    #[test]
    fn a_process_that_was_started_anew_counts_from_nothing() {
        let told = |count: u64| {
            let mut told = Repairs::default();
            told.add("blocks-by-read", count);
            told
        };
        let (mut sum, nothing) = (Repairs::default(), Repairs::default());
        sum.add_since(&nothing, &told(3));
        sum.add_since(&told(3), &told(5));
        sum.add_since(&nothing, &told(2));
        assert_eq!(sum, told(7));
        assert_eq!(sum.to_string(), " blocks-by-read=7");
        assert_eq!(nothing.to_string(), "");
    }
}
