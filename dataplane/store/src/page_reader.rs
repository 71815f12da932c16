//! Reads metadata pages at open, in large requests.
//!
//! *Place*: below recovery. *Owner*: the task that opens the store. *Invariants*: a page is handed
//! on only after its own checksum, its parent's and its identity agree. *On failure*: names the
//! page by what its parent says that it describes.

use crate::error::StoreError;
use crate::format::{Page, PageFault, PageHeader, PageId, PageRef, Stamp, open_page};
use crate::geometry::Geometry;
use crate::limit::{PAGE_READS_IN_FLIGHT_MAX, PAGE_SIZE, PAGES_PER_TRANSFER};
use futures_util::stream::{self, StreamExt};
use ogee_device::Device;
use ogee_proto::unit::ByteLen;
use ogee_runtime::ReadBuffer;

/// A page that a parent refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What it must describe.
    pub id: PageId,
    /// Where it is.
    pub page: PageRef,
}

/// Reads and checks the pages of one tree.
pub struct PageReader<'a> {
    device: &'a Device,
    geometry: Geometry,
    stamp: Stamp,
}

impl<'a> PageReader<'a> {
    /// A reader of the tree that `stamp` names.
    pub fn new(device: &'a Device, geometry: Geometry, stamp: Stamp) -> Self {
        Self {
            device,
            geometry,
            stamp,
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
            .map(|run| async move { (run, self.read_run(run).await) })
            .buffered(PAGE_READS_IN_FLIGHT_MAX);
        while let Some((run, bytes)) = reads.next().await {
            let bytes = bytes?;
            let (pages, _) = bytes.as_chunks::<PAGE_SIZE>();
            for (wanted, page) in run.iter().zip(pages) {
                visit(wanted, self.check(wanted, page)?, page)?;
            }
        }
        Ok(())
    }

    /// The error for a page that failed a check.
    pub fn damaged(&self, page: PageId, fault: PageFault) -> StoreError {
        StoreError::Damaged {
            device: self.device.name().to_owned(),
            page,
            fault,
        }
    }

    async fn read_run(&self, run: &[Wanted]) -> Result<ReadBuffer, StoreError> {
        let offset = self.geometry.slot_offset(run[0].page.slot);
        let len = ByteLen::from_usize(run.len() * PAGE_SIZE);
        Ok(self.device.read(offset, len).await?)
    }

    fn check(&self, wanted: &Wanted, page: &Page) -> Result<PageHeader, StoreError> {
        let damaged = |fault| self.damaged(wanted.id, fault);
        let header = open_page(page, self.stamp, wanted.page).map_err(damaged)?;
        if header.id != wanted.id {
            return Err(damaged(PageFault::Identity(header.id)));
        }
        Ok(header)
    }
}

/// Splits sorted pages into runs of neighbouring slots.
fn runs(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    wanted
        .chunk_by(|a, b| a.page.slot.raw() + 1 == b.page.slot.raw())
        .flat_map(|neighbours| neighbours.chunks(PAGES_PER_TRANSFER))
        .collect()
}
