//! Settings of a group, and openraft's configuration made from them.

use ogee_proto::unit::ByteLen;
use std::sync::Arc;
use std::time::Duration;

/// Times that rule elections and replication. Failover bounds are multiples of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// A leader shows itself this often.
    pub heartbeat: Duration,
    /// A follower that hears no leader for a time between these two calls an election.
    pub election_min: Duration,
    /// See `election_min`.
    pub election_max: Duration,
    /// An `AppendEntries` that only carries a commit index waits this long for company.
    pub commit_hold: Duration,
    /// Whether leaders serve reads without asking a majority while their lease lasts. Off where a
    /// host can be stopped without its clock (a paused virtual machine).
    pub lease_reads: bool,
    /// A group without a request for so long turns its ticks off; zero: never.
    pub quiet_after: Duration,
    /// Bytes per second that a shard's copies to other replicas may send; none: as fast as other
    /// requests let them.
    pub copy_rate: Option<ByteLen>,
    /// Whether large writes go to extents of their own, once, instead of through the log.
    pub redirect: bool,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            commit_hold: Duration::from_millis(3),
            lease_reads: true,
            quiet_after: Duration::from_secs(5),
            copy_rate: None,
            redirect: true,
        }
    }
}

/// Why group times were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("group times: {0}")]
pub struct GroupConfigError(Box<str>);

impl GroupConfig {
    /// For how long a follower that heard a leader refuses its vote to others: openraft's lease. In whole
    /// milliseconds, as openraft keeps it and as it is said to the leader, who would not count less.
    #[must_use]
    pub const fn promised(&self) -> Duration {
        let millis = self.election_max.subsec_millis();
        Duration::new(self.election_max.as_secs(), millis * 1_000_000)
    }

    /// openraft's configuration.
    ///
    /// # Errors
    /// [`GroupConfigError`] in openraft's words when the times contradict each other.
    pub fn raft(&self) -> Result<Arc<openraft::Config>, GroupConfigError> {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: String::from("ogee"),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            // A busy follower's acks prove what a heartbeat would.
            heartbeat_min_interval: Some(millis(self.heartbeat) / 2),
            max_payload_entries: crate::limit::APPEND_ENTRIES_MAX as u64,
            // Checkpoints decide what a snapshot is, and when the log is purged.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // A noted checkpoint purges nothing by itself: `Group::purge` asks who still needs the log.
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 1,
            install_snapshot_timeout: 600_000,
            enable_pre_vote: Some(true),
            // A leader replicates, and with its followers commits, entries that its own log has not
            // flushed yet. Back from a crash in its old term it would give their indexes to others.
            enable_leader_restore: Some(false),
            backoff: String::from("20ms 40ms 80ms ..200ms"),
            ..openraft::Config::default()
        };
        let checked = config.validate();
        checked
            .map(Arc::new)
            .map_err(|error| GroupConfigError(error.to_string().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::GroupConfig;
    use crate::codec::{Word, get_append_result, put_append_result};
    use std::time::Duration;

    /// A leader counts nobody who promises less than it asks for: what is rounded on the way would
    /// leave it without a lease for ever.
    #[test]
    fn a_promise_is_heard_as_it_was_made() {
        let election_max = Duration::from_micros(805_310);
        let config = GroupConfig {
            election_max,
            ..GroupConfig::default()
        };
        let (promised, mut said) = (config.promised(), Vec::new());
        put_append_result(&mut said, &Ok(None), Word { promised, room: 0 });
        let (_, heard) = get_append_result(&said).unwrap();
        assert_eq!(heard.promised, promised);
        assert!(promised <= election_max);
    }
}
