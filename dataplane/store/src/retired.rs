//! Extents that are never used again, since the device did not take what was written there.
//!
//! *Place*: behind read repair. *Owner*: the store's shard. *Invariants*: a retired extent is pinned for good: nobody
//! writes there, nobody takes it, and what a chunk still has there moves with the next write-back that touches it. The list
//! stands twice in the head of the device, apart from the tree, and is durable before anything moves: it is of the device,
//! not of a checkpoint. It notes as well what is wanted of the device: that what is done at leisure pauses. *On failure*: a list that cannot be written counts as long as the process runs; both copies
//! damaged, the store opens without it, says so, and finds bad extents again when it next repairs something there.

use crate::error::StoreError;
use crate::format::{Retired, RetiredPage};
use crate::geometry::{ExtentId, Geometry};
use crate::limit::{PAGE_SIZE, RETIRED_AT, RETIRED_LISTED_MAX, RETIRED_MAX};
use crate::store::{Inner, Store};
use ogee_device::{Device, DeviceError};
use ogee_proto::id::StoreId;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use std::rc::Rc;

impl Store {
    /// Extents that are never used again.
    #[must_use]
    pub fn retired(&self) -> u32 {
        let retired = self.inner.retired.borrow();
        u32::try_from(retired.extents.len()).unwrap_or(u32::MAX)
    }

    /// Whether so many are retired that the device should be replaced.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.inner.retired.borrow().extents.len() >= RETIRED_MAX
    }
}

impl Store {
    /// Whether what is done with this device at leisure is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.inner.retired.borrow().is_paused
    }

    /// Pauses what is done with this device at leisure, or lets it go on; durable when this has ended. Goes on to its end
    /// if it is dropped.
    ///
    /// # Errors
    /// When the device does not take the note: nothing has changed then, as far as this process is concerned.
    pub async fn pause(&self, is_paused: bool) -> Result<(), StoreError> {
        let inner = Rc::clone(&self.inner);
        self.run(async move { inner.pause(is_paused).await }).await
    }
}

impl Inner {
    async fn pause(&self, is_paused: bool) -> Result<(), StoreError> {
        let _turn = self.retiring.lock().await;
        let list = {
            let mut retired = self.retired.borrow_mut();
            retired.sequence += 1;
            Retired {
                is_paused,
                ..retired.clone()
            }
        };
        let written = write(&self.device, self.store, &list).await;
        let mut retired = self.retired.borrow_mut();
        match written {
            Ok(()) => retired.is_paused = is_paused,
            // One copy may have it: what is known stays newer than that.
            Err(_) => retired.sequence += 1,
        }
        Ok(written?)
    }

    /// Writes what is known by then, one writing after the other.
    async fn write_retired(&self) -> Result<(), DeviceError> {
        let _turn = self.retiring.lock().await;
        let list = self.retired.borrow().clone();
        write(&self.device, self.store, &list).await
    }

    /// Retires an extent, durably if the device takes the list. Where the list is full nothing is added any more: the
    /// device is worn long since.
    pub(crate) async fn retire(&self, extent: ExtentId) {
        let count = {
            let mut retired = self.retired.borrow_mut();
            let is_full = retired.extents.len() >= RETIRED_LISTED_MAX;
            if is_full || !retired.extents.insert(extent) {
                return;
            }
            retired.sequence += 1;
            self.state.borrow_mut().pin(extent);
            retired.extents.len()
        };
        tracing::error!(
            device = self.device.name(),
            extent = extent.raw(),
            retired = count,
            limit = RETIRED_MAX,
            "the device did not take what was written there: the extent is never used again"
        );
        if let Err(error) = self.write_retired().await {
            tracing::error!(device = self.device.name(), %error, "the list of retired extents was not written: \
                a restart forgets the newest");
        }
    }
}

/// One copy after the other, so that one of them is whole at any time.
async fn write(device: &Device, store: StoreId, list: &Retired) -> Result<(), DeviceError> {
    for copy in 0..RETIRED_AT.len() {
        write_copy(device, store, list, copy).await?;
    }
    Ok(())
}

/// Writes one copy, durably.
pub async fn write_copy(
    device: &Device,
    store: StoreId,
    list: &Retired,
    copy: usize,
) -> Result<(), DeviceError> {
    let mut buffer = Buffer::zeroed(PAGE_SIZE);
    let (pages, _) = buffer.as_chunks_mut::<PAGE_SIZE>();
    list.encode(store, &mut pages[0]);
    let at = ByteOffset::new(RETIRED_AT[copy]);
    device.write_durable(at, buffer).await
}

/// What one copy says.
pub async fn read_copy(
    device: &Device,
    store: StoreId,
    geometry: &Geometry,
    copy: usize,
) -> Result<RetiredPage, DeviceError> {
    let at = ByteOffset::new(RETIRED_AT[copy]);
    let page = device.read(at, ByteLen::from_usize(PAGE_SIZE)).await?;
    let page = &page.as_chunks::<PAGE_SIZE>().0[0];
    Ok(Retired::decode(page, store, geometry))
}

/// The list as it stands on the device, and the copies that do not say so.
///
/// # Errors
/// When it is of another version.
pub async fn read(
    device: &Device,
    store: StoreId,
    geometry: &Geometry,
) -> Result<(Retired, Vec<usize>), StoreError> {
    let (mut newest, mut is_damaged) = (None::<Retired>, false);
    let mut said = Vec::new();
    for copy in 0..RETIRED_AT.len() {
        // One that cannot be read is as good as a damaged one.
        let page = read_copy(device, store, geometry, copy).await;
        let page = page.unwrap_or(RetiredPage::Damaged);
        said.push(page.clone());
        match page {
            RetiredPage::None => {}
            RetiredPage::Damaged => is_damaged = true,
            RetiredPage::Version(found) => {
                return Err(StoreError::UnknownFormat {
                    device: device.name().to_owned(),
                    found: found.into(),
                    ours: crate::format::RETIRED_VERSION.into(),
                });
            }
            RetiredPage::List(list) => {
                newest = newest
                    .filter(|it| it.sequence >= list.sequence)
                    .or(Some(list));
            }
        }
    }
    if is_damaged && newest.is_none() {
        tracing::warn!(
            device = device.name(),
            "the list of retired extents is damaged: bad ones are found again"
        );
    }
    let Some(newest) = newest else {
        return Ok((Retired::default(), Vec::new()));
    };
    let newest_page = RetiredPage::List(newest.clone());
    let others = (0..said.len()).filter(|copy| said[*copy] != newest_page);
    Ok((newest, others.collect()))
}

/// A power cut between the two copies, or within one, leaves one that is not as the other: it is made so before anybody
/// takes it for damage. One that does not take it stays as it is.
pub async fn heal(device: &Device, store: StoreId, list: &Retired, copies: Vec<usize>) {
    for copy in copies {
        if let Err(error) = write_copy(device, store, list, copy).await {
            tracing::warn!(device = device.name(), copy, %error, "a copy of the list of retired extents is not rewritten");
        }
    }
}
