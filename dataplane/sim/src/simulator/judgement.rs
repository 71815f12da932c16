//! The end of a run: is all well?
//!
//! *Place*: after healing. *Owner*: the main task. *Invariants*: everything here is bounded in virtual
//! time: a cluster that has three machines, a network and no enemies must serve.
//! *On failure*: what is not well, with how everything stands.

use super::cluster::Cluster;
use super::dice::Dice;
use super::mds::volume_name;
use super::workload::read_all;
use futures_util::future::join_all;
use ogee_client::{Control, OpenOptions, Volume};
use ogee_proto::id::{ChunkKey, ClientId, CopysetId, ReplicaId, RequestId, Sequence, VolumeId};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::sim::{self, Death, HostId};
use ogee_runtime::{sleep, timeout};
use ogee_shard::simulated::ReplicaStatus;
use ogee_transport::{Caller, Frame, Hello, Role};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How long clients wait for answers after healing.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// How long replicas take to agree.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
/// How long the last reads may take.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How long groups without requests may take to go quiet.
const PEACE: Duration = Duration::from_secs(3);
/// How long a group of which one replica has died may be without a leader.
const FAILED_OVER_WITHIN: Duration = Duration::from_secs(10);
/// How long one digest may take.
const DIGEST_WITHIN: Duration = Duration::from_secs(10);
/// How often digests are asked for again.
const DIGEST_TRIES: u64 = 6;
/// Between two of those.
const DIGEST_PAUSE: Duration = Duration::from_millis(500);
/// The host of the last clients.
const AUDITOR: HostId = HostId::new(90);

/// Judges.
///
/// # Errors
/// What is not well.
pub async fn judge(cluster: &Cluster) -> Result<(), String> {
    let shop = cluster.shop();
    shop.is_closing.set(true);
    let mut hosts = cluster.client_hosts();
    hosts.dedup();
    let all_ended = || {
        let ended = |it: &super::workload::Attachment| it.has_ended();
        let seats = cluster.seats();
        cluster.have_others_ended()
            && seats.iter().all(|seat| {
                seat.current.borrow().iter().all(ended) && seat.earlier.borrow().iter().all(ended)
            })
    };
    cluster
        .until(ANSWERED_WITHIN, "every client has its answers", all_ended)
        .await?;
    cluster
        .until(CONVERGED_WITHIN, "replicas converge", || {
            has_converged(cluster)
        })
        .await?;
    fail_over(cluster).await?;
    let reading = cluster.clone();
    audit(cluster, async move { read_volumes(&reading).await }).await??;
    compare_apart(cluster)
        .await
        .map_err(|difference| match difference {
            Difference::Later(what) => what,
            Difference::Damaged(id, replica, what) | Difference::Differs(id, replica, what) => {
                format!(
                    "VIOLATION: {replica} of {id} {what}\n{}",
                    cluster.describe()
                )
            }
        })?;
    let summary = shop
        .recorder
        .judge()
        .map_err(|violation| format!("VIOLATION: {violation}"))?;
    tracing::info!(?summary, "SIM history");
    Ok(())
}

/// In peace, when groups may have gone quiet, a leader dies: the others need nobody to start it again.
async fn fail_over(cluster: &Cluster) -> Result<(), String> {
    sleep(PEACE).await;
    let mds = cluster.mds();
    let leads = |id| {
        mds.leader(id)
            .and_then(|leader| mds.members(id).remove(&leader))
    };
    let dying = mds.copyset_ids().into_iter().find_map(leads);
    let dying = cluster.node(dying.ok_or("nobody leads after peace")?);
    dying.kill(
        Death::Process,
        &mut Dice::new(u64::from(dying.host().get())),
    );
    let led = || {
        let ids = mds.copyset_ids().into_iter();
        ids.map(|id| statuses(cluster, id))
            .all(|all| all.iter().any(|status| status.group.is_leader))
    };
    cluster
        .until(FAILED_OVER_WITHIN, "others lead", led)
        .await?;
    dying.start();
    cluster
        .until(CONVERGED_WITHIN, "replicas converge", || {
            has_converged(cluster)
        })
        .await
}

/// Runs something on the host of the last clients, in bounded time.
///
/// # Errors
/// When it does not end in time.
pub async fn audit<T: 'static>(
    cluster: &Cluster,
    what: impl Future<Output = T> + 'static,
) -> Result<T, String> {
    match timeout(READ_WITHIN, sim::spawn_on(AUDITOR, what)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(cancelled)) => Err(cancelled.to_string()),
        Err(_) => {
            let all = cluster.describe();
            Err(format!("an audit takes more than {READ_WITHIN:?}\n{all}"))
        }
    }
}

/// How the members of a copyset stand.
fn statuses(cluster: &Cluster, id: CopysetId) -> Vec<ReplicaStatus> {
    let (mds, members) = (cluster.mds(), cluster.mds().members(id));
    let members = members.into_iter();
    members
        .filter_map(|(replica, host)| mds.status(id, replica, host))
        .collect()
}

/// Whether every copyset has three good replicas, one of which leads, and nothing is changing.
#[must_use]
pub fn is_good(cluster: &Cluster) -> bool {
    let mds = cluster.mds();
    mds.copyset_ids().into_iter().all(|id| {
        let statuses = statuses(cluster, id);
        let good = statuses.iter().all(|status| {
            status.state == "ok" && !status.group.is_installing && status.group.is_running
        });
        let leaders = statuses
            .iter()
            .filter(|status| status.group.is_leader)
            .count();
        good && statuses.len() == 3 && leaders == 1 && !mds.is_changing(id)
    })
}

/// Whether, on top, all have applied the same.
fn has_converged(cluster: &Cluster) -> bool {
    let agree = |id| {
        let statuses = statuses(cluster, id);
        let mut applied: Vec<_> = statuses.iter().map(|status| status.group.applied).collect();
        applied.dedup();
        applied.len() == 1
    };
    is_good(cluster) && cluster.mds().copyset_ids().into_iter().all(agree)
}

async fn read_volumes(cluster: &Cluster) -> Result<(), String> {
    for seat in cluster.seats() {
        let control: Rc<dyn Control> = cluster.mds().clone();
        let name = volume_name(seat.usage.volume);
        let volume = Volume::open_with(control, &name, OpenOptions::default()).await;
        let volume = volume.map_err(|error| format!("cannot attach at the end: {error}"))?;
        read_all(cluster.shop(), &seat.usage, AUDITOR, &volume)
            .await
            .map_err(|error| format!("VIOLATION: a last read failed: {error}"))?;
    }
    Ok(())
}

/// Why replicas are not known to be equal.
pub enum Difference {
    /// Not now: nobody answers, or not in time.
    Later(String),
    /// This one is damaged.
    Damaged(CopysetId, ReplicaId, String),
    /// This one differs from another.
    Differs(CopysetId, ReplicaId, String),
}

/// Has every replica of every copyset digest its contents as of one entry, from a host of its own.
///
/// # Errors
/// The first difference.
pub async fn compare_apart(cluster: &Cluster) -> Result<(), Difference> {
    let comparing = cluster.clone();
    let compared = audit(cluster, async move { compare(&comparing).await }).await;
    compared.map_err(Difference::Later)?
}

async fn compare(cluster: &Cluster) -> Result<(), Difference> {
    for id in cluster.mds().copyset_ids() {
        let mut trouble = None;
        for _ in 0..DIGEST_TRIES {
            trouble = compare_copyset(cluster, id, DIGEST_WITHIN).await.err();
            match &trouble {
                None | Some(Difference::Damaged(..) | Difference::Differs(..)) => break,
                Some(Difference::Later(_)) => sleep(DIGEST_PAUSE).await,
            }
        }
        match trouble {
            None => {}
            Some(Difference::Later(what)) => {
                let all = cluster.describe();
                return Err(Difference::Later(format!(
                    "{id} is not digested: {what}\n{all}"
                )));
            }
            Some(known) => return Err(known),
        }
    }
    Ok(())
}

/// Has the replicas of a copyset, and one that is coming, digest their contents as of one entry.
///
/// # Errors
/// One that differs, if there is any; else why it is not known of all.
pub async fn compare_copyset(
    cluster: &Cluster,
    id: CopysetId,
    within: Duration,
) -> Result<(), Difference> {
    let digest = Sequence::new(cluster.fresh_digest());
    let mut members = cluster.mds().members(id);
    let leader = cluster.mds().leader(id);
    let leader = leader.filter(|leader| members.contains_key(leader));
    let leader = leader.ok_or_else(|| Difference::Later("no leader".into()))?;
    let begun = ask(cluster, id, members[&leader], (digest, 0), within).await?;
    if begun.header.status != Status::Ok {
        return Err(Difference::Later(format!("{:?}", begun.header.status)));
    }
    let is_all = members.len();
    members.extend(cluster.mds().newcomer_of(id));
    let asked = members.iter().map(|(replica, host)| {
        let found = collect(cluster, (id, *replica), *host, digest, within);
        async { (*replica, found.await) }
    });
    let (mut answers, mut trouble, mut is_damaged) = (Vec::new(), None, None);
    for (at, (replica, found)) in join_all(asked).await.into_iter().enumerate() {
        match found {
            Ok(frame) => answers.push((replica, frame.meta)),
            Err(damaged @ Difference::Damaged(..)) => is_damaged = Some(damaged),
            // Who is coming may not be there yet.
            Err(later) if at < is_all => trouble = Some(later),
            Err(_) => {}
        }
    }
    if let Some((_, expected)) = answers.first()
        && let Some((replica, found)) = answers.iter().find(|(_, found)| found != expected)
    {
        let what = format!("differs: {found:?} and {expected:?}");
        return Err(Difference::Differs(id, *replica, what));
    }
    is_damaged.or(trouble).map_or(Ok(()), Err)
}

async fn collect(
    cluster: &Cluster,
    (id, replica): (CopysetId, ReplicaId),
    host: HostId,
    digest: Sequence,
    within: Duration,
) -> Result<Frame, Difference> {
    let frame = ask(cluster, id, host, (digest, 1), within).await?;
    match frame.header.status {
        Status::Ok => Ok(frame),
        Status::Corrupt => Err(Difference::Damaged(id, replica, "is damaged".into())),
        status => Err(Difference::Later(format!("{replica}: {status:?}"))),
    }
}

async fn ask(
    cluster: &Cluster,
    copyset: CopysetId,
    host: HostId,
    (digest, step): (Sequence, u32),
    within: Duration,
) -> Result<Frame, Difference> {
    let caller = Caller::new(
        cluster.node(host).endpoint(),
        Hello::new(Role::Admin, 0, "auditor"),
    );
    let mut header = FrameHeader::new(FrameKind::Digest, RequestId::new(0));
    header.copyset = copyset;
    header.key = ChunkKey {
        volume: VolumeId::new(0),
        ..ChunkKey::default()
    };
    header.client = ClientId::new(0);
    header.sequence = digest;
    header.length = step;
    let asked = caller.call_within(Frame::new(header), within).await;
    asked.map_err(|error| Difference::Later(error.to_string()))
}
