//! A follower that says nothing, or falls behind, does not keep the others from writing.
//!
//! Three times the log is written; ten times with `OGEE_FULL=1`.

use crate::common::{COPYSET, Cluster, Disk, run_for, until};
use ogee_proto::id::LogIndex;
use std::time::Duration;

/// Blocks of one write: half a MiB.
const BLOCKS: usize = 128;
const BLOCK: u64 = 4096;

fn times() -> u64 {
    match std::env::var("OGEE_FULL").as_deref() {
        Ok("1") => 10,
        _ => 3,
    }
}

#[test]
fn a_silent_follower_does_not_hold_up_the_purge() {
    run_for(Duration::from_secs(60 * times()), async {
        let cluster = Cluster::of_three().await;
        let disk = Disk::attach(&cluster, 1, 1).await;
        disk.write(0, 0, 4, 50).await;
        cluster.settle().await;
        let silent = cluster.followers().await[0].clone();
        let last = silent.group.report().last_log;
        silent.cut_off();
        let leader = cluster.leader().await;
        let capacity = leader.log.usage().capacity.get();
        let writes = times() * capacity / (BLOCKS as u64 * BLOCK);
        let mut longest = Duration::ZERO;
        for write in 1..=writes {
            let started = ogee_runtime::now();
            disk.write(0, 0, BLOCKS, 1000 * write).await;
            longest = longest.max(ogee_runtime::now() - started);
        }
        println!("{writes} writes of half a MiB, the longest took {longest:?}");
        let purged = leader.log.group(COPYSET).state().purged;
        let purged = purged.expect("purged").index;
        assert!(purged > LogIndex::new(last), "what the silent one lacks");
        // It comes back, by a copy.
        silent.reconnect();
        disk.write(0, 64, 4, 70).await;
        cluster.settle().await;
        // By a copy: its own log goes on behind what it lacked.
        let log = silent.log.group(COPYSET);
        let purged = || log.state().purged.map(|purged| purged.index);
        until(|| purged() > Some(LogIndex::new(last))).await;
        disk.check().await;
        cluster.agreed_digest().await;
        cluster.end().await;
    });
}
