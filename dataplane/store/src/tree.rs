//! The tree of references, as the next superblock will name it.
//!
//! *Place*: between a cut and the pages on disk. *Owner*: the one checkpoint that runs, or open.
//! *Invariants*: every page id has at most one position; a table or root that differs from what
//! is on disk is dirty. *On failure*: it then describes a checkpoint that did not happen, and the
//! store takes no further one.

use crate::format::{PageId, PageRef, TableEntry};
use crate::free_map::FreeMap;
use crate::geometry::{Geometry, Slot};
use crate::limit::{REFS_PER_ROOT, REFS_PER_TABLE};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Pages of equal kind, each a list of `per_page` things.
pub struct Level<T> {
    per_page: usize,
    pages: Vec<Vec<Option<T>>>,
    dirty: BTreeSet<usize>,
}

impl<T: Copy> Level<T> {
    fn new(per_page: usize) -> Self {
        Self {
            per_page,
            pages: Vec::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Puts `value` at `position`; returns what was there.
    fn set(&mut self, position: usize, value: Option<T>) -> Option<T> {
        let (page, at) = (position / self.per_page, position % self.per_page);
        if self.pages.len() <= page {
            let empty = vec![None; self.per_page];
            self.pages.resize(page + 1, empty);
        }
        self.dirty.insert(page);
        std::mem::replace(&mut self.pages[page][at], value)
    }

    /// The pages that changed, lowest first; they count as written from here on.
    pub fn take_dirty(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Has a page written with the next checkpoint.
    pub fn mark(&mut self, page: usize) {
        if page < self.pages.len() {
            self.dirty.insert(page);
        }
    }

    fn get(&self, position: usize) -> Option<T> {
        let page = self.pages.get(position / self.per_page)?;
        *page.get(position % self.per_page)?
    }

    /// What is there from a position on, with its positions, at most `max` of them; and where the rest begins.
    fn from(&self, position: usize, max: usize) -> (Vec<(usize, T)>, Option<usize>) {
        let all = position..self.pages.len() * self.per_page;
        let mut found = all.filter_map(|at| Some((at, self.get(at)?)));
        let some = found.by_ref().take(max).collect();
        (some, found.next().map(|(at, _)| at))
    }

    /// What a page lists; `None` if that is nothing.
    pub fn page(&self, number: usize) -> Option<&[Option<T>]> {
        let page = self.pages.get(number)?;
        page.iter().any(Option::is_some).then_some(page)
    }
}

/// Where one is that goes through all references.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreePlace {
    rank: Rank,
    position: usize,
}

/// Which pages are referred to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Rank {
    #[default]
    Roots,
    Tables,
    Pages,
}

/// The tree of references.
pub struct Tree {
    positions: FxHashMap<PageId, u32>,
    free: FreeMap,
    /// Leaf and group pages.
    pub tables: Level<TableEntry>,
    /// Table pages.
    pub roots: Level<PageRef>,
    /// Root pages.
    top: Vec<Option<PageRef>>,
}

impl Tree {
    /// A tree without pages.
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            positions: FxHashMap::default(),
            free: FreeMap::new(geometry.positions()),
            tables: Level::new(REFS_PER_TABLE),
            roots: Level::new(REFS_PER_ROOT),
            top: Vec::new(),
        }
    }

    /// Names the page that now describes `id`; returns the slot of the one before.
    pub fn put(&mut self, id: PageId, page: PageRef) -> Option<Slot> {
        let position = *self.positions.entry(id).or_insert_with(|| {
            self.free
                .take()
                .expect("invariant: pages are counted before they are created")
        });
        slot_of(
            self.tables
                .set(position as usize, Some(TableEntry { id, page })),
        )
    }

    /// Forgets `id`; returns the slot of its page.
    pub fn remove(&mut self, id: PageId) -> Option<Slot> {
        let position = self.positions.remove(&id)?;
        self.free.release(position);
        slot_of(self.tables.set(position as usize, None))
    }

    /// Names the page of table `number`; returns the slot of the one before.
    pub fn set_table(&mut self, number: usize, page: Option<PageRef>) -> Option<Slot> {
        self.roots.set(number, page).map(|before| before.slot)
    }

    /// Names the page of root `number`; returns the slot of the one before.
    pub fn set_root(&mut self, number: usize, page: Option<PageRef>) -> Option<Slot> {
        if self.top.len() <= number {
            self.top.resize(number + 1, None);
        }
        std::mem::replace(&mut self.top[number], page).map(|before| before.slot)
    }

    /// The root pages, for the superblock.
    pub fn top(&self) -> Vec<Option<PageRef>> {
        let used = self
            .top
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |last| last + 1);
        self.top[..used].to_vec()
    }

    /// Where the page is that describes `id`.
    pub fn find(&self, id: PageId) -> Option<PageRef> {
        match id {
            PageId::Root(number) => *self.top.get(number as usize)?,
            PageId::Table(number) => self.roots.get(number as usize),
            PageId::Leaf { .. } | PageId::Group { .. } => {
                let position = *self.positions.get(&id)?;
                Some(self.tables.get(position as usize)?.page)
            }
        }
    }

    /// References from a place on, at most `max` of them, those to roots first; and where the rest begins.
    pub fn refs(&self, from: TreePlace, max: usize) -> (Vec<(PageId, PageRef)>, Option<TreePlace>) {
        let TreePlace { rank, position } = from;
        let number = |at: usize| u32::try_from(at).expect("invariant: positions count in u32");
        let (refs, rest) = match rank {
            Rank::Roots => {
                let top = self.top.iter().enumerate();
                let roots = top.filter_map(|(at, page)| Some((PageId::Root(number(at)), (*page)?)));
                (roots.collect(), None)
            }
            Rank::Tables => {
                let (tables, rest) = self.roots.from(position, max);
                let tables = tables.into_iter();
                let tables = tables.map(|(at, page)| (PageId::Table(number(at)), page));
                (tables.collect(), rest)
            }
            Rank::Pages => {
                let (pages, rest) = self.tables.from(position, max);
                let pages = pages.into_iter().map(|(_, entry)| (entry.id, entry.page));
                (pages.collect(), rest)
            }
        };
        let next = match (rest, rank) {
            (Some(position), _) => Some(TreePlace { rank, position }),
            (None, Rank::Roots) => Some(Rank::Tables.begin()),
            (None, Rank::Tables) => Some(Rank::Pages.begin()),
            (None, Rank::Pages) => None,
        };
        (refs, next)
    }

    /// Takes over a table as it stands on disk; the id that stands twice, if any does.
    pub fn install(
        &mut self,
        number: usize,
        entries: Vec<Option<TableEntry>>,
    ) -> Result<(), PageId> {
        let first = number * REFS_PER_TABLE;
        for (position, entry) in (first..).zip(&entries) {
            let Some(entry) = entry else { continue };
            let position = u32::try_from(position).map_err(|_| entry.id)?;
            let is_new = self.positions.insert(entry.id, position).is_none();
            if !is_new || !self.free.take_at(position) {
                return Err(entry.id);
            }
            self.tables.set(position as usize, Some(*entry));
        }
        self.tables.dirty.remove(&number);
        Ok(())
    }

    /// Notes where the tables and roots on disk are.
    pub fn install_refs(&mut self, tables: &[(u32, PageRef)], top: Vec<Option<PageRef>>) {
        for (number, page) in tables {
            self.roots.set(*number as usize, Some(*page));
        }
        self.roots.dirty.clear();
        self.top = top;
    }
}

impl Rank {
    const fn begin(self) -> TreePlace {
        TreePlace {
            rank: self,
            position: 0,
        }
    }
}

fn slot_of(entry: Option<TableEntry>) -> Option<Slot> {
    entry.map(|entry| entry.page.slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::id::CopysetId;
    use ogee_proto::unit::ByteLen;

    fn tree() -> Tree {
        let (device, log) = (ByteLen::new(64 << 20), ByteLen::new(1 << 20));
        Tree::new(&Geometry::plan(device, log).unwrap())
    }

    fn group(part: u32) -> PageId {
        PageId::Group {
            copyset: CopysetId::new(1),
            part,
        }
    }

    fn page(raw: u32) -> PageRef {
        PageRef {
            slot: Slot::from_raw(raw).unwrap(),
            crc: raw,
        }
    }

    #[test]
    fn a_put_returns_the_slot_that_it_replaces() {
        let mut tree = tree();
        assert_eq!(tree.put(group(0), page(1)), None);
        assert_eq!(tree.put(group(1), page(2)), None);
        assert_eq!(tree.put(group(0), page(3)), Slot::from_raw(1));
        assert_eq!(tree.tables.take_dirty(), [0]);
        assert_eq!(tree.tables.take_dirty(), [0usize; 0]);
        assert_eq!(tree.remove(group(0)), Slot::from_raw(3));
        assert_eq!(tree.remove(group(0)), None);
        assert!(tree.tables.page(0).is_some());
        assert_eq!(tree.remove(group(1)), Slot::from_raw(2));
        assert!(tree.tables.page(0).is_none());
    }

    #[test]
    fn only_touched_tables_are_dirty() {
        let mut tree = tree();
        let per_table = u32::try_from(REFS_PER_TABLE).unwrap();
        for part in 0..per_table * 2 {
            tree.put(group(part), page(part + 1));
        }
        assert_eq!(tree.tables.take_dirty(), [0, 1]);
        tree.put(group(per_table), page(999));
        assert_eq!(tree.tables.take_dirty(), [1]);
        tree.set_table(1, Some(page(5)));
        assert_eq!(tree.roots.take_dirty(), [0]);
        tree.set_root(0, Some(page(6)));
        assert_eq!(tree.top(), [Some(page(6))]);
        assert_eq!(tree.set_root(0, None), Slot::from_raw(6));
        assert!(tree.top().is_empty());
    }

    #[test]
    fn one_who_goes_through_all_meets_each_reference_once() {
        let mut tree = tree();
        let per_table = u32::try_from(REFS_PER_TABLE).unwrap();
        for part in 0..per_table + 3 {
            tree.put(group(part), page(part + 1));
        }
        tree.remove(group(7));
        tree.set_table(0, Some(page(500)));
        tree.set_table(1, Some(page(501)));
        tree.set_root(0, Some(page(502)));
        let (mut met, mut at) = (Vec::new(), Some(TreePlace::default()));
        while let Some(from) = at {
            let (refs, next) = tree.refs(from, 50);
            assert!(refs.len() <= 50);
            met.extend(refs);
            at = next;
        }
        assert_eq!(met.len(), 1 + 2 + REFS_PER_TABLE + 2);
        for (id, page) in met {
            assert_eq!(tree.find(id), Some(page), "{id}");
        }
        assert_eq!(tree.find(group(7)), None);
    }

    #[test]
    fn an_id_that_stands_twice_is_refused() {
        let entry = Some(TableEntry {
            id: group(0),
            page: page(1),
        });
        assert_eq!(tree().install(0, vec![entry, entry]), Err(group(0)));
        assert_eq!(tree().install(0, vec![entry, None]), Ok(()));
    }
}
