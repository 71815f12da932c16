//! What a connection posts.
//!
//! *Place*: called by the driver. *Owner*: the wire. *Invariants*: a message goes out only while a credit, a work
//! request and memory are there for it; the last credit only to give credits back. Frames go out in order, one after
//! the other. What is copied into registered memory is counted. All work requests of one turn are gathered, in that order,
//! and posted by one call of the driver (or, when there are more than it takes, by several).
//!
//! *On failure*: a post that the hardware refuses ends the connection; what is short is waited for.

use super::fault::unable;
use super::head::{FOR_ANSWER, Kind, LENT, OF_META, Prefix, UNTOUCHED, WRITTEN};
use super::limit::{
    ANSWERS_MAX, BODY_LEN, HEAD_LEN, HEAD_META_MAX, LARGE_LEN, LEND_AGAIN_AFTER, PREFIX_LEN,
};
use super::piece;
use super::wire::{Loan, Purpose, Side, State, Wire};
use crate::error::{Doing, TransportError};
use crate::frame::Frame;
use crate::metrics::count;
use ogee_proto::limit::FRAME_HEADER_SIZE;
use ogee_proto::wire::{FrameHeader, FrameKind};
use ogee_rdma::{Access, Failed, Lent, Pair, Piece, RdmaError, RemoteMemory, Shared, Source, Tell};
use ogee_runtime::now;
use std::rc::Rc;

/// A frame on its way out.
pub(super) struct Sending {
    frame: Frame,
    header: FrameHeader,
    meta_at: usize,
    payload_at: usize,
    way: Way,
    /// What it returns, or is answered into.
    loan: Option<u32>,
}

/// How its payload goes.
enum Way {
    /// In its message.
    Body,
    /// In messages before it.
    Parts,
    /// The peer reads it.
    Lend(Source),
    /// It is written to the peer's memory.
    Write(Source, RemoteMemory),
}

/// Tells the completion of a work request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// A message, or the write before it.
    Message,
    /// The payload of that entry is read.
    Read(u64),
    /// That loan's key is made, or voided.
    Loan(u32),
}

const READ: u64 = 1 << 62;
const LOAN: u64 = 1 << 63;

impl Token {
    const fn encode(self) -> u64 {
        match self {
            Self::Message => 0,
            Self::Read(number) => READ | number,
            Self::Loan(loan) => LOAN | loan as u64,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "as it was put in")]
    pub(super) const fn decode(token: u64) -> Self {
        if token & LOAN != 0 {
            Self::Loan(token as u32)
        } else if token & READ != 0 {
            Self::Read(token & !READ)
        } else {
            Self::Message
        }
    }
}

/// Whether there is more to do, or something is short.
type Step = Result<bool, TransportError>;

fn failed(error: RdmaError) -> TransportError {
    unable(Doing::Write, error)
}

impl Wire {
    /// Posts what can be posted now, of `next` and of what the connection itself has to say.
    pub(super) fn progress(
        self: &Rc<Self>,
        next: &mut dyn FnMut() -> Option<Frame>,
    ) -> Result<(), TransportError> {
        let mut state = self.state.borrow_mut();
        let Some(pair) = &state.pair else {
            return Ok(());
        };
        pair.hold();
        state.tell = self.port.tell();
        self.gather(&mut state, next)?;
        state.post()
    }

    /// Has the hardware tell of all that it has, when nothing more is to be sent.
    pub(super) fn settle(&self) -> Result<(), TransportError> {
        let mut state = self.state.borrow_mut();
        let silent = state.pair.as_ref().filter(|pair| pair.silent() > 0);
        let Some(pair) = silent.filter(|pair| state.credits > 0 && pair.room() > 0) else {
            return Ok(());
        };
        pair.hold();
        state.tell = Tell::Last;
        state.say(Prefix::new(Kind::Credit))?;
        state.post()
    }

    /// All that is to be posted in this turn.
    fn gather(
        self: &Rc<Self>,
        state: &mut State,
        next: &mut dyn FnMut() -> Option<Frame>,
    ) -> Result<(), TransportError> {
        while state.reclaim()? {}
        while self.read(state)? {}
        while state.say_taken()? {}
        while state.may_send() {
            if state.sending.is_none() {
                let Some(frame) = next() else { break };
                let sending = self.begin(state, frame);
                state.sending = Some(sending);
            }
            if !self.emit(state)? {
                break;
            }
        }
        if state.due * 2 >= self.grant && state.credits >= 1 && state.room() >= 1 {
            state.say(Prefix::new(Kind::Credit))?;
        }
        Ok(())
    }

    /// Reads the payload that the user comes to next.
    fn read(self: &Rc<Self>, state: &mut State) -> Step {
        let Some((number, loan, remote)) = state.inbox.to_read() else {
            return Ok(false);
        };
        if state.room() == 0 {
            return Ok(false);
        }
        let Some(piece) = self.port.large(remote.len as usize) else {
            return Ok(self.wait());
        };
        let pair = state
            .pair
            .as_ref()
            .expect("invariant: looked at by progress");
        let posted = pair.read(piece, remote, Token::Read(number).encode());
        posted.map_err(|refused| failed(refused.error))?;
        state.inbox.set_reading(number, loan);
        Ok(true)
    }

    /// Something comes back later.
    fn wait(self: &Rc<Self>) -> bool {
        if !self.is_waiting.replace(true) {
            self.port.wait_for_piece(self);
        }
        false
    }

    /// Chooses a frame's way.
    fn begin(&self, state: &mut State, frame: Frame) -> Sending {
        let header = frame.sealed_header();
        let answers = match header.kind {
            FrameKind::Reply => state.answers.remove(&header.request_id.get()),
            _ => None,
        };
        let len = frame.payload.len();
        let way = if len <= state.body_max.min(BODY_LEN) {
            Way::Body
        } else if self.side == Side::Opener {
            let source = self
                .as_it_lies(state, &frame)
                .or_else(|| Some(filled(self.port.large_to_lend(len)?, &frame)));
            source.map_or(Way::Parts, Way::Lend)
        } else {
            let room = answers.filter(|(_, remote)| remote.len as usize >= len);
            let source = room.and_then(|_| {
                self.as_it_lies(state, &frame)
                    .or_else(|| Some(filled(self.port.large(len)?, &frame)))
            });
            match room.zip(source) {
                Some(((_, mut remote), source)) => {
                    remote.len = header.payload_len;
                    Way::Write(source, remote)
                }
                None => Way::Parts,
            }
        };
        Sending {
            frame,
            header,
            meta_at: 0,
            payload_at: 0,
            way,
            loan: answers.map(|(loan, _)| loan),
        }
    }

    /// Sends the next message of the frame.
    fn emit(self: &Rc<Self>, state: &mut State) -> Step {
        let Some(mut sending) = state.sending.take() else {
            return Ok(false);
        };
        let Some(head) = self.port.head() else {
            state.sending = Some(sending);
            return Ok(self.wait());
        };
        let in_parts = sending.next_part(state.body_max.min(BODY_LEN));
        let has_body = in_parts.is_some()
            || matches!(sending.way, Way::Body) && !sending.frame.payload.is_empty();
        let lying = match has_body && in_parts.is_none() {
            true => self.as_it_lies(state, &sending.frame),
            false => None,
        };
        let body = match lying {
            None if has_body => self.port.body().map(Source::Own),
            lying => lying,
        };
        if has_body && body.is_none() {
            state.sending = Some(sending);
            return Ok(self.wait());
        }
        if let Some((flag, start, end)) = in_parts {
            let mut prefix = Prefix::new(Kind::Part);
            prefix.flags = flag;
            let whole: &[u8] = if flag == OF_META {
                &sending.frame.meta
            } else {
                &sending.frame.payload
            };
            let part = whole.get(start..end).unwrap_or_default();
            state.send(prefix, &[], head, body, part)?;
            *sending.at(flag) = end;
            state.sending = Some(sending);
            return Ok(true);
        }
        self.finish(state, sending, head, body)
    }

    /// Sends the last message of the frame, and what moves its payload.
    fn finish(
        self: &Rc<Self>,
        state: &mut State,
        mut sending: Sending,
        head: Piece,
        body: Option<Source>,
    ) -> Step {
        let mut prefix = Prefix::new(Kind::Frame);
        if matches!(sending.header.kind, FrameKind::Ping | FrameKind::Pong) {
            // It goes when nothing else does: what was silent before it comes back.
            state.tell = Tell::Last;
        }
        if let Some(loan) = sending.loan {
            (prefix.flags, prefix.loan) = (UNTOUCHED, loan);
        }
        let mut payload: &[u8] = &[];
        match std::mem::replace(&mut sending.way, Way::Parts) {
            Way::Body => payload = &sending.frame.payload,
            Way::Parts => {}
            Way::Lend(source) => {
                let len = sending.frame.payload.len();
                match state.lend(source, len, Access::Read, Purpose::Payload)? {
                    Some((loan, remote)) => {
                        prefix.flags = LENT;
                        (prefix.loan, prefix.remote) = (loan, remote);
                    }
                    // In parts, then.
                    None => {
                        state.sending = Some(sending);
                        return Ok(true);
                    }
                }
            }
            Way::Write(source, remote) => {
                let pair = state
                    .pair
                    .as_ref()
                    .expect("invariant: looked at by progress");
                // Much memory: it is wanted back.
                state.tell = Tell::Last;
                let posted = pair.write(source, remote, Token::Message.encode());
                posted.map_err(|refused| failed(refused.error))?;
                prefix.flags = WRITTEN;
                prefix.remote.len = remote.len;
            }
        }
        if let Some((loan, remote)) = self.lend_for_answer(state, &sending)? {
            prefix.flags |= FOR_ANSWER;
            (prefix.loan, prefix.remote) = (loan, remote);
        }
        let mut fixed = [0; HEAD_LEN - PREFIX_LEN];
        let (header, meta) = fixed.split_at_mut(FRAME_HEADER_SIZE);
        header.copy_from_slice(&sending.header.encode());
        if sending.meta_at == 0 {
            let short = &sending.frame.meta;
            if let Some(meta) = meta.get_mut(..short.len()) {
                meta.copy_from_slice(short);
            }
        }
        state.send(prefix, &fixed, head, body, payload)?;
        count(|metrics| {
            metrics.frames_out.bump();
            metrics.bytes_out.add(sending.frame.wire_len());
        });
        Ok(true)
    }

    /// The frame's payload where it lies, if the connection can send it from there.
    fn as_it_lies(&self, state: &State, frame: &Frame) -> Option<Source> {
        let may_send = |shared: &Shared| {
            let pair: Option<&Pair> = state.pair.as_ref();
            pair.is_some_and(|pair| pair.may_send(shared))
        };
        let received = piece::registered(&frame.payload).filter(may_send);
        let received = received.map(Source::Shared);
        received.or_else(|| self.port.areas.part(&frame.payload).map(Source::Part))
    }

    /// Memory for what a read will return.
    fn lend_for_answer(
        self: &Rc<Self>,
        state: &mut State,
        sending: &Sending,
    ) -> Result<Option<(u32, RemoteMemory)>, TransportError> {
        let len = sending.header.length as usize;
        let is_due = self.side == Side::Opener
            && sending.header.kind == FrameKind::Read
            && sending.frame.payload.is_empty()
            && state.loans.len() < ANSWERS_MAX
            && len > BODY_LEN
            && len <= LARGE_LEN;
        if !is_due {
            return Ok(None);
        }
        let wanted = sending.frame.wanted_at();
        let wanted = wanted.filter(|loan| !loan.is_recalled() && loan.target().len() == len);
        let is_late = || {
            self.peer
                .is_some_and(|peer| self.port.late.has(peer, now()))
        };
        if let Some(loan) = wanted.filter(|_| !is_late())
            && let Some(part) = self.port.areas.target(loan)
        {
            let lent = state.lend(part.into(), len, Access::Write, Purpose::Answer)?;
            if let Some((number, _)) = lent {
                let wire = Rc::downgrade(self);
                loan.on_recall(move || {
                    if let Some(wire) = wire.upgrade() {
                        wire.recall(number);
                    }
                });
            }
            return Ok(lent);
        }
        match self.port.large_to_lend(len) {
            Some(piece) => state.lend(piece.into(), len, Access::Write, Purpose::Answer),
            None => Ok(None),
        }
    }

    /// A user wants memory back that was lent for an answer: it is not waited for, and the peer is lent no more of that for a
    /// while.
    fn recall(&self, number: u32) {
        let mut state = self.state.borrow_mut();
        let loan = state.loans.get_mut(&number);
        let loan = loan.filter(|loan| loan.purpose == Purpose::Answer);
        let Some(loan) = loan else { return };
        loan.purpose = Purpose::Recalled;
        state.to_reclaim.push_back(number);
        drop(state);
        self.driver.wake();
        if let Some(peer) = self.peer
            && self.port.late.note(peer, now())
        {
            let lend_again_after = LEND_AGAIN_AFTER;
            tracing::info!(%peer, ?lend_again_after, "too late for memory that it was lent: what is read from it is copied");
        }
    }
}

impl Sending {
    /// The next part, if there is one to send before the frame's own message: what of, from where, to where.
    fn next_part(&self, len_max: usize) -> Option<(u8, usize, usize)> {
        let meta_len = self.frame.meta.len();
        if meta_len > HEAD_META_MAX && self.meta_at < meta_len {
            let end = meta_len.min(self.meta_at + len_max);
            return Some((OF_META, self.meta_at, end));
        }
        let payload_len = self.frame.payload.len();
        if matches!(self.way, Way::Parts) && self.payload_at < payload_len {
            let end = payload_len.min(self.payload_at + len_max);
            return Some((0, self.payload_at, end));
        }
        None
    }

    const fn at(&mut self, flag: u8) -> &mut usize {
        if flag == OF_META {
            &mut self.meta_at
        } else {
            &mut self.payload_at
        }
    }
}

impl State {
    pub(super) fn room(&self) -> u32 {
        self.pair.as_ref().map_or(0, Pair::room)
    }

    /// Whether a message may go out, with one work request that moves its payload, and one that makes a key.
    fn may_send(&self) -> bool {
        self.credits > 1 && self.room() >= 3
    }

    /// Posts what was gathered.
    fn post(&mut self) -> Result<(), TransportError> {
        let calls = self
            .pair
            .as_ref()
            .map_or(Ok(0), |pair| pair.post(self.tell));
        let calls = calls.map_err(failed)?;
        count(|metrics| metrics.writes.add(calls));
        Ok(())
    }

    /// Says that a loan was read.
    fn say_taken(&mut self) -> Step {
        if self.credits <= 1 || self.room() == 0 {
            return Ok(false);
        }
        let Some(loan) = self.taken.pop_front() else {
            return Ok(false);
        };
        self.say(Prefix {
            loan,
            ..Prefix::new(Kind::Taken)
        })?;
        Ok(true)
    }

    /// Sends a message that is its prefix.
    fn say(&mut self, prefix: Prefix) -> Result<(), TransportError> {
        let bytes = self.sealed(prefix).encode();
        let pair = self
            .pair
            .as_ref()
            .expect("invariant: looked at by progress");
        let sent = pair.send_inline(&bytes, Token::Message.encode());
        sent.map_err(failed)?;
        self.sent();
        Ok(())
    }

    /// Sends a message; `fixed` is what stands behind the prefix in its head.
    fn send(
        &mut self,
        mut prefix: Prefix,
        fixed: &[u8],
        mut head: Piece,
        body: Option<Source>,
        data: &[u8],
    ) -> Result<(), TransportError> {
        prefix.body_len = u32::try_from(data.len()).expect("invariant: at most a body");
        let bytes = self.sealed(prefix).encode();
        let (front, rest) = head.split_at_mut(PREFIX_LEN);
        front.copy_from_slice(&bytes);
        if let Some(rest) = rest.get_mut(..fixed.len()) {
            rest.copy_from_slice(fixed);
        }
        if matches!(body, Some(Source::Shared(_) | Source::Part(_))) {
            // It is a user's.
            self.tell = Tell::Last;
        }
        let body = body.map(|mut body| {
            // What is shared is the data itself.
            if let Source::Own(piece) = &mut body
                && let Some(room) = piece.get_mut(..data.len())
            {
                room.copy_from_slice(data);
                count(|metrics| metrics.copied_out(data.len()));
            }
            (body, data.len())
        });
        let pair = self
            .pair
            .as_ref()
            .expect("invariant: looked at by progress");
        let sent = pair.send_both(head, HEAD_LEN, body, Token::Message.encode());
        sent.map_err(|refused| failed(refused.error))?;
        self.sent();
        Ok(())
    }

    /// With what is given back.
    fn sealed(&mut self, mut prefix: Prefix) -> Prefix {
        let due = std::mem::take(&mut self.due);
        self.used -= due;
        prefix.credits = u16::try_from(due).expect("invariant: at most a grant");
        prefix
    }

    const fn sent(&mut self) {
        self.credits -= 1;
        self.under_way += 1;
    }

    /// Lends; `None` when there are no windows, or no room.
    fn lend(
        &mut self,
        source: Source,
        len: usize,
        access: Access,
        purpose: Purpose,
    ) -> Result<Option<(u32, RemoteMemory)>, TransportError> {
        while self.next_loan == 0 || self.loans.contains_key(&self.next_loan) {
            self.next_loan = self.next_loan.wrapping_add(1);
        }
        let number = self.next_loan;
        let pair = self
            .pair
            .as_ref()
            .expect("invariant: looked at by progress");
        match pair.lend(source, len, access, Token::Loan(number).encode()) {
            Ok(lent) => {
                let remote = lent.remote();
                let lent = Some(lent);
                self.loans.insert(number, Loan { lent, len, purpose });
                self.next_loan = self.next_loan.wrapping_add(1);
                Ok(Some((number, remote)))
            }
            Err(refused) => {
                tracing::debug!(error = %refused.error, "nothing lent: sent in parts");
                Ok(None)
            }
        }
    }

    /// Voids the key of the next loan that is over.
    fn reclaim(&mut self) -> Step {
        if self.room() == 0 {
            return Ok(false);
        }
        let Some(number) = self.to_reclaim.pop_front() else {
            return Ok(false);
        };
        let lent: Option<Lent> = self
            .loans
            .get_mut(&number)
            .and_then(|loan| loan.lent.take());
        let Some(lent) = lent else {
            return Ok(true);
        };
        let pair = self
            .pair
            .as_ref()
            .expect("invariant: looked at by progress");
        match pair.reclaim(lent, Token::Loan(number).encode()) {
            Ok(()) => Ok(true),
            // Dropped, it comes back with the end of the connection.
            Err(Failed { error, back: _ }) => Err(failed(error)),
        }
    }
}

/// `piece` with the frame's payload.
fn filled(mut piece: Piece, frame: &Frame) -> Source {
    let payload = &frame.payload;
    if let Some(room) = piece.get_mut(..payload.len()) {
        room.copy_from_slice(payload);
    }
    count(|metrics| metrics.copied_out(payload.len()));
    Source::Own(piece)
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn tokens_come_back() {
        for token in [
            Token::Message,
            Token::Read(7),
            Token::Read(0),
            Token::Loan(u32::MAX),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
