//! The transmission phase: requests in, commands started.
//!
//! *Place*: between `input` and `execute`. *Owner*: the connection's reader task; each command runs
//! in a task of its own, which is detached, so that a client that leaves abandons no mutation
//! halfway.
//! *Invariants*: at most `REQUESTS_MAX` requests and `REQUEST_BYTES_MAX` bytes are between their
//! header being read and their reply being sent; beyond that nothing more is read. Bytes are
//! admitted before they are allocated.
//! *On failure*: a request that cannot be done is answered and its data skipped; a message that
//! cannot be understood ends the phase.
//!
//! A task per request is sound on this engine: what it leaks are tasks dropped while pending, and
//! these are never dropped, they finish.

use super::error::ConnectionError;
use super::execute::{execute, fail};
use super::input::Input;
use super::reply::{Admission, Body, Reply};
use super::request::{Command, Request};
use super::session::Session;
use crate::disk::Disk;
use crate::limit::{REQUEST_BYTES_MAX, REQUESTS_MAX};
use ogee_runtime::channel::mpsc::{self, TrySendError};
use ogee_runtime::channel::{Gate, Permit, Semaphore};
use ogee_runtime::{Payload, spawn};

/// Starts the commands of one client.
pub(super) struct Transmission<D> {
    session: Session<D>,
    replies: mpsc::Sender<Reply>,
    /// Who is inside is under way.
    gate: Gate,
    slots: Semaphore,
    bytes: Semaphore,
}

impl<D: Disk> Transmission<D> {
    /// Answers go to the receiver; the gate tells when all are there.
    pub(super) fn new(session: Session<D>, gate: Gate) -> (Self, mpsc::Receiver<Reply>) {
        // As many as there are slots, so that there is always room for a reply.
        let (replies, receiver) = mpsc::channel(REQUESTS_MAX);
        let transmission = Self {
            session,
            replies,
            gate,
            slots: Semaphore::new(REQUESTS_MAX),
            bytes: Semaphore::new(REQUEST_BYTES_MAX),
        };
        (transmission, receiver)
    }

    /// Reads requests until the client takes its leave, or cannot be answered any more.
    pub(super) async fn run(&self, input: &mut Input) -> Result<(), ConnectionError> {
        loop {
            let slot = self.slots.acquire(1).await;
            if self.replies.is_closed() {
                return Ok(());
            }
            let Some(raw) = input.message().await? else {
                return Ok(());
            };
            let request = Request::decode(raw)?;
            if request.is_disconnect() {
                return Ok(());
            }
            self.take(request, slot, input).await?;
        }
    }

    async fn take(
        &self,
        request: Request,
        slot: Permit,
        input: &mut Input,
    ) -> Result<(), ConnectionError> {
        match request.check(&self.session) {
            Ok(command) => {
                let bytes = self.admit(request.held_bytes()).await;
                let payload = input.payload(request.payload_len()).await?;
                let admission = Admission {
                    _slot: slot,
                    _bytes: bytes,
                };
                self.start(request.cookie, command, payload, admission);
            }
            Err(refusal) => {
                input.skip(request.payload_len()).await?;
                let admission = Admission {
                    _slot: slot,
                    _bytes: None,
                };
                let body = fail(&self.session, refusal);
                answer(&self.replies, request.cookie, body, admission);
            }
        }
        Ok(())
    }

    async fn admit(&self, bytes: usize) -> Option<Permit> {
        match bytes {
            0 => None,
            _ => Some(self.bytes.acquire(bytes).await),
        }
    }

    fn start(&self, cookie: u64, command: Command, payload: Payload, admission: Admission) {
        let pass = self.gate.enter();
        let pass = pass.expect("invariant: the gate closes after the last request was read");
        let session = self.session.clone();
        let replies = self.replies.clone();
        drop(spawn(async move {
            let body = execute(&session, command, payload).await;
            answer(&replies, cookie, body, admission);
            drop(pass);
        }));
    }
}

/// Queues a reply; if the client is gone, so is the reply.
fn answer(replies: &mpsc::Sender<Reply>, cookie: u64, body: Body, admission: Admission) {
    let reply = Reply {
        cookie,
        body,
        admission,
    };
    let is_full = matches!(replies.try_send(reply), Err(TrySendError::Full(_)));
    assert!(
        !is_full,
        "a reply has a slot, and the queue has room for all slots"
    );
}
