//! Damage to disks, one disk at a time, and its repair.
//!
//! *Place*: called by the nemesis, which does nothing else meanwhile; clients work on. *Owner*: the main
//! task.
//!
//! # Budget
//!
//! Of three copies at most one is damaged, and the others are within reach until it is whole again. Less
//! strict would be wrong: a log whose last acknowledged write was lost looks like one that ends there,
//! and nothing on that disk can tell; with one more copy away the entry would have no witness. So an
//! episode begins when all replicas are good, and ends when all are good again, verified block by block.
//!
//! What no open looks at stays: the copy of a metadata page that is good (`store`, format). So where pages were
//! hit in two episodes both copies of one may be bad, and the store may go.
//!
//! *Invariants*: a replica that says of itself that it is beyond repair, or is found to differ, is
//! replaced under a new id, as an operator would. *On failure*: what is not whole in time is a violation.

use super::cluster::Cluster;
use super::coverage::Fault;
use super::dice::Dice;
use super::judgement::{self, Difference};
use super::node::{DEVICE_LEN, LOG_LEN, Node, NodeState};
use ogee_device::DiskFaults;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_runtime::sim::{Death, HostId, world_time};
use ogee_runtime::sleep;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// How long a cluster without enemies may take to be good.
const GOOD_WITHIN: Duration = Duration::from_secs(60);
/// How long the damage may take to be done: it needs writes.
const HIT_WITHIN: Duration = Duration::from_secs(4);
/// How long an operator watches a bad replica.
const PATIENCE: Duration = Duration::from_secs(6);
/// Rounds of checking and replacing.
const ROUNDS_MAX: usize = 6;
const LOOK: Duration = Duration::from_millis(100);

const HEAD: u64 = 1 << 20;
const PAGES: u64 = 8 << 20;
/// Blocks of a log with hardly an entry.
const BARE: usize = 64;
/// The area that is asked where the other one fails.
const COPIES: u64 = HEAD + LOG_LEN.get() + PAGES / 2;

/// What an episode did.
struct Damage<'a> {
    fault: Fault,
    node: &'a Rc<Node>,
    /// Whether the store must open all the same.
    spares_store: bool,
}

fn is_of_pages(region: &Range<u64>) -> bool {
    let first = HEAD + LOG_LEN.get();
    (first..first + PAGES).contains(&region.start)
}

/// What lies where on a device.
fn region(fault: Fault, dice: &mut Dice) -> Range<u64> {
    let log = HEAD..HEAD + LOG_LEN.get();
    let pages = log.end..log.end + PAGES;
    let (area_a, area_b) = (log.end..log.end + PAGES / 2, log.end + PAGES / 2..pages.end);
    let data = pages.end..DEVICE_LEN.get();
    match fault {
        Fault::LogRot => log,
        Fault::DataRot => data,
        Fault::MetaRot => dice
            .pick(&[0..HEAD, area_a.clone(), area_a, area_b])
            .clone(),
        _ => dice.pick(&[log.clone(), log, data, pages]).clone(),
    }
}

/// One episode. Whether the damage was done.
///
/// # Errors
/// When the cluster is not good before, or not good again afterwards.
pub async fn strike(cluster: &Cluster, fault: Fault, dice: &mut Dice) -> Result<bool, String> {
    let good = || judgement::is_good(cluster);
    cluster
        .until(GOOD_WITHIN, "replicas are good before damage", good)
        .await?;
    let node = dice.pick(cluster.nodes()).clone();
    tracing::info!(host = node.host().get(), ?fault, "SIM damage");
    let death = match dice.once_in(2) {
        true => Death::Power,
        false => Death::Process,
    };
    // While nobody looks, half of the time: what is hit then is what recovery finds.
    let is_asleep = fault.is_of_one_block() && dice.once_in(2);
    if is_asleep {
        node.kill(death, dice);
    }
    let region = region(fault, dice);
    let is_met_again = is_of_pages(&region) && node.hit_pages(region.end > COPIES);
    let spares_store = fault.is_of_one_block() && !is_met_again;
    let is_done = inflict(&node, fault, region, dice).await;
    if !is_asleep {
        sleep(dice.millis(0..600)).await;
    }
    node.disk()
        .with_faults(|faults| *faults = DiskFaults::default());
    node.kill(death, dice);
    if fault == Fault::DiskLoss {
        node.replace_disk();
        cluster.mds().forget_disk(node.host());
    }
    sleep(dice.millis(1..500)).await;
    node.start();
    let damage = Damage {
        fault,
        node: &node,
        spares_store,
    };
    mend(cluster, &damage, dice).await?;
    Ok(is_done)
}

async fn inflict(node: &Rc<Node>, fault: Fault, region: Range<u64>, dice: &mut Dice) -> bool {
    let disk = node.disk();
    let before = disk.counts();
    match fault {
        Fault::LogRot | Fault::DataRot | Fault::MetaRot => {
            // What a store has in one place only is hit once. So is a log with hardly an entry: it consists of the two
            // copies of few segments' headers.
            let is_bare = fault == Fault::LogRot && disk.with_data(region.clone()) < BARE;
            let times = match (fault, region.start) {
                (_, 0) => 1,
                (Fault::LogRot, _) => {
                    let times = *dice.pick(&[1, 4, 8]);
                    if is_bare { 1 } else { times }
                }
                _ => *dice.pick(&[1, 4, 32]),
            };
            let hits = (0..times).filter(|_| disk.rot(region.clone(), dice.next()).is_some());
            return hits.count() > 0;
        }
        Fault::BadBlock => return disk.spoil(region, dice.next()).is_some(),
        Fault::DiskLoss => return true,
        Fault::LostWrite => disk.with_faults(|faults| {
            (faults.lose, faults.region) = (1, region);
        }),
        Fault::MisdirectedWrite => disk.with_faults(|faults| {
            (faults.misdirect, faults.region) = (1, region);
        }),
        Fault::WriteError => disk.with_faults(|faults| faults.fail_writes = 1),
        _ => disk.with_faults(|faults| faults.refuse_writes = 1),
    }
    let end = world_time() + HIT_WITHIN;
    while disk.counts() == before && world_time() < end {
        sleep(LOOK).await;
    }
    disk.counts() != before
}

/// Makes every replica good again, as an operator would.
async fn mend(cluster: &Cluster, damage: &Damage<'_>, dice: &mut Dice) -> Result<(), String> {
    let mut trouble = None;
    for _ in 0..ROUNDS_MAX {
        wait_for_good(cluster, damage, dice).await?;
        let (id, replica, what) = match differing(cluster).await {
            Ok(None) => return Ok(()),
            Ok(Some(found)) => found,
            // One that has found its damage just now is not good any more, and gives no digest.
            Err(later) => {
                trouble = Some(later);
                continue;
            }
        };
        if damage.fault.is_of_one_block() && what.starts_with("differs") {
            return Err(format!(
                "VIOLATION: a damaged block was taken for a good one: {replica} of {id} {what}"
            ));
        }
        replace(cluster, id, replica);
    }
    let not_whole = || {
        format!(
            "VIOLATION: not whole after {ROUNDS_MAX} rounds\n{}",
            cluster.describe()
        )
    };
    Err(trouble.unwrap_or_else(not_whole))
}

/// Waits, and replaces what stays bad.
async fn wait_for_good(
    cluster: &Cluster,
    damage: &Damage<'_>,
    dice: &mut Dice,
) -> Result<(), String> {
    let node = damage.node;
    let end = world_time() + GOOD_WITHIN;
    let mut bad_since: BTreeMap<(CopysetId, ReplicaId), Duration> = BTreeMap::new();
    // Also a host that carries no replica now may be given one, and then its disk has to be good.
    while !judgement::is_good(cluster) || node.report().is_none() {
        if world_time() > end {
            return Err(format!(
                "VIOLATION: not good within {GOOD_WITHIN:?} after damage\n{}",
                cluster.describe()
            ));
        }
        if let Some(refusal) = node.refusal().filter(|_| node.state() == NodeState::Up) {
            if damage.spares_store {
                return Err(format!("VIOLATION: one bad block costs a store: {refusal}"));
            }
            tracing::info!(
                host = node.host().get(),
                refusal,
                "SIM the operator gives the disk up"
            );
            node.kill(Death::Process, dice);
            node.replace_disk();
            cluster.mds().forget_disk(node.host());
            node.start();
        }
        if damage.fault == Fault::LogRot {
            check_kept_out(cluster)?;
        }
        for (id, replica) in bad(cluster) {
            let since = *bad_since.entry((id, replica)).or_insert(world_time());
            if world_time() > since + PATIENCE {
                replace(cluster, id, replica);
                bad_since.remove(&(id, replica));
            }
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// A replica that knows that its log has lost something stays out of its group and says what it has; it
/// does not begin and break down.
fn check_kept_out(cluster: &Cluster) -> Result<(), String> {
    let mds = cluster.mds();
    for id in mds.copyset_ids() {
        for (replica, host) in mds.members(id) {
            let status = mds.status(id, replica, host);
            if let Some(status) = status.filter(|status| status.state == "damaged")
                && (status.group.term.get(), status.group.last_log) == (0, 0)
            {
                return Err(format!(
                    "VIOLATION: {replica} of {id} is out of service, and nobody repairs its log\n{}",
                    cluster.describe()
                ));
            }
        }
    }
    Ok(())
}

/// Members that are not served.
fn bad(cluster: &Cluster) -> Vec<(CopysetId, ReplicaId)> {
    let mds = cluster.mds();
    let mut bad = Vec::new();
    for id in mds.copyset_ids() {
        for (replica, host) in mds.members(id) {
            let status = mds.status(id, replica, host);
            if status.is_none_or(|status| status.state != "ok") {
                bad.push((id, replica));
            }
        }
    }
    bad
}

/// A member whose contents are damaged, or differ from the leader's.
async fn differing(cluster: &Cluster) -> Result<Option<(CopysetId, ReplicaId, String)>, String> {
    match judgement::compare_apart(cluster).await {
        Ok(()) => Ok(None),
        Err(Difference::Damaged(id, replica, what) | Difference::Differs(id, replica, what)) => {
            tracing::info!(%id, %replica, what, "SIM the operator finds damage");
            Ok(Some((id, replica, what)))
        }
        Err(Difference::Later(what)) => Err(what),
    }
}

fn replace(cluster: &Cluster, id: CopysetId, replica: ReplicaId) {
    let members = cluster.mds().members(id);
    let is_free = |host: &HostId| !members.values().any(|at| at == host);
    let hosts = cluster.nodes().iter().map(|node| node.host());
    for host in hosts.filter(is_free) {
        if cluster.mds().replace(id, replica, host) {
            return;
        }
    }
}
