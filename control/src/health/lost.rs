//! Blocks that no replica has as they should be, and those in which they differ.

use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteOffset;

use super::assess::{Condition, Severity, Sight, Subject};
use crate::liveness::LostBlocks;

/// Each place by volume and range.
pub(super) fn lost_condition(sight: &Sight<'_>) -> Condition {
    let mut lost = Condition::new(
        "OGEE-1027",
        Severity::Err,
        "blocks are damaged on every replica: reads of them fail, and nothing is guessed",
        "restore these ranges from a backup, or write them anew (what is written is whole again); if a device was taken \
         out that had them, put it back; look at the devices that lost them: ogee device ls",
    );
    for blocks in sight.liveness.lost(sight.now) {
        lost.add_of(Subject::Copyset(blocks.copyset), || named(sight, &blocks));
    }
    lost
}

/// Each place by volume and range.
pub(super) fn disputed_condition(sight: &Sight<'_>) -> Condition {
    let mut disputed = Condition::new(
        "OGEE-1030",
        Severity::Err,
        "replicas hold different contents, each as it was written there, and no rule tells which is right: reads return \
         what the leader holds, and nothing is guessed",
        "check what uses these ranges, write them anew or restore them from a backup (what is written is the same \
         everywhere); a device that has lost a write does it again: the chunkservers' logs name the replicas",
    );
    for blocks in sight.liveness.disputed(sight.now) {
        disputed.add_of(Subject::Copyset(blocks.copyset), || named(sight, &blocks));
    }
    disputed
}

fn named(sight: &Sight<'_>, lost: &LostBlocks) -> String {
    let Some(volume) = sight.state.volumes().get(&lost.volume) else {
        return format!("volume {}, chunk {}", lost.volume, lost.chunk.get());
    };
    let layout = volume.stripe.layout();
    let block = BLOCK_SIZE as u64;
    let at = |block_at: u64| {
        layout
            .offset_of(lost.chunk, ByteOffset::new(block_at * block))
            .get()
    };
    let (first, count) = (u64::from(lost.first), u64::from(lost.count.max(1)));
    let (from, last) = (at(first), at(first + count - 1));
    let is_whole = last - from == (count - 1) * block;
    let copyset = lost.copyset;
    if is_whole {
        let to = last + block;
        format!("volume {}, bytes {from} to {to} ({copyset})", volume.name)
    } else {
        format!(
            "volume {}, {count} blocks between bytes {from} and {} ({copyset})",
            volume.name,
            last + block
        )
    }
}
