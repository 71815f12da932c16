//! How much is asked of each replica that leads, smoothed.
//!
//! *Place*: fed by heartbeats, read by pictures. *Owner*: [`Liveness`](super::Liveness).
//! *Invariants*: what is remembered of a replica decays with time alone, whoever leads: over the replicas of a
//! copyset it adds up to the copyset's demand, also while leadership moves. Replicas of which nothing is
//! asked take no room.
//! *On failure*: counters that went back (the process is new) and heartbeats that were missed say nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use ogee_proto::id::ReplicaId;

use super::tracker::ReplicaStatus;
use crate::limit::{DEMAND_BYTES_PER_REQUEST, DEMAND_FORGOTTEN, DEMAND_MEMORY, DEMAND_PAUSE_MAX};

/// See the module. In requests a second; bytes count as so many requests more.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Demand(BTreeMap<ReplicaId, f64>);

impl Demand {
    /// Two reports of a replica, so far apart.
    pub(crate) fn take(
        &mut self,
        replica: ReplicaId,
        (before, now): (&ReplicaStatus, &ReplicaStatus),
        apart: Duration,
    ) {
        if apart.is_zero() || apart > DEMAND_PAUSE_MAX {
            return;
        }
        let asked = if now.leader == replica {
            weighed(before, now)
        } else {
            0.0
        };
        let seconds = apart.as_secs_f64();
        let kept = (-seconds / DEMAND_MEMORY.as_secs_f64()).exp();
        let old = self.0.get(&replica).copied().unwrap_or(0.0);
        let new = asked / seconds * (1.0 - kept) + old * kept;
        if new < DEMAND_FORGOTTEN {
            self.0.remove(&replica);
        } else {
            self.0.insert(replica, new);
        }
    }

    /// Something was asked of it lately.
    pub(super) fn is_known(&self, replica: ReplicaId) -> bool {
        self.0.contains_key(&replica)
    }

    /// Of a replica, a second.
    pub(crate) fn of(&self, replica: ReplicaId) -> u64 {
        let demand = self.0.get(&replica).copied().unwrap_or(0.0);
        whole(demand)
    }

    /// A new reign: others may have been told what happened meanwhile.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What was asked between two reports.
fn weighed(before: &ReplicaStatus, now: &ReplicaStatus) -> f64 {
    let requests = now.requests.checked_sub(before.requests);
    let bytes = now.bytes.checked_sub(before.bytes);
    let (Some(requests), Some(bytes)) = (requests, bytes) else {
        return 0.0;
    };
    float(requests) + float(bytes) / DEMAND_BYTES_PER_REQUEST
}

#[expect(
    clippy::cast_precision_loss,
    reason = "of a counter's growth in a second"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and what is too large is as good as the largest"
)]
const fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ReplicaId = ReplicaId::new(1);

    fn status(leader: u64, requests: u64, bytes: u64) -> ReplicaStatus {
        ReplicaStatus {
            leader: ReplicaId::new(leader),
            requests,
            bytes,
            ..ReplicaStatus::default()
        }
    }

    /// A hundred a second for so many seconds, from what was counted before.
    fn ask(demand: &mut Demand, leader: u64, seconds: u64, from: u64) -> u64 {
        for at in from..from + seconds {
            let reports = (
                &status(leader, at * 100, 0),
                &status(leader, (at + 1) * 100, 0),
            );
            demand.take(ONE, reports, Duration::from_secs(1));
        }
        from + seconds
    }

    #[test]
    fn it_follows_what_is_asked_and_is_forgotten() {
        let mut demand = Demand::default();
        let at = ask(&mut demand, 1, 1, 0);
        assert!(demand.of(ONE) < 20, "one second is a peak at most");
        let at = ask(&mut demand, 1, 100, at);
        assert!((98..=100).contains(&demand.of(ONE)), "{}", demand.of(ONE));
        // Another one leads: what it is asked is not its group's.
        ask(&mut demand, 2, 20, at);
        assert!((30..45).contains(&demand.of(ONE)), "{}", demand.of(ONE));
        ask(&mut demand, 2, 400, at);
        assert!(demand.0.is_empty(), "it takes no room");
    }

    #[test]
    fn bytes_count_and_nonsense_does_not() {
        let mut demand = Demand::default();
        for at in 0..200u64 {
            let reports = (&status(1, at, at << 20), &status(1, at + 1, (at + 1) << 20));
            demand.take(ONE, reports, Duration::from_secs(1));
        }
        // One request a second of 1 MiB is as much as 33 small ones.
        assert_eq!(demand.of(ONE), 33);
        let mut demand = Demand::default();
        let new = (&status(1, 1 << 40, 0), &status(1, 0, 0));
        demand.take(ONE, new, Duration::from_secs(1));
        let late = (&status(1, 0, 0), &status(1, 1 << 40, 0));
        demand.take(ONE, late, Duration::from_secs(1000));
        demand.take(ONE, late, Duration::ZERO);
        assert!(demand.0.is_empty());
    }
}
