//! The answering side of votes and leadership transfers.

use crate::codec::{get_log_id, get_vote, get_vote_request, put_vote_response};
use crate::group::Group;
use crate::types::TypeConfig;
use ogee_proto::wire::{FrameHeader, Reader, Status, WireError};
use ogee_transport::Frame;
use openraft::raft::TransferLeaderRequest;

impl Group {
    /// Answers a vote or pre-vote.
    pub async fn on_vote(&self, frame: Frame) -> Frame {
        let (request, is_pre_vote) = match get_vote_request(&frame.meta) {
            Ok(request) => request,
            Err(error) => return self.bad_request(&frame.header, &error),
        };
        let answer = if is_pre_vote {
            self.raft().pre_vote(request).await
        } else {
            self.raft().vote(request).await
        };
        let Ok(response) = answer else {
            return Frame::new(FrameHeader::reply(&frame.header, Status::Io));
        };
        let mut meta = Vec::with_capacity(64);
        put_vote_response(&mut meta, &response);
        let mut reply = Frame::new(FrameHeader::reply(&frame.header, Status::Ok));
        reply.meta = meta.into();
        reply
    }

    /// Takes a leadership transfer that this replica is the target of.
    pub async fn on_transfer_leader(&self, frame: Frame) -> Frame {
        let request = match self.decode_transfer(&frame) {
            Ok(request) => request,
            Err(error) => return self.bad_request(&frame.header, &error),
        };
        let taken = self.raft().handle_transfer_leader(request).await;
        let status = if taken.is_ok() {
            Status::Ok
        } else {
            Status::Retry
        };
        Frame::new(FrameHeader::reply(&frame.header, status))
    }

    fn decode_transfer(
        &self,
        frame: &Frame,
    ) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
        let mut from = Reader::new(&frame.meta);
        let leader = get_vote(&mut from)?;
        let last = get_log_id(&mut from)?;
        Ok(TransferLeaderRequest::new(
            leader,
            self.replica_id().get(),
            last,
        ))
    }

    fn bad_request(&self, header: &FrameHeader, error: &WireError) -> Frame {
        tracing::warn!(copyset = %self.copyset(), %error, "refused a Raft request");
        Frame::new(FrameHeader::reply(header, Status::BadRequest))
    }
}
