# shellcheck shell=bash
# A real cluster for tests: starting it, killing parts of it, real clients on it, and what to undo.
# Sourced after common.sh by the groups in scripts/test.d. Not run.
#
# Every test runs in a subshell with a directory of its own ($TEST_DIR). What it starts it first
# registers with `defer`; that runs backwards when the test ends, however it ends.

FULL=${FULL:-0}
KEEP=${KEEP:-0}
SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}
# The chunkservers' default. Failover bounds are multiples of it.
ELECTION_MAX_MS=1000
FAILOVER_BOUND_MS=$((8 * ELECTION_MAX_MS))
# libnbd's binding belongs to the distribution's interpreter.
PYTHON=/usr/bin/python3
SKIPPED=77

# ---- results ----------------------------------------------------------------------------------

# The results hold a line each.
pass() {
    echo "PASS $1"
    echo "$1" >>"$RESULTS/passed"
}

fail() {
    echo "FAIL $1: $2"
    echo "$1: ${2//$'\n'/; }" >>"$RESULTS/failed"
}

skip() {
    echo "SKIP $1: $2"
    echo "$1: ${2//$'\n'/; }" >>"$RESULTS/skipped"
}

# ci_or_full CI FULL   the value for this run
ci_or_full() {
    if [ "$FULL" = 1 ]; then echo "$2"; else echo "$1"; fi
}

# ---- one test ---------------------------------------------------------------------------------

# Ends the test as failed, or as skipped, with a reason.
give_up() {
    echo "$*" >"$TEST_DIR/reason"
    exit 1
}

give_skip() {
    echo "$*" >"$TEST_DIR/reason"
    exit "$SKIPPED"
}

need_root() {
    [ "$(id -u)" = 0 ] || give_skip "needs root"
}

# defer COMMAND...   run when the test ends; the last one first. Must bear being run twice.
DEFERRED=()
defer() {
    DEFERRED+=("$(printf '%q ' "$@")")
}

run_deferred() {
    trap - ERR
    set +e
    local at
    for ((at = ${#DEFERRED[@]} - 1; at >= 0; at--)); do
        eval "${DEFERRED[at]}" >>"$TEST_DIR/cleanup.log" 2>&1
    done
}

# The group's scratch directory, and a copy of the binary that no build replaces meanwhile and that
# every user can run.
begin_group() {
    WORK=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/ogee-$1.XXXXXX")")
    chmod 755 "$WORK"
    if [ -z "${RESULTS:-}" ]; then
        RESULTS=$WORK/results
        mkdir "$RESULTS"
    fi
    trap end_group EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    install -m 755 "$OGEE" "$WORK/ogee"
    OGEE=$WORK/ogee
    echo "seed $SEED (SEED=$SEED repeats the random choices)"
}

end_group() {
    [ -z "${TEST_PID:-}" ] || stop_test "the group was ended"
    if [ "$KEEP" = 1 ]; then
        echo "kept: $WORK"
    else
        await_remover
        rm -rf --one-file-system "$WORK"
    fi
}

# when_asked NAME SECONDS FUNCTION   what the gate has no time for: in full runs, and when named in ONLY
when_asked() {
    case "$FULL ${ONLY:-} " in
    1* | *" $1 "*) run_test "$@" ;;
    esac
}

# run_test NAME SECONDS FUNCTION [ARGUMENT...]   fails when it takes longer
run_test() {
    local name=$1 limit=$2 start=$SECONDS status reason
    shift 2
    [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $name "* ]] || return 0
    TEST_DIR=$WORK/$name
    mkdir "$TEST_DIR"
    echo "-- $name (at most $limit s)"
    (
        set -eE
        trap run_deferred EXIT
        trap 'exit 143' TERM
        trap 'exit 130' INT
        trap 'note_error "$?" "${BASH_SOURCE[0]##*/}:$LINENO" "$BASH_COMMAND"' ERR
        "$@"
    ) &
    TEST_PID=$!
    wait_for "$limit" process_gone "$TEST_PID" || stop_test "took longer than $limit s"
    status=0
    wait "$TEST_PID" || status=$?
    TEST_PID=
    reason=$(cat "$TEST_DIR/reason" 2>/dev/null || echo "ended with $status")
    echo "   $name took $((SECONDS - start)) s"
    case $status in
    0) pass "$name" ;;
    "$SKIPPED") skip "$name" "$reason" ;;
    *)
        show_logs
        fail "$name" "$reason"
        ;;
    esac
    [ "$KEEP" = 1 ] || remove_test
}

# Removes the test's directory: stores are large. On file systems that discard what they free this takes up to a
# minute, beside the next test; the one before has to be gone, so that there are never more than two.
remove_test() {
    await_remover
    nice -n 19 rm -rf --one-file-system "$TEST_DIR" &
    REMOVER=$!
}

await_remover() {
    [ -z "${REMOVER:-}" ] || wait "$REMOVER" || true
}

# stop_test REASON   ends the running test and what it waits for; it then undoes what it did
stop_test() {
    local pid pids
    echo "$1; it waited in: $(descendants "$TEST_PID" | xargs -r ps -o args= -p 2>/dev/null | grep -v 'ogee export\|nbdfuse\|postgres' | tail -n 1 | cut -c1-200)" >"$TEST_DIR/reason"
    mapfile -t pids < <(descendants "$TEST_PID")
    # The shell heeds its signal when its command has ended.
    kill "$TEST_PID" "${pids[@]}" 2>/dev/null || true
    wait_for 150 process_gone "$TEST_PID" && return 0
    mapfile -t pids < <(descendants "$TEST_PID")
    for pid in "${pids[@]}" "$TEST_PID"; do
        kill -9 "$pid" 2>/dev/null || true
    done
}

note_error() {
    [ -e "$TEST_DIR/reason" ] || echo "$2: $3 (status $1)" >"$TEST_DIR/reason"
}

# The end of every log of the test that has one.
show_logs() {
    local log
    while IFS= read -r log; do
        echo "   ---- ${log#"$TEST_DIR"/}"
        tail -n 15 "$log" | cut -c1-400 | sed 's/^/   | /'
    done < <(find "$TEST_DIR" -xdev -name '*.log' -size +0 2>/dev/null | sort)
}

# ---- processes --------------------------------------------------------------------------------

# What a killed process has open goes with the last of its threads: a zombie with others still holds it.
process_alive() {
    awk '/^State:/ { zombie = $2 == "Z" } /^Threads:/ { threads = $2 } END { exit !threads || zombie && threads < 2 }' \
        "/proc/$1/status" 2>/dev/null
}

# Only what this group started: its command line names the scratch directory.
process_ours() {
    process_alive "$1" && tr '\0' '\n' <"/proc/$1/cmdline" | grep -qF "$WORK"
}

process_gone() {
    ! process_alive "$1"
}

# end_process PID   SIGTERM, then SIGKILL
end_process() {
    process_ours "$1" || return 0
    kill "$1" 2>/dev/null || true
    wait_for 15 process_gone "$1" || kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# bounded SECONDS COMMAND...   fails when the command takes longer; one that cannot be ended (an
# uninterruptible unmount) is left behind
bounded() {
    local seconds=$1 pid
    shift
    "$@" &
    pid=$!
    wait_for "$seconds" process_gone "$pid" || {
        kill -9 "$pid" 2>/dev/null || true
        return 1
    }
    wait "$pid"
}

sleep_ms() {
    sleep "$(($1 / 1000)).$(printf '%03d' $(($1 % 1000)))"
}

# ---- the cluster ------------------------------------------------------------------------------

# cluster_up [OPTION...]   a cluster in $DIR; options of `ogee dev up`
# shellcheck disable=SC2120 # most need none
cluster_up() {
    local start=$SECONDS
    DIR=$TEST_DIR/cluster
    defer cluster_down
    "$OGEE" dev up --dir "$DIR" "$@" >"$TEST_DIR/up.log" 2>&1 || give_up "dev up: $(tail -n 3 "$TEST_DIR/up.log")"
    echo "   cluster up in $((SECONDS - start)) s"
    use_cluster "$DIR"
}

# use_cluster DIR   commands speak to this one from now on
use_cluster() {
    # shellcheck source=/dev/null
    . "$1/ogee.env"
}

cluster_down() {
    [ ! -d "$DIR/conf" ] || "$OGEE" dev down --dir "$DIR"
}

# node_pid NAME   of a running process of the cluster
node_pid() {
    local pid
    pid=$(cat "$DIR/pids/$1.pid" 2>/dev/null) || return 1
    process_alive "$pid" || return 1
    tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF "$DIR/conf/$1.toml" || return 1
    echo "$pid"
}

# node_kill NAME...   SIGKILL, all in one system call's time
node_kill() {
    local name pid pids=()
    for name in "$@"; do
        pid=$(node_pid "$name") || give_up "$name does not run"
        pids+=("$pid")
    done
    kill -9 "${pids[@]}"
    for pid in "${pids[@]}"; do
        wait_for 10 process_gone "$pid" || give_up "pid $pid survives SIGKILL"
    done
}

node_start() {
    "$OGEE" dev start "$1" --dir "$DIR" >>"$TEST_DIR/start.log" 2>&1 ||
        give_up "dev start $1: $(tail -n 3 "$TEST_DIR/start.log")"
}

is_healthy() {
    "$OGEE" status -o json
}

wait_healthy() {
    wait_for "${1:-60}" is_healthy || give_up "not healthy after ${1:-60} s: $("$OGEE" status 2>&1 | head -n 8)"
}

chunkservers() {
    find "$DIR/conf" -name 'cs*.toml' -printf '%f\n' | sed 's/\.toml$//' | sort -V
}

create_volume() {
    "$OGEE" volume create "$@" >>"$TEST_DIR/create.log" 2>&1 || give_up "volume create $*: $(tail -n 3 "$TEST_DIR/create.log")"
}

# volume_leader NAME   the process that leads most of the volume's copysets
volume_leader() {
    "$OGEE" volume locate "$1" -o json | jq -er '
        [.chunks[] | {copyset, leader} | select(.leader != null)] | unique
        | group_by(.leader) | max_by(length) | .[0].leader'
}

# Every replica of every copyset holds the same.
copysets_agree() {
    "$OGEE" copyset check -o json >"$TEST_DIR/check.json" 2>"$TEST_DIR/check.log" ||
        give_up "copyset check: $(jq -c '[.copysets[] | select(.agree | not)]' "$TEST_DIR/check.json" | cut -c1-600) $(cat "$TEST_DIR/check.log")"
    jq -e '.agree and (.copysets | length > 0)' "$TEST_DIR/check.json" >/dev/null ||
        give_up "copyset check ended with 0 but does not say that all agree"
    echo "   copysets agree: $(jq '.copysets | length' "$TEST_DIR/check.json")"
}

# metrics_of NAME   the daemon's /metrics
metrics_of() {
    local address
    address=$(sed -n 's/^metrics = "\(.*\)"$/\1/p' "$DIR/conf/$1.toml")
    curl -sS --fail --max-time 5 "http://$address/metrics"
}

# Peak resident memory of each chunkserver.
resident_mib() {
    local name pid text=peak
    for name in $(chunkservers); do
        pid=$(node_pid "$name") || give_up "$name ended: $(tail -n 3 "$DIR/logs/$name.log")"
        text+=" $name $(($(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status") / 1024))"
    done
    echo "$text MiB"
}

# ---- clients ----------------------------------------------------------------------------------

# mds_leader   the leading metadata server's process
mds_leader() {
    "$OGEE" mds ls -o json | jq -er '.members[] | select(.role == "leader") | "mds\(.id)"'
}

# export_start NAME   serves a volume: $EXPORT_PID, $URI
export_start() {
    local file=${1//\//@} known=0
    local socket=$TEST_DIR/$file.sock
    [ ! -S "$socket" ] || known=1
    URI="nbd+unix:///$1?socket=$socket"
    "$OGEE" export nbd "$1" --socket "$socket" >>"$TEST_DIR/export-$file.log" 2>&1 &
    EXPORT_PID=$!
    defer end_process "$EXPORT_PID"
    if [ "$known" = 1 ]; then
        # A killed one left its socket behind: only an answer tells.
        wait_for 30 nbdinfo --size "$URI" || give_up "the export of $1 does not answer: $(tail -n 3 "$TEST_DIR/export-$file.log")"
    else
        wait_for 30 test -S "$socket" || give_up "the export of $1 makes no socket: $(tail -n 3 "$TEST_DIR/export-$file.log")"
        nbdinfo --size "$URI" >/dev/null || give_up "the export of $1 does not accept although its socket exists"
    fi
}

# The export in $EXPORT_PID ends cleanly on SIGTERM.
export_stop() {
    local status=0
    kill "$EXPORT_PID"
    wait_for 20 process_gone "$EXPORT_PID" || give_up "the export does not end on SIGTERM"
    wait "$EXPORT_PID" || status=$?
    [ "$status" = 0 ] || give_up "the export ended with $status on SIGTERM"
}

# disk_attach   $URI as a block device: $LOOP
disk_attach() {
    need_root
    [ -c /dev/fuse ] || give_skip "no /dev/fuse"
    [ -c /dev/loop-control ] || give_skip "no loop devices"
    LOOP=
    mkdir "$TEST_DIR/fuse"
    defer disk_detach
    nbdfuse -P "$TEST_DIR/nbdfuse.pid" "$TEST_DIR/fuse/nbd" "$URI" >"$TEST_DIR/nbdfuse.log" 2>&1 &
    FUSE_PID=$!
    wait_for 20 test -s "$TEST_DIR/nbdfuse.pid" || give_up "nbdfuse does not start"
    LOOP=$(losetup -f --show --direct-io=on "$TEST_DIR/fuse/nbd")
}

# Also of a mount whose server died, which cannot be looked at.
is_mounted() {
    awk -v at="$1" '$2 == at { found = 1 } END { exit !found }' /proc/self/mounts
}

disk_detached() {
    ! losetup "$1" 2>/dev/null | grep -qF "$TEST_DIR/fuse/nbd"
}

disk_detach() {
    if [ -n "${LOOP:-}" ]; then
        losetup -d "$LOOP" || true
        # The kernel detaches when the last user is gone; only then may the file go.
        wait_for 20 disk_detached "$LOOP" || true
        LOOP=
    fi
    if is_mounted "$TEST_DIR/fuse"; then
        bounded 20 umount "$TEST_DIR/fuse" || umount -l "$TEST_DIR/fuse"
    fi
    end_process "$FUSE_PID"
}

# disk_mount FILESYSTEM   makes one on $LOOP and mounts it on $MNT
disk_mount() {
    MNT=$TEST_DIR/mnt
    mkdir "$MNT"
    case $1 in
    ext4) mkfs.ext4 -q -F "$LOOP" ;;
    xfs) mkfs.xfs -q -f -K "$LOOP" ;;
    *) give_up "no file system $1" ;;
    esac
    defer disk_unmount
    mount "$LOOP" "$MNT"
}

disk_unmount() {
    is_mounted "$MNT" || return 0
    bounded 60 umount "$MNT" && return 0
    # I/O that never ends keeps it: with nbdfuse gone the kernel fails it.
    kill -9 "$FUSE_PID" || true
    bounded 20 umount "$MNT" || umount -l "$MNT"
}

# disk_check FILESYSTEM   an unmounted $LOOP is clean
disk_check() {
    case $1 in
    ext4) e2fsck -fn "$LOOP" >"$TEST_DIR/fsck.log" 2>&1 || give_up "e2fsck: $(tail -n 5 "$TEST_DIR/fsck.log")" ;;
    xfs) xfs_repair -n "$LOOP" >"$TEST_DIR/fsck.log" 2>&1 || give_up "xfs_repair: $(tail -n 5 "$TEST_DIR/fsck.log")" ;;
    esac
    echo "   $1 is clean"
}

# flip_blocks COMMAND OPTION...   see flip_blocks.py
flip_blocks() {
    "$PYTHON" "$REPO/scripts/lib/flip_blocks.py" "$@"
}

# Nothing that was acknowledged is in the logs alone.
all_written_back() {
    local node
    for node in $(chunkservers); do
        metrics_of "$node" | awk '/^ogee_chunkserver_overlay_blocks/ { sum += $2 } END { exit sum != 0 }' || return 1
    done
}

# exec_nbd_load COMMAND OPTION...   scripts/lib/nbd_load.py on $URI. Functions called exec_ become the
# program: they are called in the background, where $! is then its pid, or in parentheses.
exec_nbd_load() {
    exec "$PYTHON" "$REPO/scripts/lib/nbd_load.py" "$1" --uri "$URI" "${@:2}"
}

# writer_starts DEPTH [SEED]   a verified load on $URI, in the background; sets `load`
writer_starts() {
    exec_nbd_load write --state "$TEST_DIR/state" --seed "${2:-$SEED}" --depth "$1" >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_process "$load"
}

# cgroup_end GROUP   the folder of one of version 1: its processes go to the one above it, and it is removed
cgroup_end() {
    local pid
    while read -r pid; do echo "$pid" >"${1%/*}/cgroup.procs"; done <"$1/cgroup.procs"
    wait_for 10 rmdir "$1"
}

# middle FILE   of numbers, sorted, a line each: the median
middle() {
    awk '{ of[NR] = $1 } END { print int((of[int((NR + 1) / 2)] + of[int(NR / 2) + 1]) / 2) }' "$1"
}

# bench_json NAME LOG OPTION...   one load; its JSON in $TEST_DIR/LOG.json
bench_json() {
    "$OGEE" bench "$1" "${@:3}" -o json >"$TEST_DIR/$2.json" 2>"$TEST_DIR/$2.log" ||
        give_up "bench $1 ${*:3}: $(tail -n 3 "$TEST_DIR/$2.log")"
}

# make_volumes SIZE   "other", with so much in it, and "disk", which is empty
make_volumes() {
    create_volume other --size 512MiB
    bench_json other fill --rw write --bs 1MiB --iodepth 8 --io-size "$1"
    create_volume disk --size 512MiB
}

# writer_begins DEPTH   a verified load on "disk", through NBD, in the background; sets `load`
writer_begins() {
    export_start disk
    writer_starts "$1"
}

# writer_ends PID   one of nbd_load.py, which saw no error; all that it was told to be written is there
writer_ends() {
    kill "$1"
    wait "$1" || give_up "the writer: $(tail -n 2 "$TEST_DIR/load.log")"
    jq -e '.errors == 0 and .unanswered == 0 and .acked > 0' "$TEST_DIR/load.json" >/dev/null || give_up "the writer saw $(cat "$TEST_DIR/load.json")"
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "verify: $(cat "$TEST_DIR/verify.json")"
}

now_ms() {
    echo $((${EPOCHREALTIME/./} / 1000))
}

# cluster_emptied   ends the cluster and takes its stores away: what its configurations say then begins from nothing
cluster_emptied() {
    "$OGEE" dev down --dir "$DIR" >>"$TEST_DIR/up.log" 2>&1 || give_up "dev down: $(tail -n 3 "$TEST_DIR/up.log")"
    find "$DIR/data" -mindepth 1 -delete
}

# cluster_again OPTION...   starts it
cluster_again() {
    "$OGEE" dev up --dir "$DIR" "$@" >>"$TEST_DIR/up.log" 2>&1 || give_up "dev up: $(tail -n 3 "$TEST_DIR/up.log")"
}

# failover_within MILLISECONDS WHAT   asserts and prints a wait for I/O across a dead leader
failover_within() {
    echo "   longest wait $2: $1 ms (bound $FAILOVER_BOUND_MS ms = 8 x election_max)"
    [ "${1%.*}" -lt "$FAILOVER_BOUND_MS" ] || give_up "longest wait $2: $1 ms, bound $FAILOVER_BOUND_MS ms"
}
