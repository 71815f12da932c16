//! Opens a store: superblock → roots → tables → pages → maps and allocators in RAM.
//!
//! *Place*: between a device and a running [`Store`](crate::Store). *Owner*: the task that opens.
//! *Invariants*: writes nothing but, at the end, copies of superblocks, of pages and of the list of retired extents that are
//! torn, rotten or stale, so it can be repeated and interrupted at will; reads only what exists, so its time is proportional to the
//! metadata, not to the device; an extent or slot that two pages name is damage.
//! *On failure*: an error that names the device and what is wrong; nothing was written.

use crate::checkpoint::{Image, write_superblock};
use crate::chunk::Chunk;
use crate::error::StoreError;
use crate::format::{
    GroupPart, PageFault, PageHeader, PageId, PageRef, Retired, Stamp, Superblock, SuperblockFault,
    TableEntry, decode_group, decode_leaf, decode_root, decode_table,
};
use crate::free_map::FreeMap;
use crate::geometry::Slot;
use crate::group_state::{GroupCheckpoint, pages_for};
use crate::leaf::Leaf;
use crate::limit::{PAGE_SIZE, REFS_PER_ROOT, SUPERBLOCK_AT};
use crate::page_reader::{PageReader, Wanted};
use crate::retired;
use crate::state::State;
use crate::tree::Tree;
use bytes::Bytes;
use ogee_device::Device;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, StoreId};
use ogee_proto::limit::EXTENT_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a superblock says, without opening the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreInfo {
    /// Identity of the store.
    pub store: StoreId,
    /// The cluster that it belongs to.
    pub cluster: Uuid,
    /// Checkpoints since it was formatted.
    pub sequence: u64,
    /// Bytes for data.
    pub capacity: ByteLen,
    /// Bytes of the log region.
    pub log_len: ByteLen,
}

/// What opening took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OpenStats {
    /// Metadata pages read.
    pub pages: usize,
    /// Chunks found.
    pub chunks: usize,
    /// Groups found.
    pub groups: usize,
    /// Whether both superblock copies were intact and equal; if not, one was replaced.
    pub superblocks_agree: bool,
    /// Bad metadata pages that were rewritten from their copies.
    pub pages_healed: usize,
}

/// The superblock to use.
pub struct Found {
    /// The newest intact one.
    pub superblock: Superblock,
    /// Which copy that is.
    copy: usize,
    /// Whether the other one is the same.
    copies_agree: bool,
}

/// Everything that an open store is made of.
pub struct Recovered {
    /// What the superblock says.
    pub superblock: Superblock,
    /// Maps and allocators.
    pub state: State,
    /// The tree on disk.
    pub image: Image,
    /// Extents that are never used again.
    pub retired: Retired,
    /// What it took.
    pub stats: OpenStats,
}

impl Found {
    /// The part of it that matters to others.
    pub fn info(&self) -> StoreInfo {
        let geometry = &self.superblock.geometry;
        StoreInfo {
            store: self.superblock.store,
            cluster: self.superblock.cluster,
            sequence: self.superblock.sequence,
            capacity: ByteLen::new(u64::from(geometry.extents) * EXTENT_SIZE as u64),
            log_len: geometry.log_len,
        }
    }
}

/// Reads both superblock copies and picks the newest intact one.
///
/// # Errors
/// Why the device cannot be opened as a store.
pub async fn read_superblocks(device: &Device) -> Result<Found, StoreError> {
    let name = || device.name().to_owned();
    let mut unreadable = None;
    let mut copies = Vec::new();
    for at in SUPERBLOCK_AT {
        if device.len().get() < at + PAGE_SIZE as u64 {
            return Err(StoreError::NotFormatted { device: name() });
        }
        match device
            .read(ByteOffset::new(at), ByteLen::from_usize(PAGE_SIZE))
            .await
        {
            Ok(bytes) => copies.push(Superblock::decode(&bytes.as_chunks::<PAGE_SIZE>().0[0])),
            Err(error) => {
                // One bad sector must not cost the store: the other copy is as good.
                copies.push(Err(SuperblockFault::Damaged));
                unreadable = Some(error);
            }
        }
    }
    let found = choose(&copies, name).map_err(|error| match (error, unreadable) {
        (StoreError::SuperblocksDamaged { .. }, Some(cause)) => cause.into(),
        (error, _) => error,
    })?;
    let (recorded, now) = (found.superblock.geometry.device_len, device.len());
    if now < recorded {
        return Err(StoreError::WrongSize {
            device: name(),
            recorded,
            found: now,
        });
    }
    Ok(found)
}

/// Opens the store.
///
/// # Errors
/// Why it cannot be opened.
pub async fn recover(device: &Device) -> Result<Recovered, StoreError> {
    let found = read_superblocks(device).await?;
    let mut loader = Loader::new(device, &found);
    let tables = loader.load_roots(&found.superblock.roots).await?;
    let pages = loader
        .load_tables(&tables, found.superblock.roots.clone())
        .await?;
    loader.load_pages(pages).await?;
    loader.assemble_groups()?;
    let superblock = &found.superblock;
    let read = retired::read(device, superblock.store, &superblock.geometry);
    let (retired, stale) = read.await?;
    for extent in &retired.extents {
        loader.state.pin(*extent);
    }
    // Only now, for pages as for superblocks: a root whose tree cannot be read must replace nothing.
    let healed = loader.reader.heal().await;
    let stats = loader.stats(found.copies_agree, healed);
    if !found.copies_agree {
        write_superblock(device, &found.superblock, 1 - found.copy).await?;
    }
    retired::heal(device, superblock.store, &retired, stale).await;
    let image = Image {
        tree: loader.tree,
        slots: loader.slots,
        sequence: found.superblock.sequence,
        has_lost: false,
    };
    tracing::info!(
        device = device.name(),
        store = %found.superblock.store,
        checkpoint = found.superblock.sequence,
        pages = stats.pages,
        chunks = stats.chunks,
        groups = stats.groups,
        pages_healed = stats.pages_healed,
        retired_extents = retired.extents.len(),
        "store opened"
    );
    Ok(Recovered {
        superblock: found.superblock,
        state: loader.state,
        image,
        retired,
        stats,
    })
}

/// Newest valid wins; why that is safe stands in `src/format.rs`.
fn choose(
    copies: &[Result<Superblock, SuperblockFault>],
    device: impl Fn() -> String,
) -> Result<Found, StoreError> {
    for copy in copies {
        if let Err(SuperblockFault::Version(found)) = copy {
            let ours = u32::from(crate::format::FORMAT_VERSION);
            return Err(StoreError::UnknownFormat {
                device: device(),
                found: *found,
                ours,
            });
        }
    }
    match copies {
        [Ok(first), Ok(second)] if first.store != second.store => {
            let (first, second) = (first.store, second.store);
            Err(StoreError::SuperblocksDisagree {
                device: device(),
                first,
                second,
            })
        }
        [Ok(first), Ok(second)] => {
            let copy = usize::from(second.sequence > first.sequence);
            let superblock = if copy == 0 { first } else { second }.clone();
            Ok(Found {
                superblock,
                copy,
                copies_agree: first == second,
            })
        }
        [Ok(only), Err(_)] => Ok(single(only, 0, &device())),
        [Err(_), Ok(only)] => Ok(single(only, 1, &device())),
        all if all
            .iter()
            .all(|copy| matches!(copy, Err(SuperblockFault::Foreign))) =>
        {
            Err(StoreError::NotFormatted { device: device() })
        }
        _ => Err(StoreError::SuperblocksDamaged { device: device() }),
    }
}

fn single(superblock: &Superblock, copy: usize, device: &str) -> Found {
    tracing::warn!(
        device,
        copy = 1 - copy,
        "superblock copy unreadable; using the other"
    );
    Found {
        superblock: superblock.clone(),
        copy,
        copies_agree: false,
    }
}

/// Collects what the pages say.
struct Loader<'a> {
    reader: PageReader<'a>,
    next_generation: u64,
    slots: FreeMap,
    tree: Tree,
    state: State,
    parts: BTreeMap<CopysetId, BTreeMap<u32, GroupPart>>,
    pages: usize,
}

impl<'a> Loader<'a> {
    fn new(device: &'a Device, found: &Found) -> Self {
        let superblock = &found.superblock;
        let geometry = superblock.geometry;
        let stamp = Stamp {
            store: superblock.store,
            sequence: superblock.sequence,
        };
        Self {
            reader: PageReader::new(device, geometry, stamp),
            next_generation: superblock.next_generation,
            slots: FreeMap::new(geometry.page_slots),
            tree: Tree::new(&geometry),
            state: State::new(superblock.store, &geometry, superblock.next_generation),
            parts: BTreeMap::new(),
            pages: 0,
        }
    }

    /// Reads the roots; returns the tables that they name, by number.
    async fn load_roots(
        &mut self,
        roots: &[Option<PageRef>],
    ) -> Result<Vec<(u32, PageRef)>, StoreError> {
        let wanted = self.claim_all(numbered(0, roots).map(|(n, page)| (PageId::Root(n), page)))?;
        let mut tables = Vec::new();
        let reader = &self.reader;
        let visit = |wanted: &Wanted, header: PageHeader, page: &_| {
            let damaged = |fault| reader.damaged(wanted.id, fault);
            let PageId::Root(root) = header.id else {
                return Err(damaged(PageFault::Content));
            };
            let first = root as usize * REFS_PER_ROOT;
            tables.extend(numbered(first, &decode_root(page).map_err(damaged)?));
            Ok(())
        };
        reader.read(wanted, visit).await?;
        Ok(tables)
    }

    /// Reads the tables; returns the pages that they name.
    async fn load_tables(
        &mut self,
        tables: &[(u32, PageRef)],
        top: Vec<Option<PageRef>>,
    ) -> Result<Vec<Wanted>, StoreError> {
        let wanted = self.claim_all(tables.iter().map(|(n, page)| (PageId::Table(*n), *page)))?;
        let mut entries: Vec<TableEntry> = Vec::new();
        let (reader, tree) = (&self.reader, &mut self.tree);
        let visit = |wanted: &Wanted, header: PageHeader, page: &_| {
            let damaged = |fault| reader.damaged(wanted.id, fault);
            let PageId::Table(table) = header.id else {
                return Err(damaged(PageFault::Content));
            };
            let listed = decode_table(page).map_err(damaged)?;
            entries.extend(listed.iter().flatten());
            let installed = tree.install(table as usize, listed);
            installed.map_err(|twice| reader.damaged(twice, PageFault::Twice))
        };
        reader.read(wanted, visit).await?;
        self.tree.install_refs(tables, top);
        self.claim_all(entries.into_iter().map(|entry| (entry.id, entry.page)))
    }

    /// Reads leaf and group pages into the state.
    async fn load_pages(&mut self, wanted: Vec<Wanted>) -> Result<(), StoreError> {
        let (reader, state, parts) = (&self.reader, &mut self.state, &mut self.parts);
        let next_generation = self.next_generation;
        let visit = |wanted: &Wanted, header: PageHeader, page: &_| {
            let damaged = |fault| reader.damaged(wanted.id, fault);
            match header.id {
                PageId::Leaf { part, .. } => {
                    let leaf = decode_leaf(page, part).map_err(damaged)?;
                    state
                        .install_leaf(header, leaf, next_generation)
                        .map_err(damaged)
                }
                PageId::Group { copyset, part } => {
                    let group = decode_group(page).map_err(damaged)?;
                    parts.entry(copyset).or_default().insert(part, group);
                    Ok(())
                }
                PageId::Table(_) | PageId::Root(_) => Err(damaged(PageFault::Content)),
            }
        };
        reader.read(wanted, visit).await
    }

    /// Joins the pages of each group's state.
    fn assemble_groups(&mut self) -> Result<(), StoreError> {
        for (copyset, parts) in std::mem::take(&mut self.parts) {
            let group = assemble(copyset, &parts).map_err(|(part, fault)| {
                self.reader.damaged(PageId::Group { copyset, part }, fault)
            })?;
            self.state.groups.insert(copyset, group);
        }
        Ok(())
    }

    /// Marks the slots of pages as used; two references to one slot are damage.
    fn claim_all(
        &mut self,
        pages: impl Iterator<Item = (PageId, PageRef)>,
    ) -> Result<Vec<Wanted>, StoreError> {
        let mut wanted = Vec::new();
        for (id, page) in pages {
            if !self.slots.take_at(Slot::index(page.slot)) {
                return Err(self.reader.damaged(id, PageFault::Shared(page.slot.raw())));
            }
            wanted.push(Wanted { id, page });
        }
        self.pages += wanted.len();
        Ok(wanted)
    }

    fn stats(&self, superblocks_agree: bool, pages_healed: usize) -> OpenStats {
        OpenStats {
            pages: self.pages,
            chunks: self.state.chunks.len(),
            groups: self.state.groups.len(),
            superblocks_agree,
            pages_healed,
        }
    }
}

impl State {
    /// Takes over a leaf as it stands on disk.
    fn install_leaf(
        &mut self,
        header: PageHeader,
        leaf: Leaf,
        next_generation: u64,
    ) -> Result<(), PageFault> {
        let PageId::Leaf { key, part } = header.id else {
            return Err(PageFault::Content);
        };
        for extent in leaf.extents() {
            if !self.extents.take_at(extent.index()) {
                return Err(PageFault::Shared(extent.raw()));
            }
        }
        if leaf.is_empty() || header.generation >= next_generation {
            return Err(PageFault::Content);
        }
        let (copyset, generation) = (header.copyset, header.generation);
        let chunk = self
            .chunks
            .entry(key)
            .or_insert_with(|| Chunk::new(copyset, generation));
        if (chunk.copyset, chunk.generation) != (copyset, generation) {
            return Err(PageFault::Content);
        }
        if !chunk.install(part, leaf) {
            return Err(PageFault::Twice);
        }
        self.by_copyset.entry(copyset).or_default().insert(key);
        self.leaves += 1;
        Ok(())
    }
}

/// Joins a group's pages; or the page at fault.
fn assemble(
    copyset: CopysetId,
    parts: &BTreeMap<u32, GroupPart>,
) -> Result<GroupCheckpoint, (u32, PageFault)> {
    let head = parts.get(&0).ok_or((0, PageFault::Missing))?.head;
    let mut state = Vec::new();
    for part in 0..pages_for(head.state_len) {
        state.extend_from_slice(&parts.get(&part).ok_or((part, PageFault::Missing))?.bytes);
    }
    state.truncate(head.state_len);
    let is_whole = parts.len() == pages_for(head.state_len) as usize;
    if !is_whole || crc32c(&state) != head.state_crc {
        return Err((0, PageFault::Content));
    }
    Ok(GroupCheckpoint {
        copyset,
        applied: head.applied,
        state: Bytes::from(state),
    })
}

/// The references in use, with their numbers.
fn numbered(first: usize, refs: &[Option<PageRef>]) -> impl Iterator<Item = (u32, PageRef)> {
    let first = u32::try_from(first).expect("invariant: the superblock limits the roots");
    (first..)
        .zip(refs)
        .filter_map(|(number, page)| Some((number, (*page)?)))
}
