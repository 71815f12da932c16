#!/usr/bin/env bash
# The figures of docs/performance.md: one cluster on this machine, a filled volume, one row per load.
#   perf/figures.sh            SECS=10 per row, SIZE=4GiB, OUT=DIR keeps each run's JSON
# One line per load: IOPS, MB/s, latency (us), CPU seconds per 1000 I/Os of servers and of the client.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib/common.sh"
SECS=${SECS:-10}
SIZE=${SIZE:-4GiB}
BASE=$(mktemp -d "${TMPDIR:-/tmp}/ogee-figures.XXXXXX")
OUT=${OUT:-$BASE/json}
mkdir -p "$OUT"
need_packages jq
build_release
install -m 755 "$OGEE" "$BASE/ogee"
OGEE=$BASE/ogee

stop() {
    "$OGEE" dev down --dir "$BASE/cluster" >/dev/null 2>&1 || true
    rm -rf --one-file-system "$BASE"
}
trap stop EXIT
trap 'exit 130' INT TERM

# ticks_of_servers   user + system time of the cluster's processes so far
ticks_of_servers() {
    local pid ticks=0 stat
    for pid in "$BASE"/cluster/pids/*.pid; do
        stat=$(cat "/proc/$(cat "$pid")/stat") || continue
        stat=${stat##*) }
        # shellcheck disable=SC2086 # fields
        set -- $stat
        ticks=$((ticks + ${12} + ${13}))
    done
    echo "$ticks"
}

# row NAME RW BS IODEPTH
row() {
    local before after client json=$OUT/$1.json
    before=$(ticks_of_servers)
    TIMEFORMAT='%U %S'
    client=$({ time "$OGEE" bench perf --rw "$2" --bs "$3" --iodepth "$4" --runtime "$SECS" -o json >"$json" 2>"$json.err"; } 2>&1) ||
        die "bench $1: $(tail -n 3 "$json.err")"
    after=$(ticks_of_servers)
    jq -r '.jobs[0] | (if .write.total_ios > 0 then .write else .read end)
        | [.iops, .bw_bytes / 1e6, .lat_ns.mean / 1e3, .lat_ns.percentile["50.000000"] / 1e3,
           .lat_ns.percentile["99.000000"] / 1e3, .lat_ns.percentile["99.900000"] / 1e3, .total_ios] | @tsv' "$json" |
        awk -v name="$1" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v client="$client" '{
            split(client, c, " "); thousands = $7 / 1000
            printf "%-20s %9.0f %8.1f %9.0f %9.0f %9.0f %9.0f %8.4f %8.4f\n",
                name, $1, $2, $3, $4, $5, $6, ticks / hz / thousands, (c[1] + c[2]) / thousands }'
}

"$OGEE" dev up --dir "$BASE/cluster" >/dev/null
# shellcheck source=/dev/null
. "$BASE/cluster/ogee.env"
"$OGEE" volume create perf --size "$SIZE" >/dev/null
# Every block written once: a read of a hole costs nothing.
"$OGEE" bench perf --rw write --bs 1MiB --iodepth 16 --io-size "$SIZE" -o json >/dev/null
printf '# ogee %s, load %s, %s s each, %s\n' "$(git -C "$REPO" rev-parse --short HEAD)" "$(cut -d' ' -f1-3 /proc/loadavg)" "$SECS" "$SIZE"
printf '%-20s %9s %8s %9s %9s %9s %9s %8s %8s\n' load IOPS MB/s mean_us p50_us p99_us p99.9_us srvS/1k cliS/1k
for depth in 1 32 128; do row "4k-randwrite-q$depth" randwrite 4k "$depth"; done
for depth in 1 32 128; do row "4k-randread-q$depth" randread 4k "$depth"; done
row 1M-write-q8 write 1MiB 8
row 1M-read-q8 read 1MiB 8
"$OGEE" copyset check >/dev/null || die "the replicas do not agree"
