//! Somebody who compares the replicas of each copyset again and again while all is under way.
//!
//! *Place*: beside the clients, for seeds in which no disk is damaged. What a replica has wrong is often
//! overwritten before the end, or wrong only while a copy comes in. *Owner*: one host, which the nemesis
//! leaves alone. *Invariants*: replicas that answer answer the same, as of one entry of the log; one
//! that cannot says so, or nothing. None says that it is damaged.
//! *On failure*: a difference, or damage, ends the run by a panic.

use super::cluster::Cluster;
use super::dice::Dice;
use super::judgement::{self, Difference};
use ogee_proto::id::CopysetId;
use ogee_runtime::sim::{self, HostId};
use ogee_runtime::sleep;
use std::time::Duration;

/// Where it runs.
const INSPECTOR: HostId = HostId::new(94);
/// How long a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Questions at a time for each copyset: one replica may be away, another slow.
const LANES: u32 = 2;
/// Longest pauses between two questions, in milliseconds: of groups whose members change, and of others.
const PAUSES: (u64, u64) = (100, 800);

/// Starts inspecting, until nobody begins anything any more.
pub fn start(cluster: &Cluster, dice: &mut Dice) {
    for id in cluster.mds().copyset_ids() {
        for _ in 0..LANES {
            let (cluster, dice) = (cluster.clone(), dice.fork());
            drop(sim::spawn_on(INSPECTOR, inspect(cluster, id, dice)));
        }
    }
}

async fn inspect(cluster: Cluster, id: CopysetId, mut dice: Dice) {
    while !cluster.shop().is_closing.get() {
        let pause = match cluster.mds().is_changing(id) {
            true => PAUSES.0,
            false => PAUSES.1,
        };
        sleep(dice.millis(10..pause)).await;
        let compared = judgement::compare_copyset(&cluster, id, PATIENCE).await;
        match compared {
            Err(
                Difference::Differs(id, replica, what) | Difference::Damaged(id, replica, what),
            ) => {
                panic!("VIOLATION: {replica} of {id} {what}");
            }
            Ok(()) | Err(Difference::Later(_)) => {}
        }
    }
}
