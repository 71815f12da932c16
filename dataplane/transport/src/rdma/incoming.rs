//! What completes on a connection.
//!
//! *Place*: called by the pump. *Owner*: the wire. *Invariants*: nothing of a message counts before its prefix, and
//! nothing of a frame before its header, passed their checksums; every length and number of the peer is checked
//! against what this side holds. A payload whose memory was lent is handed up behind the end of its key; what was written
//! to memory that its user wants back is not handed up at all: that request is to be made again.
//!
//! *On failure*: what breaks a rule ends the connection.

use super::fault::{RdmaFault, wrong};
use super::head::{FOR_ANSWER, Kind, LENT, OF_META, Prefix, UNTOUCHED, WRITTEN};
use super::inbox::{Arrival, Entry};
use super::limit::{ANSWERS_MAX, HEAD_LEN, HEAD_META_MAX, INBOX_BYTES_MAX, LARGE_LEN, PREFIX_LEN};
use super::outgoing::Token;
use super::piece;
use super::wire::{Loan, Purpose, Side, State, Wire};
use crate::decoder::aligned;
use crate::error::TransportError;
use crate::metrics::count;
use crate::receiver::note_crc_error;
use bytes::Bytes;
use ogee_proto::checksum::crc32c;
use ogee_proto::limit::{FRAME_HEADER_SIZE, FRAME_META_MAX, REPLICATION_PAYLOAD_MAX};
use ogee_proto::wire::{FrameHeader, Status, WireError};
use ogee_rdma::{Done, Piece, Source, WorkError};
use ogee_runtime::Payload;

impl Wire {
    /// A message has come.
    pub(super) fn received(&self, head: &[u8], rest: Option<Piece>, len: usize) {
        let outcome = self.take_message(head, rest, len);
        if let Err(error) = outcome {
            if let TransportError::Wire(error) = &error {
                note_crc_error(error);
            }
            self.end(error);
        }
        self.came();
    }

    /// A work request is done.
    pub(super) fn done(&self, token: u64, done: Done) {
        let outcome = match (Token::decode(token), done) {
            (Token::Message, Done::Sent(..)) => {
                let mut state = self.state.borrow_mut();
                state.under_way = state.under_way.saturating_sub(1);
                drop(state);
                // There is room, and nothing to read.
                return self.driver.wake();
            }
            (Token::Read(number), Done::Read(piece)) => {
                self.was_read(number, piece);
                Ok(())
            }
            (Token::Loan(loan), Done::Reclaimed(source)) => self.was_voided(loan, source),
            (Token::Loan(loan), Done::Lost) => Err(wrong("loan that is lost", loan)),
            // Written and lent: the message behind it says the rest.
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            self.end(error);
        }
        self.came();
    }

    /// A work request has failed, and the queue pair with it.
    pub(super) fn failed(&self, token: u64, done: &Done, error: WorkError) {
        tracing::debug!(token, ?done, %error, "RDMA work request failed");
        if error != WorkError::Flushed || self.ended().is_none() {
            self.end(TransportError::Rdma(RdmaFault::Work(error)));
        }
    }

    fn take_message(
        &self,
        head: &[u8],
        rest: Option<Piece>,
        len: usize,
    ) -> Result<(), TransportError> {
        let prefix = Prefix::decode(head.get(..len.min(HEAD_LEN)).unwrap_or(head))?;
        let body_len = len.saturating_sub(HEAD_LEN);
        if prefix.body_len as usize != body_len {
            return Err(wrong("message body", prefix.body_len));
        }
        let mut state = self.state.borrow_mut();
        state.news = true;
        // The receive queue is shared, so hardware does not count for one connection.
        state.used += 1;
        if state.used > self.grant {
            return Err(wrong("messages beyond the grant", state.used));
        }
        state.credits += u32::from(prefix.credits);
        if state.granted != 0 && state.credits > state.granted {
            return Err(wrong("message credits", prefix.credits));
        }
        match prefix.kind {
            Kind::Credit => state.due += 1,
            Kind::Taken => {
                state.due += 1;
                let loan = state.loan(prefix.loan, Purpose::Payload)?;
                loan.purpose = Purpose::Over;
                state.to_reclaim.push_back(prefix.loan);
            }
            Kind::Part => {
                let body = rest.as_deref().and_then(|rest| rest.get(..body_len));
                state.take_part(prefix, body.unwrap_or_default())?;
                state.held += 1;
                state.release();
            }
            Kind::Frame => {
                drop(state);
                return self.take_frame(prefix, head, rest, len);
            }
        }
        Ok(())
    }

    fn take_frame(
        &self,
        prefix: Prefix,
        head: &[u8],
        rest: Option<Piece>,
        len: usize,
    ) -> Result<(), TransportError> {
        let (_, head) = head.split_at(PREFIX_LEN);
        let (header, meta) = head
            .split_at_checked(FRAME_HEADER_SIZE)
            .unwrap_or((head, &[]));
        let mut header = FrameHeader::decode(header)?;
        let body_len = prefix.body_len as usize;
        let mut state = self.state.borrow_mut();
        let meta_room = len
            .min(HEAD_LEN)
            .saturating_sub(PREFIX_LEN + FRAME_HEADER_SIZE);
        let meta = state.take_meta(&header, meta, meta_room)?;
        let payload_len = header.payload_len as usize;
        let payload = if prefix.has(LENT) {
            self.check_lent(&prefix, payload_len, body_len + state.payload.len())?;
            let (loan, remote) = (prefix.loan, prefix.remote);
            Arrival::Lent { loan, remote }
        } else if prefix.has(WRITTEN) {
            if state.was_written(&prefix, payload_len)? {
                Arrival::Voiding
            } else {
                // It has crossed the recall: nobody waits for what it has written, and it is not to be trusted.
                (header.status, header.payload_len) = (Status::Retry, 0);
                header.body_crc = crc32c(&meta);
                Arrival::Here(Payload::empty())
            }
        } else if state.payload.len() == payload_len && body_len == 0 {
            Arrival::Here(Payload::from(std::mem::take(&mut state.payload).freeze()))
        } else if body_len == payload_len && state.payload.is_empty() {
            Arrival::Here(self.keep_body(rest, body_len))
        } else {
            return Err(wrong("payload", payload_len as u64));
        };
        if prefix.has(FOR_ANSWER) {
            state.add_answer(self.side, &header, &prefix)?;
        }
        let is_in_place = matches!(payload, Arrival::Voiding);
        let number = state.inbox.add(Entry {
            header,
            meta,
            payload,
        });
        if is_in_place {
            let len = payload_len;
            state.loan(prefix.loan, Purpose::Answer)?.purpose = Purpose::Answered { number, len };
            state.to_reclaim.push_back(prefix.loan);
        } else if prefix.has(UNTOUCHED) || prefix.has(WRITTEN) {
            state.came_back(prefix.loan)?;
        }
        state.drop_if_deaf();
        Ok(())
    }

    /// Only the acceptor reads, and only into one piece.
    fn check_lent(
        &self,
        prefix: &Prefix,
        payload_len: usize,
        beside: usize,
    ) -> Result<(), TransportError> {
        if self.side == Side::Opener {
            return Err(wrong("loan from an acceptor", prefix.loan));
        }
        let len = prefix.remote.len as usize;
        if len != payload_len || len == 0 || len > LARGE_LEN || beside != 0 {
            return Err(wrong("message length", prefix.remote.len));
        }
        Ok(())
    }

    /// The payload as it has arrived, if enough pieces are left for that.
    fn keep_body(&self, rest: Option<Piece>, len: usize) -> Payload {
        match rest {
            Some(rest) if len > 0 && self.port.may_keep_body() => {
                piece::payload(&self.port, rest, len)
            }
            Some(rest) if len > 0 => copied(&rest, len),
            _ => Payload::empty(),
        }
    }

    fn keep_large(&self, piece: Piece, len: usize) -> Payload {
        if self.port.may_keep_large(&piece) {
            piece::payload(&self.port, piece, len)
        } else {
            copied(&piece, len)
        }
    }

    fn was_read(&self, number: u64, piece: Piece) {
        let reading = self.state.borrow_mut().inbox.reading(number);
        let Some((loan, len)) = reading else { return };
        let payload = self.keep_large(piece, len);
        let mut state = self.state.borrow_mut();
        state.inbox.complete(number, payload);
        state.taken.push_back(loan);
        // A large payload takes long: it counts as having heard of the peer.
        state.news = true;
        state.drop_if_deaf();
    }

    fn was_voided(&self, loan: u32, source: Source) -> Result<(), TransportError> {
        let mut state = self.state.borrow_mut();
        let known = state.loans.get_mut(&loan);
        let known = known.ok_or_else(|| wrong("loan", loan))?;
        let purpose = known.purpose;
        if purpose == Purpose::Recalled {
            // Its number waits for the answer.
            known.purpose = Purpose::Void;
            drop(state);
            drop(source);
            return Ok(());
        }
        let over = state.loans.remove(&loan);
        drop(state);
        drop(over);
        // What an answer was written to is ours alone.
        if let Purpose::Answered { number, len } = purpose {
            let payload = match source {
                Source::Own(piece) => self.keep_large(piece, len),
                Source::Part(part) => {
                    count(|metrics| metrics.bytes_in_place.add(len));
                    piece::in_place(part, len)
                }
                // It is not lent for writing.
                Source::Shared(_) => return Err(wrong("loan", loan)),
            };
            let mut state = self.state.borrow_mut();
            state.inbox.complete(number, payload);
            state.news = true;
            state.drop_if_deaf();
        }
        Ok(())
    }
}

impl State {
    /// A loan of that purpose.
    fn loan(&mut self, number: u32, purpose: Purpose) -> Result<&mut Loan, TransportError> {
        let loan = self.loans.get_mut(&number);
        loan.filter(|loan| loan.purpose == purpose)
            .ok_or_else(|| wrong("loan", number))
    }

    /// The answer was written to the loan; whether it is still wanted there.
    fn was_written(&mut self, prefix: &Prefix, len: usize) -> Result<bool, TransportError> {
        let loan = self.loans.get(&prefix.loan);
        let loan = loan.ok_or_else(|| wrong("loan", prefix.loan))?;
        let is_wanted = match loan.purpose {
            Purpose::Answer => true,
            Purpose::Recalled | Purpose::Void => false,
            _ => return Err(wrong("loan", prefix.loan)),
        };
        if prefix.remote.len as usize != len || len > loan.len {
            return Err(wrong("message length", prefix.remote.len));
        }
        Ok(is_wanted)
    }

    /// The answer has come another way, or too late.
    fn came_back(&mut self, number: u32) -> Result<(), TransportError> {
        let loan = self.loans.get_mut(&number);
        let loan = loan.ok_or_else(|| wrong("loan", number))?;
        match loan.purpose {
            Purpose::Answer => {
                loan.purpose = Purpose::Over;
                self.to_reclaim.push_back(number);
            }
            Purpose::Void => drop(self.loans.remove(&number)),
            Purpose::Recalled => loan.purpose = Purpose::Over,
            _ => return Err(wrong("loan", number)),
        }
        Ok(())
    }

    /// Bytes of the frame to come.
    fn take_part(&mut self, prefix: Prefix, body: &[u8]) -> Result<(), TransportError> {
        let (part, limit) = if prefix.has(OF_META) {
            (&mut self.meta, FRAME_META_MAX)
        } else {
            (&mut self.payload, REPLICATION_PAYLOAD_MAX)
        };
        let value = part.len() + body.len();
        if value > limit || body.is_empty() {
            let field = "parts";
            let error = WireError::Length {
                field,
                value,
                limit,
            };
            return Err(error.into());
        }
        part.extend_from_slice(body);
        count(|metrics| metrics.copied_in(body.len()));
        Ok(())
    }

    /// The meta, from its parts or from the head.
    fn take_meta(
        &mut self,
        header: &FrameHeader,
        in_head: &[u8],
        room: usize,
    ) -> Result<Bytes, TransportError> {
        let len = header.meta_len as usize;
        if len > HEAD_META_MAX || !self.meta.is_empty() {
            return if self.meta.len() == len {
                Ok(std::mem::take(&mut self.meta).freeze())
            } else {
                Err(wrong("meta", len as u64))
            };
        }
        let meta = in_head.get(..len).filter(|_| len <= room);
        let meta = meta.ok_or_else(|| wrong("meta", len as u64))?;
        count(|metrics| metrics.copied_in(len));
        Ok(Bytes::copy_from_slice(meta))
    }

    fn add_answer(
        &mut self,
        side: Side,
        header: &FrameHeader,
        prefix: &Prefix,
    ) -> Result<(), TransportError> {
        let is_allowed = side == Side::Acceptor && self.answers.len() < ANSWERS_MAX;
        if !is_allowed || prefix.has(LENT) || prefix.remote.len as usize > LARGE_LEN {
            return Err(wrong("loan for an answer", prefix.loan));
        }
        let lent = (prefix.loan, prefix.remote);
        match self.answers.insert(header.request_id.get(), lent) {
            None => Ok(()),
            Some(_) => Err(wrong("loan for an answer", prefix.loan)),
        }
    }

    /// Gives the buffers of parts back, unless much waits for the user.
    pub(super) fn release(&mut self) {
        // A frame of many parts must get through whatever waits.
        if self.inbox.bytes() < INBOX_BYTES_MAX || self.inbox.len() == 0 {
            self.due += std::mem::take(&mut self.held);
        }
    }

    /// Drops what is here when nobody wants it.
    pub(super) fn drop_if_deaf(&mut self) {
        if self.is_deaf {
            self.due += self.inbox.drop_all(&mut self.taken);
            self.release();
        }
    }
}

fn copied(piece: &Piece, len: usize) -> Payload {
    let bytes = piece.get(..len).unwrap_or(piece);
    count(|metrics| metrics.copied_in(bytes.len()));
    // The log may still write it from there.
    let mut room = aligned(bytes.len());
    room.extend_from_slice(bytes);
    Payload::from(room.freeze())
}
