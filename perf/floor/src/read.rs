//! Blocks from the log or the store, for whoever checks what was written.

use crate::error::FloorError;
use crate::group::{Group, answer};
use crate::limit::READ_TRIES;
use crate::node::{Node, refuse};
use crate::wire::Place;
use ogee_proto::id::LogIndex;
use ogee_proto::limit::{BLOCK_SIZE, REQUEST_PAYLOAD_MAX};
use ogee_proto::unit::BlockIndex;
use ogee_proto::wire::{FrameHeader, Status};
use ogee_runtime::Payload;
use ogee_store::BlockRead;
use ogee_transport::{Frame, Peer};
use std::rc::Rc;

impl Node {
    pub(crate) fn on_read(self: &Rc<Self>, group: Rc<Group>, peer: Peer, header: FrameHeader) {
        let len = header.length as usize;
        let place = Place::checked(header.key, header.offset, len);
        let Some((place, count)) = place.filter(|_| len <= REQUEST_PAYLOAD_MAX) else {
            return refuse(&peer, &header, Status::BadRequest);
        };
        let node = self.clone();
        drop(ogee_runtime::spawn(async move {
            match node.read(&group, place, count).await {
                Ok(bytes) => {
                    let mut frame = Frame::new(FrameHeader::reply(&header, Status::Ok));
                    frame.payload = bytes;
                    answer(&peer, frame);
                }
                Err(error) => {
                    tracing::error!(group = %group.id, %error, "a read has failed");
                    refuse(&peer, &header, Status::Io);
                }
            }
        }));
    }

    /// Again when a block has moved from log to store meanwhile.
    async fn read(&self, group: &Group, place: Place, count: usize) -> Result<Payload, FloorError> {
        let mut outcome = self.read_once(group, place, count).await;
        for _ in 1..READ_TRIES {
            if outcome.is_ok() {
                break;
            }
            ogee_runtime::yield_now().await;
            outcome = self.read_once(group, place, count).await;
        }
        outcome
    }

    async fn read_once(
        &self,
        group: &Group,
        place: Place,
        count: usize,
    ) -> Result<Payload, FloorError> {
        let mut bytes = Vec::with_capacity(count * BLOCK_SIZE);
        let blocks = place.first.as_usize()..place.first.as_usize() + count;
        for block in blocks {
            let block = BlockIndex::new(block).expect("invariant: checked when it was taken");
            let slot = group.index.borrow().get(place.key, block);
            match slot {
                Some(slot) => {
                    let index = LogIndex::new(slot.index);
                    bytes.extend_from_slice(&group.log.payload(index, slot.bytes()).await?);
                }
                None => {
                    for run in self.disk.store.read(group.id, place.key, block, 1).await? {
                        match run {
                            BlockRead::Data(data) => bytes.extend_from_slice(&data),
                            BlockRead::Zeros(blocks) => {
                                bytes.resize(bytes.len() + blocks * BLOCK_SIZE, 0);
                            }
                        }
                    }
                }
            }
        }
        Ok(bytes.into())
    }
}
