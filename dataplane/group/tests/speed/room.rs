//! Full stores: the one of a follower, of two, of the leader.
//!
//! What fills them is another group's: chunks of its own in the same store, put there and taken away
//! beside the group that is looked at.

use crate::alone;
use crate::common::{COPYSET, Cluster, Disk, Node, QUICK, pause, run, until};
use futures_util::future::{join, join_all};
use ogee_device::Survivors;
use ogee_group::{CommandKind, GroupConfig};
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, LogIndex, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, BLOCKS_PER_CHUNK, BLOCKS_PER_EXTENT, EXTENT_SIZE};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::Status;
use ogee_runtime::Payload;
use ogee_store::{BlockChange, WriteBack};
use std::rc::Rc;
use std::time::Duration;

const OTHER: CopysetId = CopysetId::new(8);
/// Extents of a chunk within the blocks that [`Disk`] looks at.
const EXTENTS: u32 = 8;
/// Blocks of one call.
const PIECE: usize = 256;
/// Far longer than any write waits for anything but a dead quorum.
const PROMPT: Duration = Duration::from_secs(10);
/// Longer than entries wait that no majority has room for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who leads is changed here by full stores, and not by a machine that is busy with other things.
const STEADY: GroupConfig = GroupConfig {
    election_min: Duration::from_secs(2),
    election_max: Duration::from_secs(4),
    ..QUICK
};

const fn other_key(chunk: u32) -> ChunkKey {
    ChunkKey {
        volume: VolumeId::new(99),
        chunk: ChunkIndex::new(chunk),
    }
}

fn reserve(node: &Node) -> u64 {
    node.store.capacity().get() / 16 / EXTENT_SIZE as u64
}

/// Fills a store with another group's data until so many extents beside the reserve are left.
async fn fill(node: &Node, left: u64) {
    take(node, 0, reserve(node) + left).await;
}

/// The same, until so many are left of all, from the other group's chunk `chunk` on.
async fn take(node: &Node, chunk: usize, left: u64) {
    let free = || node.store.usage().free.get() / EXTENT_SIZE as u64;
    let mut at = chunk * BLOCKS_PER_CHUNK;
    while free() > left {
        let extents = (free() - left).min((PIECE / BLOCKS_PER_EXTENT) as u64);
        let blocks = usize::try_from(extents).expect("few") * BLOCKS_PER_EXTENT;
        let chunk = u32::try_from(at / BLOCKS_PER_CHUNK).expect("few");
        let first = at % BLOCKS_PER_CHUNK;
        let changes = (first..first + blocks).map(|block| WriteBack {
            key: other_key(chunk),
            block: BlockIndex::new(block).expect("within the chunk"),
            what: BlockChange::Data(Payload::from(vec![9; BLOCK_SIZE])),
        });
        let written = node.store.write_back(OTHER, changes.collect()).await;
        written.expect("there is room");
        at += PIECE;
    }
    node.store.checkpoint(Vec::new()).await.expect("it works");
}

/// Takes the other group's data away.
async fn clear(node: &Node) {
    for key in node.store.chunks(OTHER) {
        let removed = node.store.remove_chunk(OTHER, key).await;
        removed.expect("it is the other group's");
    }
    node.store.checkpoint(Vec::new()).await.expect("it works");
}

/// Where a disk's extent number `extent` begins.
fn place(extent: u32) -> (u32, usize) {
    let block = extent % EXTENTS * 16;
    (extent / EXTENTS, usize::try_from(block).expect("small"))
}

/// Writes a block to an extent, once.
async fn write(cluster: &Cluster, disk: &Disk, extent: u32) -> Status {
    let (chunk, first) = place(extent);
    let tag = u64::from(extent) + 1;
    let write = disk.next_write(chunk, first, 1, tag);
    let status = ogee_runtime::timeout(PROMPT, cluster.mutate(&write)).await;
    let status = status.expect("an answer, and soon");
    if status == Status::Ok {
        disk.expect(chunk, first, vec![tag]);
    }
    status
}

async fn write_all(cluster: &Cluster, disk: &Disk, extents: std::ops::Range<u32>) {
    for extent in extents {
        assert_eq!(write(cluster, disk, extent).await, Status::Ok, "{extent}");
    }
}

async fn discard_all(disk: &Disk, extents: std::ops::Range<u32>) {
    for extent in extents {
        let (chunk, first) = place(extent);
        disk.zero(CommandKind::Discard, chunk, first, 16).await;
    }
}

/// Writes to one extent after the other until one is refused; the first that was.
async fn write_until_full(cluster: &Cluster, disk: &Disk, first: u32) -> u32 {
    let mut extent = first;
    while write(cluster, disk, extent).await == Status::Ok {
        extent += 1;
    }
    extent
}

/// What a store has let in it can take, and its log is let go.
async fn keeps_house(node: &Node) {
    loop {
        assert!(
            node.keeper.checkpoint_now().await,
            "{:?}",
            node.keeper.failure()
        );
        // Something may have come meanwhile.
        if node.group.overlay_blocks() == 0 {
            break;
        }
        pause().await;
    }
    until(|| node.keeper.is_full()).await;
}

fn applied(node: &Node) -> u64 {
    node.group.report().applied.index.get()
}

async fn start() -> (Rc<Cluster>, Disk, Rc<Node>, Rc<Node>) {
    let cluster = Cluster::with_times(STEADY).await;
    let disk = Disk::attach(&cluster, 1, 1).await;
    write_all(&cluster, &disk, 0..4).await;
    cluster.settle().await;
    cluster.checkpoint().await;
    let (leader, full) = (cluster.leader().await, cluster.followers().await[0].clone());
    (cluster, disk, leader, full)
}

#[test]
fn a_full_follower_is_left_behind_and_catches_up_by_log() {
    let _turn = alone();
    run(async {
        let (cluster, disk, leader, full) = start().await;
        let replica = full.replica;
        fill(&full, 40).await;
        // Twice what it has room for, and what it has reserved.
        let last = 4 + 2 * u32::try_from(40 + reserve(&full)).expect("few");
        write_all(&cluster, &disk, 4..last).await;
        assert!(applied(&full) < applied(&leader), "it is left behind");
        keeps_house(&full).await;
        let left = full.store.usage().free.get() / EXTENT_SIZE as u64;
        assert!(left >= reserve(&full) / 4, "{left}");
        // Nor does a restart let it take more than it has.
        drop(full);
        let medium = cluster.crash(replica, Survivors::Seeded(3)).await;
        let full = cluster.restart(medium).await;
        write_all(&cluster, &disk, last..last + 20).await;
        assert!(applied(&full) < applied(&leader));
        clear(&full).await;
        cluster.settle().await;
        assert_eq!(leader.copies.bytes_sent(), 0, "by log");
        write_all(&cluster, &disk, last + 20..last + 30).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(replica).await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn a_full_follower_whose_log_is_gone_gets_a_copy_when_one_fits() {
    let _turn = alone();
    run(async {
        let (cluster, disk, leader, full) = start().await;
        fill(&full, 40).await;
        let taken = u32::try_from(40 + reserve(&full)).expect("few");
        write_all(&cluster, &disk, 4..2 * taken).await;
        let stuck = applied(&full);
        let log = leader.log.group(COPYSET);
        let purged = || log.state().purged.map_or(LogIndex::new(0), |id| id.index);
        while purged() <= LogIndex::new(stuck) {
            assert!(leader.keeper.checkpoint_now().await);
            pause().await;
        }
        // Longer than it takes to try: no copy that does not fit is begun, and what is there stays.
        ogee_runtime::sleep(Duration::from_secs(3)).await;
        assert_eq!(leader.copies.bytes_sent(), 0);
        assert!(!full.group.report().is_installing);
        // All that it has goes, and less than that is new: the one must make room for the other.
        discard_all(&disk, 0..2 * taken - 100).await;
        cluster.checkpoint().await;
        cluster.settle().await;
        assert!(leader.copies.bytes_sent() > 0, "by a copy");
        write_all(&cluster, &disk, 0..10).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        cluster.transfer_to(full.replica).await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn two_full_followers_refuse_new_data_and_nothing_else() {
    let _turn = alone();
    run(async {
        let (cluster, disk, leader, _) = start().await;
        let followers = cluster.followers().await;
        for follower in &followers {
            fill(follower, 40).await;
        }
        let first = write_until_full(&cluster, &disk, 4).await;
        // A follower that is late counts what it has not applied yet against its last word.
        assert!(
            (20..=44).contains(&first),
            "{first}: their room, not their reserve"
        );
        // It is refused before it is in anybody's log.
        let before = leader.group.report().last_log;
        for extent in first..first + 20 {
            assert_eq!(write(&cluster, &disk, extent).await, Status::NoSpace);
        }
        assert_eq!(leader.group.report().last_log, before);
        assert!(leader.leads(), "there is nobody to hand over to");
        disk.check().await;
        // What has its place is written over, and both keep up.
        write_all(&cluster, &disk, 0..4).await;
        cluster.settle().await;
        for follower in &followers {
            keeps_house(follower).await;
        }
        discard_all(&disk, 0..20).await;
        // The followers tell of their room bit by bit, as they write back.
        let (mut next, mut taken) = (first + 20, 0);
        while taken < 15 {
            match write(&cluster, &disk, next).await {
                Status::Ok => taken += 1,
                _ => pause().await,
            }
            next += 1;
            assert!(next < first + 2000, "room for {taken} of 20 discarded");
        }
        write_until_full(&cluster, &disk, next).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        disk.check().await;
        cluster.end().await;
    });
}

/// Others take the room, the reserve with it, between a follower's word and the entries that were let in
/// on it. What would make room comes behind them in the log.
#[test]
fn what_was_let_in_on_an_old_word_does_not_stand_in_the_way_of_discards() {
    let _turn = alone();
    run(async {
        let (cluster, disk, leader, _) = start().await;
        let followers = cluster.followers().await;
        for follower in &followers {
            fill(follower, 40).await;
        }
        // They say so.
        write_all(&cluster, &disk, 0..1).await;
        followers.iter().for_each(|follower| follower.deafen());
        for follower in &followers {
            take(follower, 64, 1).await;
        }
        followers.iter().for_each(|follower| follower.reconnect());
        let mut writes = Vec::new();
        for extent in 4..10 {
            let ((chunk, first), tag) = (place(extent), u64::from(extent) + 1);
            writes.push(disk.next_write(chunk, first, 1, tag));
            disk.expect(chunk, first, vec![tag]);
        }
        let before = leader.group.report().last_log;
        let written = join_all(writes.iter().map(|write| cluster.mutate(write)));
        let both = join(written, discard_all(&disk, 0..4));
        let (written, ()) = ogee_runtime::timeout(PATIENCE, both)
            .await
            .expect("both end");
        assert!(
            leader.group.report().last_log > before + 6,
            "they were let in: {written:?}"
        );
        assert!(
            written.iter().all(|status| *status == Status::Ok),
            "{written:?}"
        );
        // There is one extent for the six: the rest waits in the log, and what is discarded makes room.
        for follower in &followers {
            until(|| follower.keeper.is_full()).await;
            assert!(follower.keeper.failure().is_none());
        }
        assert_eq!(write(&cluster, &disk, 20).await, Status::NoSpace);
        disk.check().await;
        discard_all(&disk, 4..8).await;
        for follower in &followers {
            keeps_house(follower).await;
            clear(follower).await;
        }
        cluster.settle().await;
        while write(&cluster, &disk, 20).await == Status::NoSpace {
            pause().await;
        }
        write_all(&cluster, &disk, 21..30).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        disk.check().await;
        cluster.end().await;
    });
}

#[test]
fn a_full_leader_hands_over_to_a_replica_with_room() {
    let _turn = alone();
    run(async {
        let (cluster, disk, leader, _) = start().await;
        fill(&leader, 20).await;
        let mut extent = write_until_full(&cluster, &disk, 4).await;
        assert!(
            (15..=24).contains(&extent),
            "{extent}: its room, not its reserve"
        );
        // Without anybody asking for it.
        while write(&cluster, &disk, extent).await == Status::NoSpace {
            pause().await;
        }
        extent += 1;
        write_all(&cluster, &disk, extent..extent + 100).await;
        assert!(!leader.leads());
        keeps_house(&leader).await;
        clear(&leader).await;
        cluster.settle().await;
        cluster.agreed_digest().await;
        disk.check().await;
        cluster.end().await;
    });
}
