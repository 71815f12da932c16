//! A connection from greeting to drain.
//!
//! *Place*: started by `server` for each client. *Owner*: the connection's reader task; it starts
//! the writer task and, through `transmit`, one task per request.
//! *Invariants*: when this ends, every request that was read has been carried out, and answered
//! if the client still listened. A negotiation is bounded in time and in options.
//! *On failure*: the error is for the log; requests under way finish all the same.

use super::error::ConnectionError;
use super::export::Exports;
use super::handshake::{Handshake, Verdict, greeting};
use super::input::Input;
use super::option::OptionHead;
use super::session::Session;
use super::transmit::Transmission;
use super::writer::send_replies;
use crate::disk::Disk;
use crate::limit::{DRAIN_TIME_MAX, NEGOTIATION_TIME_MAX, OPTION_LEN_MAX, OPTIONS_MAX};
use futures_util::future::{Either, select};
use ogee_runtime::channel::{Gate, watch};
use ogee_runtime::net::{ReadHalf, WriteHalf};
use ogee_runtime::{Elapsed, spawn_scoped, timeout};
use std::future::Future;
use std::io;
use std::pin::pin;

/// Serves one client until it leaves, breaks the protocol or `stop` becomes true.
pub(super) async fn serve<D: Disk>(
    read: ReadHalf,
    mut write: WriteHalf,
    exports: &Exports<D>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let mut input = Input::new(read);
    let negotiation = negotiate(&mut input, &mut write, exports);
    let negotiation = timeout(NEGOTIATION_TIME_MAX, negotiation);
    let session = match unless_stopped(&mut stop, negotiation).await {
        Some(Ok(outcome)) => outcome?,
        Some(Err(Elapsed)) => return Err(ConnectionError::NegotiationTime),
        None => None,
    };
    match session {
        Some(session) => transmit(session, input, write, stop).await,
        None => Ok(()),
    }
}

/// Agrees with the client on a session, or that there will be none.
async fn negotiate<D: Disk>(
    input: &mut Input,
    write: &mut WriteHalf,
    exports: &Exports<D>,
) -> Result<Option<Session<D>>, ConnectionError> {
    write.write_all(&greeting()).await?;
    let Some(flags) = input.message().await? else {
        return Ok(None);
    };
    let mut handshake = Handshake::new(exports.clone(), u32::from_be_bytes(flags))?;
    for _ in 0..OPTIONS_MAX {
        let Some(head) = input.message().await? else {
            return Ok(None);
        };
        let mut out = Vec::new();
        let head = OptionHead::decode(head)?;
        let verdict = take_option(head, input, &mut handshake, &mut out).await?;
        write.write_all(&out).await?;
        match verdict {
            Verdict::Continue => {}
            Verdict::Transmit(session) => return Ok(Some(session)),
            Verdict::End => return Ok(None),
        }
    }
    Err(ConnectionError::TooManyOptions { max: OPTIONS_MAX })
}

async fn take_option<D: Disk>(
    head: OptionHead,
    input: &mut Input,
    handshake: &mut Handshake<D>,
    out: &mut Vec<u8>,
) -> Result<Verdict<D>, ConnectionError> {
    let OptionHead { code, len } = head;
    let len = len as usize;
    if len > OPTION_LEN_MAX {
        let verdict = handshake.refuse_too_long(code, out)?;
        input.skip(len).await?;
        return Ok(verdict);
    }
    let data = input.payload(len).await?;
    handshake.answer(code, &data, out)
}

/// Takes requests until there are no more, then waits for those under way.
async fn transmit<D: Disk>(
    session: Session<D>,
    mut input: Input,
    write: WriteHalf,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    session
        .export
        .metrics
        .count(|counts| counts.connections += 1);
    let is_structured = session.is_structured;
    let gate = Gate::new();
    let (transmission, replies) = Transmission::new(session, gate.clone());
    let mut writer = spawn_scoped(send_replies(replies, write, is_structured));
    let ended = {
        let reading = pin!(transmission.run(&mut input));
        let either = select(reading, &mut writer);
        unless_stopped(&mut stop, either)
            .await
            .map(|either| match either {
                Either::Left((read, _)) => Ended::Reading(read),
                Either::Right((written, _)) => Ended::Writing(written.unwrap_or(Ok(()))),
            })
    };
    gate.close().await;
    // The writer ends when nobody is left to make replies.
    drop(transmission);
    let read = match ended {
        Some(Ended::Writing(written)) => return Ok(written?),
        Some(Ended::Reading(read)) => read,
        None => Ok(()),
    };
    match timeout(DRAIN_TIME_MAX, writer).await {
        Ok(written) => read.and(written.unwrap_or(Ok(())).map_err(ConnectionError::Io)),
        Err(Elapsed) => Err(ConnectionError::DrainTime),
    }
}

/// What ended first, requests or the possibility to answer them.
enum Ended {
    Reading(Result<(), ConnectionError>),
    Writing(io::Result<()>),
}

/// Does `work` unless `stop` becomes true, or nobody is left to say so, before it is done.
async fn unless_stopped<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let stopped = async {
        while !*stop.borrow_and_update() {
            if stop.changed().await.is_err() {
                return;
            }
        }
    };
    match select(pin!(work), pin!(stopped)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}
