//! Reads metadata pages at open, in large requests, and for whoever inspects them later.
//!
//! *Place*: below recovery. *Owner*: the task that opens the store, or inspects it. *Invariants*: a page is handed
//! on only after its own checksum, its parent's and its identity agree; area B is asked where area A
//! has no such page. *On failure*: names the page by what its parent says that it describes.

use crate::error::StoreError;
use crate::format::{Page, PageFault, PageHeader, PageId, PageRef, Stamp, open_page};
use crate::geometry::{Geometry, Slot};
use crate::limit::{PAGE_READS_IN_FLIGHT_MAX, PAGE_SIZE, PAGES_PER_TRANSFER};
use futures_util::stream::{self, StreamExt};
use ogee_device::{Device, DeviceError};
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Buffer, ReadBuffer, seeded_bug};
use std::cell::RefCell;

/// A page that a parent refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What it must describe.
    pub id: PageId,
    /// Where it is.
    pub page: PageRef,
}

/// The area that is read first, and the one that stands in for it.
const FIRST: usize = 0;
const MIRROR: usize = 1;

/// Reads and checks the pages of one tree.
pub struct PageReader<'a> {
    device: &'a Device,
    geometry: Geometry,
    stamp: Stamp,
    /// Slots whose page in the first area is bad and in the other good.
    bad: RefCell<Vec<Slot>>,
}

impl<'a> PageReader<'a> {
    /// A reader of the tree that `stamp` names.
    pub fn new(device: &'a Device, geometry: Geometry, stamp: Stamp) -> Self {
        Self {
            device,
            geometry,
            stamp,
            bad: RefCell::default(),
        }
    }

    /// Reads all `wanted` pages and hands each to `visit`, in order of their place on the device.
    pub async fn read(
        &self,
        mut wanted: Vec<Wanted>,
        mut visit: impl FnMut(&Wanted, PageHeader, &Page) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        wanted.sort_by_key(|wanted| wanted.page.slot);
        let runs = runs(&wanted);
        let mut reads = stream::iter(runs)
            .map(|run| async move { (run, self.read_run(run, FIRST).await) })
            .buffered(PAGE_READS_IN_FLIGHT_MAX);
        while let Some((run, bytes)) = reads.next().await {
            let pages = match &bytes {
                Ok(bytes) => Some(bytes.as_chunks::<PAGE_SIZE>().0),
                Err(_) => None,
            };
            for (at, wanted) in run.iter().enumerate() {
                let page = pages.and_then(|pages| pages.get(at));
                let checked = page.map(|page| (page, self.check(wanted, page)));
                if let Some((page, Ok(header))) = checked {
                    visit(wanted, header, page)?;
                    continue;
                }
                let fault = checked.and_then(|(_, checked)| checked.err());
                let (header, page) = self.stand_in(wanted, fault).await?;
                visit(wanted, header, &page)?;
            }
        }
        Ok(())
    }

    /// Rewrites the bad pages that were met, from their good copies; how many. One that cannot be
    /// rewritten stays bad: its copy serves until a checkpoint moves it.
    pub async fn heal(&self) -> usize {
        let bad = self.bad.take();
        let mut healed = 0;
        for slot in bad {
            match self.rewrite(slot).await {
                Ok(()) => healed += 1,
                Err(error) => tracing::warn!(device = self.device.name(), %error,
                    "a bad metadata page could not be rewritten"),
            }
        }
        healed
    }

    async fn rewrite(&self, slot: Slot) -> Result<(), DeviceError> {
        let page = self.read_page(slot, MIRROR).await?;
        let offset = self.geometry.slot_offset(slot, FIRST);
        self.device
            .write_durable(offset, Buffer::copy_from(&page))
            .await
    }

    /// A page that a large request did not bring whole: alone, then from the other area. `fault`
    /// is what was wrong with it, if it could be read.
    async fn stand_in(
        &self,
        wanted: &Wanted,
        fault: Option<StoreError>,
    ) -> Result<(PageHeader, Page), StoreError> {
        let slot = wanted.page.slot;
        let first = match fault {
            Some(fault) => fault,
            // One bad sector fails a whole request: its neighbours may be good.
            None => match self.checked(wanted, FIRST).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
        };
        if seeded_bug!("page-mirror-not-read") {
            return Err(first);
        }
        tracing::warn!(device = self.device.name(), error = %first, "metadata page is bad; using its copy");
        let found = self.checked(wanted, MIRROR).await.map_err(|second| {
            tracing::error!(device = self.device.name(), error = %second, "the copy is bad, too");
            first
        })?;
        self.bad.borrow_mut().push(slot);
        Ok(found)
    }

    /// A copy of a page, if it is what it should be.
    pub async fn checked(
        &self,
        wanted: &Wanted,
        copy: usize,
    ) -> Result<(PageHeader, Page), StoreError> {
        let bytes = self.read_page(wanted.page.slot, copy).await?;
        let page: Page = bytes.as_chunks::<PAGE_SIZE>().0[0];
        Ok((self.check(wanted, &page)?, page))
    }

    /// The same as bytes to write: a page is too much for the futures of those that wait.
    pub async fn copy(&self, wanted: &Wanted, copy: usize) -> Result<Buffer, StoreError> {
        let bytes = self.read_page(wanted.page.slot, copy).await?;
        let page = &bytes.as_chunks::<PAGE_SIZE>().0[0];
        self.check(wanted, page)?;
        Ok(Buffer::copy_from(page))
    }

    async fn read_page(&self, slot: Slot, copy: usize) -> Result<ReadBuffer, DeviceError> {
        let offset = self.geometry.slot_offset(slot, copy);
        self.device
            .read(offset, ByteLen::from_usize(PAGE_SIZE))
            .await
    }

    /// The error for a page that failed a check.
    pub fn damaged(&self, page: PageId, fault: PageFault) -> StoreError {
        StoreError::Damaged {
            device: self.device.name().to_owned(),
            page,
            fault,
        }
    }

    /// Copies of pages of neighbouring slots, as they are.
    pub async fn read_run(&self, run: &[Wanted], copy: usize) -> Result<ReadBuffer, DeviceError> {
        let offset = self.geometry.slot_offset(run[0].page.slot, copy);
        let len = ByteLen::from_usize(run.len() * PAGE_SIZE);
        self.device.read(offset, len).await
    }

    /// What a page says of itself, if it is the one that is wanted.
    pub fn check(&self, wanted: &Wanted, page: &Page) -> Result<PageHeader, StoreError> {
        let damaged = |fault| self.damaged(wanted.id, fault);
        let header = open_page(page, self.stamp, wanted.page).map_err(damaged)?;
        if header.id != wanted.id {
            return Err(damaged(PageFault::Identity(header.id)));
        }
        Ok(header)
    }
}

/// Splits sorted pages into runs of neighbouring slots.
pub fn runs(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    wanted
        .chunk_by(|a, b| a.page.slot.raw() + 1 == b.page.slot.raw())
        .flat_map(|neighbours| neighbours.chunks(PAGES_PER_TRANSFER))
        .collect()
}
