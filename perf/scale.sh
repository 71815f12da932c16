#!/usr/bin/env bash
# The scale model: how throughput, latency and CPU of 4 KiB random writes change with groups, volumes,
# shards and queue depth.
#   perf/scale.sh                SECS=5 a run, ROUNDS=2, AXES="groups volumes shards depth", HTML=scale.html
#   QUICK=1 perf/scale.sh        few points, short: shows that it works
# Every point is run once per round, the rounds in opposite orders, so that what drifts harms all. The
# loads: groups: 128 requests at a time on 8 volumes over 1 to 256 groups a shard; volumes: the same, or
# one a volume where there are more, on 1 to 1,000 volumes of 512 MiB (at least 1 MiB each) over 16 groups; shards: 128 on
# 8 volumes over 16 groups; depth: 1 to 256 on one volume over 8 groups. RW=randread asks for reads.
# STORE=8GiB and LOG=256MiB are each store's, BASE=DIR is where they lie, OUT=DIR keeps the JSON.
# A run of all of it with the defaults takes about 12 minutes on a quiet machine, and at most LIMIT_S.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
QUICK=${QUICK:-0} RW=${RW:-randwrite} LIMIT_S=${LIMIT_S:-3600} FILL_S=300
AXES=${AXES:-groups volumes shards depth}
STORE=${STORE:-8GiB} LOG=${LOG:-256MiB} HTML=${HTML:-scale.html}
declare -A points=([groups]="1 4 16 64 256" [volumes]="1 4 16 64 256 1000" [shards]="1 2"
    [depth]="1 2 4 8 16 32 64 128 256")
if [ "$QUICK" = 1 ]; then
    SECS=${SECS:-2} ROUNDS=${ROUNDS:-1}
    points=([groups]="1 16" [volumes]="1 8" [shards]="1 2" [depth]="1 8 64")
fi
SECS=${SECS:-5} ROUNDS=${ROUNDS:-2}
# All volumes of a point together; of the axis of volumes, whose points share a cluster, less.
TOTAL_MIB=2048 VOLUMES_MIB=512

mkdir -p "${BASE:=${TMPDIR:-/tmp}}"
BASE=$(mktemp -d "$BASE/ogee-scale.XXXXXX")
OUT=${OUT:-$BASE/json}
mkdir -p "$OUT"
build_release
install -m 755 "$OGEE" "$BASE/ogee"
OGEE=$BASE/ogee
export OGEE_LOG=${OGEE_LOG:-warn}
up=

down() {
    [ -z "$up" ] || "$OGEE" dev down --dir "$up" >/dev/null 2>&1 || true
    up=
}
stop() {
    down
    rm -rf --one-file-system "$BASE"
}
trap stop EXIT
trap 'exit 130' INT TERM

# use NAME FLAG…   the cluster of this name, made the first time; the one before it ends
use() {
    local dir=$BASE/$1
    [ "$up" != "$dir" ] || return 0
    down
    up=$dir
    "$OGEE" dev up --dir "$dir" --store-size "$STORE" --log-size "$LOG" "${@:2}" >/dev/null 2>&1 ||
        die "no cluster $1: $(tail -n 3 "$dir"/logs/*.log)"
    # shellcheck source=/dev/null
    . "$dir/ogee.env"
}

# with_volumes COUNT MIB   names them, and makes them the first time: every block written once
with_volumes() {
    local number size=$(($2 > $1 ? $2 / $1 : 1))
    names=()
    for ((number = 1; number <= $1; number++)); do names+=("v$1-$number"); done
    [ ! -e "$up/made-$1" ] || return 0
    for number in "${names[@]}"; do "$OGEE" volume create "$number" --size "${size}MiB" >/dev/null; done
    if [ "$1" -le 64 ]; then
        timeout "$FILL_S" "$OGEE" bench "${names[@]}" --rw write --bs 64KiB --iodepth $((16 / $1 + 1)) --io-size $(($2 << 20)) -o json >/dev/null 2>"$BASE/err" ||
            die "cannot fill $1 volumes: $(tail -n 3 "$BASE/err")"
    fi
    : >"$up/made-$1"
}

# point AXIS VALUE ROUND DEPTH   the load on the volumes that are named
point() {
    local file=$OUT/$1/$2-$3.json
    mkdir -p "$OUT/$1"
    [ "$SECONDS" -lt "$LIMIT_S" ] || die "it takes longer than LIMIT_S=$LIMIT_S: ask for fewer AXES"
    "$OGEE" bench "${names[@]}" --rw "$RW" --bs 4KiB --iodepth "$4" --ramp-time 1 --runtime "$SECS" \
        --dev-dir "$up" -o json >"$file" 2>"$BASE/err" || die "$1 of $2: $(tail -n 3 "$BASE/err")"
}

run_groups() {
    use "groups$1" --copysets "$1"
    with_volumes 8 "$TOTAL_MIB"
    point groups "$1" "$2" 16
}

run_volumes() {
    use volumes --copysets 16
    with_volumes "$1" "$VOLUMES_MIB"
    point volumes "$1" "$2" $(($1 < 128 ? 128 / $1 : 1))
}

run_shards() {
    use "shards$1" --copysets 16 --shards "$1"
    with_volumes 8 "$TOTAL_MIB"
    point shards "$1" "$2" 16
}

run_depth() {
    use groups8 --copysets 8
    with_volumes 1 "$TOTAL_MIB"
    point depth "$1" "$2" "$1"
}

printf '# ogee %s, load %s, %s processors: %s, %s s a run, %s rounds\n' \
    "$(git -C "$REPO" rev-parse --short HEAD 2>/dev/null || echo unknown)" "$(cut -d' ' -f1-3 /proc/loadavg)" \
    "$(nproc)" "$RW" "$SECS" "$ROUNDS"
for axis in $AXES; do
    for ((round = 1; round <= ROUNDS; round++)); do
        read -ra values <<<"${points[$axis]}"
        if [ $((round % 2)) = 0 ]; then mapfile -t values < <(printf '%s\n' "${values[@]}" | tac); fi
        for value in "${values[@]}"; do "run_$axis" "$value" "$round"; done
    done
done
"$OGEE" bench curves "$OUT" --html "$HTML"
