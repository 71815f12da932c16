//! Verifying the metadata of a store in use, and putting right what has rotted, before a second copy rots as well.
//!
//! *Place*: beside checkpoints; a shard goes through all of it step by step, at leisure. *Owner*: a task of the store's shard.
//! *Invariants*: pages are read without holding checkpoints off, and what does not look right is looked at again, by the
//! reference that the tree has then, while none runs: a page that a checkpoint replaced is not damage. They are held off for one
//! page at a time. Of two copies only
//! the bad one is written, durably, with the bytes of the good one, and read back: a power cut leaves the good one. Where no
//! copy is good, the page is written anew by a checkpoint, to another place, with what the store has in memory: that was
//! verified when it was opened, and is what the next checkpoint would write if anything there had changed. So nothing is guessed.
//! *On failure*: a copy that does not take what is written stays bad, and is counted: the other one serves. What cannot be read
//! is no proof of damage: a page of which no copy can be is counted apart, and written elsewhere only if the device reads other
//! things. A failed checkpoint
//! ends the store as always ([`StoreError::Failed`]); what an open then finds, it names.

use crate::budget::Purpose;
use crate::checkpoint::{Image, write_superblock};
use crate::error::StoreError;
use crate::format::{Page, PageId, Retired, RetiredPage, Stamp, Superblock};
use crate::limit::{INSPECT_PAGES, PAGE_COPIES, PAGE_SIZE, RETIRED_AT, SUPERBLOCK_AT};
use crate::page_reader::{PageReader, Wanted, runs};
use crate::retired::{read_copy, write_copy};
use crate::state::LeafId;
use crate::store::{Inner, Store};
use crate::tree::TreePlace;
use ogee_device::DeviceError;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::Buffer;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What is told of the list.
const RETIRED: &str = "the list of retired extents";
type RetiredCopy = Result<Option<Retired>, DeviceError>;

/// How far an inspection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MetadataPlace(Option<TreePlace>);

/// A piece of an inspection: some pages, both copies of each.
#[derive(Debug)]
pub struct MetadataStep {
    /// Superblocks and the list of retired extents are part of it.
    has_head: bool,
    pages: Vec<Wanted>,
    stamp: Stamp,
    next: Option<TreePlace>,
}

impl MetadataStep {
    /// What it reads if nothing is bad.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.copies() * PAGE_SIZE
    }

    /// Copies of pages that it looks at.
    fn copies(&self) -> usize {
        let head = if self.has_head { 2 } else { 0 };
        (head + self.pages.len()) * PAGE_COPIES
    }

    /// The one after it; `None`: that was all.
    #[must_use]
    pub fn next(&self) -> Option<MetadataPlace> {
        self.next.map(|place| MetadataPlace(Some(place)))
    }
}

impl Store {
    /// What there is to verify from a place on: the default is the beginning.
    ///
    /// # Errors
    /// When a checkpoint has failed: what is known of the tree is not what the device has.
    pub async fn metadata_step(&self, from: MetadataPlace) -> Result<MetadataStep, StoreError> {
        let image = self.inner.image.lock().await;
        self.inner.check_alive()?;
        let has_head = from.0.is_none();
        let (pages, next) = image.tree.refs(from.0.unwrap_or_default(), INSPECT_PAGES);
        let wanted = pages.into_iter().map(|(id, page)| Wanted { id, page });
        let mut pages: Vec<Wanted> = wanted.collect();
        pages.sort_by_key(|wanted| wanted.page.slot);
        Ok(MetadataStep {
            has_head,
            pages,
            stamp: self.inner.stamp(&image),
            next,
        })
    }

    /// Verifies the piece at a place at the device's leisure, and puts right what is bad; where the next one begins. What is
    /// read is as the tree is when all waiting is over, so that nothing looks bad for having been replaced meanwhile.
    ///
    /// # Errors
    /// As for [`Self::metadata_step`] and [`Self::inspect`].
    pub async fn inspect_at_leisure(
        &self,
        from: MetadataPlace,
    ) -> Result<Option<MetadataPlace>, StoreError> {
        let bytes = self.metadata_step(from).await?.bytes();
        let step = Cell::new(None);
        let drawn = async {
            self.budget().draw(Purpose::Scrub, bytes, false).await;
            // A checkpoint that runs is waited for before the device's time counts.
            step.set(Some(self.metadata_step(from).await));
        };
        let inspected = async {
            let step = step
                .take()
                .expect("invariant: taken before the work begins")?;
            self.inspect(&step).await?;
            Ok(step.next())
        };
        self.leisure().take(drawn, inspected).await
    }

    /// Verifies a piece, and puts right what is bad; the counters tell what was.
    ///
    /// # Errors
    /// When a page of which no copy was good could not be written anew: the store has failed then.
    pub async fn inspect(&self, step: &MetadataStep) -> Result<(), StoreError> {
        let inner = Rc::clone(&self.inner);
        let suspects = inner.suspects(step).await;
        self.inner.counters.update(|it| {
            it.metadata_copies_checked += step.copies() as u64;
            it.metadata_suspects += suspects.len() as u64;
        });
        if suspects.is_empty() && !step.has_head {
            return Ok(());
        }
        let has_head = step.has_head;
        self.run(async move { inner.settle(suspects, has_head).await })
            .await
    }
}

impl Inner {
    fn stamp(&self, image: &Image) -> Stamp {
        Stamp {
            store: self.store,
            sequence: image.sequence,
        }
    }

    /// Pages that do not look right at the first look.
    async fn suspects(&self, step: &MetadataStep) -> BTreeSet<PageId> {
        let reader = PageReader::new(&self.device, self.geometry, step.stamp);
        let mut suspects = BTreeSet::new();
        for run in runs(&step.pages) {
            for copy in 0..PAGE_COPIES {
                let bytes = reader.read_run(run, copy).await;
                let pages = bytes
                    .as_ref()
                    .map_or(&[][..], |bytes| bytes.as_chunks::<PAGE_SIZE>().0);
                for (at, wanted) in run.iter().enumerate() {
                    let is_good = |page: &Page| reader.check(wanted, page).is_ok();
                    if !pages.get(at).is_some_and(is_good) {
                        suspects.insert(wanted.id);
                    }
                }
            }
        }
        suspects
    }

    /// Looks again while no checkpoint runs, and puts right what is bad: each page by itself, so that no checkpoint waits for
    /// more than one.
    async fn settle(&self, suspects: BTreeSet<PageId>, has_head: bool) -> Result<(), StoreError> {
        if has_head {
            self.settle_retired().await;
            let mut image = self.image.lock().await;
            self.check_alive()?;
            self.settle_superblocks(&mut image).await;
        }
        for id in suspects {
            let mut image = self.image.lock().await;
            self.check_alive()?;
            self.settle_page(&mut image, id).await;
        }
        let has_lost = self.image.lock().await.has_lost;
        match has_lost {
            true => self.checkpoint(Vec::new()).await,
            false => Ok(()),
        }
    }

    async fn settle_page(&self, image: &mut Image, id: PageId) {
        let Some(page) = image.tree.find(id) else {
            return;
        };
        let reader = PageReader::new(&self.device, self.geometry, self.stamp(image));
        let wanted = Wanted { id, page };
        let first = reader.copy(&wanted, 0).await;
        let mirror = reader.copy(&wanted, 1).await;
        match (first, mirror) {
            (Ok(_), Ok(_)) => {}
            (Err(error), Ok(good)) => self.restore(&reader, (wanted, 0), good, &error).await,
            (Ok(good), Err(error)) => self.restore(&reader, (wanted, 1), good, &error).await,
            (Err(StoreError::Device(error)), Err(StoreError::Device(_))) => {
                if self.note_unread(&id.to_string(), &error).await {
                    self.lose(image, id);
                }
            }
            (Err(error), Err(mirror)) => {
                tracing::error!(device = self.device.name(), %error, %mirror,
                    "both copies of a metadata page are bad: it is written anew, elsewhere");
                self.counters.update(|it| it.metadata_rewrites += 1);
                self.lose(image, id);
            }
        }
    }

    /// Neither copy could be read, so nothing is known of what is there; whether it is to be written anew with what the store
    /// knows. A device that does not read anything else either may do so again, and to write all of it would help nobody.
    async fn note_unread(&self, what: &str, error: &DeviceError) -> bool {
        let reads = self.reads().await;
        let device = self.device.name();
        if reads {
            tracing::error!(device, what, %error, "neither copy of this metadata can be read: it is written anew");
        } else {
            tracing::error!(device, what, %error, "neither copy of this metadata can be read, nor anything else \
                that was tried: it is let be");
        }
        self.counters.update(|it| it.metadata_unread += 1);
        reads
    }

    /// Whether the device reads anything of its head.
    async fn reads(&self) -> bool {
        for at in SUPERBLOCK_AT.into_iter().chain(RETIRED_AT) {
            let (at, len) = (ByteOffset::new(at), ByteLen::from_usize(PAGE_SIZE));
            if self.device.read(at, len).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Rewrites a bad copy from the good one, and reads it back.
    async fn restore(
        &self,
        reader: &PageReader<'_>,
        (wanted, copy): (Wanted, usize),
        good: Buffer,
        error: &StoreError,
    ) {
        let offset = self.geometry.slot_offset(wanted.page.slot, copy);
        let written = self.device.write_durable(offset, good);
        let is_good = written.await.is_ok() && reader.copy(&wanted, copy).await.is_ok();
        let what = format!("copy {copy} of the {} ({error})", wanted.id);
        self.note_restored(is_good, &what);
    }

    fn note_restored(&self, is_good: bool, what: &str) {
        let device = self.device.name();
        if is_good {
            tracing::warn!(
                device,
                what,
                "bad metadata is rewritten from its other copy"
            );
            self.counters.update(|it| it.metadata_repairs += 1);
        } else {
            tracing::error!(
                device,
                what,
                "bad metadata does not take what is written: what else there is of it serves"
            );
            self.counters.update(|it| it.metadata_refusals += 1);
        }
    }

    /// No copy is left: the next checkpoint writes it with what is known.
    fn lose(&self, image: &mut Image, id: PageId) {
        let mut state = self.state.borrow_mut();
        match id {
            PageId::Leaf { key, part } => drop(state.dirty.insert(LeafId { key, part })),
            PageId::Group { copyset, part } => drop(state.lost_parts.insert((copyset, part))),
            PageId::Table(number) => image.tree.tables.mark(number as usize),
            PageId::Root(number) => image.tree.roots.mark(number as usize),
        }
        image.has_lost = true;
    }

    /// Both name the tree that is durable, or else the bad one is replaced; where none does, a checkpoint writes them anew.
    async fn settle_superblocks(&self, image: &mut Image) {
        let (mut good, mut bad, mut unread) = (None, Vec::new(), Vec::new());
        for copy in 0..SUPERBLOCK_AT.len() {
            match self.superblock(image, copy).await {
                Ok(Some(superblock)) => {
                    good = Some(superblock);
                    continue;
                }
                Ok(None) => {}
                Err(error) => unread.push(error),
            }
            bad.push(copy);
        }
        if let Some(good) = good {
            for copy in bad {
                let written = write_superblock(&self.device, &good, copy).await;
                let is_good =
                    written.is_ok() && matches!(self.superblock(image, copy).await, Ok(Some(_)));
                self.note_restored(is_good, &format!("superblock {copy}"));
            }
            return;
        }
        if unread.len() == bad.len() {
            image.has_lost |= self.note_unread("both superblocks", &unread[0]).await;
            return;
        }
        tracing::error!(
            device = self.device.name(),
            "both superblocks are bad: they are written anew"
        );
        image.has_lost = true;
        self.counters.update(|it| it.metadata_rewrites += 1);
    }

    /// A copy, if it is what the last checkpoint wrote.
    async fn superblock(
        &self,
        image: &Image,
        copy: usize,
    ) -> Result<Option<Superblock>, DeviceError> {
        let (at, len) = (SUPERBLOCK_AT[copy], ByteLen::from_usize(PAGE_SIZE));
        let read = self.device.read(ByteOffset::new(at), len).await?;
        let found = Superblock::decode(&read.as_chunks::<PAGE_SIZE>().0[0]).ok();
        Ok(found.filter(|found| {
            (found.store, found.sequence) == (self.store, image.sequence)
                && found.roots == image.tree.top()
        }))
    }

    /// The list of retired extents stands twice, as it is known, or nowhere if there never was one.
    async fn settle_retired(&self) {
        let _turn = self.retiring.lock().await;
        let known = self.retired.borrow().clone();
        let mut copies = Vec::new();
        for copy in 0..RETIRED_AT.len() {
            copies.push(self.retired_copy(copy).await);
        }
        let is_good = |copy: &RetiredCopy| matches!(copy, Ok(Some(list)) if *list == known);
        // What waits for its turn to be written is newer than both; so is what the device did not take.
        let is_older =
            |copy: &RetiredCopy| matches!(copy, Ok(Some(list)) if list.sequence < known.sequence);
        let (are_older, has_good) = (copies.iter().all(is_older), copies.iter().any(is_good));
        let unread = copies.iter().map(|copy| copy.as_ref().err());
        let unread: Option<Vec<&DeviceError>> = unread.collect();
        if let Some(errors) = &unread
            && !self.note_unread(RETIRED, errors[0]).await
        {
            return;
        }
        let mut have_taken = true;
        for (at, _) in copies.iter().enumerate().filter(|(_, copy)| !is_good(copy)) {
            let written = write_copy(&self.device, self.store, &known, at).await;
            let has_taken = written.is_ok() && is_good(&self.retired_copy(at).await);
            have_taken &= has_taken;
            if has_good || !has_taken {
                self.note_restored(has_taken, &format!("copy {at} of {RETIRED}"));
            }
        }
        if have_taken && !has_good && !are_older && unread.is_none() {
            tracing::error!(
                device = self.device.name(),
                "both lists of retired extents were bad: they are written anew"
            );
            self.counters.update(|it| it.metadata_rewrites += 1);
        }
    }

    /// An empty list where there is none; `None`: what is there cannot be used.
    async fn retired_copy(&self, copy: usize) -> RetiredCopy {
        let read = read_copy(&self.device, self.store, &self.geometry, copy).await?;
        Ok(match read {
            RetiredPage::List(list) => Some(list),
            RetiredPage::None => Some(Retired::default()),
            RetiredPage::Damaged | RetiredPage::Version(_) => None,
        })
    }
}
