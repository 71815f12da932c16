//! Payloads that lie in extents of the store instead of in a batch.
//!
//! *Place*: an entry's record names the extents and the CRC32C of each block in a *side area* behind
//! its head; the flusher writes the data beside the batch, in the same round. *Owner*: shared by
//! whatever still needs the extents: the entry in memory and as found on the medium, records in the
//! queue and in flight, readers.
//! *Invariants*: the extents are the log's until the last of them is gone, and the durable side lets
//! go only when the record that ends the entry is durable; a block is returned only if it matches its
//! checksum. *On failure*: once the log has stopped, nothing is given back: what is on the medium is
//! not known then.

use crate::limit::PAGE;
use ogee_device::{Device, DeviceError};
use ogee_proto::checksum::crc32c;
use ogee_proto::limit::{BLOCKS_PER_EXTENT, EXTENT_SIZE};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Gather, Payload, seeded_bug};
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// Bytes that a record says of one extent: its address, and a checksum per block.
const SIDE_LEN_PER_EXTENT: usize = 8 + 4 * BLOCKS_PER_EXTENT;

/// Bytes of the side area of a record whose payload of `payload_len` is placed.
pub(crate) const fn side_len(payload_len: usize) -> usize {
    payload_len / EXTENT_SIZE * SIDE_LEN_PER_EXTENT
}

/// Who gets the extents back.
pub(crate) struct Owner {
    release: Box<dyn Fn(ByteOffset)>,
    is_open: Cell<bool>,
}

impl Owner {
    pub(crate) fn new(release: impl Fn(ByteOffset) + 'static) -> Rc<Self> {
        Rc::new(Self {
            release: Box::new(release),
            is_open: Cell::new(true),
        })
    }

    /// From now on nothing is given back.
    pub(crate) fn close(&self) {
        self.is_open.set(false);
    }
}

/// Where a payload lies, and what its blocks must match.
pub struct Placed {
    places: Vec<ByteOffset>,
    crcs: Vec<u32>,
    /// Not set while the log is being opened: until then whoever opens it knows no pins.
    owner: OnceCell<Rc<Owner>>,
}

impl Placed {
    /// A payload with these block checksums, to be written to `places`.
    pub(crate) fn new(places: Vec<ByteOffset>, crcs: Vec<u32>, owner: &Rc<Owner>) -> Rc<Self> {
        let placed = Self {
            places,
            crcs,
            owner: OnceCell::new(),
        };
        placed.give_to(owner);
        Rc::new(placed)
    }

    /// The extents belong to `owner`, who gets them back.
    pub(crate) fn give_to(&self, owner: &Rc<Owner>) {
        let given = self.owner.set(Rc::clone(owner));
        assert!(given.is_ok(), "extents have one owner");
    }

    /// Where each [`EXTENT_SIZE`] of the payload lies, on the device of the data.
    #[must_use]
    pub fn places(&self) -> &[ByteOffset] {
        &self.places
    }

    /// CRC32C of each block of the payload.
    #[must_use]
    pub fn crcs(&self) -> &[u32] {
        &self.crcs
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> usize {
        self.places.len() * EXTENT_SIZE
    }

    /// Writes the side area, of [`side_len`] bytes.
    pub(crate) fn encode(&self, area: &mut [u8]) {
        let (places, crcs) = area.split_at_mut(self.places.len() * 8);
        for (bytes, place) in places.chunks_exact_mut(8).zip(&self.places) {
            bytes.copy_from_slice(&place.get().to_le_bytes());
        }
        for (bytes, crc) in crcs.chunks_exact_mut(4).zip(&self.crcs) {
            bytes.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Reads the side area of a payload of `payload_len`; `None` if it cannot be one.
    pub(crate) fn decode(area: &[u8], payload_len: usize) -> Option<Rc<Self>> {
        let is_whole = payload_len > 0
            && payload_len.is_multiple_of(EXTENT_SIZE)
            && area.len() == side_len(payload_len);
        if !is_whole {
            return None;
        }
        let (places, crcs) = area.split_at_checked(payload_len / EXTENT_SIZE * 8)?;
        let (places, _) = places.as_chunks::<8>();
        let (crcs, _) = crcs.as_chunks::<4>();
        let places: Vec<ByteOffset> = (places.iter())
            .map(|bytes| ByteOffset::new(u64::from_le_bytes(*bytes)))
            .collect();
        // Where it lies on the device is checked when it is read; that it has an end, here.
        let extent = ByteLen::from_usize(EXTENT_SIZE);
        let has_end = |place: &ByteOffset| place.checked_add(extent).is_some();
        if !places.iter().all(has_end) {
            return None;
        }
        Some(Rc::new(Self {
            places,
            crcs: crcs
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .collect(),
            owner: OnceCell::new(),
        }))
    }

    /// What to write where: neighbours in one request.
    pub(crate) fn writes(&self, payload: &Payload) -> Vec<(ByteOffset, Gather)> {
        let runs = self.runs(0..payload.len()).into_iter();
        runs.map(|run| {
            let mut data = Gather::new();
            data.push_payload(payload.slice(run.part));
            (run.at, data)
        })
        .collect()
    }

    /// Reads a part of the payload, verified; `None` if a block of it does not match.
    ///
    /// # Errors
    /// The device's.
    pub(crate) async fn read(
        &self,
        device: &Device,
        part: Range<usize>,
    ) -> Result<Option<Payload>, (ByteOffset, DeviceError)> {
        let blocks = part.start / PAGE * PAGE..part.end.next_multiple_of(PAGE);
        let mut found = Vec::new();
        for run in self.runs(blocks.clone()) {
            let len = ByteLen::from_usize(run.part.len());
            let read = device.read(run.at, len).await;
            let bytes = Payload::from(read.map_err(|error| (run.at, error))?);
            let crcs = &self.crcs[run.part.start / PAGE..run.part.end / PAGE];
            let mut checked = bytes.chunks_exact(PAGE).zip(crcs);
            let is_sound = checked.all(|(block, crc)| crc32c(block) == *crc);
            if !is_sound && !seeded_bug!("log-payload-not-verified") {
                return Ok(None);
            }
            found.push(bytes);
        }
        let all = join(found);
        let start = part.start - blocks.start;
        Ok(Some(all.slice(start..start + part.len())))
    }

    /// As [`read`](Self::read); what does not match, or could not be read, is looked at twice: it may
    /// only have been garbled on its way.
    pub(crate) async fn read_twice(
        &self,
        device: &Device,
        part: Range<usize>,
    ) -> Result<Option<Payload>, (ByteOffset, DeviceError)> {
        match self.read(device, part.clone()).await {
            Ok(Some(payload)) => Ok(Some(payload)),
            _ => self.read(device, part).await,
        }
    }

    /// Whether all of the payload is there.
    pub(crate) async fn is_sound(&self, device: &Device) -> bool {
        matches!(self.read_twice(device, 0..self.len()).await, Ok(Some(_)))
    }

    /// The pieces of `part`, which is whole blocks, that lie together.
    fn runs(&self, part: Range<usize>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut next = part.start;
        while next < part.end {
            let (extent, into) = (next / EXTENT_SIZE, next % EXTENT_SIZE);
            let end = part.end.min((extent + 1) * EXTENT_SIZE);
            let at = self.places[extent].add(ByteLen::from_usize(into));
            match runs.last_mut().filter(|run| run.end() == at) {
                Some(run) => run.part.end = end,
                None => runs.push(Run {
                    at,
                    part: next..end,
                }),
            }
            next = end;
        }
        runs
    }
}

/// A piece of a payload that lies together.
struct Run {
    at: ByteOffset,
    part: Range<usize>,
}

impl Run {
    fn end(&self) -> ByteOffset {
        self.at.add(ByteLen::from_usize(self.part.len()))
    }
}

fn join(mut parts: Vec<Payload>) -> Payload {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut joined = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in &parts {
        joined.extend_from_slice(part);
    }
    Payload::from(joined)
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.get().filter(|owner| owner.is_open.get()) {
            self.places.iter().for_each(|place| (owner.release)(*place));
        }
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        (&self.places, &self.crcs) == (&other.places, &other.crcs)
    }
}

impl Eq for Placed {}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::checksum::crc32c_blocks;
    use ogee_runtime::Buffer;
    use ogee_runtime::executor::block_on;
    use std::cell::RefCell;

    const MIB: u64 = 1 << 20;

    /// Three extents: two neighbours, and one before them.
    fn placed(payload: &[u8], given: &Rc<RefCell<Vec<u64>>>) -> Rc<Placed> {
        let places = [MIB, MIB + (64 << 10), 128 << 10].map(ByteOffset::new);
        let given = Rc::clone(given);
        let owner = Owner::new(move |at| given.borrow_mut().push(at.get()));
        Placed::new(places.to_vec(), crc32c_blocks(payload).0, &owner)
    }

    fn bytes() -> Payload {
        let words =
            (0..3 * EXTENT_SIZE as u64 / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Payload::from(words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
    }

    #[test]
    fn any_part_is_read_back_from_where_it_was_put() {
        block_on(async {
            let device = Device::memory(ByteLen::new(2 * MIB));
            let (payload, given) = (bytes(), Rc::default());
            let placed = placed(&payload, &given);
            let writes = placed.writes(&payload);
            let lens: Vec<usize> = writes.iter().map(|(_, data)| data.len()).collect();
            assert_eq!(lens, [2 * EXTENT_SIZE, EXTENT_SIZE]);
            for (at, data) in writes {
                device.write(at, data).await.unwrap();
            }
            for part in [
                0..3 * EXTENT_SIZE,
                0..PAGE,
                EXTENT_SIZE - PAGE..2 * EXTENT_SIZE + PAGE,
                100..200,
                2 * EXTENT_SIZE - 5..2 * EXTENT_SIZE + 5,
                7..7,
            ] {
                let read = placed.read(&device, part.clone()).await.unwrap();
                assert!(read.unwrap()[..] == payload[part]);
            }
            let bad = ByteOffset::new(MIB + 3 * PAGE as u64);
            device.write(bad, Buffer::zeroed(PAGE)).await.unwrap();
            let around = placed.read(&device, 0..4 * PAGE).await.unwrap();
            assert!(around.is_none());
            let beside = placed.read(&device, 0..3 * PAGE).await.unwrap();
            assert!(beside.is_some());
        });
    }

    #[test]
    fn a_payload_that_a_device_can_take_is_written_from_where_it_is() {
        block_on(async {
            let (device, control) = Device::memory_with_control(ByteLen::new(2 * MIB));
            let payload = Payload::from(Buffer::copy_from(&bytes()));
            let mut parts = [0..2 * EXTENT_SIZE, 2 * EXTENT_SIZE..3 * EXTENT_SIZE].into_iter();
            for (at, data) in placed(&payload, &Rc::default()).writes(&payload) {
                let part = &payload[parts.next().unwrap()];
                device.write_durable(at, data).await.unwrap();
                assert_eq!(control.written_from(), [(part.as_ptr().addr(), part.len())]);
            }
        });
    }

    #[test]
    fn the_side_area_says_all_of_it() {
        let (payload, given) = (bytes(), Rc::default());
        let placed = placed(&payload, &given);
        let mut area = vec![0; side_len(payload.len())];
        placed.encode(&mut area);
        let decoded = Placed::decode(&area, payload.len()).unwrap();
        assert_eq!(decoded, placed);
        assert!(Placed::decode(&area, payload.len() - EXTENT_SIZE).is_none());
        assert!(Placed::decode(&area[..area.len() - 1], payload.len()).is_none());
        assert!(Placed::decode(&[], 0).is_none());
    }

    /// Nothing but a checksum stands between the medium and the sum of an address and a length.
    #[test]
    fn an_extent_that_would_end_beyond_all_addresses_is_refused() {
        let (payload, given) = (bytes(), Rc::default());
        let mut area = vec![0; side_len(payload.len())];
        placed(&payload, &given).encode(&mut area);
        let highest = u64::MAX - EXTENT_SIZE as u64;
        area[8..16].copy_from_slice(&highest.to_le_bytes());
        let decoded = Placed::decode(&area, payload.len()).unwrap();
        block_on(async {
            let device = Device::memory(ByteLen::new(2 * MIB));
            assert!(!decoded.is_sound(&device).await);
        });
        area[8..16].copy_from_slice(&(highest + 1).to_le_bytes());
        assert!(Placed::decode(&area, payload.len()).is_none());
    }

    #[test]
    fn extents_are_given_back_once_and_not_by_a_log_that_has_stopped() {
        let (payload, given) = (bytes(), Rc::default());
        let first = placed(&payload, &given);
        let second = Rc::clone(&first);
        drop(first);
        assert!(given.borrow().is_empty());
        drop(second);
        assert_eq!(*given.borrow(), [MIB, MIB + (64 << 10), 128 << 10]);
        given.borrow_mut().clear();
        let last = placed(&payload, &given);
        last.owner.get().unwrap().close();
        drop(last);
        assert!(given.borrow().is_empty());
    }
}
