"""A small NBD client that remembers what it was told.

  nbd_load.py write  --uri URI --state FILE [--blocks N] [--depth N] [--seconds N] [--seed N]
  nbd_load.py verify --uri URI --state FILE

`write` keeps single-block writes of rising stamps in flight, never two on one block, and never
sends a flush: an acknowledged write must survive by itself. It ends after --seconds, on SIGTERM,
or when the server goes, and writes to FILE what was acknowledged per block and what may or may
not have happened. It prints figures as JSON.

`verify` reads every block back: it must hold, whole, the acknowledged stamp or one that was issued
later. What it finds becomes the only stamp allowed until the next write: an old request that
lands late is found by the next verify.
"""

import argparse
import errno
import json
import os
import random
import signal
import struct
import sys
import time

import nbd

BLOCK = 4096
DRAIN_S = 60


def content(block, stamp):
    """A block's bytes: all zeros before the first write."""
    if stamp == 0:
        return bytes(BLOCK)
    return struct.pack("<QQ", block, stamp) * (BLOCK // 16)


class State:
    """Per block: the acknowledged stamp, and stamps that may have been written after it."""

    def __init__(self, path, blocks):
        self.path = path
        self.stamp, self.acked, self.maybe = 0, [0] * blocks, {}
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                old = json.load(file)
            self.stamp, self.acked = old["stamp"], old["acked"]
            self.maybe = {int(block): stamps for block, stamps in old["maybe"].items()}

    def save(self):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            json.dump({"stamp": self.stamp, "acked": self.acked, "maybe": self.maybe}, file)
        os.replace(self.path + ".new", self.path)


class Writer:
    def __init__(self, handle, state, seed):
        self.handle, self.state = handle, state
        self.random = random.Random(seed)
        self.inflight = {}  # cookie -> (block, stamp, buffer, time of issue)
        self.busy = set()
        self.acks = self.errors = 0
        self.wait_max = self.gap_max = 0.0
        self.last = time.monotonic()
        self.first_error = ""

    def alive(self):
        return not (self.handle.aio_is_dead() or self.handle.aio_is_closed())

    def issue(self):
        blocks = len(self.state.acked)
        block = self.random.randrange(blocks)
        while block in self.busy:
            block = self.random.randrange(blocks)
        self.state.stamp += 1
        stamp = self.state.stamp
        # Remembered before it is sent, forgotten only when it is acknowledged.
        self.state.maybe.setdefault(block, []).append(stamp)
        self.busy.add(block)
        buffer = nbd.Buffer.from_bytearray(bytearray(content(block, stamp)))
        cookie = self.handle.aio_pwrite(buffer, block * BLOCK)
        self.inflight[cookie] = (block, stamp, buffer, time.monotonic())

    def reap(self):
        for cookie in list(self.inflight):
            try:
                if not self.handle.aio_command_completed(cookie):
                    continue
                failed = None
            except nbd.Error as error:
                failed = error
            block, stamp, _, since = self.inflight.pop(cookie)
            self.busy.discard(block)
            if failed is None:
                now = time.monotonic()
                self.wait_max = max(self.wait_max, now - since)
                self.gap_max = max(self.gap_max, now - self.last)
                self.last = now
                self.acks += 1
                self.state.acked[block] = stamp
                del self.state.maybe[block]
            elif self.alive() and failed.errnum not in (errno.ENOTCONN, errno.ESHUTDOWN):
                self.errors += 1
                self.first_error = self.first_error or str(failed)

    def run(self, depth, seconds):
        end = time.monotonic() + seconds
        stopping = []
        signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
        self.last = time.monotonic()
        try:
            while self.alive() and not stopping and time.monotonic() < end:
                while len(self.inflight) < depth:
                    self.issue()
                self.handle.poll(100)
                self.reap()
            end = time.monotonic() + DRAIN_S
            while self.alive() and self.inflight and time.monotonic() < end:
                self.handle.poll(100)
                self.reap()
        except nbd.Error as error:
            self.first_error = self.first_error or str(error)
        unanswered = len(self.inflight)
        for _, (_, _, _, since) in self.inflight.items():
            self.wait_max = max(self.wait_max, time.monotonic() - since)
        return {
            "acked": self.acks,
            "errors": self.errors,
            "unanswered": unanswered,
            "disconnected": not self.alive(),
            "wait_max_ms": round(self.wait_max * 1000, 1),
            "gap_max_ms": round(self.gap_max * 1000, 1),
            "first_error": self.first_error,
        }


def write(args, handle):
    state = State(args.state, args.blocks)
    result = Writer(handle, state, args.seed).run(args.depth, args.seconds)
    state.save()
    print(json.dumps(result))
    return 0


def describe(block, data):
    found, stamp = struct.unpack_from("<QQ", data)
    whole = data == content(block, stamp) if found == block else not any(data)
    return f"stamp {stamp} of block {found}{'' if whole else ', torn'}"


def verify(args, handle):
    state = State(args.state, 0)
    wrong, checked, step = [], 0, 256
    for start in range(0, len(state.acked), step):
        count = min(step, len(state.acked) - start)
        data = handle.pread(count * BLOCK, start * BLOCK)
        for block in range(start, start + count):
            found = bytes(data[(block - start) * BLOCK : (block - start + 1) * BLOCK])
            allowed = [state.acked[block], *state.maybe.get(block, [])]
            stamp = next((s for s in allowed if found == content(block, s)), None)
            checked += 1
            if stamp is None:
                wrong.append(f"block {block}: {describe(block, found)}; allowed {allowed}")
            else:
                state.acked[block] = stamp
    state.maybe = {}
    state.save()
    written = sum(1 for stamp in state.acked if stamp)
    print(json.dumps({"checked": checked, "written": written, "wrong": len(wrong), "first": wrong[:5]}))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["write", "verify"])
    parser.add_argument("--uri", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--blocks", type=int, default=16384)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    handle = nbd.NBD()
    handle.connect_uri(args.uri)
    return {"write": write, "verify": verify}[args.command](args, handle)


if __name__ == "__main__":
    sys.exit(main())
