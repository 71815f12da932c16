//! Writes metadata pages to free slots of both areas, in large requests.
//!
//! *Place*: step 2 of a checkpoint. *Owner*: the one checkpoint that runs. *Invariants*: only free
//! slots are written, so nothing that the durable tree names is touched; at most
//! [`PAGE_WRITES_IN_FLIGHT_MAX`] requests are in flight. *On failure*: waits for the requests in
//! flight (their buffers belong to the device until then) and reports the first error.

use crate::format::{Page, PageRef, Stamp};
use crate::free_map::FreeMap;
use crate::geometry::{Geometry, Slot};
use crate::limit::{PAGE_COPIES, PAGE_SIZE, PAGE_WRITES_IN_FLIGHT_MAX, PAGES_PER_TRANSFER};
use futures_util::stream::{FuturesUnordered, StreamExt};
use ogee_device::{Device, DeviceError};
use ogee_runtime::Buffer;
use std::future::Future;
use std::pin::Pin;

type Write<'a> = Pin<Box<dyn Future<Output = Result<(), DeviceError>> + 'a>>;

/// Neighbouring slots that go out in one request.
struct Run {
    first: u32,
    count: u32,
    used: u32,
    buffer: Buffer,
}

/// Writes pages to free slots.
pub struct PageWriter<'a> {
    device: &'a Device,
    geometry: &'a Geometry,
    slots: &'a mut FreeMap,
    stamp: Stamp,
    /// Pages announced and not yet put: sizes the next run.
    announced: usize,
    run: Option<Run>,
    in_flight: FuturesUnordered<Write<'a>>,
    pages_written: u64,
}

impl<'a> PageWriter<'a> {
    /// A writer of pages of the checkpoint that `stamp` names.
    pub fn new(
        device: &'a Device,
        geometry: &'a Geometry,
        slots: &'a mut FreeMap,
        stamp: Stamp,
    ) -> Self {
        let in_flight = FuturesUnordered::new();
        let (announced, run, pages_written) = (0, None, 0);
        Self {
            device,
            geometry,
            slots,
            stamp,
            announced,
            run,
            in_flight,
            pages_written,
        }
    }

    /// Says that `pages` more pages follow.
    pub fn announce(&mut self, pages: usize) {
        self.announced += pages;
    }

    /// Encodes a page into the next free slot. It is on the device after [`Self::finish`].
    pub async fn put(
        &mut self,
        encode: impl FnOnce(Stamp, Slot, &mut Page) -> u32,
    ) -> Result<PageRef, DeviceError> {
        let stamp = self.stamp;
        self.announced = self.announced.saturating_sub(1);
        let run = self.run_with_room();
        let slot = Slot::from_index(run.first + run.used);
        let (pages, _) = run.buffer.as_chunks_mut::<PAGE_SIZE>();
        let crc = encode(stamp, slot, &mut pages[run.used as usize]);
        run.used += 1;
        if run.used == run.count {
            self.submit().await?;
        }
        Ok(PageRef { slot, crc })
    }

    /// Writes what is left and waits for all of it; how many pages were written.
    pub async fn finish(mut self) -> Result<u64, DeviceError> {
        self.submit().await?;
        self.wait_until_in_flight(0).await?;
        Ok(self.pages_written)
    }

    fn run_with_room(&mut self) -> &mut Run {
        let announced = self.announced + 1;
        let slots = &mut *self.slots;
        self.run.get_or_insert_with(|| {
            let want = announced.min(PAGES_PER_TRANSFER);
            let want = u32::try_from(want).expect("invariant: a small constant");
            let (first, count) = slots
                .take_run(want)
                .expect("invariant: half of the slots await a checkpoint");
            Run {
                first,
                count,
                used: 0,
                buffer: Buffer::zeroed(count as usize * PAGE_SIZE),
            }
        })
    }

    async fn submit(&mut self) -> Result<(), DeviceError> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        // A run may end early; zeros behind it land in free slots, which is harmless.
        for unused in run.first + run.used..run.first + run.count {
            self.slots.release(unused);
        }
        self.pages_written += u64::from(run.used);
        let first = Slot::from_index(run.first);
        let mirrored = Buffer::copy_from(&run.buffer);
        for (copy, buffer) in [run.buffer, mirrored].into_iter().enumerate() {
            let offset = self.geometry.slot_offset(first, copy);
            self.in_flight
                .push(Box::pin(self.device.write(offset, buffer)));
        }
        self.wait_until_in_flight(PAGE_WRITES_IN_FLIGHT_MAX - PAGE_COPIES)
            .await
    }

    async fn wait_until_in_flight(&mut self, count_max: usize) -> Result<(), DeviceError> {
        while self.in_flight.len() > count_max {
            if let Some(Err(error)) = self.in_flight.next().await {
                while self.in_flight.next().await.is_some() {}
                return Err(error);
            }
        }
        Ok(())
    }
}
