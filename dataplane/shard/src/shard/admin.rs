//! Requests of operators: digests.
//!
//! A `Digest` frame with `length` 0 puts a digest entry named by `sequence` into the group's log
//! (leader only); with `length` 1 it waits for this replica's result. The reply's meta: applied
//! term `u64`, applied index `u64`, chunks in all `u32`, chunks here `u32`, then per chunk volume `u64`, chunk `u32`,
//! crc `u32`, blocks `u32`.

use super::request::{refusal, with_outcome};
use ogee_group::{CommandHead, CommandKind, Group, GroupDigest, GroupError, command};
use ogee_proto::limit::{BLOCK_SIZE, FRAME_META_MAX};
use ogee_proto::wire::{FrameHeader, Status, Writer};
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
    match group.digest(header.sequence.get()).await {
        Ok(digest) => encode(header, &digest),
        Err(error) => {
            tracing::error!(copyset = %group.copyset(), %error, "digest failed");
            refusal(
                header,
                match *error {
                    GroupError::Race { .. } | GroupError::Installing { .. } => Status::Retry,
                    _ => Status::Corrupt,
                },
            )
        }
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
