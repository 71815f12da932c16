//! A command on its disk.
//!
//! *Place*: between `transmit` and `reply`. *Owner*: the task of one request. *Invariants*: a
//! command that must be durable is answered after its data are. *On failure*: the refusal is the
//! answer; a disk that fails is reported in the log, ever more rarely.

use super::refusal::Refusal;
use super::reply::Body;
use super::request::Command;
use super::session::Session;
use super::sparse;
use crate::align::AlignedDisk;
use crate::disk::{Disk, DiskError};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Payload;

/// Runs a command and says what to answer.
pub(super) async fn execute<D: Disk>(
    session: &Session<D>,
    command: Command,
    payload: Payload,
) -> Body {
    let written = payload.len() as u64;
    match run(session, command, payload).await {
        Ok(body) => {
            count(session, command, written, body.copied_len());
            body
        }
        Err(error) => fail(session, Refusal::Disk(error)),
    }
}

/// The answer to a request that cannot be done.
pub(super) fn fail<D: Disk>(session: &Session<D>, refusal: Refusal) -> Body {
    let export = &session.export;
    let mut failures = 0;
    export.metrics.count(|counts| {
        counts.failures += 1;
        failures = counts.failures;
    });
    // A broken disk fails every request: the 1st, 2nd, 4th, 8th … tell as much as all of them.
    if failures.is_power_of_two() {
        let export = &export.name;
        tracing::warn!(export, failures, %refusal, "requests are answered with an error");
    }
    Body::Failed(refusal)
}

async fn run<D: Disk>(
    session: &Session<D>,
    command: Command,
    payload: Payload,
) -> Result<Body, DiskError> {
    let disk = &session.export.disk;
    match command {
        Command::Read { at, len, is_whole } => {
            let pieces = disk.read(at, len).await?;
            return Ok(match (session.is_structured, is_whole) {
                (false, _) => Body::Data(pieces),
                (true, true) => Body::Chunks(sparse::whole(at, pieces)),
                (true, false) => Body::Chunks(sparse::with_holes(at, &pieces)),
            });
        }
        Command::Status { at, len, is_one } => return status(disk, at, len, is_one).await,
        Command::Write { at, is_durable } => {
            disk.write(at, payload).await?;
            settle(disk, is_durable).await?;
        }
        Command::WriteZeroes {
            at,
            len,
            may_unmap,
            is_durable,
        } => {
            disk.write_zeroes(at, len, may_unmap).await?;
            settle(disk, is_durable).await?;
        }
        Command::Discard {
            at,
            len,
            is_durable,
        } => {
            disk.discard(at, len).await?;
            settle(disk, is_durable).await?;
        }
        Command::Flush => disk.flush().await?,
        Command::Cache => {}
    }
    Ok(Body::Done)
}

/// Makes a mutation that returned durable, if it must be and is not yet.
async fn settle<D: Disk>(disk: &AlignedDisk<D>, is_durable: bool) -> Result<(), DiskError> {
    match is_durable && !disk.disk().is_write_through() {
        true => disk.flush().await,
        false => Ok(()),
    }
}

async fn status<D: Disk>(
    disk: &AlignedDisk<D>,
    at: ByteOffset,
    len: ByteLen,
    is_one: bool,
) -> Result<Body, DiskError> {
    let mut runs = disk.block_status(at, len).await?;
    if is_one {
        runs.truncate(1);
    }
    Ok(Body::Status(runs))
}

fn count<D: Disk>(session: &Session<D>, command: Command, written: u64, copied: u64) {
    session.export.metrics.count(|counts| match command {
        Command::Read { len, .. } => {
            counts.reads += 1;
            counts.read_bytes += len.get();
            counts.copied_bytes += copied;
        }
        Command::Write { .. } => {
            counts.writes += 1;
            counts.written_bytes += written;
        }
        _ => counts.others += 1,
    });
}
