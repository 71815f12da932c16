"""Damages blocks of a volume in a chunkserver's store, behind its back, and reads them through NBD.

    fill  --uri URI --blocks N              every block gets its number and a stamp; whole extents
    flip  --uri URI --store FILE --blocks N --count C --seed S --used FILE --lead COMMAND
                                            flips one bit in each of C blocks of the store, reads each
                                            through the volume, then looks whether the store has it right
                                            again; COMMAND, for bash, has the chunkserver of the store lead
    rot   --store FILE --blocks N --count C --seed S --used FILE [--how flip|misdirect]
                                            damages only, blocks in which no other store is damaged: flips a bit of
                                            each; or, of each two, has what was written to the first go to the second,
                                            while the first keeps what it had before that
    whole --store FILE --used FILE          what rot has damaged there is right again
    rotmeta --store FILE --count C --seed S flips a bit in one copy of each of C pages that map chunks, and in one superblock
    wholemeta --store FILE                  both copies of all that the superblocks name are whole, and the superblocks are
                                            the same; fails as well while a checkpoint runs
    check --uri URI --blocks N              every block reads as it was filled
    differ --store FILE --blocks N --count C --to STAMP
                                            of a chunkserver that does not run: the first C blocks of the volume get the
                                            contents of another stamp, and checksums that fit them, as after writes that
                                            the device took and lost

A block is found in the store by its contents, in the region that the superblock names for extents
(dataplane/store/src/format.rs): never in the log or in metadata. Every read must give the right bytes
or an error. Prints one line of JSON; ends with 1 if wrong bytes were returned, or if blocks are not
right again.
"""

import argparse
import errno
import json
import mmap
import os
import random
import struct
import subprocess
import sys

import nbd

BLOCK = 4096
EXTENT = 65536
STEP = 4 << 20


CRC_TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    CRC_TABLE.append(byte)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def content(block, stamp):
    return struct.pack("<QQ", block, stamp) * (BLOCK // 16)


class Store:
    """A store as a file, past every cache."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_DIRECT)
        head = self.read(0, BLOCK)
        if head[:8] != b"OGEESTOR":
            sys.exit(f"{path} is not a store")
        (start,) = struct.unpack_from("<Q", head, 96)
        (count,) = struct.unpack_from("<I", head, 108)
        self.first, self.end = start, start + count * EXTENT

    def read(self, at, length):
        buffer = mmap.mmap(-1, length)
        found = os.preadv(self.file, [buffer], at)
        return bytes(buffer[:found])

    def flip(self, at, bit):
        buffer = mmap.mmap(-1, BLOCK)
        os.preadv(self.file, [buffer], at)
        buffer[bit // 8] ^= 1 << (bit % 8)
        os.pwritev(self.file, [buffer], at)
        os.fsync(self.file)

    def write(self, at, data):
        buffer = mmap.mmap(-1, len(data))
        buffer[:] = bytes(data)
        os.pwritev(self.file, [buffer], at)
        os.fsync(self.file)

    def find(self, stamps):
        """Block number -> offset, for blocks that hold the stamp they should."""
        places, at = {}, self.first
        while at < self.end:
            data_at = self.data_from(at)
            if data_at is None:
                break
            at = max(at, data_at - data_at % EXTENT)
            data = self.read(at, min(STEP, self.end - at))
            for offset in range(0, len(data), BLOCK):
                block, stamp = struct.unpack_from("<QQ", data, offset)
                if stamps.get(block) != stamp or stamp == 0:
                    continue
                if data[offset : offset + BLOCK] == content(block, stamp):
                    places.setdefault(block, []).append(at + offset)
            at += STEP
        return places

    def data_from(self, at):
        """Where the next bytes are that the file has: stores are sparse."""
        try:
            return os.lseek(self.file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise


def fill(args, handle):
    for first in range(0, args.blocks, EXTENT // BLOCK):
        data = b"".join(content(block, args.stamp) for block in range(first, first + EXTENT // BLOCK))
        handle.pwrite(data, first * BLOCK)
    print(json.dumps({"filled": args.blocks}))
    return 0


class Tree:
    """The metadata of a store that nobody uses: dataplane/store/src/format.rs."""

    LEAF, TABLE, ROOT = 1, 3, 4
    EXTENTS, PRESENT, SUMS = 64, 64 + 52 * 4, 64 + 52 * 6

    def __init__(self, store):
        self.store = store
        copies = [store.read(at, BLOCK) for at in (0, 64 << 10)]
        intact = [copy for copy in copies if crc32c(copy[:4092]) == struct.unpack_from("<I", copy, 4092)[0]]
        self.head = bytearray(max(intact, key=lambda copy: struct.unpack_from("<Q", copy, 48)))
        (self.start,) = struct.unpack_from("<Q", self.head, 88)
        (self.slots,) = struct.unpack_from("<I", self.head, 104)
        self.pages, self.leaves = {}, {}
        (roots,) = struct.unpack_from("<I", self.head, 124)
        for root_at in range(128, 128 + 8 * roots, 8):
            (root,) = struct.unpack_from("<I", self.head, root_at)
            for table_at in range(64, 64 + 8 * 504, 8):
                (table,) = struct.unpack_from("<I", self.page(root), table_at) if root else (0,)
                for leaf_at in range(64, 64 + 24 * 168, 24):
                    (leaf,) = struct.unpack_from("<I", self.page(table), leaf_at) if table else (0,)
                    if leaf and self.page(leaf)[10] == self.LEAF:
                        self.add(leaf, ((table, leaf_at), (root, table_at), (None, root_at)))

    def page(self, slot):
        if slot not in self.pages:
            self.pages[slot] = bytearray(self.store.read(self.start + (slot - 1) * BLOCK, BLOCK))
        return self.pages[slot]

    def copy_at(self, copy, slot):
        return self.start + (copy * self.slots + slot - 1) * BLOCK

    def add(self, slot, parents):
        for place, extent in enumerate(struct.unpack_from("<52I", self.page(slot), self.EXTENTS)):
            if extent:
                self.leaves[self.store.first + (extent - 1) * EXTENT] = (slot, place, parents)

    def exchange(self, at, data):
        """Gives a block in the extents other contents, and its checksum; False if no chunk has it there."""
        slot, place, parents = self.leaves.get(at - at % EXTENT, (0, 0, ()))
        inner = at % EXTENT // BLOCK
        if not slot:
            return False
        page = self.page(slot)
        (present,) = struct.unpack_from("<H", page, self.PRESENT + 2 * place)
        if not present >> inner & 1:
            return False
        block = (page[11] * 52 + place) * 16 + inner
        salt = self.head[16:32] + page[40:52] + page[56:64] + struct.pack("<H", block)
        struct.pack_into("<I", page, self.SUMS + 4 * (place * 16 + inner), crc32c(salt + data))
        self.store.write(at, data)
        for parent, entry in parents:
            crc = crc32c(page[4:])
            struct.pack_into("<I", page, 0, crc)
            for copy in range(2):
                self.store.write(self.copy_at(copy, slot), page)
            slot, page = parent, self.head if parent is None else self.page(parent)
            struct.pack_into("<I", page, entry + 4, crc)
        struct.pack_into("<I", self.head, 4092, crc32c(self.head[:4092]))
        for at in (0, 64 << 10):
            self.store.write(at, self.head)
        return True


def differ(args):
    store = Store(args.store)
    tree, exchanged = Tree(store), 0
    for block, offsets in store.find({block: args.stamp for block in range(args.count)}).items():
        exchanged += any([tree.exchange(at, content(block, args.to)) for at in offsets])
    print(json.dumps({"exchanged": exchanged}))
    return 0 if exchanged == args.count else 1


def rotmeta(args):
    store = Store(args.store)
    tree, chance = Tree(store), random.Random(args.seed)
    slots = sorted({slot for slot, _, _ in tree.leaves.values()})
    hit = chance.sample(slots, min(args.count, len(slots)))
    for slot in hit:
        store.flip(tree.copy_at(chance.randrange(2), slot), chance.randrange(BLOCK * 8))
    store.flip(chance.choice([0, 64 << 10]), chance.randrange(BLOCK * 8))
    print(json.dumps({"damaged": len(hit)}))
    return 0 if hit else 1


def wholemeta(args):
    store = Store(args.store)
    heads = [store.read(at, BLOCK) for at in (0, 64 << 10)]
    tree = Tree(store)
    bad = sum(crc32c(head[:4092]) != struct.unpack_from("<I", head, 4092)[0] for head in heads)
    for slot, page in tree.pages.items():
        for copy in range(2):
            there = store.read(tree.copy_at(copy, slot), BLOCK)
            bad += there != page or crc32c(there[4:]) != struct.unpack_from("<I", there, 0)[0]
    bad += heads[0] != heads[1] or heads[0] != store.read(0, BLOCK)
    print(json.dumps({"pages": len(tree.pages), "bad": bad}))
    return 1 if bad else 0


def read_back(handle, block):
    try:
        return bytes(handle.pread(BLOCK, block * BLOCK))
    except nbd.Error as error:
        if error.errnum != errno.EIO:
            raise
        return None


def used_blocks(args):
    """What was flipped before: block -> [store, offsets]."""
    if not os.path.exists(args.used):
        return {}
    with open(args.used, encoding="ascii") as file:
        return {int(block): where for block, where in json.load(file).items()}


def misdirected(args, victims):
    """What blocks hold after writes that went to a neighbour's place: block -> contents."""
    pairs = iter(victims)
    for first, second in zip(pairs, pairs):
        yield first, content(first, args.stamp - 1)
        yield second, content(first, args.stamp)


def damage(args, store):
    """Damages each copy that the store has of some blocks that were not damaged before."""
    used = used_blocks(args)
    places = store.find({block: args.stamp for block in range(args.blocks) if block not in used})
    if len(places) < args.count:
        sys.exit(f"only {len(places)} blocks stand in the extents of {args.store}")
    chance = random.Random(args.seed)
    victims = {block: places[block] for block in chance.sample(sorted(places), args.count)}
    instead = dict(misdirected(args, victims)) if args.how == "misdirect" else {}
    for block, offsets in victims.items():
        for at in offsets:
            if args.how == "misdirect":
                store.write(at, instead[block])
            else:
                store.flip(at, chance.randrange(BLOCK * 8))
        used[block] = [args.store, offsets]
    with open(args.used, "w", encoding="ascii") as file:
        json.dump(used, file)
    return victims


def is_whole(args, store, block, offsets):
    return all(store.read(at, BLOCK) == content(block, args.stamp) for at in offsets)


def flip(args, handle):
    store = Store(args.store)
    victims = damage(args, store)
    counts = {"flipped": len(victims), "refused": 0, "right": 0, "wrong": 0, "led_again": 0, "repaired": 0}
    for block, offsets in victims.items():
        data = read_back(handle, block)
        if not is_whole(args, store, block, offsets):
            # Another replica has served it: leadership moves under load.
            counts["led_again"] += 1
            subprocess.run(["bash", "-c", args.lead], check=True, stdout=subprocess.DEVNULL)
            data = read_back(handle, block)
        counts["refused" if data is None else "right" if data == content(block, args.stamp) else "wrong"] += 1
        counts["repaired"] += is_whole(args, store, block, offsets)
    print(json.dumps(counts))
    return 1 if counts["wrong"] or counts["refused"] or counts["repaired"] < len(victims) else 0


def rot(args):
    print(json.dumps({"damaged": len(damage(args, Store(args.store)))}))
    return 0


def whole(args):
    store = Store(args.store)
    mine = {block: offsets for block, (path, offsets) in used_blocks(args).items() if path == args.store}
    left = sum(not is_whole(args, store, block, offsets) for block, offsets in mine.items())
    print(json.dumps({"damaged": len(mine), "left": left}))
    return 1 if left else 0


def check(args, handle):
    wrong = sum(read_back(handle, block) != content(block, args.stamp) for block in range(args.blocks))
    print(json.dumps({"read": args.blocks, "wrong": wrong}))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["fill", "flip", "rot", "whole", "rotmeta", "wholemeta", "check", "differ"])
    parser.add_argument("--uri")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--stamp", type=int, default=1)
    parser.add_argument("--to", type=int, default=2)
    parser.add_argument("--store")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--used")
    parser.add_argument("--lead", default="true")
    parser.add_argument("--how", choices=["flip", "misdirect"], default="flip")
    args = parser.parse_args()
    if args.how == "misdirect" and args.count % 2:
        sys.exit(f"--count {args.count}: misdirected writes damage two blocks each")
    local = {"rot": rot, "whole": whole, "rotmeta": rotmeta, "wholemeta": wholemeta, "differ": differ}
    if args.command in local:
        return local[args.command](args)
    handle = nbd.NBD()
    handle.connect_uri(args.uri)
    return {"fill": fill, "flip": flip, "check": check}[args.command](args, handle)


if __name__ == "__main__":
    sys.exit(main())
