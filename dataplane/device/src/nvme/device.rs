//! The backend: requests, split into what the drive takes.

use super::fault::NvmeFault;
use super::name::NvmeName;
use super::open::{self, NvmeOptions};
use super::port::{Load, Port, Ticket};
use super::pump;
use super::vitals::NvmeVitals;
use crate::error::DeviceError;
use crate::limit::{NVME_AHEAD, NVME_ZEROES_MAX};
use crate::request::Request;
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Buffer, Gather, ReadBuffer, ScopedTask, spawn_scoped};
use ogee_spdk::{Command, Env, Kind, Status};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A namespace of a drive.
pub(crate) struct NvmeDevice {
    can: Cell<Abilities>,
    /// Before the port, so that nobody polls what ends.
    _pump: ScopedTask<()>,
    /// The last that holds it, as requests borrow the device: it waits for what is in flight, and gives the drive up.
    port: Rc<Port>,
}

/// What the drive has said that it does, and has not yet refused.
#[derive(Clone, Copy)]
struct Abilities {
    write_through: bool,
    write_zeroes: bool,
    zeroes_deallocate: bool,
    deallocate: bool,
}

/// Bytes of the namespace.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

impl NvmeDevice {
    pub(crate) fn open(
        env: Env,
        name: &NvmeName,
        options: NvmeOptions,
    ) -> Result<(Self, ByteLen), DeviceError> {
        let (port, len) = open::open(env, name, options)?;
        let namespace = &port.shape.namespace;
        // Deallocate alone is a hint, and promises nothing about what is read: it follows zeros that were written, where
        // the drive says that it reads zeros too.
        let can = Abilities {
            write_through: true,
            write_zeroes: namespace.has_write_zeroes(),
            zeroes_deallocate: namespace.write_zeroes_may_deallocate()
                && namespace.deallocated_reads_zero(),
            deallocate: namespace.has_deallocate() && namespace.deallocated_reads_zero(),
        };
        let name: Rc<str> = name.to_string().into();
        let device = Self {
            can: Cell::new(can),
            _pump: spawn_scoped(pump::run(Rc::clone(&port), name)),
            port,
        };
        Ok((device, len))
    }

    pub(crate) fn vitals(&self) -> NvmeVitals {
        self.port.vitals.get()
    }

    pub(crate) async fn read(&self, request: Request<'_>) -> Result<ReadBuffer, DeviceError> {
        let len = request.len.as_usize();
        let room = Buffer::for_transfer(len);
        let mut data = room.unwrap_or_else(|| Buffer::with_capacity(len));
        let done = self
            .transfer(
                Kind::Read,
                Range::of(request),
                |_, _| (),
                |load| append(&mut data, load),
            )
            .await;
        done.map_err(|fault| request.failed_by_drive(fault))?;
        Ok(data.into())
    }

    pub(crate) async fn write(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        let written = self.write_as(Kind::Write, Range::of(request), &data).await;
        written.map_err(|fault| request.failed_by_drive(fault))
    }

    pub(crate) async fn write_durable(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        let written = self.write_through(Range::of(request), &data).await;
        written.map_err(|fault| request.failed_by_drive(fault))
    }

    pub(crate) async fn flush(&self, request: Request<'_>) -> Result<(), DeviceError> {
        let flushed = self.empty_cache().await;
        flushed.map_err(|fault| request.failed_by_drive(fault))
    }

    pub(crate) async fn discard(&self, request: Request<'_>) -> Result<(), DeviceError> {
        let range = Range::of(request);
        let zeroed = self.zero(range).await;
        zeroed.map_err(|fault| request.failed_by_drive(fault))?;
        let can = self.can.get();
        if can.write_zeroes && can.zeroes_deallocate || !can.deallocate {
            return Ok(());
        }
        let given = self.without_memory(Kind::Deallocate, range).await;
        given.map_err(|fault| request.failed_by_drive(fault))
    }

    async fn write_as(&self, kind: Kind, range: Range, data: &Gather) -> Result<(), NvmeFault> {
        let fill = |transfer: &mut ogee_spdk::Transfer, at: u64| {
            let at = ByteLen::new(at - range.start).as_usize();
            transfer.write_gathered(data.range(at..at + transfer.len()));
        };
        self.transfer(kind, range, fill, |_| ()).await
    }

    async fn write_through(&self, range: Range, data: &Gather) -> Result<(), NvmeFault> {
        // What such a drive has written stays.
        if !self.port.shape.has_volatile_cache {
            return self.write_as(Kind::Write, range, data).await;
        }
        if self.can.get().write_through {
            match self.write_as(Kind::WriteThrough, range, data).await {
                Err(fault) if is_unknown(fault) => {
                    tracing::info!("the drive has no forced unit access: writes are flushed");
                    self.cannot(|can| can.write_through = false);
                }
                written => return written,
            }
        }
        self.write_as(Kind::Write, range, data).await?;
        self.empty_cache().await
    }

    async fn empty_cache(&self) -> Result<(), NvmeFault> {
        if !self.port.shape.has_volatile_cache {
            // What is written stays; of a drive that has ended, nobody knows.
            return self.port.ended().map_or(Ok(()), Err);
        }
        let room = self.port.room(0).await;
        let flush = Command {
            kind: Kind::Flush,
            first_sector: 0,
            sectors: 0,
        };
        self.port.start(flush, 0, room, |_| ())?.await.0
    }

    async fn zero(&self, range: Range) -> Result<(), NvmeFault> {
        if self.can.get().write_zeroes {
            let kind = match self.can.get().zeroes_deallocate {
                true => Kind::WriteZeroesDeallocate,
                false => Kind::WriteZeroes,
            };
            match self.without_memory(kind, range).await {
                Err(fault) if is_unknown(fault) => {
                    tracing::info!("the drive cannot write zeroes: they are sent to it");
                    self.cannot(|can| can.write_zeroes = false);
                }
                done => return done,
            }
        }
        let fill = |transfer: &mut ogee_spdk::Transfer, _: u64| transfer.zero();
        self.transfer(Kind::Write, range, fill, |_| ()).await
    }

    fn cannot(&self, change: impl FnOnce(&mut Abilities)) {
        let mut can = self.can.get();
        change(&mut can);
        self.can.set(can);
    }

    /// Commands without memory, one after the other: they are long, and rare.
    async fn without_memory(&self, kind: Kind, range: Range) -> Result<(), NvmeFault> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(NVME_ZEROES_MAX);
            let room = self.port.room(0).await;
            let command = self.command(kind, at, len);
            self.port.start(command, 0, room, |_| ())?.await.0?;
            at += len;
        }
        Ok(())
    }

    /// Commands with memory, a few at a time, in order: `fill` gives each its bytes, `take` gets them.
    async fn transfer(
        &self,
        kind: Kind,
        range: Range,
        fill: impl Fn(&mut ogee_spdk::Transfer, u64),
        mut take: impl FnMut(&Load),
    ) -> Result<(), NvmeFault> {
        let longest = self.port.shape.command_max as u64;
        if range.end - range.start <= longest {
            let ticket = self.begin(kind, range.start, range.end, &fill).await?;
            return self.finish(ticket, &mut take).await;
        }
        let mut ahead = VecDeque::with_capacity(NVME_AHEAD);
        let mut at = range.start;
        loop {
            while at < range.end && ahead.len() < NVME_AHEAD {
                let end = range.end.min(at + longest);
                // Who has memory does not wait for more.
                let ticket = match self.try_begin(kind, at, end, &fill)? {
                    Some(ticket) => ticket,
                    None if ahead.is_empty() => self.begin(kind, at, end, &fill).await?,
                    None => break,
                };
                ahead.push_back(ticket);
                at = end;
            }
            match ahead.pop_front() {
                Some(ticket) => self.finish(ticket, &mut take).await?,
                None => return Ok(()),
            }
        }
    }

    async fn begin(
        &self,
        kind: Kind,
        at: u64,
        end: u64,
        fill: &impl Fn(&mut ogee_spdk::Transfer, u64),
    ) -> Result<Ticket, NvmeFault> {
        let len = ByteLen::new(end - at).as_usize();
        let room = self.port.room(len).await;
        let command = self.command(kind, at, end - at);
        self.port.start(command, len, room, |to| fill(to, at))
    }

    fn try_begin(
        &self,
        kind: Kind,
        at: u64,
        end: u64,
        fill: &impl Fn(&mut ogee_spdk::Transfer, u64),
    ) -> Result<Option<Ticket>, NvmeFault> {
        let len = ByteLen::new(end - at).as_usize();
        let Some(room) = self.port.try_room(len) else {
            return Ok(None);
        };
        let command = self.command(kind, at, end - at);
        let ticket = self.port.start(command, len, room, |to| fill(to, at))?;
        Ok(Some(ticket))
    }

    async fn finish(&self, ticket: Ticket, take: &mut impl FnMut(&Load)) -> Result<(), NvmeFault> {
        let (result, load) = ticket.await;
        if let Some(load) = load {
            if result.is_ok() {
                take(&load);
            }
            self.port.unload(load);
        }
        result
    }

    fn command(&self, kind: Kind, at: u64, len: u64) -> Command {
        let size = u64::from(self.port.shape.sector_size);
        Command {
            kind,
            first_sector: at / size,
            sectors: u32::try_from(len / size).expect("invariant: a command is short"),
        }
    }
}

impl Range {
    fn of(request: Request<'_>) -> Self {
        let start = request.offset.get();
        Self {
            start,
            end: start + request.len.get(),
        }
    }
}

fn append(data: &mut Buffer, load: &Load) {
    for part in load.transfer.parts() {
        data.extend_from_slice(part);
    }
}

/// The drive does not know the command, or a flag of it.
fn is_unknown(fault: NvmeFault) -> bool {
    let invalid_opcode = Status { kind: 0, code: 1 };
    fault == NvmeFault::Command(Status::INVALID_FIELD)
        || fault == NvmeFault::Command(invalid_opcode)
}
