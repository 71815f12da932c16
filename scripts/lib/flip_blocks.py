"""Damages blocks of a volume in a chunkserver's store, behind its back, and reads them through NBD.

    fill  --uri URI --blocks N              every block gets its number and a stamp; whole extents
    flip  --uri URI --store FILE --blocks N --count C --seed S --used FILE --lead COMMAND
                                            flips one bit in each of C blocks of the store, reads each
                                            through the volume, then writes it anew; COMMAND, for bash,
                                            has the chunkserver of the store lead again

A block is found in the store by its contents, in the region that the superblock names for extents
(dataplane/store/src/format.rs): never in the log or in metadata. Every read must give the right bytes
or an error. Prints one line of JSON; ends with 1 if wrong bytes were returned.
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
import time

import nbd

BLOCK = 4096
EXTENT = 65536
STEP = 4 << 20


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


def read_back(handle, block):
    try:
        return bytes(handle.pread(BLOCK, block * BLOCK))
    except nbd.Error as error:
        if error.errnum != errno.EIO:
            raise
        return None


def read_damaged(args, handle, block):
    """What is read of a damaged block, and whether another replica served it first: a leader that finds
    damage hands over, now and then, and is to lead again, so that each damage is met."""
    data = read_back(handle, block)
    if data != content(block, args.stamp):
        return data, False
    subprocess.run(["bash", "-c", args.lead], check=True, stdout=subprocess.DEVNULL)
    return read_back(handle, block), True


def flip(args, handle):
    chance = random.Random(args.seed)
    used = {}
    if os.path.exists(args.used):
        with open(args.used, encoding="ascii") as file:
            used = {int(block): stamp for block, stamp in json.load(file).items()}
    stamps = {block: args.stamp for block in range(args.blocks) if block not in used}
    store = Store(args.store)
    places = store.find(stamps)
    if len(places) < args.count:
        sys.exit(f"only {len(places)} blocks stand in the extents of {args.store}")
    victims = chance.sample(sorted(places), args.count)
    for block in victims:
        for at in places[block]:
            store.flip(at, chance.randrange(BLOCK * 8))
    counts = {"flipped": len(victims), "refused": 0, "right": 0, "wrong": 0, "handed_over": 0}
    first_wrong = None
    for block in victims:
        data, is_elsewhere = read_damaged(args, handle, block)
        counts["handed_over"] += is_elsewhere
        kind = "refused" if data is None else "right" if data == content(block, args.stamp) else "wrong"
        counts[kind] += 1
        if kind == "wrong" and first_wrong is None:
            first_wrong = {"block": block, "at": places[block]}
    for block in victims:
        stamp = args.stamp + 1 + int(time.monotonic() * 1000)
        handle.pwrite(content(block, stamp), block * BLOCK)
        if read_back(handle, block) != content(block, stamp):
            counts["wrong"] += 1
        used[block] = stamp
    with open(args.used, "w", encoding="ascii") as file:
        json.dump(used, file)
    print(json.dumps({**counts, "first_wrong": first_wrong}))
    return 1 if counts["wrong"] else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["fill", "flip"])
    parser.add_argument("--uri", required=True)
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--stamp", type=int, default=1)
    parser.add_argument("--store")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--used")
    parser.add_argument("--lead", default="true")
    args = parser.parse_args()
    handle = nbd.NBD()
    handle.connect_uri(args.uri)
    return {"fill": fill, "flip": flip}[args.command](args, handle)


if __name__ == "__main__":
    sys.exit(main())
