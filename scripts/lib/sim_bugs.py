#!/usr/bin/env python3
"""Seeded bugs: finds the first seed that shows each, or replays those that were recorded.

    scripts/sim record [--seeds N] [--seed S] [--jobs J] [--only NAME,NAME]   rewrites both tables
    scripts/sim bugs [--seeds N] [--jobs J] [--only NAME,NAME] [--until FILE] replays dataplane/sim/bugs.txt

A bug is found by a seed when the simulator ends with a violation with it, and well without it. Seeds whose
plan lacks what a bug needs (NEEDS) are passed over: N counts those that are tried. Called by scripts/sim,
which has built the simulator and names it in SIM.
"""

import argparse
import concurrent.futures
import itertools
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import threading

REPO = pathlib.Path(__file__).resolve().parents[2]
TABLE = REPO / "dataplane/sim/bugs.txt"
DOCUMENT = REPO / "docs/reliability.md"
SOURCE = REPO / "dataplane/runtime/src/seeded.rs"
BEGIN, END = "<!-- found: written by scripts/sim record -->", "<!-- end -->"
TIMEOUT = int(os.environ.get("OGEE_SIM_TIMEOUT", "300"))

# What the simulator exits with; a run that never ends is stopped, after so many seconds of processor time, and
# counts as a violation.
GOOD, VIOLATION, INCOMPLETE = 0, 1, 3

# The first that a report matches, by what it says.
KINDS = [
    ("hangs", r"^TIMEOUT"),
    ("wrong bytes", r"torn or foreign|neither zeros nor a value"),
    ("early flush", r"a flush ended before"),
    ("fenced write", r"fenced attachment took effect"),
    ("diverged", r"VIOLATION: .* differs: "),
    ("damaged", r"VIOLATION: .* is damaged$|one bad block costs|speaks of damage|nobody repairs"),
    ("refused", r"a client was told|a last read failed"),
    ("lost or stale", r"VIOLATION: block .*(: stale|: not atomic|was the last|: from nowhere|: )"),
    ("stuck", r"not within|not good within|takes more than|is not digested|cannot attach|not whole after"),
    ("panic", r"panicked at"),
]


def run(seed, bug=""):
    """Exit code and output of one simulation."""
    env = {**os.environ, "OGEE_SIM_BUG": bug}
    done = subprocess.run(
        [os.environ["SIM"], "--seed", str(seed)], env=env,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT, TIMEOUT + 5)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return VIOLATION, "TIMEOUT"
    return done.returncode, done.stdout.decode(errors="replace")


def kind_of(output):
    for kind, pattern in KINDS:
        if re.search(pattern, output, re.MULTILINE):
            return kind
    return "violation"


def reason_of(output):
    lines = [line for line in output.splitlines() if "VIOLATION" in line or "panicked" in line]
    return (lines or output.splitlines() or [""])[-1][:160]


# What must stand in a seed's plan, or one of several.
LEASE, PROBES, ECHOES = "lease_reads: true", "probes: true", "echoes: true"
INSPECTED, LARGE, SLOW = "inspects: true", "redirect: true", ("100..1500", "Limp")
# As many blocks as a write may have that has its place outside of the log; and many that stay as they are.
EXTENTS, MANY = ("hot: 32", "hot: 64", "hot: 256"), ("hot: 64", "hot: 256")
STORM = "faults: [PowerCut, PowerCutAll, Kill]"
# Told by what is said of damage, in seeds without any.
SOUND = ["torn-payload-counts", "pinned-extent-overwritten", "adopted-before-durable"]
OF_DISKS = ["LogRot", "DataRot", "MetaRot", "LostWrite", "MisdirectedWrite", "BadBlock", "WriteError", "NoSpace", "DiskLoss"]
NEEDS = {
    "torn-payload-counts": [STORM],
    "damaged-replica-opens": ["LogRot"],
    # Batches that do not take all that waits.
    "commit-ahead-of-entry": ["redirect: false", "large_odds: 2,"],
    "log-payload-not-verified": ["LogRot"],
    "page-mirror-not-read": ["MetaRot"],
    "checksum-not-verified": ["DataRot"],
    "pinned-extent-overwritten": [LARGE, "large_odds: 2,", EXTENTS],
    "adopted-before-durable": [LARGE, "large_odds: 2,", EXTENTS, "Limp"],
    "dedupe-lost-on-restart": [ECHOES],
    "duplicate-applied": [ECHOES],
    "stale-retry-applied": ["FrameReplay"],
    "retry-with-new-sequence": [("FrameReplay", "CompletionLoss", "FrameDrop")],
    "epoch-checked-on-leader-only": [("Takeover", "ClientRevival", "Isolation")],
    "seal-clears-session": [ECHOES],
    "lease-across-suspend": [LEASE, PROBES, "Sleep"],
    "lease-too-long": [LEASE, PROBES, "Isolation"],
    "lease-from-reply": [LEASE, PROBES, "Clog"],
    "lease-before-first-round": [LEASE, PROBES],
    "lease-through-handover": [LEASE, PROBES, "Transfer"],
    "restarted-follower-votes": [LEASE, PROBES, "Isolation"],
    "learner-counted": [LEASE, PROBES, "Replace"],
    "round-answers-late-reads": ["lease_reads: false", PROBES, "Transfer"],
    "discarded-answered-ok": ["Isolation"],
    "write-back-ignores-hold": [INSPECTED, MANY, SLOW],
    "copy-mark-forgotten": ["Replace", INSPECTED],
    "copy-skips-changed": ["Replace", INSPECTED],
    "copy-with-newer-sessions": ["Replace", INSPECTED, MANY],
    "admitted-without-counting": ["fills: true"],
    "body-crc-not-checked": ["FrameCorrupt"],
    "abandoned-not-waited-for": ["FrameReorder", "quits: true"],
}


def suits(plan, name):
    """Whether a seed of this plan can find the bug."""
    words = [need if isinstance(need, tuple) else (need,) for need in NEEDS.get(name, [])]
    return all(any(word in plan for word in need) for need in words) and (
        name not in SOUND or not any(fault in plan for fault in OF_DISKS))


class Once:
    """Asks something of each seed once, however many threads want to know it."""

    def __init__(self, question):
        self.question, self.lock, self.known = question, threading.Lock(), {}

    def of(self, seed):
        with self.lock:
            is_new = seed not in self.known
            answer = self.known.setdefault(seed, concurrent.futures.Future())
        if is_new:
            try:
                answer.set_result(self.question(seed))
            except Exception as error:  # for all who wait for it
                answer.set_exception(error)
        return answer.result()


def plan_of(seed):
    asked = [os.environ["SIM"], "--seed", str(seed), "--plan"]
    return subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout.decode()


PLANS = Once(plan_of)
# Which seeds end well without any bug.
HEALTHY = Once(lambda seed: run(seed)[0] in (GOOD, INCOMPLETE))


def suitable(name, first):
    """So many seeds as are wanted; a plan with what a bug needs is never rare."""
    return (seed for seed in itertools.count(first) if suits(PLANS.of(seed), name))


def record(options, pool, names):
    rows = read_table()
    finds = {pool.submit(find, options, name): name for name in names}
    for found in concurrent.futures.as_completed(finds):
        name = finds[found]
        rows[name] = found.result()
        print(name, *rows[name], flush=True)
        write_table(rows)
        write_document(rows)
    missed = [name for name in all_bugs() if rows.get(name, ["-"])[0] == "-"]
    print(f"{len(all_bugs()) - len(missed)} of {len(all_bugs())} are found; not: {' '.join(missed) or 'none'}")
    return 0


def find(options, name):
    """Seed, how many were tried, and what was seen; `None` if the time was up before."""
    for tried, seed in enumerate(itertools.islice(suitable(name, options.seed), options.seeds), 1):
        if is_late(options):
            return None
        status, output = run(seed, name)
        # One that fails by itself shows nothing of a bug.
        if status not in (GOOD, INCOMPLETE) and HEALTHY.of(seed):
            print(f"  {name} {seed}: {reason_of(output)}", flush=True)
            return [str(seed), str(tried), kind_of(output)]
    return ["-", str(options.seeds), "not found"]


def replay(options, pool, names):
    """Replays each record. Seeds shift when the simulator changes: a bug that its seed does not show any
    more is looked for anew, and only one that is not found within the budget fails."""
    rows = {name: row for name, row in read_table().items() if name in names and row[0] != "-"}
    asked = {pool.submit(replay_one, options, name, row[0]): (name, row[0]) for name, row in rows.items()}
    moved, failed, left = [], 0, 0
    for done in concurrent.futures.as_completed(asked):
        (name, seed), answer = asked[done], done.result()
        if answer is None:
            left += 1
            continue
        found, tried, kind = answer
        word = f"found ({kind})" if found == seed else f"found ({kind}), but by seed {found}"
        if found == "-":
            word = f"NOT FOUND in {tried} seeds"
        moved += [name] * (found != seed)
        failed += found == "-"
        print(f"{name} {seed}: {word}", flush=True)
    if moved:
        print(f"the simulator has changed: record anew (scripts/sim record) {' '.join(sorted(moved))}")
    if left:
        print(f"{left} were not replayed: the time was up")
    print(f"{len(rows) - failed - left} passed, {failed} failed")
    return failed > 0


def replay_one(options, name, seed):
    """What was found; `None` if the time was up before."""
    if is_late(options):
        return None
    status, output = run(seed, name)
    if status not in (GOOD, INCOMPLETE) and HEALTHY.of(int(seed)):
        return [seed, "1", kind_of(output)]
    return find(options, name)


def is_late(options):
    return bool(options.until) and os.path.exists(options.until)


def all_bugs():
    text = SOURCE.read_text()
    return re.findall(r'^    "([a-z0-9-]+)",$', text[: text.index("];")], re.MULTILINE)


def read_table():
    rows = {}
    for line in TABLE.read_text().splitlines() if TABLE.exists() else []:
        if line and not line.startswith("#"):
            name, seed, tried, kind = line.split(None, 3)
            rows[name] = [seed, tried, kind]
    return rows


def write_table(rows):
    lines = ["# Written by scripts/sim record, replayed by scripts/sim bugs: bug, first seed that shows it,",
             "# after so many whose plan has what it needs, and what is seen."]
    lines += [" ".join([name, *rows[name]]) for name in all_bugs() if name in rows]
    TABLE.write_text("\n".join(lines) + "\n")


def write_document(rows):
    text = DOCUMENT.read_text()
    found = ["| bug | found after | by seed | seen as |", "|---|---|---|---|"]
    for name in all_bugs():
        if name in rows:
            seed, tried, kind = rows[name]
            after = f"not in {tried}" if seed == "-" else tried
            found.append(f"| `{name}` | {after} | {seed} | {kind} |")
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(before + "\n".join([BEGIN, "", *found, "", END]) + rest.split(END)[1])


def main():
    parser = argparse.ArgumentParser(prog="scripts/sim")
    parser.add_argument("what", choices=["record", "bugs"])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--until", default="")
    options = parser.parse_args()
    names = all_bugs()
    if strange := sorted(set(NEEDS) - set(names)):
        parser.error(f"NEEDS names what is no seeded bug: {' '.join(strange)}")
    if options.only:
        names = [name for name in names if name in options.only.split(",")]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        return (record if options.what == "record" else replay)(options, pool, names)


if __name__ == "__main__":
    sys.exit(main())
