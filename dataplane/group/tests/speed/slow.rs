//! A follower that says nothing, or falls behind, does not keep the others from writing, nor does a
//! group that cannot be opened; not in its own group, and not in others whose log it shares.
//!
//! Three times the log is written; ten times with `OGEE_FULL=1`.

use crate::alone;
use crate::common::{COPYSET, Cluster, Disk, block_bytes, pause, run_for, until};
use crate::crowd::{Crowd, Holdup};
use ogee_group::{Command, CommandHead, CommandKind, ReadRun, command};
use ogee_log::GroupLog;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{
    ChunkIndex, ChunkKey, ClientId, CopysetId, Epoch, Incarnation, LogIndex, Sequence, VolumeId,
};
use ogee_proto::wire::Status;
use ogee_runtime::{JoinHandle, Payload, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Blocks of one write: half a MiB.
const BLOCKS: usize = 128;
const BLOCK: u64 = 4096;

fn is_full() -> bool {
    std::env::var("OGEE_FULL").as_deref() == Ok("1")
}

fn times() -> u64 {
    if is_full() { 10 } else { 3 }
}

#[test]
fn a_silent_follower_does_not_hold_up_the_purge() {
    let _turn = alone();
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

/// A follower of this group hears nothing.
const STOPPED: CopysetId = CopysetId::new(1);
/// One of this group takes entries at [`LIMP`].
const LIMPING: CopysetId = CopysetId::new(2);
/// A replica of this group cannot be opened.
const UNOPENED: CopysetId = CopysetId::new(3);
/// These are whole.
const OTHERS: [CopysetId; 2] = [CopysetId::new(4), CopysetId::new(5)];
/// Bytes per second: much less than writers write.
const LIMP: u64 = 256 << 10;
/// Writes that such a follower lacks at some time: a tenth of the log.
const LIMP_LAG: u64 = 20;
/// Blocks of one write.
const LOAD_BLOCKS: usize = 60;
/// Not whole extents, so all of it goes through the log.
const LOAD: (usize, usize) = (1, LOAD_BLOCKS);
/// Others keep so much of their speed.
const SPEED_KEPT: f64 = 0.8;
/// A busy machine may spoil a round.
const ROUNDS: usize = 3;

/// What writers have done, and whether to go on.
#[derive(Default)]
struct Load {
    has_ended: Cell<bool>,
    bytes: Cell<u64>,
    /// Writes of the groups that nothing is wrong with.
    others: Cell<u64>,
    others_longest: Cell<Duration>,
}

/// The one user of a group's one volume.
fn request(
    copyset: CopysetId,
    kind: CommandKind,
    sequence: u64,
    (first, count): (usize, usize),
) -> CommandHead {
    let bytes = |blocks: usize| u32::try_from(blocks as u64 * BLOCK).expect("small");
    CommandHead {
        kind,
        key: ChunkKey {
            volume: VolumeId::new(copyset.get().into()),
            chunk: ChunkIndex::new(0),
        },
        offset: bytes(first),
        length: bytes(count),
        client: ClientId::new(1),
        epoch: Epoch::new(1),
        incarnation: Incarnation::new(0),
        sequence: Sequence::new(sequence),
        watermark: Sequence::new(sequence.saturating_sub(1)),
    }
}

fn write_of(copyset: CopysetId, sequence: u64) -> Command {
    let head = request(copyset, CommandKind::Write, sequence, LOAD);
    let bytes = block_bytes(sequence).repeat(LOAD_BLOCKS);
    let crc = crc32c(&bytes);
    command(head, Payload::from(bytes), crc)
}

/// Writes to a group until the load ends; the number of the last write.
fn writer(crowd: &Rc<Crowd>, copyset: CopysetId, load: &Rc<Load>) -> JoinHandle<u64> {
    let (crowd, load) = (crowd.clone(), load.clone());
    spawn(async move {
        let seal = request(copyset, CommandKind::Seal, 0, (0, 0));
        let seal = command(seal, Payload::empty(), 0);
        assert_eq!(crowd.mutate(copyset, &seal).await, Status::Ok);
        let mut sequence = 0;
        while !load.has_ended.get() {
            sequence += 1;
            let started = ogee_runtime::now();
            let written = crowd.mutate(copyset, &write_of(copyset, sequence)).await;
            assert_eq!(written, Status::Ok);
            load.bytes
                .set(load.bytes.get() + LOAD_BLOCKS as u64 * BLOCK);
            if OTHERS.contains(&copyset) {
                load.others.set(load.others.get() + 1);
                let took = ogee_runtime::now() - started;
                load.others_longest.set(load.others_longest.get().max(took));
                pause().await;
            }
        }
        sequence
    })
}

/// Writes per second of the groups that nothing is wrong with, while so many bytes are written.
async fn others_speed(load: &Load, bytes: u64, mut look: impl FnMut()) -> f64 {
    let (started, bytes_before) = (ogee_runtime::now(), load.bytes.get());
    let before = load.others.get();
    until(|| {
        look();
        load.bytes.get() >= bytes_before + bytes
    })
    .await;
    let took = (ogee_runtime::now() - started).as_secs_f64();
    (load.others.get() - before) as f64 / took
}

/// One round: the speed of the others beside healthy groups, and beside those that are held up while
/// so many bytes are written.
async fn speeds(crowd: &Rc<Crowd>, load: &Load, capacity: u64) -> (f64, f64) {
    let ahead = crowd.leader(LIMPING).await;
    let is_known = || {
        let group = ahead.group(LIMPING).expect("it runs");
        group.report().is_outrun
    };
    until(|| !is_known()).await;
    let healthy = others_speed(load, 2 * capacity, || ()).await;
    let stopped = crowd.followers(STOPPED).await.remove(0);
    let limping = crowd.followers(LIMPING).await.remove(1);
    let unopened = crowd.followers(UNOPENED).await.remove(1);
    let last = stopped.log.group(STOPPED).last().expect("written").index;
    stopped.hold_up(STOPPED, Some(Holdup::Stopped));
    limping.hold_up(LIMPING, Some(Holdup::Limping(LIMP)));
    unopened.leave_unopened(UNOPENED).await;
    let left = unopened.log.group(UNOPENED);
    let kept = left.first_index();

    // Until it is seen that no copy will do for the one that limps, writers give way to it.
    let started = ogee_runtime::now();
    until(is_known).await;
    println!("known after {:?}", ogee_runtime::now() - started);

    let ahead = ahead.log.group(LIMPING);
    let behind = limping.log.group(LIMPING);
    let index = |log: &GroupLog| log.last().map_or(0, |last| last.index.get());
    let mut lag = 0;
    let look = || lag = lag.max(index(&ahead).saturating_sub(index(&behind)));
    let held_up = others_speed(load, times() * capacity, look).await;
    assert!(lag >= LIMP_LAG, "{lag} writes: it does not limp");
    let leader = crowd.leader(STOPPED).await;
    let purged = leader.log.group(STOPPED).state().purged.expect("purged");
    assert!(purged.index > last, "the stopped one keeps the log");
    let still = left.first_index();
    assert!(
        kept.is_some() && still == kept,
        "nobody purged it: it was carried forward"
    );

    stopped.hold_up(STOPPED, None);
    limping.hold_up(LIMPING, None);
    unopened.open(UNOPENED).await;
    (healthy, held_up)
}

#[test]
fn groups_keep_their_speed_beside_others_that_are_held_up() {
    let _turn = alone();
    run_for(Duration::from_secs(240 * times()), async {
        let groups = [STOPPED, LIMPING, UNOPENED, OTHERS[0], OTHERS[1]];
        let (crowd, load) = (Rc::new(Crowd::of(&groups).await), Rc::new(Load::default()));
        let capacity = crowd.hosts()[0].log.usage().capacity.get();
        let writers = groups.iter().map(|copyset| writer(&crowd, *copyset, &load));
        let writers: Vec<_> = writers.collect();
        let mut seen = Vec::new();
        let is_kept = |(healthy, held_up): &(f64, f64)| *held_up >= healthy * SPEED_KEPT;
        while seen.len() < ROUNDS && !seen.iter().any(is_kept) {
            seen.push(speeds(&crowd, &load, capacity).await);
            println!(
                "writes per second beside healthy groups, and beside groups that are held up: {seen:?}, \
                 the longest {:?}",
                load.others_longest.get()
            );
        }
        load.has_ended.set(true);
        for (copyset, writer) in groups.iter().zip(writers) {
            let written = writer.await.expect("it ends");
            all_have(&crowd, *copyset, written).await;
        }
        assert!(seen.iter().any(is_kept), "{seen:?}");
        crowd.end().await;
    });
}

/// Every replica of a group holds what was written last, whatever happened to it.
async fn all_have(crowd: &Crowd, copyset: CopysetId, written: u64) {
    let digest = request(copyset, CommandKind::Digest, 0, (0, 0));
    let mut agreed = None;
    // A copy that still comes in carries a replica past a digest's entry.
    for id in 1.. {
        let mut asked = digest;
        asked.sequence = Sequence::new(id);
        let asked = command(asked, Payload::empty(), 0);
        assert_eq!(crowd.mutate(copyset, &asked).await, Status::Ok);
        let mut found = Vec::new();
        for host in crowd.hosts() {
            let group = host.group(copyset).expect("it runs");
            let digest = ogee_runtime::timeout(Duration::from_secs(5), group.digest(id)).await;
            found.extend(digest.ok().and_then(Result::ok));
        }
        if found.len() == crowd.hosts().len() {
            agreed = Some(found);
            break;
        }
    }
    let agreed = agreed.expect("asked until then");
    assert!(
        agreed.iter().all(|digest| *digest == agreed[0]),
        "{copyset}"
    );
    let block = usize::try_from(BLOCK).expect("small");
    let read = request(copyset, CommandKind::Write, 0, LOAD);
    let leader = crowd.leader(copyset).await.group(copyset).expect("it runs");
    let runs = leader.read(&read).await.expect("readable");
    let ReadRun::Data(bytes) = &runs[0] else {
        panic!("{copyset} holds nothing");
    };
    assert_eq!(bytes[..block], block_bytes(written)[..], "{copyset}");
}
