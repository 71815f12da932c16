#!/usr/bin/env bash
# 4 KiB random writes of a cluster beside the replication floor: the same transport, log, write-back and
# checkpoints in three processes that wait for two, without consensus (crate ogee-floor). Both run the
# whole time, on the same file system, with the same sizes and groups, and are loaded in turn.
#   perf/floor.sh              SECS=10 per turn, ROUNDS=5, DEPTHS="1 32 128", VOLUME=1GiB, BASE=DIR
#   SUSTAINED=1 perf/floor.sh  each turn begins with the log full (three times its capacity written just
#                              before) and lasts 60 s: what issues ask for
# STORE=8GiB and LOG=512MiB are each store's, GROUPS=8 are of both. OUT=DIR keeps the JSON of every turn.
# A line per depth: IOPS of both, cluster / floor with the least and the largest of the rounds, and the CPU
# of all servers and the client per write. It ends with 1 if a ratio is below BAR (0.85).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
SUSTAINED=${SUSTAINED:-0}
if [ "$SUSTAINED" = 1 ]; then SECS=${SECS:-60}; fi
SECS=${SECS:-10} ROUNDS=${ROUNDS:-5} DEPTHS=${DEPTHS:-1 32 128} BAR=${BAR:-0.85}
STORE=${STORE:-8GiB} LOG=${LOG:-512MiB} VOLUME=${VOLUME:-1GiB} COPYSETS=${COPYSETS:-8}
mkdir -p "${BASE:=${TMPDIR:-/tmp}}"
BASE=$(mktemp -d "$BASE/ogee-floor.XXXXXX")
OUT=${OUT:-$BASE/json}
mkdir -p "$OUT"
need_packages jq
build_release -p ogee-cli -p ogee-floor
install -m 755 "$OGEE" "$(dirname "$OGEE")/ogee-floor" "$BASE/"
OGEE=$BASE/ogee
export OGEE_LOG=${OGEE_LOG:-warn}

floor_pids=()
stop() {
    for pid in "${floor_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    "$OGEE" dev down --dir "$BASE/cluster" >/dev/null 2>&1 || true
    wait
    rm -rf --one-file-system "$BASE"
}
trap stop EXIT
trap 'exit 130' INT TERM

mapfile -t ports < <(free_ports 4)
peers=127.0.0.1:${ports[0]},127.0.0.1:${ports[1]},127.0.0.1:${ports[2]}
floor_mds=127.0.0.1:${ports[3]}
for node in 0 1 2; do
    options=(--node "$node" --peers "$peers" --store "$BASE/floor$node.store" --store-size "$STORE"
        --log-size "$LOG" --groups "$COPYSETS" --volume-size "$VOLUME" --ready-file "$BASE/ready$node")
    [ "$node" != 0 ] || options+=(--mds "$floor_mds")
    "$BASE/ogee-floor" "${options[@]}" 2>"$BASE/floor$node.log" &
    floor_pids+=($!)
done
"$OGEE" dev up --dir "$BASE/cluster" --store-size "$STORE" --log-size "$LOG" --copysets "$COPYSETS" >/dev/null 2>&1 ||
    die "no cluster: $(tail -n 3 "$BASE"/cluster/logs/*.log)"
for node in 0 1 2; do
    wait_for 120 test -e "$BASE/ready$node" || die "no floor: $(tail -n 3 "$BASE/floor$node.log")"
done
# shellcheck source=/dev/null
. "$BASE/cluster/ogee.env"
cluster_mds=$OGEE_MDS
"$OGEE" volume create floor --size "$VOLUME" >/dev/null
pids=$(cat "$BASE"/cluster/pids/cs*.pid | paste -sd,)

# Every block written once, through the log: else the first writes of a block would be measured.
for mds in "$floor_mds" "$cluster_mds"; do
    OGEE_MDS=$mds "$OGEE" bench floor --rw write --bs 32k --iodepth 16 --io-size "$VOLUME" -o json >/dev/null
done
setup=()
if [ "$SUSTAINED" = 1 ]; then
    full=$((3 * $(numfmt --from=iec-i --suffix=B "$LOG" | tr -d B)))
    fill="$OGEE bench floor --rw randwrite --bs 16k --iodepth 64 --io-size $full -o json"
    setup=(--a-setup "OGEE_MDS=$floor_mds $fill" --b-setup "OGEE_MDS=$cluster_mds $fill")
fi

printf '# cluster (B) / floor (A) at %s, load %s, %s turns of %s s each in turn%s\n' \
    "$(git -C "$REPO" rev-parse --short HEAD 2>/dev/null || echo unknown)" "$(cut -d' ' -f1-3 /proc/loadavg)" "$ROUNDS" "$SECS" \
    "$([ "$SUSTAINED" = 1 ] && echo ', each after a log full of writes' || echo ', a burst: not sustained')"
printf '%-20s %10s %10s %7s %15s %9s %9s %9s %9s  %s\n' load floor cluster ratio min..max 'p50 ratio' 'cpu us' 'cpu us' 'client' "bar $BAR"
below=0
for depth in $DEPTHS; do
    name=4k-randwrite-q$depth
    mkdir -p "$OUT/$name"
    "$OGEE" bench ab --a-target floor --b-target floor --a-mds "$floor_mds" --b-mds "$cluster_mds" \
        --a-flag="--cpu-pids=$(IFS=,; echo "${floor_pids[*]}")" --b-flag="--cpu-pids=$pids" "${setup[@]}" \
        --rounds "$ROUNDS" --keep "$OUT/$name" -o json -- \
        --rw randwrite --bs 4k --iodepth "$depth" --ramp-time 1 --runtime "$SECS" >"$OUT/$name.json" 2>"$OUT/$name.err" ||
        die "$name: $(tail -n 3 "$OUT/$name.err")"
    line=$(jq -r --arg bar "$BAR" '
        def row(of; metric): .rows[] | select(.of == of and .metric == metric);
        row("write"; "iops") as $iops | row("write"; "p50_ns") as $p50
        | ([row("all"; "server_cpu_us")][0] // {a: 0, b: 0}) as $cpu
        | ([row("all"; "client_cpu_us")][0] // {a: 0, b: 0}) as $client
        | [$iops.a, $iops.b, $iops.ratio, $iops.ratio_min, $iops.ratio_max, $p50.ratio, $cpu.a, $cpu.b, $client.b,
           (if $iops.ratio >= ($bar | tonumber) then "met" else "not met" end)] | @tsv' "$OUT/$name.json")
    IFS=$'\t' read -r a b ratio least most p50 cpu_a cpu_b client met <<<"$line"
    printf '%-20s %10.0f %10.0f %7.3f %15s %9.2f %9.1f %9.1f %9.1f  %s\n' "$name" "$a" "$b" "$ratio" \
        "$(printf '%.3f..%.3f' "$least" "$most")" "$p50" "$cpu_a" "$cpu_b" "$client" "$met"
    [ "$met" = met ] || below=1
done
OGEE_MDS=$cluster_mds "$OGEE" copyset check >/dev/null || die "the replicas do not agree"
[ "$below" = 0 ]
