"""Disks with a volatile cache, and what is left of them when the power goes.

  power_cut.py serve --dir DIR --disk NAME=IMAGE...
  power_cut.py cut   --dir DIR --base DIR --out DIR [--seed N] [--last | --early] [--lie]
  power_cut.py cut   --log-writes FILE --layout NAME=START:LENGTH... --acks FILE --base DIR --out DIR ...

`serve` offers each image as an NBD export on DIR/NAME.sock, and listens on DIR/acks.sock for what a
guest says it has acknowledged. All of it goes to DIR/log, in one order for all disks. DIR/ready exists
when it listens, DIR/acking from the first acknowledgement on. SIGTERM ends it.

`cut` builds what a power cut after a random event leaves: OUT/NAME.img, from BASE/NAME.img, and
OUT/acks, what had been acknowledged by then. What a flush covered, or was written with forced unit
access, is there. Of the rest any part may be: nothing, all, some writes, some sectors (512 bytes) of
some writes; each disk chooses for itself. A flush covers the writes that had been answered when it
arrived, and no others. --last cuts at the end of the log, --early before
the first acknowledgement (while a cluster recovers). --lie has the disks forget all that came after
the first acknowledgement, durable or not: what checks the cut must then find something.

The second form reads a log of dm-log-writes over one device that holds all disks, with marks
acks:BYTES: so much of the file of acknowledgements had been written before the mark.
"""

import argparse
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading

SECTOR = 512
WRITE, ZERO, FLUSH, ACK = 1, 2, 3, 4
FORCED = 0x80  # with WRITE and ZERO: forced unit access
EVENT = struct.Struct("<BBIQ")  # kind, disk, length, offset; a write's or acknowledgement's bytes follow


# ---- serving ----------------------------------------------------------------------------------


class Recorder:
    """The log: one order for the events of all disks."""

    def __init__(self, folder, names):
        self.lock = threading.Lock()
        self.acking = os.path.join(folder, "acking")
        self.acked = False
        self.file = open(os.path.join(folder, "log"), "wb")
        self.file.write(json.dumps(names).encode() + b"\n")

    def add(self, kind, disk, length, offset, data=b""):
        with self.lock:
            self.file.write(EVENT.pack(kind, disk, length, offset))
            self.file.write(data)
            if kind == ACK and not self.acked:
                self.acked = True
                open(self.acking, "wb").close()

    def end(self):
        """Nothing is added any more."""
        self.lock.acquire()
        self.file.close()


def receive(connection, length):
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


class Disk:
    """One NBD export; one client at a time, as QEMU connects once per drive."""

    FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6  # flush, FUA, trim, write zeroes
    REQUEST = struct.Struct(">IHHQQI")

    def __init__(self, recorder, index, image):
        self.recorder, self.index = recorder, index
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size

    def serve(self, connection):
        try:
            self.negotiate(connection)
            while True:
                requests = self.pending_requests(connection)
                # What was not answered before the flush came is not covered by it.
                requests.sort(key=lambda request: request[0] != 3)
                for request in requests:
                    self.handle(connection, *request)
        except (EOFError, ConnectionError):
            pass
        finally:
            connection.close()

    def negotiate(self, connection):
        connection.sendall(struct.pack(">8s8sH", b"NBDMAGIC", b"IHAVEOPT", 3))
        receive(connection, 4)
        while True:
            _, option, length = struct.unpack(">QII", receive(connection, 16))
            receive(connection, length)

            def reply(kind, data=b"", option=option):
                connection.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

            if option in (6, 7):  # INFO, GO
                reply(3, struct.pack(">HQH", 0, self.size, self.FLAGS))
                reply(1)
                if option == 7:
                    return
            elif option == 2:  # ABORT
                reply(1)
                raise EOFError
            else:
                reply(1 << 31 | 1)  # unsupported

    def pending_requests(self, connection):
        """One request at least, and whatever else has come already."""
        requests = [self.read_request(connection)]
        while True:
            try:
                if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return requests
            except BlockingIOError:
                return requests
            requests.append(self.read_request(connection))

    def read_request(self, connection):
        _, flags, kind, cookie, offset, length = self.REQUEST.unpack(receive(connection, 28))
        data = receive(connection, length) if kind == 1 else b""
        return kind, flags, cookie, offset, length, data

    def handle(self, connection, kind, flags, cookie, offset, length, data):
        answer, forced = b"", FORCED if flags & 1 else 0
        if kind == 0:
            answer = os.pread(self.image, length, offset)
        elif kind == 1:
            os.pwrite(self.image, data, offset)
            self.recorder.add(WRITE | forced, self.index, length, offset, data)
        elif kind == 3:
            self.recorder.add(FLUSH, self.index, 0, 0)
        elif kind in (4, 6):  # trim: what is left is anything; write zeroes
            os.pwrite(self.image, bytes(length), offset)
            self.recorder.add(ZERO | forced, self.index, length, offset)
        elif kind == 2:
            raise EOFError
        connection.sendall(struct.pack(">IIQ", 0x67446698, 0 if kind <= 6 else 22, cookie) + answer)


def take_acks(recorder, connection):
    while data := connection.recv(1 << 16):
        recorder.add(ACK, 0, len(data), 0, data)


def listen(path, serve):
    """A thread per connection on a Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def serve(args):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    names = [disk.split("=", 1)[0] for disk in args.disk]
    recorder = Recorder(args.dir, names)
    for index, disk in enumerate(args.disk):
        name, image = disk.split("=", 1)
        listen(os.path.join(args.dir, name + ".sock"), Disk(recorder, index, image).serve)
    listen(os.path.join(args.dir, "acks.sock"), lambda connection: take_acks(recorder, connection))
    open(os.path.join(args.dir, "ready"), "wb").close()
    signal.sigwait({signal.SIGTERM})
    recorder.end()
    os._exit(0)  # threads that wait for the lock


# ---- events -----------------------------------------------------------------------------------


class RecordedLog:
    """What `serve` wrote. Events are (kind, disk, offset, length, position of the bytes)."""

    def __init__(self, folder):
        self.file = open(os.path.join(folder, "log"), "rb")
        self.names = json.loads(self.file.readline())
        self.start = self.file.tell()

    def events(self):
        end, at = os.fstat(self.file.fileno()).st_size, self.start
        while at + EVENT.size <= end:
            kind, disk, length, offset = EVENT.unpack(os.pread(self.file.fileno(), EVENT.size, at))
            at += EVENT.size
            stored = length if kind & ~FORCED in (WRITE, ACK) else 0
            if at + stored > end:
                return
            yield kind, disk, offset, length, at
            at += stored

    def data(self, length, position):
        return os.pread(self.file.fileno(), length, position)

    def acks(self, event):
        return self.data(event[3], event[4])


class LogWrites:
    """A log of dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst)."""

    MAGIC = 0x6A736677736872
    HEAD, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")

    def __init__(self, path, layout, acks):
        self.file = open(path, "rb")
        magic, version, self.count, self.sector = self.HEAD.unpack(self.file.read(self.HEAD.size))
        if magic != self.MAGIC or version != 1:
            raise SystemExit(f"{path} is no log of dm-log-writes, version 1")
        self.names, self.places = [], []
        for place in layout:
            name, bounds = place.split("=", 1)
            start, length = map(int, bounds.split(":"))
            self.names.append(name)
            self.places.append((start, length))
        with open(acks, "rb") as file:
            self.acknowledged = file.read()
        self.told = 0

    def events(self):
        at = self.sector
        self.told = 0
        for _ in range(self.count):
            sector, sectors, flags, length = self.ENTRY.unpack(os.pread(self.file.fileno(), 32, at))
            if flags & 8:  # mark
                yield ACK, 0, 0, length, at + 32
                at += self.sector
                continue
            at += self.sector
            if flags & 1:
                yield from ((FLUSH, disk, 0, 0, 0) for disk in range(len(self.names)))
            if sectors:
                kind = (ZERO if flags & 4 else WRITE) | (FORCED if flags & 2 else 0)
                disk, offset = self.place(sector * self.sector, sectors * self.sector)
                yield kind, disk, offset, sectors * self.sector, at
                at += 0 if flags & 4 else sectors * self.sector

    def place(self, offset, length):
        for disk, (start, size) in enumerate(self.places):
            if start <= offset and offset + length <= start + size:
                return disk, offset - start
        raise SystemExit(f"a write of {length} bytes at {offset} is in no disk")

    def data(self, length, position):
        return os.pread(self.file.fileno(), length, position)

    def acks(self, event):
        mark = self.data(event[3], event[4]).rstrip(b"\0")
        if not mark.startswith(b"acks:"):
            return b""
        told, self.told = self.told, int(mark[5:])
        return self.acknowledged[told : self.told]


# ---- cutting ----------------------------------------------------------------------------------


class Platter:
    """One disk: what is durable stands in the file, the rest waits."""

    def __init__(self, base, image):
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", base, image], check=True)
        self.file = os.open(image, os.O_RDWR)
        self.waiting = []  # (offset, bytes or a length of zeros)

    def write(self, offset, data, forced):
        if not forced:
            self.waiting.append((offset, data))
            return
        # The cache holds one version of a sector: older ones do not come back over this one.
        end = offset + size_of(data)
        overlapping = [w for w in self.waiting if w[0] < end and offset < w[0] + size_of(w[1])]
        for write in overlapping:
            self.waiting.remove(write)
            self.put(*write)
        self.put(offset, data)

    def put(self, offset, data):
        os.pwrite(self.file, bytes(data) if isinstance(data, int) else data, offset)

    def flush(self):
        for write in self.waiting:
            self.put(*write)
        self.waiting = []

    def lose_power(self, choice, ways):
        """Keeps a part of what waits. Returns how it went."""
        how = choice.choice(ways)
        share, kept = choice.random(), 0
        for offset, data in self.waiting:
            if how == "everything" or (how == "some" and choice.random() < share):
                self.put(offset, data)
                kept += 1
            elif how == "torn":
                data = bytes(data) if isinstance(data, int) else data
                for at in range(0, len(data), SECTOR):
                    if choice.random() < share:
                        self.put(offset + at, data[at : at + SECTOR])
        os.close(self.file)
        return {"waiting": len(self.waiting), "kept": how if how != "some" else kept}


def size_of(data):
    return data if isinstance(data, int) else len(data)


def choose(log, choice, last, early):
    """Number of events before the cut, before the first acknowledgement, and in all."""
    total, first = 0, None
    for event in log.events():
        total += 1
        # A mark may say that nothing was acknowledged yet.
        if first is None and event[0] == ACK and log.acks(event):
            first = total
    if first is None:
        raise SystemExit("nothing was acknowledged")
    if last:
        return total, first, total
    return choice.randint(1, first - 1) if early else choice.randint(first, total), first, total


def replay(log, platters, until, honest):
    """Applies the events before `until`; flushes count up to `honest`. Returns the acknowledgements."""
    acks = []
    for number, event in enumerate(log.events()):
        if number >= until:
            break
        kind, disk, offset, length, position = event
        if kind == ACK:
            acks.append(log.acks(event))
        elif kind == FLUSH:
            if number < honest:
                platters[disk].flush()
        else:
            data = length if kind & ~FORCED == ZERO else log.data(length, position)
            platters[disk].write(offset, data, bool(kind & FORCED) and number < honest)
    return b"".join(acks)


def cut(args):
    log = LogWrites(args.log_writes, args.layout, args.acks) if args.log_writes else RecordedLog(args.dir)
    choice = random.Random(args.seed)
    until, first, total = choose(log, choice, args.last, args.early)
    os.makedirs(args.out, exist_ok=True)
    platters = [Platter(os.path.join(args.base, f"{name}.img"), os.path.join(args.out, f"{name}.img")) for name in log.names]
    acks = replay(log, platters, until, first if args.lie else until)
    with open(os.path.join(args.out, "acks"), "wb") as file:
        file.write(acks)
    ways = ["nothing"] if args.lie else ["nothing", "everything", "some", "some", "torn", "torn"]
    disks = {name: platter.lose_power(choice, ways) for name, platter in zip(log.names, platters)}
    print(json.dumps({"event": until, "of": total, "acked": acks.count(b"\n"), "disks": disks}))


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve")
    command.set_defaults(run=serve)
    command.add_argument("--dir", required=True)
    command.add_argument("--disk", action="append", required=True)
    command = commands.add_parser("cut")
    command.set_defaults(run=cut)
    command.add_argument("--dir")
    command.add_argument("--log-writes")
    command.add_argument("--layout", action="append")
    command.add_argument("--acks")
    command.add_argument("--base", required=True)
    command.add_argument("--out", required=True)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--last", action="store_true")
    command.add_argument("--early", action="store_true")
    command.add_argument("--lie", action="store_true")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    sys.exit(main())
