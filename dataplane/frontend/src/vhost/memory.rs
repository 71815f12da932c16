//! Guest memory as the VM's process shares it.
//!
//! *Place*: under everything here that touches the guest. *Owner*: shared (`Arc`): the ring, and each request under
//! way, keep the table that they began with, so memory is unmapped behind the last of them.
//! *Invariants*: nothing outside a mapped region is ever addressed. Regions do not overlap and lie within their
//! files. What the guest writes is read once, by volatile copies: it may change it at any time.
//! *On failure*: a table that cannot be mapped is refused; the one before stays.
//!
//! If the VM's process shrinks a file after it was mapped, touching it kills this process. Files without the seal
//! that forbids it are told of in the log.

use super::chain::Part;
use crate::limit::{DIRECT_LEN_MIN, MEMORY_REGIONS_MAX};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use ogee_runtime::Target;
use ogee_runtime::area::{self, Announced, announce};
use ogee_runtime::channel::Gate;
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use vm_memory::mmap::{GuestRegionMmap, MmapRegion};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress,
};

/// The memory of a guest, by its own addresses.
pub(super) type GuestMemory = GuestMemoryMmap<()>;

/// One region, as told by the VM's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RegionSpec {
    /// Where the guest sees it.
    pub(super) guest: u64,
    /// Where the VM's process sees it: addresses of rings come in its terms.
    pub(super) user: u64,
    pub(super) len: u64,
    /// Where it begins in its file.
    pub(super) file_offset: u64,
}

#[derive(Debug, Clone)]
struct Region {
    spec: RegionSpec,
    mapped: Arc<GuestRegionMmap<()>>,
}

/// Why a region or table is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("{count} memory regions: at most {MEMORY_REGIONS_MAX}")]
    TooMany { count: usize },
    #[error("{regions} memory regions with {files} files")]
    Files { regions: usize, files: usize },
    #[error("a memory region of {len} bytes at {guest:#x} cannot be mapped: {cause}")]
    Map { guest: u64, len: u64, cause: String },
    #[error("memory regions overlap, or there is none: {0}")]
    Table(String),
    #[error("there is no memory region of {len} bytes at {guest:#x}")]
    Unknown { guest: u64, len: u64 },
}

/// A table of regions. Cheap to clone through its `Arc`.
#[derive(Debug, Clone)]
pub(super) struct MemoryTable {
    regions: Vec<Region>,
    memory: GuestMemory,
}

impl MemoryTable {
    /// Maps a whole table.
    pub(super) fn map(specs: &[RegionSpec], files: Vec<File>) -> Result<Self, MemoryError> {
        if specs.len() != files.len() {
            let (regions, files) = (specs.len(), files.len());
            return Err(MemoryError::Files { regions, files });
        }
        let regions = specs.iter().zip(files).map(|(spec, file)| map(*spec, file));
        Self::of(regions.collect::<Result<_, _>>()?)
    }

    /// The same with one more.
    pub(super) fn with(&self, spec: RegionSpec, file: File) -> Result<Self, MemoryError> {
        let mut regions = self.regions.clone();
        regions.push(map(spec, file)?);
        Self::of(regions)
    }

    /// The same without one.
    pub(super) fn without(&self, spec: RegionSpec) -> Result<Self, MemoryError> {
        let RegionSpec { guest, len, .. } = spec;
        let is_it = |region: &Region| region.spec.guest == guest && region.spec.len == len;
        let Some(at) = self.regions.iter().position(is_it) else {
            return Err(MemoryError::Unknown { guest, len });
        };
        let mut regions = self.regions.clone();
        regions.remove(at);
        Self::of(regions)
    }

    fn of(mut regions: Vec<Region>) -> Result<Self, MemoryError> {
        if regions.len() > MEMORY_REGIONS_MAX {
            let count = regions.len();
            return Err(MemoryError::TooMany { count });
        }
        regions.sort_by_key(|region| region.spec.guest);
        let mapped = regions.iter().map(|region| Arc::clone(&region.mapped));
        let memory = GuestMemory::from_arc_regions(mapped.collect());
        let memory = memory.map_err(|error| MemoryError::Table(error.to_string()))?;
        Ok(Self { regions, memory })
    }

    /// Whether there is this region and no other.
    pub(super) fn is_only(&self, guest: u64, len: u64) -> bool {
        matches!(&*self.regions, [region] if region.spec.guest == guest && region.spec.len == len)
    }

    /// The memory by guest addresses.
    pub(super) const fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Where the guest sees what the VM's process sees at `user`.
    pub(super) fn guest_address(&self, user: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let inside = user.checked_sub(region.spec.user)?;
            let guest = region.spec.guest.checked_add(inside)?;
            (inside < region.spec.len).then_some(GuestAddress(guest))
        })
    }
}

/// The regions of a guest, as network adapters are told of them.
#[derive(Default)]
pub(super) struct AnnouncedRegions(Vec<(Arc<GuestRegionMmap<()>>, Option<Announced>)>);

impl AnnouncedRegions {
    /// Announces the regions of `table` that are new, and withdraws those that are gone. A table that is told as a whole is
    /// mapped anew, so all of its regions are new, also where they are of the same files: who has registered the ones before
    /// lets go of them first, and what is under way on them keeps them until it is over.
    pub(super) fn follow(&mut self, table: &MemoryTable) {
        let before = std::mem::take(&mut self.0);
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        for region in &table.regions {
            let is_it = |known: &&mut Option<(Arc<_>, _)>| {
                let known = known.as_ref();
                known.is_some_and(|(mapped, _)| Arc::ptr_eq(mapped, &region.mapped))
            };
            let known = before.iter_mut().find(is_it).and_then(Option::take);
            let announced = known.unwrap_or_else(|| {
                let mapped = Arc::clone(&region.mapped);
                let announced = announced(&mapped);
                (mapped, announced)
            });
            self.0.push(announced);
        }
    }

    /// Withdraws all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn announced(region: &Arc<GuestRegionMmap<()>>) -> Option<Announced> {
    let start = region.get_host_address(MemoryRegionAddress(0)).ok()?;
    let (start, len) = (NonNull::new(start)?, usize::try_from(region.len()).ok()?);
    let owner = Rc::new(Arc::clone(region));
    // SAFETY: mapped as long as the region lives, which the owner holds.
    Some(unsafe { announce(start, len, "memory of a guest", owner) })
}

/// A guest's memory for a request, and a gate that those pass who let others write to it.
#[derive(Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) table: &'a Arc<MemoryTable>,
    pub(super) lent: &'a Gate,
}

impl Guest<'_> {
    /// Where `parts` lie, if that is one stretch, long enough to be worth it, that others can be let write to.
    pub(super) fn target(&self, parts: &[Part]) -> Option<Target> {
        let (first, rest) = parts.split_first()?;
        let mut len = u64::from(first.len);
        for part in rest {
            if first.at.0.checked_add(len) != Some(part.at.0) {
                return None;
            }
            len += u64::from(part.len);
        }
        let len = usize::try_from(len).ok()?;
        if len < DIRECT_LEN_MIN {
            return None;
        }
        // Of one region.
        let slice = self.table.memory.get_slice(first.at, len).ok()?;
        let start = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        if !area::find_at(start.addr().get(), len)?.is_registered() {
            return None;
        }
        let owner = Rc::new((Arc::clone(self.table), self.lent.enter()?));
        // SAFETY: mapped, and writable, as long as its table lives, which the owner holds. This process has no references
        // into a guest's memory, which it copies by raw pointers, on this thread; the guest is another process.
        Some(unsafe { Target::new(start, len, owner) })
    }
}

fn map(spec: RegionSpec, file: File) -> Result<Region, MemoryError> {
    let RegionSpec { guest, len, .. } = spec;
    let failed = |cause: String| MemoryError::Map { guest, len, cause };
    warn_unless_sealed(&file, guest);
    let size = usize::try_from(len).map_err(|_| failed("it is too long".to_owned()))?;
    let mapped = map_shared(file, spec.file_offset, size).map_err(failed)?;
    let region = GuestRegionMmap::new(mapped, GuestAddress(guest));
    let region = region.ok_or_else(|| failed("it ends beyond all addresses".to_owned()))?;
    let mapped = Arc::new(region);
    Ok(Region { spec, mapped })
}

/// Maps a part of a file that another process maps, too.
pub(super) fn map_shared(file: File, offset: u64, size: usize) -> Result<MmapRegion<()>, String> {
    if size == 0 {
        return Err("it is empty".to_owned());
    }
    // Touching what lies behind the end of a file would kill this process.
    let found = file.metadata().map_err(|error| error.to_string())?.len();
    let end = offset.checked_add(size as u64);
    if end.is_none_or(|end| end > found) {
        return Err(format!(
            "{size} bytes from {offset} on, of a file of {found}"
        ));
    }
    MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(|error| error.to_string())
}

fn warn_unless_sealed(file: &File, guest: u64) {
    let seals: io::Result<i32> = fcntl(file, FcntlArg::F_GET_SEALS).map_err(Into::into);
    let is_sealed = seals
        .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK));
    if !is_sealed {
        tracing::debug!(
            guest = format_args!("{guest:#x}"),
            "a memory region can be shrunk by the VM's process, which would end this one"
        );
    }
}
