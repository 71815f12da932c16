//! Requests of operators: digests, and what is wanted of scrubbing.
//!
//! A `Digest` frame with `length` 0 puts a digest entry named by `sequence` into the group's log
//! (leader only); with `length` 2 it asks about one piece (`ogee_group`); with `length` 1 it waits for this replica's result. The reply's meta: applied
//! term `u64`, applied index `u64`, chunks in all `u32`, chunks here `u32`, then per chunk volume `u64`, chunk `u32`,
//! crc `u32`, blocks `u32`.
//!
//! A `Scrub` frame's meta is a store's id, 16 bytes, and what is wanted of it, `u8` ([`ScrubWish`]). The
//! reply's meta is `u8`: 1, or 0 where nothing is done in the background.

use super::Shard;
use super::request::{refusal, with_outcome};
use super::wish::Work;
use ogee_group::{CommandHead, CommandKind, Group, GroupDigest, GroupError, command};
use ogee_proto::id::StoreId;
use ogee_proto::limit::{BLOCK_SIZE, FRAME_META_MAX};
use ogee_proto::wire::{FrameHeader, ScrubWish, Status, Writer};
use ogee_runtime::Payload;
use ogee_transport::Frame;

/// Bytes of one chunk in the reply.
const CHUNK_LEN: usize = 20;

pub(super) async fn digest(group: &Group, header: &FrameHeader) -> Frame {
    match header.length {
        0 => start(group, header).await,
        1 => collect(group, header).await,
        _ => refusal(header, Status::BadRequest),
    }
}

/// Pauses what is done with a store's device in the background, lets it go on, or has it done at once.
pub(super) async fn scrub(shard: &Shard, frame: &Frame) -> Frame {
    let header = &frame.header;
    let split = frame.meta.split_first_chunk::<16>();
    let Some((id, &[wish])) = split else {
        return refusal(header, Status::BadRequest);
    };
    let Some(open) = shard.store(StoreId::from_bytes(*id)) else {
        return refusal(header, Status::NoCopyset);
    };
    let is_paused = match ScrubWish::from_raw(wish) {
        Some(ScrubWish::Pause) => true,
        Some(ScrubWish::Resume) => false,
        Some(ScrubWish::Now) => {
            open.wish.hurry(Work::Scrub);
            open.wish.hurry(Work::Compare);
            return granted(header, open.wish.is_heard(Work::Scrub));
        }
        Some(ScrubWish::LightNow) => {
            open.wish.hurry(Work::Light);
            return granted(header, open.wish.is_heard(Work::Light));
        }
        None => return refusal(header, Status::BadRequest),
    };
    let paused = open.store.pause(is_paused).await;
    open.wish.note_change();
    match paused {
        Ok(()) => {
            tracing::info!(store = %open.id(), is_paused, "scrubbing and comparing");
            granted(header, open.wish.is_heard(Work::Light))
        }
        Err(error) => {
            tracing::error!(store = %open.id(), is_paused, %error, "this cannot be kept on the device");
            refusal(header, Status::Io)
        }
    }
}

fn granted(header: &FrameHeader, is_heard: bool) -> Frame {
    let mut frame = Frame::new(FrameHeader::reply(header, Status::Ok));
    frame.meta = vec![u8::from(is_heard)].into();
    frame
}

async fn start(group: &Group, header: &FrameHeader) -> Frame {
    let head = CommandHead {
        kind: CommandKind::Digest,
        key: header.key,
        offset: 0,
        length: u32::try_from(BLOCK_SIZE).expect("4096 fits"),
        client: header.client,
        epoch: header.epoch,
        incarnation: header.incarnation,
        sequence: header.sequence,
        watermark: header.watermark,
    };
    let outcome = group.mutate(command(head, Payload::empty(), 0)).await;
    with_outcome(header, outcome)
}

async fn collect(group: &Group, header: &FrameHeader) -> Frame {
    let copyset = group.copyset();
    match group.digest(header.sequence.get()).await {
        Ok(digest) => encode(header, &digest),
        Err(error) => match *error {
            GroupError::Race { .. }
            | GroupError::Installing { .. }
            | GroupError::DigestSkipped { .. }
            | GroupError::Deleted { .. }
            | GroupError::BeforeStart { .. } => {
                tracing::info!(%copyset, %error, "no digest");
                refusal(header, Status::Retry)
            }
            _ => {
                tracing::error!(%copyset, %error, "digest failed");
                refusal(header, Status::Corrupt)
            }
        },
    }
}

fn encode(header: &FrameHeader, digest: &GroupDigest) -> Frame {
    // A reply holds so many chunks; a larger copyset pages by `offset`, counted in chunks.
    let page = (FRAME_META_MAX - 64) / CHUNK_LEN;
    let chunks = digest.chunks.iter().skip(header.offset as usize).take(page);
    let mut meta = Vec::new();
    let count = u32::try_from(chunks.len()).expect("a page holds few chunks");
    Writer::new(&mut meta)
        .u64(digest.applied.term.get())
        .u64(digest.applied.index.get())
        .u32(u32::try_from(digest.chunks.len()).unwrap_or(u32::MAX))
        .u32(count);
    for chunk in chunks {
        Writer::new(&mut meta)
            .u64(chunk.key.volume.get())
            .u32(chunk.key.chunk.get())
            .u32(chunk.crc)
            .u32(chunk.blocks);
    }
    let mut frame = Frame::new(FrameHeader::reply(header, Status::Ok));
    frame.meta = meta.into();
    frame
}

#[cfg(test)]
mod tests {
    use super::encode;
    use ogee_group::{ChunkDigest, GroupDigest};
    use ogee_proto::id::{ChunkIndex, ChunkKey, LogId, RequestId, VolumeId};
    use ogee_proto::wire::{FrameHeader, FrameKind};

    #[test]
    fn golden_bytes() {
        let chunk = |chunk| ChunkDigest {
            key: ChunkKey {
                volume: VolumeId::new(0x11),
                chunk: ChunkIndex::new(chunk),
            },
            crc: 0x0102_0304,
            blocks: 5,
        };
        let digest = GroupDigest {
            applied: LogId::new(4, 6),
            chunks: vec![chunk(0x22), chunk(0x23)],
        };
        let mut header = FrameHeader::new(FrameKind::Digest, RequestId::new(1));
        // From the second chunk on.
        header.offset = 1;
        let hex: String = encode(&header, &digest)
            .meta
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let golden = "0400000000000000 0600000000000000 02000000 01000000 \
            1100000000000000 23000000 04030201 05000000";
        assert_eq!(hex, golden.replace(' ', ""));
    }
}
