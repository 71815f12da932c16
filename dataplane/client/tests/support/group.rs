//! The replicated state of one copyset: blocks, seal, dedupe. All replicas share it.

use ogee_proto::limit::{BLOCK_SIZE, SESSION_WINDOW_MAX};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::Payload;
use std::collections::{BTreeMap, BTreeSet};

/// One copyset.
pub struct Group {
    /// The node that leads; none while an election is on.
    pub leader: Option<usize>,
    /// Nodes with a replica.
    pub hosts: Vec<usize>,
    /// Seals that changed the session.
    pub seals: u32,
    sealed: (u64, u32, u64),
    watermark: u64,
    applied: BTreeSet<u64>,
    blocks: BTreeMap<(u32, u32), Vec<u8>>,
    /// How often each (client, sequence) took effect.
    pub effects: BTreeMap<(u64, u64), u32>,
}

/// What a command came to.
pub struct Applied {
    pub status: Status,
    pub meta: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Applied {
    fn status(status: Status) -> Self {
        Self {
            status,
            meta: Vec::new(),
            payload: Vec::new(),
        }
    }
}

impl Group {
    pub fn new(leader: usize, hosts: Vec<usize>) -> Self {
        Self {
            leader: Some(leader),
            hosts,
            seals: 0,
            sealed: (0, 0, 0),
            watermark: 0,
            applied: BTreeSet::new(),
            blocks: BTreeMap::new(),
            effects: BTreeMap::new(),
        }
    }

    /// Forgets the seal, as a group does that was restored without it.
    pub fn unseal(&mut self) {
        self.sealed = (0, 0, 0);
    }

    pub fn apply(&mut self, header: &FrameHeader, payload: &Payload) -> Applied {
        match header.kind {
            FrameKind::Seal => Applied::status(self.seal(header)),
            FrameKind::Read => self.read(header),
            FrameKind::BlockStatus => self.block_status(header),
            _ => Applied::status(self.mutate(header, payload)),
        }
    }

    fn seal(&mut self, header: &FrameHeader) -> Status {
        let asked = (
            header.epoch.get(),
            header.incarnation.get(),
            header.client.get(),
        );
        let is_same_time = (asked.0, asked.1) == (self.sealed.0, self.sealed.1);
        if (asked.0, asked.1) < (self.sealed.0, self.sealed.1)
            || is_same_time && asked.2 != self.sealed.2
        {
            return Status::Fenced;
        }
        if asked != self.sealed {
            self.sealed = asked;
            self.watermark = 0;
            self.applied.clear();
            self.seals += 1;
        }
        Status::Ok
    }

    fn mutate(&mut self, header: &FrameHeader, payload: &Payload) -> Status {
        let asked = (
            header.epoch.get(),
            header.incarnation.get(),
            header.client.get(),
        );
        let (sequence, watermark) = (header.sequence.get(), header.watermark.get());
        if asked != self.sealed {
            return if (asked.0, asked.1) > (self.sealed.0, self.sealed.1) {
                Status::NotSealed
            } else {
                Status::Fenced
            };
        }
        if sequence == 0 || watermark >= sequence || sequence - watermark > SESSION_WINDOW_MAX {
            return Status::BadRequest;
        }
        if sequence <= self.watermark {
            return Status::Stale;
        }
        if watermark > self.watermark {
            self.watermark = watermark;
            self.applied = self.applied.split_off(&(watermark + 1));
        }
        if self.applied.insert(sequence) {
            *self.effects.entry((asked.2, sequence)).or_default() += 1;
            self.take_effect(header, payload);
        }
        Status::Ok
    }

    fn take_effect(&mut self, header: &FrameHeader, payload: &Payload) {
        for (at, block) in blocks(header).enumerate() {
            let place = (header.key.chunk.get(), block);
            match header.kind {
                FrameKind::Write => {
                    let bytes = &payload[at * BLOCK_SIZE..(at + 1) * BLOCK_SIZE];
                    self.blocks.insert(place, bytes.to_vec());
                }
                FrameKind::WriteZeroes => {
                    self.blocks.insert(place, vec![0; BLOCK_SIZE]);
                }
                _ => {
                    self.blocks.remove(&place);
                }
            }
        }
    }

    fn read(&self, header: &FrameHeader) -> Applied {
        if header.epoch.get() < self.sealed.0 {
            return Applied::status(Status::Fenced);
        }
        let mut payload = Vec::new();
        for block in blocks(header) {
            match self.blocks.get(&(header.key.chunk.get(), block)) {
                Some(bytes) => payload.extend_from_slice(bytes),
                None => payload.extend_from_slice(&[0; BLOCK_SIZE]),
            }
        }
        Applied {
            payload,
            ..Applied::status(Status::Ok)
        }
    }

    fn block_status(&self, header: &FrameHeader) -> Applied {
        let mut meta = vec![0; blocks(header).count().div_ceil(8)];
        for (at, block) in blocks(header).enumerate() {
            if self.blocks.contains_key(&(header.key.chunk.get(), block)) {
                meta[at / 8] |= 1 << (at % 8);
            }
        }
        Applied {
            meta,
            ..Applied::status(Status::Ok)
        }
    }
}

fn blocks(header: &FrameHeader) -> std::ops::Range<u32> {
    let block = u32::try_from(BLOCK_SIZE).unwrap();
    header.offset / block..(header.offset + header.length) / block
}
