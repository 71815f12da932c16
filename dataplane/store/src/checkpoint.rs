//! The atomic root switch.
//!
//! *Place*: between the cut of the RAM state and the device; the order of writes and its argument
//! stand in `src/format.rs`. *Owner*: a task of the store's shard; one checkpoint at a time.
//! *Invariants*: nothing that the durable superblock names is overwritten; slots and extents are
//! reused only after both superblock copies name the new tree. *On failure*: the store takes no
//! further write-back or checkpoint, because after a failed flush the device may have dropped
//! writes that it had accepted; reads go on. The next open finds the old tree or the new one.

use crate::cut::{Cut, GroupPut};
use crate::error::StoreError;
use crate::format::{
    LeafOwner, PageId, Stamp, Superblock, encode_group, encode_leaf, encode_root, encode_table,
};
use crate::free_map::FreeMap;
use crate::geometry::Slot;
use crate::group_state::GroupCheckpoint;
use crate::leaf::Leaf;
use crate::limit::{PAGE_SIZE, SUPERBLOCK_AT};
use crate::page_writer::PageWriter;
use crate::store::Inner;
use crate::tree::Tree;
use ogee_device::{Device, DeviceError};
use ogee_proto::unit::ByteOffset;
use ogee_runtime::{Buffer, seeded_bug};
use std::rc::Rc;

/// What is on the device, as the writer of the next checkpoint needs to know it.
pub struct Image {
    /// The references.
    pub tree: Tree,
    /// Page slots that the durable tree does not use.
    pub slots: FreeMap,
    /// The last durable checkpoint.
    pub sequence: u64,
    /// Something of it is on the device in no good copy: the next checkpoint takes place even if nothing has changed.
    pub has_lost: bool,
}

impl Inner {
    /// Makes everything that was applied durable, with the states of the named groups.
    pub(crate) async fn checkpoint(&self, named: Vec<GroupCheckpoint>) -> Result<(), StoreError> {
        let mut image = self.image.lock().await;
        self.check_alive()?;
        let cut = self.state.borrow_mut().cut(named)?;
        if cut.is_empty() && !image.has_lost {
            self.state.borrow_mut().complete(cut);
            return Ok(());
        }
        match image.commit(self, &cut).await {
            Ok(pages) => {
                self.state.borrow_mut().complete(cut);
                self.counters.update(|counts| {
                    counts.checkpoints += 1;
                    counts.pages_written += pages;
                });
                Ok(())
            }
            Err(source) => {
                self.failed.set(true);
                Err(source.into())
            }
        }
    }
}

impl Image {
    /// Steps 2 to 5; how many pages were written.
    async fn commit(&mut self, inner: &Inner, cut: &Cut) -> Result<u64, DeviceError> {
        let sequence = self.sequence + 1;
        let stamp = Stamp {
            store: inner.store,
            sequence,
        };
        let mut replaced = Vec::new();
        let mut writer = PageWriter::new(&inner.device, &inner.geometry, &mut self.slots, stamp);
        replaced.extend(cut.drops.iter().filter_map(|id| self.tree.remove(*id)));
        put_leaves(&mut self.tree, &mut writer, &cut.leaves, &mut replaced).await?;
        put_groups(&mut self.tree, &mut writer, &cut.groups, &mut replaced).await?;
        put_tables(&mut self.tree, &mut writer, &mut replaced).await?;
        put_roots(&mut self.tree, &mut writer, &mut replaced).await?;
        let pages = writer.finish().await?;
        if !seeded_bug!("checkpoint-without-flush") {
            inner.device.flush().await?;
        }
        let superblock = Superblock {
            store: inner.store,
            cluster: inner.cluster,
            sequence,
            next_generation: cut.next_generation,
            geometry: inner.geometry,
            roots: self.tree.top(),
        };
        write_superblocks(&inner.device, &superblock).await?;
        self.sequence = sequence;
        self.has_lost = false;
        for slot in replaced {
            self.slots.release(slot.index());
        }
        Ok(pages)
    }
}

impl Cut {
    fn is_empty(&self) -> bool {
        self.drops.is_empty() && self.leaves.is_empty() && self.groups.is_empty()
    }
}

/// Writes the superblock to copy A, and once that is durable to copy B.
pub async fn write_superblocks(
    device: &Device,
    superblock: &Superblock,
) -> Result<(), DeviceError> {
    for copy in 0..SUPERBLOCK_AT.len() {
        write_superblock(device, superblock, copy).await?;
    }
    Ok(())
}

/// Writes one superblock copy, durably.
pub async fn write_superblock(
    device: &Device,
    superblock: &Superblock,
    copy: usize,
) -> Result<(), DeviceError> {
    let mut buffer = Buffer::zeroed(PAGE_SIZE);
    let (pages, _) = buffer.as_chunks_mut::<PAGE_SIZE>();
    superblock.encode(&mut pages[0]);
    let at = ByteOffset::new(SUPERBLOCK_AT[copy]);
    if seeded_bug!("superblock-not-durable") {
        return device.write(at, buffer).await;
    }
    device.write_durable(at, buffer).await
}

async fn put_leaves(
    tree: &mut Tree,
    writer: &mut PageWriter<'_>,
    leaves: &[(LeafOwner, Rc<Leaf>)],
    replaced: &mut Vec<Slot>,
) -> Result<(), DeviceError> {
    writer.announce(leaves.len());
    for (owner, leaf) in leaves {
        let encode = |stamp, slot, page: &mut _| encode_leaf(stamp, slot, *owner, leaf, page);
        let page = writer.put(encode).await?;
        replaced.extend(tree.put(
            PageId::Leaf {
                key: owner.key,
                part: owner.part,
            },
            page,
        ));
    }
    Ok(())
}

async fn put_groups(
    tree: &mut Tree,
    writer: &mut PageWriter<'_>,
    groups: &[GroupPut],
    replaced: &mut Vec<Slot>,
) -> Result<(), DeviceError> {
    writer.announce(groups.len());
    for GroupPut {
        copyset,
        part,
        head,
        bytes,
    } in groups
    {
        let at = (*copyset, *part);
        let encode = |stamp, slot, page: &mut _| encode_group(stamp, slot, at, *head, bytes, page);
        let page = writer.put(encode).await?;
        replaced.extend(tree.put(
            PageId::Group {
                copyset: *copyset,
                part: *part,
            },
            page,
        ));
    }
    Ok(())
}

async fn put_tables(
    tree: &mut Tree,
    writer: &mut PageWriter<'_>,
    replaced: &mut Vec<Slot>,
) -> Result<(), DeviceError> {
    let dirty = tree.tables.take_dirty();
    writer.announce(dirty.len());
    for table in dirty {
        let page = match tree.tables.page(table) {
            None => None,
            Some(entries) => {
                let number = number(table);
                let encode =
                    |stamp, slot, page: &mut _| encode_table(stamp, slot, number, entries, page);
                Some(writer.put(encode).await?)
            }
        };
        replaced.extend(tree.set_table(table, page));
    }
    Ok(())
}

async fn put_roots(
    tree: &mut Tree,
    writer: &mut PageWriter<'_>,
    replaced: &mut Vec<Slot>,
) -> Result<(), DeviceError> {
    let dirty = tree.roots.take_dirty();
    writer.announce(dirty.len());
    for root in dirty {
        let page = match tree.roots.page(root) {
            None => None,
            Some(refs) => {
                let number = number(root);
                let encode =
                    |stamp, slot, page: &mut _| encode_root(stamp, slot, number, refs, page);
                Some(writer.put(encode).await?)
            }
        };
        replaced.extend(tree.set_root(root, page));
    }
    Ok(())
}

/// Number of a table or root as its page states it.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("invariant: positions count in u32")
}
