# shellcheck shell=bash
# Shared by perf/peers/run and its peers. Sourced, not run.
#
# A peer NAME is a file NAME.sh with functions:
#   NAME_why          says why it cannot run here, or nothing
#   NAME_up           starts it with an empty disk of $SIZE under $WORK/NAME
#   NAME_load ARGS…   runs a load on it: --rw --bs --iodepth, and --runtime or --io-size, as ogee bench;
#                     prints JSON with fio's keys
#   NAME_fill         writes every block once, in random order
#   NAME_cold         makes the next reads start with nothing in memory
#   NAME_rss          prints the resident memory of its processes, in KiB
#   NAME_pids         prints its processes, for the CPU time
#   NAME_down         ends exactly what it has started

SIZE=${SIZE:-4GiB}
LOG=${LOG:-512MiB}
# Every fio run: random addresses without a map, as ogee bench has them.
FIO=(fio --norandommap --randrepeat=0 --group_reporting --lat_percentiles=1
    --percentile_list=50:90:99:99.9 --output-format=json)

bytes_of() { numfmt --from=auto --suffix=B "${1%B}B" | tr -d B; }

has() { command -v "$1" >/dev/null; }

# needs PROGRAM PACKAGE …   names the first that is missing
needs() {
    while [ $# -gt 0 ]; do
        if ! has "$1"; then
            echo "$1 is not installed: apt-get install --no-install-recommends $2"
            return
        fi
        shift 2
    done
}

# engine NAME   names it if this fio does not have it
engine() {
    fio --enghelp 2>/dev/null | tr -d '\t ' | grep -qx "$1" || echo "this fio has no engine $1"
}

# fio_load ENGINE-ARGS… -- ogee bench's flags…   the same load by fio
fio_load() {
    local engine=() flags=()
    while [ "$1" != -- ]; do
        engine+=("$1")
        shift
    done
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --rw | --iodepth) flags+=("$1=$2") ;;
        --bs) flags+=("--bs=$(bytes_of "$2")") ;;
        --runtime) flags+=(--time_based "--runtime=$2") ;;
        --ramp-time) flags+=("--ramp_time=$2") ;;
        --io-size) flags+=("--io_size=$(bytes_of "$2")") ;;
        *) die "fio_load does not know $1" ;;
        esac
        shift 2
    done
    # What librbd prints before the JSON is no part of it.
    "${FIO[@]}" --name=row --size="$(bytes_of "$SIZE")" "${flags[@]}" "${engine[@]}" | sed -n '/^{/,$p'
}

# fio_fill ENGINE-ARGS…   every block once, in random order
fio_fill() {
    fio --name=fill --rw=randwrite --bs=64k --iodepth=32 --size="$(bytes_of "$SIZE")" "$@" --output=/dev/null
}

# filled_file PATH [BYTES]   a file of so many, or of $SIZE, without unwritten extents
filled_file() {
    local bytes=${2:-$(bytes_of "$SIZE")}
    fallocate -l "$bytes" "$1"
    fio --name=fill --filename="$1" --rw=write --bs=1M --iodepth=8 --ioengine=io_uring --direct=1 --zero_buffers \
        --size="$bytes" --output=/dev/null
    sync "$1"
}

# rss_of PID…   in KiB
rss_of() { [ $# -eq 0 ] || ps -o rss= -p "$(IFS=,; echo "$*")" | awk '{ sum += $1 } END { print sum + 0 }'; }

# ticks_of PID…   user and system time so far
ticks_of() {
    local pid stat ticks=0 fields
    for pid in "$@"; do
        stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
        read -ra fields <<<"${stat##*) }"
        ticks=$((ticks + fields[11] + fields[12]))
    done
    echo "$ticks"
}

# end_all PID…   asks them to end, and makes them if they do not
end_all() {
    local pid end=$((SECONDS + 20))
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$end" ]; do sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
