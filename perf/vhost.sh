#!/usr/bin/env bash
# vhost-user-blk: 4 KiB random requests of one driver (libblkio's, perf/examples/vhost_load.rs) on a volume of one replica
# on one chunkserver, beside qemu-storage-daemon's export of a file on the same file system. Both run the whole time and
# are loaded in turn, so that they share the hour.
#   perf/vhost.sh          SECS=4 per turn, ROUNDS=5, DEPTHS="1 32 128", SIZE=512MiB, BASE=DIR, POLL_US=0
#   THREE=1 perf/vhost.sh  also a volume of three replicas on three chunkservers, which has no bar
# Beside them `ogee bench` on a volume of the same cluster, which is the client library without vhost-user.
# Writes of qemu-storage-daemon are followed by a flush each: an answered write of ours is durable. A line per row:
# median IOPS of both, their ratio with the least and the largest of the rounds, median latencies. It ends with 1 if
# the ratio of the rounds' median is below its bar (0.5 at depth 1, else 0.6).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
SECS=${SECS:-4} ROUNDS=${ROUNDS:-5} DEPTHS=${DEPTHS:-1 32 128} SIZE=${SIZE:-512MiB} POLL_US=${POLL_US:-0} THREE=${THREE:-0}
need_packages jq qemu-system-common fio
build_release
[ "${OGEE_SKIP_BUILD:-0}" = 1 ] || (cd "$REPO" && cargo build --release --quiet -p ogee-perf --example vhost_load)
mkdir -p "${BASE:=${TMPDIR:-/tmp}}"
BASE=$(mktemp -d "$BASE/ogee-vhost.XXXXXX")
install -m 755 "$OGEE" "$(dirname "$OGEE")/examples/vhost_load" "$BASE/"
OGEE=$BASE/ogee
export OGEE_LOG=${OGEE_LOG:-warn}
pids=()
stop() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for dir in "$BASE"/one "$BASE"/three; do
        [ ! -e "$dir" ] || "$OGEE" dev down --dir "$dir" >/dev/null 2>&1 || true
    done
    wait
    rm -rf --one-file-system "$BASE"
}
trap stop EXIT
trap 'exit 130' INT TERM
bytes=$(numfmt --from=auto --suffix=B "${SIZE%B}B" | tr -d B)

# cluster_serves NAME NODES   a volume of one replica or three at $BASE/NAME.sock/disk.sock
cluster_serves() {
    "$OGEE" dev up --dir "$BASE/$1" --nodes "$2" --store-size 4GiB --log-size 512MiB >/dev/null 2>&1 ||
        die "no cluster: $(tail -n 3 "$BASE/$1"/logs/*.log)"
    # shellcheck source=/dev/null
    . "$BASE/$1/ogee.env"
    "$OGEE" volume create disk --size "$SIZE" >/dev/null
    fill disk
    "$OGEE" export vhost-user disk --socket-dir "$BASE/$1.sock" --poll-us "$POLL_US" >"$BASE/$1.log" 2>&1 &
    pids+=($!)
    wait_for 30 test -S "$BASE/$1.sock/disk.sock" || die "no export: $(tail -n 3 "$BASE/$1.log")"
}

# fill VOLUME   every block once
fill() {
    "$OGEE" bench "$1" --rw write --bs 1MiB --iodepth 8 --io-size "$SIZE" >/dev/null 2>&1 || die "$1 cannot be filled"
}

# native DEPTH RW   a turn of our own client
native() {
    # shellcheck source=/dev/null
    (. "$BASE/one/ogee.env" && "$OGEE" bench native --rw "$2" --bs 4k --iodepth "$1" --ramp-time 1 --runtime "$SECS" -o json 2>/dev/null) |
        jq -c '.jobs[0] | (if .write.total_ios > 0 then .write else .read end) | {iops, p50_us: (.lat_ns.percentile["50.000000"] / 1e3)}' \
            >>"$BASE/turns.native"
}

peer_serves() {
    fio --name=fill --filename="$BASE/disk" --rw=write --bs=1M --iodepth=8 --ioengine=io_uring --direct=1 --size="$bytes" --output=/dev/null
    qemu-storage-daemon \
        --blockdev driver=file,node-name=file,filename="$BASE/disk",aio=io_uring,cache.direct=on \
        --blockdev driver=raw,node-name=disk,file=file,cache.direct=on --object iothread,id=io0 \
        --export vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path="$BASE/qsd.sock",writable=on,iothread=io0 \
        >"$BASE/qsd.log" 2>&1 &
    pids+=($!)
    wait_for 10 test -S "$BASE/qsd.sock" || die "qemu-storage-daemon: $(tail -n 3 "$BASE/qsd.log")"
}

# load WHO SOCKET DEPTH OPTION…   a turn; its line goes to $BASE/turns.WHO
load() {
    local who=$1 socket=$2 depth=$3
    shift 3
    "$BASE/vhost_load" "$socket" --iodepth "$depth" --runtime "$SECS" --size "$bytes" "$@" >>"$BASE/turns.$who" ||
        die "a load of $who failed"
}

median() { jq -s "map(.$2) | sort | .[length / 2 | floor]" "$1"; }

missed=0
# row NAME DEPTH BAR [--write]
row() {
    local name=$1 depth=$2 bar=$3 flush=()
    shift 3
    [ $# = 0 ] || flush=(--flush)
    rm -f "$BASE"/turns.*
    for ((round = 0; round < ROUNDS; round++)); do
        load peer "$BASE/qsd.sock" "$depth" "$@" "${flush[@]}"
        load one "$BASE/one.sock/disk.sock" "$depth" "$@"
        native "$depth" "${name#4k-}"
        [ "$THREE" = 0 ] || load three "$BASE/three.sock/disk.sock" "$depth" "$@"
    done
    verdict=$(paste <(jq .iops "$BASE/turns.one") <(jq .iops "$BASE/turns.peer") | awk '{ print $1 / $2 }' | sort -g |
        awk -v bar="$bar" '{ ratio[NR] = $1 } END { m = ratio[int((NR + 1) / 2)]
            printf "%.2f (%.2f to %.2f) bar %s %s", m, ratio[1], ratio[NR], bar, m < bar ? "MISSED" : "met" }')
    [[ $verdict != *MISSED ]] || missed=1
    printf '%-18s %9.0f %9.0f  %s  p50 %.0f / %.0f us' "$name-q$depth" "$(median "$BASE/turns.one" iops)" \
        "$(median "$BASE/turns.peer" iops)" "$verdict" "$(median "$BASE/turns.one" p50_us)" "$(median "$BASE/turns.peer" p50_us)"
    printf '  native %.0f, p50 %.0f' "$(median "$BASE/turns.native" iops)" "$(median "$BASE/turns.native" p50_us)"
    [ "$THREE" = 0 ] || printf '  three replicas %.0f' "$(median "$BASE/turns.three" iops)"
    printf '\n'
}

peer_serves
cluster_serves one 1
"$OGEE" volume create native --size "$SIZE" >/dev/null
fill native
[ "$THREE" = 0 ] || cluster_serves three 3
echo "# load $(cut -d' ' -f1-3 /proc/loadavg), $ROUNDS rounds of $SECS s, poll $POLL_US us"
printf '%-18s %9s %9s  %s\n' row ogee qsd "ratio of the rounds"
bar() { if [ "$1" = 1 ]; then echo 0.5; else echo 0.6; fi; }
for depth in $DEPTHS; do row 4k-randread "$depth" "$(bar "$depth")"; done
for depth in $DEPTHS; do row 4k-randwrite "$depth" "$(bar "$depth")" --write; done
[ "$missed" = 0 ]
