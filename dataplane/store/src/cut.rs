//! A consistent cut: what one checkpoint makes durable.

use crate::error::StoreError;
use crate::format::{GroupHead, LeafOwner, PageId};
use crate::geometry::ExtentId;
use crate::group_state::GroupCheckpoint;
use crate::leaf::Leaf;
use crate::limit::GROUP_STATE_MAX;
use crate::state::{LeafId, State};
use bytes::Bytes;
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteLen;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One changed page of a group's state.
pub struct GroupPut {
    /// The group.
    pub copyset: CopysetId,
    /// Page within the state.
    pub part: u32,
    /// In the first page.
    pub head: Option<GroupHead>,
    /// The page's share of the state.
    pub bytes: Bytes,
}

/// What one checkpoint makes durable.
pub struct Cut {
    /// Pages that no longer exist. They are dropped before the puts, since a group may be removed
    /// and come back within one cut.
    pub drops: Vec<PageId>,
    /// Changed fifths of chunk maps. Shared, not copied: later changes copy first.
    pub leaves: Vec<(LeafOwner, Rc<Leaf>)>,
    /// Changed pages of group states.
    pub groups: Vec<GroupPut>,
    /// Extents that the tree of this cut does not name any more.
    pub freed: Vec<ExtentId>,
    /// Generation of the next chunk.
    pub next_generation: u64,
    /// The groups named by the caller.
    named: Vec<GroupCheckpoint>,
}

impl State {
    /// Takes the cut: from here on, changes belong to the next checkpoint.
    ///
    /// # Errors
    /// When a group's state is too large or all of them together are: nothing is changed then.
    pub fn cut(&mut self, named: Vec<GroupCheckpoint>) -> Result<Cut, StoreError> {
        let named = self.check_groups(named)?;
        let mut drops = Vec::new();
        for (copyset, pages) in self.removed_groups.drain(..) {
            drops.extend((0..pages).map(|part| PageId::Group { copyset, part }));
        }
        let mut groups = Vec::new();
        for group in &named {
            let before = self.groups.get(&group.copyset);
            changed_parts(before, group, &mut groups, &mut drops);
        }
        self.put_lost_parts(&named, &mut groups);
        let mut leaves = Vec::new();
        for LeafId { key, part } in std::mem::take(&mut self.dirty) {
            let chunk = self.chunks.get(&key);
            match chunk.and_then(|chunk| Some((chunk, chunk.leaf(part)?))) {
                None => drops.push(PageId::Leaf { key, part }),
                Some((chunk, leaf)) => {
                    let (copyset, generation) = (chunk.copyset, chunk.generation);
                    leaves.push((
                        LeafOwner {
                            key,
                            part,
                            copyset,
                            generation,
                        },
                        Rc::clone(leaf),
                    ));
                }
            }
        }
        let freed = std::mem::take(&mut self.freed);
        self.freed_in_cut = u32::try_from(freed.len()).expect("invariant: extents count in u32");
        Ok(Cut {
            drops,
            leaves,
            groups,
            freed,
            next_generation: self.next_generation,
            named,
        })
    }

    /// The cut is durable: what it replaced may be used again, unless the log still names it.
    pub fn complete(&mut self, cut: Cut) {
        for extent in cut.freed {
            if self.pins.unmap(extent) {
                self.extents.release(extent.index());
            }
        }
        self.freed_in_cut = 0;
        self.groups
            .extend(cut.named.into_iter().map(|group| (group.copyset, group)));
    }

    /// Pages that are lost on disk and would not be written otherwise.
    fn put_lost_parts(&mut self, named: &[GroupCheckpoint], puts: &mut Vec<GroupPut>) {
        for (copyset, part) in std::mem::take(&mut self.lost_parts) {
            let named = named.iter().find(|group| group.copyset == copyset);
            let Some(group) = named.or_else(|| self.groups.get(&copyset)) else {
                continue;
            };
            let is_put = |put: &GroupPut| (put.copyset, put.part) == (copyset, part);
            if part < group.pages() && !puts.iter().any(is_put) {
                puts.push(GroupPut {
                    copyset,
                    part,
                    head: (part == 0).then(|| group.head()),
                    bytes: group.part(part),
                });
            }
        }
    }

    /// Checks the limits; of several checkpoints for one group the last counts.
    fn check_groups(
        &self,
        named: Vec<GroupCheckpoint>,
    ) -> Result<Vec<GroupCheckpoint>, StoreError> {
        if let Some(group) = named
            .iter()
            .find(|group| group.state.len() > GROUP_STATE_MAX)
        {
            return Err(StoreError::GroupStateTooLarge {
                copyset: group.copyset,
                found: ByteLen::from_usize(group.state.len()),
                maximum: ByteLen::from_usize(GROUP_STATE_MAX),
            });
        }
        let named: BTreeMap<_, _> = named
            .into_iter()
            .map(|group| (group.copyset, group))
            .collect();
        let kept = self
            .groups
            .values()
            .filter(|group| !named.contains_key(&group.copyset));
        let needed = kept.chain(named.values()).map(GroupCheckpoint::pages).sum();
        let maximum = self.group_pages_max;
        if needed > maximum {
            return Err(StoreError::GroupPagesFull { needed, maximum });
        }
        Ok(named.into_values().collect())
    }
}

/// Only pages whose bytes differ are written; the first always, unless nothing changed at all.
fn changed_parts(
    before: Option<&GroupCheckpoint>,
    group: &GroupCheckpoint,
    puts: &mut Vec<GroupPut>,
    drops: &mut Vec<PageId>,
) {
    if before == Some(group) {
        return;
    }
    let copyset = group.copyset;
    let pages_before = before.map_or(0, GroupCheckpoint::pages);
    for part in 0..group.pages() {
        let bytes = group.part(part);
        let is_same = before.is_some_and(|it| part < pages_before && it.part(part) == bytes);
        if part == 0 || !is_same {
            let head = (part == 0).then(|| group.head());
            puts.push(GroupPut {
                copyset,
                part,
                head,
                bytes,
            });
        }
    }
    drops.extend((group.pages()..pages_before).map(|part| PageId::Group { copyset, part }));
}
