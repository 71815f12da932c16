//! The answering side of votes and leadership transfers.
//!
//! A replica that has just started abstains for a while, see `lease`; one that is quiet stands by the
//! leader whose beats it hears, see `quiet`.

use crate::codec::{get_transfer, get_vote_request, put_vote_response};
use crate::group::Group;
use ogee_proto::wire::{FrameHeader, Status, WireError};
use ogee_transport::Frame;

impl Group {
    /// Answers a vote or pre-vote.
    pub async fn on_vote(&self, frame: Frame) -> Frame {
        let (request, is_pre_vote) = match get_vote_request(&frame.meta) {
            Ok(request) => request,
            Err(error) => return self.bad_request(&frame.header, &error),
        };
        // A handover has its leader's blessing, whatever we promised.
        if !request.leadership_transfer && (self.abstains() || self.stands_by_leader()) {
            return Frame::new(FrameHeader::reply(&frame.header, Status::Retry));
        }
        let answer = if is_pre_vote {
            self.raft().pre_vote(request).await
        } else {
            self.raft().vote(request).await
        };
        if !is_pre_vote {
            // Somebody stands, so the leader is not what this replica was quiet for.
            self.wake();
        }
        let Ok(response) = answer else {
            return Frame::new(FrameHeader::reply(&frame.header, Status::Io));
        };
        let mut meta = Vec::with_capacity(64);
        put_vote_response(&mut meta, &response);
        let mut reply = Frame::new(FrameHeader::reply(&frame.header, Status::Ok));
        reply.meta = meta.into();
        reply
    }

    /// Takes a leadership transfer: to this replica, or to another one that it is to let run.
    pub async fn on_transfer_leader(&self, frame: Frame) -> Frame {
        let request = match get_transfer(&frame.meta) {
            Ok(request) => request,
            Err(error) => return self.bad_request(&frame.header, &error),
        };
        self.wake();
        let status = match self.raft().handle_transfer_leader(request).await {
            Ok(Ok(())) => Status::Ok,
            Ok(Err(refused)) => {
                tracing::info!(copyset = %self.copyset(), %refused, "leadership not taken over");
                Status::Retry
            }
            Err(_stopped) => Status::Io,
        };
        Frame::new(FrameHeader::reply(&frame.header, status))
    }

    fn bad_request(&self, header: &FrameHeader, error: &WireError) -> Frame {
        tracing::warn!(copyset = %self.copyset(), %error, "refused a Raft request");
        Frame::new(FrameHeader::reply(header, Status::BadRequest))
    }
}
