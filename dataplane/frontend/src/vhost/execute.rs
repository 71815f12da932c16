//! A request on its disk.
//!
//! *Place*: between `request` and `queue`. *Owner*: the task of one request. *Invariants*: what the guest wants written
//! is copied out of its memory once, before anything is done with it: a guest may change a page while it is on its
//! way (file systems do), and checksums must be of what is stored; over RDMA the copy is made where the adapter sends from.
//! What is read goes from where it arrived into the guest's memory, without a buffer between, or is written there by the
//! chunkserver itself. *On failure*: the status says so, the disk's errors go to the log, ever
//! more rarely.

use super::chain::{Part, total};
use super::memory::{Guest, GuestMemory};
use super::metrics::DiskMetrics;
use super::request::{ID_LEN, Request, Segment, Status};
use crate::align::AlignedDisk;
use crate::disk::{Disk, DiskError};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Payload};
use vm_memory::{Address, Bytes, GuestAddress};

/// What a request came to.
pub(super) struct Outcome {
    pub(super) status: Status,
    /// Bytes written into the guest's memory, without the status.
    pub(super) written: u32,
}

/// What carries out the requests of a disk.
pub(super) struct Executor<D> {
    pub(super) name: String,
    pub(super) disk: AlignedDisk<D>,
    /// What GET_ID gives.
    pub(super) serial: [u8; ID_LEN],
    pub(super) metrics: DiskMetrics,
}

/// Why a request cannot be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was there when the request was checked: the VM's process has shrunk a file.
    #[error("guest memory at {at:#x} is gone")]
    Memory { at: u64 },
}

impl<D: Disk> Executor<D> {
    /// Carries out a request.
    pub(super) async fn execute(&self, guest: Guest<'_>, request: Request) -> Outcome {
        match self.run(guest, request).await {
            Ok(written) => Outcome {
                status: Status::Ok,
                written,
            },
            Err(failure) => {
                self.report(&failure);
                Outcome {
                    status: Status::IoError,
                    written: 0,
                }
            }
        }
    }

    async fn run(&self, guest: Guest<'_>, request: Request) -> Result<u32, Failure> {
        let memory = guest.table.memory();
        match request {
            Request::Read { at, into } => {
                let len = total(&into);
                match guest.target(&into) {
                    Some(target) => self.disk.read_to(at, &target).await?,
                    None => {
                        let pieces = self.disk.read(at, ByteLen::new(len)).await?;
                        scatter(memory, &into, &pieces)?;
                    }
                }
                self.metrics.read(len);
                return Ok(u32::try_from(len).unwrap_or(u32::MAX));
            }
            Request::Write { at, from } => {
                let data = gather(memory, &from)?;
                let len = data.len() as u64;
                self.write(at, data).await?;
                self.metrics.written(len);
            }
            Request::Flush => {
                self.disk.flush().await?;
                self.metrics.other();
            }
            Request::Discard(segments) => {
                for Segment { at, len, .. } in segments {
                    self.disk.discard(at, len).await?;
                }
                self.metrics.other();
            }
            Request::WriteZeroes(segments) => {
                for Segment { at, len, may_unmap } in segments {
                    self.disk.write_zeroes(at, len, may_unmap).await?;
                }
                self.metrics.other();
            }
            Request::GetId { into } => {
                self.metrics.other();
                let id = Payload::from(self.serial.to_vec());
                let len = total(&into).min(ID_LEN as u64);
                scatter(
                    memory,
                    &into,
                    &[id.slice(..usize::try_from(len).unwrap_or(0))],
                )?;
                return Ok(u32::try_from(len).unwrap_or(0));
            }
        }
        Ok(0)
    }

    async fn write(&self, at: ByteOffset, data: Payload) -> Result<(), DiskError> {
        self.disk.write(at, data).await
    }

    fn report(&self, failure: &Failure) {
        let failures = self.metrics.failed();
        // A broken disk fails every request: the 1st, 2nd, 4th, 8th … tell as much as all of them.
        if failures.is_power_of_two() {
            tracing::warn!(disk = self.name, failures, %failure, "requests end with an error");
        }
    }
}

/// Copies the guest's bytes into memory that it cannot reach.
fn gather(memory: &GuestMemory, from: &[Part]) -> Result<Payload, Failure> {
    let len = usize::try_from(total(from)).unwrap_or(usize::MAX);
    if let Some(mut data) = Buffer::for_transfer(len) {
        // Where an RDMA adapter sends from.
        for part in from {
            let gone = |_| Failure::Memory { at: part.at.0 };
            let count = usize::try_from(part.len).unwrap_or(usize::MAX);
            data.extend_with(count, |room| memory.read_slice(room, part.at))
                .map_err(gone)?;
        }
        return Ok(data.into());
    }
    let mut data = Vec::with_capacity(len);
    for part in from {
        let gone = |_| Failure::Memory { at: part.at.0 };
        let count = usize::try_from(part.len).unwrap_or(usize::MAX);
        let copied = memory.write_all_volatile_to(part.at, &mut data, count);
        copied.map_err(gone)?;
    }
    Ok(data.into())
}

/// Copies pieces into the guest's memory, as far as both reach.
fn scatter(memory: &GuestMemory, into: &[Part], pieces: &[Payload]) -> Result<(), Failure> {
    let mut parts = into.iter().copied();
    let mut room = Part {
        at: GuestAddress(0),
        len: 0,
    };
    for piece in pieces {
        let mut rest: &[u8] = piece;
        while !rest.is_empty() {
            if room.len == 0 {
                let Some(next) = parts.next() else {
                    return Ok(());
                };
                room = next;
            }
            let gone = || Failure::Memory { at: room.at.0 };
            let count = rest.len().min(room.len as usize);
            let (now, later) = rest.split_at(count);
            memory.write_slice(now, room.at).map_err(|_| gone())?;
            let count = u32::try_from(count).map_err(|_| gone())?;
            room.at = room.at.checked_add(u64::from(count)).ok_or_else(gone)?;
            room.len -= count;
            rest = later;
        }
    }
    Ok(())
}
